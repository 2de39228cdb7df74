//! Revoked devices by the time of their revocation, for nodes to which no notice of it came.
//!
//! Partitions are slices of the cluster's time, because the clocks of nodes may be wrong. A revocation is rare beside everything
//! else, so a node reads few rows, however many connections it has.

use std::time::Duration;

use madang_ids::{DeviceId, UserId};

use super::Scylla;
use super::codec::{int, ms, number};
use super::log::each;
use super::session::{Class, Statement};
use crate::error::StoreResult;

const PUT: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO revocations (slice, user, device) VALUES (?, ?, ?)" };
const OF_SLICE: Statement =
    Statement { class: Class::Read, cql: "SELECT user, device FROM revocations WHERE slice = ?" };

/// Milliseconds of a slice.
const SLICE_MS: i64 = 10_000;
/// The clocks of a cluster may differ by this much, and a write may take as long.
const MARGIN: Duration = Duration::from_secs(5);
/// The time to live of the rows.
const KEPT: Duration = Duration::from_secs(3_600);

impl Scylla {
    /// Puts devices that were just revoked where other nodes look.
    pub(super) async fn put_revocations(&self, user: UserId, devices: &[DeviceId]) -> StoreResult<()> {
        if devices.is_empty() {
            return Ok(());
        }
        let slice = self.now_ms().await? / SLICE_MS;
        let put = |device: DeviceId| self.cql.write(&PUT, (slice, int(user.raw()), int(device.raw())));
        each(devices.to_vec(), put).await.map(drop)
    }

    /// See [`crate::DeviceStore::revoked_within`].
    pub(super) async fn revocations(&self, span: Duration) -> StoreResult<Vec<(UserId, DeviceId)>> {
        let now_ms = self.now_ms().await?;
        let margin = ms(MARGIN);
        let slices = (now_ms - ms(span.min(KEPT)) - margin) / SLICE_MS..=(now_ms + margin) / SLICE_MS;
        let of_slice = |slice: i64| self.cql.read::<(i64, i64)>(&OF_SLICE, (slice,));
        let rows = each(slices.collect(), of_slice).await?;
        let device = |(user, device)| (UserId::from_raw(number(user)), DeviceId::from_raw(number(device)));
        Ok(rows.into_iter().flatten().map(device).collect())
    }
}
