//! What other processes see of a revocation.

use std::time::Duration;

use madang_ids::{DeviceId, Millis, UserId};
use madang_store::{Device, DeviceStore, PutDevice};

use crate::{config, fresh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_revocation_is_seen_by_another_process() {
    let config = config("madang_test_revocations");
    let store = fresh(&config).await;
    let (user, at) = (UserId::from_raw(7), Millis::new(5));
    let id = DeviceId::from_raw;
    for number in 1..=3 {
        let device = Device {
            id: id(number),
            user_id: user,
            name: "a device".into(),
            created_at: at,
            revoked_at: None,
            received: None,
            signed_in_until: None,
        };
        assert_eq!(store.put_device(&device, 9, 0).await.unwrap(), PutDevice::Written);
    }
    assert_eq!(store.revoked_within(Duration::from_secs(9_999)).await.unwrap(), []);
    assert!(store.revoke_device(user, id(1), at).await.unwrap());
    assert!(!store.revoke_device(user, id(9), at).await.unwrap());
    assert_eq!(store.revoked_within(Duration::ZERO).await.unwrap(), [(user, id(1))]);
    // A repetition is for a caller whose first call ended before others could see it.
    assert!(store.revoke_device(user, id(1), at).await.unwrap());
    store.revoke_devices(user, Some(id(2)), at).await.unwrap();
    let mut seen = store.revoked_within(Duration::from_secs(60)).await.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [(user, id(1)), (user, id(3))]);
}
