//! Events: delivered to users who are connected, and never stored.

use std::sync::Arc;

use madang_ids::ChannelId;
use madang_proto::{Content, UserCard};

use super::Subject;
use super::device::Envelopes;
use super::workload::{Workload, user};
use crate::bus::{Envelope, Event, EventKind, Receivers};

pub(super) async fn an_event_reaches_the_other_connected_members(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2, 3, 4], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    for user in [1, 2, 4, 9].map(user) {
        opened.bus.attach(user).await.unwrap();
    }
    workload.change(1, &[], &[4]).await;
    while !tells_of_leaving(&envelopes.next().await) {}
    let event = |id| Event {
        channel_id: ChannelId::from_raw(1),
        user_id: user(id),
        kind: EventKind::Typing,
        except: Vec::new(),
    };
    // No user is left to whom this may be delivered.
    opened.bus.publish(Event { except: vec![user(2), user(3)], ..event(1) }, 3).await.unwrap();
    // The channel has one member more than the limit for delivery.
    opened.bus.publish(event(2), 2).await.unwrap();
    opened.bus.publish(event(1), 3).await.unwrap();
    loop {
        match envelopes.next().await {
            Envelope::Event(told, users) => {
                assert_eq!((told, users), (event(1), Receivers::Users(vec![user(2)])));
                break;
            }
            // The delivery to the user who left may still arrive.
            _ => continue,
        }
    }
    let (id, handle, display_name) = (user(1), "ada".to_owned(), "Ada".to_owned());
    let card = UserCard { id, handle, display_name, avatar: String::new(), rev: 2, deleted: false };
    opened.bus.publish_profile(card.clone(), [1, 2, 3, 4].map(user).to_vec());
    let Envelope::Profile(told, users) = envelopes.next().await else { panic!("no profile") };
    assert_eq!((*told, users), (card, [1, 2, 4].map(user).to_vec()), "the connected users");
    opened.close().await;
}

/// Whether this delivers the departure: the audience of an event is that after the last commit that was addressed.
fn tells_of_leaving(envelope: &Envelope) -> bool {
    let Envelope::Delivery(delivery) = envelope else { return false };
    delivery.rows.iter().any(|row| matches!(row.entry.content, Content::Left { .. }))
}
