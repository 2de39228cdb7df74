//! Frames are a contract between processes of different versions.

use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use madang_proto::{Availability, PresenceList, UserPresence};

use crate::api::{Departure, NodeReport, NodeRun, Up};
use crate::core::{Leaving, NoticeTarget, ProcessRun};
use crate::fleet::wire::{FRAME_BYTES, Frame, Part, Reported, Taken, ToCore, ToNode, Told, Unreadable};

const RUN: ProcessRun = ProcessRun { process: 7, epoch: NodeEpoch(9) };

fn user(id: u64) -> UserId {
    UserId::from_raw(id)
}

fn samples() -> Vec<(Frame, &'static str)> {
    let from = NodeRun { worker: 7, epoch: NodeEpoch(9), set: 2 };
    let (connection, device) = (ConnectionId::from_raw(5), DeviceId::from_raw(6));
    let up = Up { user: user(1), device, connection, is_idle: true };
    let part = Part { view: vec![1, 2], connections: vec![up], is_last: true, rereads: false };
    let reports = vec![
        NodeReport::Renewal,
        NodeReport::Up(up),
        NodeReport::Down { user: user(1), connection, how: Departure::Drained },
        NodeReport::Idle { user: user(1), connection, is_idle: false },
        NodeReport::Changed { user: user(1), circle: true },
        NodeReport::Dropped { user: user(1), connection },
        NodeReport::Missed,
    ];
    let card = UserPresence {
        state: Availability::Away,
        last_active_at: Some(Millis::new(1_000)),
        status: Some("here".to_owned()),
        rev: 2,
        ..UserPresence::offline(user(3))
    };
    let list = PresenceList { users: vec![card.clone()], anew: true, complete: true };
    let notices = vec![
        (NoticeTarget::Users(vec![user(1)]), list.clone()),
        (NoticeTarget::Connection(user(1), connection), PresenceList::default()),
    ];
    let taken = Some(Taken { set: 2, next: 3 });
    let leaving = Leaving {
        user: user(1),
        device,
        connection,
        node: 7,
        is_idle: false,
        left_ms: 4_000,
        last_active_at: Millis::new(1_000),
    };
    let (asker, users) = (Some(user(1)), vec![user(3)]);
    vec![
        (
            Frame::Core(ToCore::Reported(Reported {
                from,
                number: 0,
                part: Some(part),
                reports: Vec::new(),
            })),
            r#"{"core":{"reported":{"from":{"worker":7,"epoch":9,"set":2},"number":0,"part":{"view":[1,2],"connections":[{"user":"1","device":"6","connection":"5","is_idle":true}],"is_last":true}}}}"#,
        ),
        (
            Frame::Core(ToCore::Reported(Reported { from, number: 1, part: None, reports })),
            r#"{"core":{"reported":{"from":{"worker":7,"epoch":9,"set":2},"number":1,"reports":["renewal",{"up":{"user":"1","device":"6","connection":"5","is_idle":true}},{"down":{"user":"1","connection":"5","how":"drained"}},{"idle":{"user":"1","connection":"5","is_idle":false}},{"changed":{"user":"1","circle":true}},{"dropped":{"user":"1","connection":"5"}},"missed"]}}}"#,
        ),
        (
            Frame::Core(ToCore::Question { from: RUN, id: 4, asker, users }),
            r#"{"core":{"question":{"from":{"process":7,"epoch":9},"id":4,"asker":"1","users":["3"]}}}"#,
        ),
        (
            Frame::Core(ToCore::Leaving { connections: vec![leaving] }),
            r#"{"core":{"leaving":{"connections":[{"user":"1","device":"6","connection":"5","node":7,"is_idle":false,"left_ms":4000,"last_active_at":1000}]}}}"#,
        ),
        (
            Frame::Node(ToNode::Told(Told { from: RUN, to: RUN, number: 3, notices, asks_set: true, taken })),
            r#"{"node":{"told":{"from":{"process":7,"epoch":9},"to":{"process":7,"epoch":9},"number":3,"notices":[[{"users":["1"]},{"users":[{"user_id":"3","state":"away","last_active_at":1000,"status":"here","rev":2}],"anew":true,"complete":true}],[{"connection":["1","5"]},{"users":[]}]],"asks_set":true,"taken":{"set":2,"next":3}}}}"#,
        ),
        (
            Frame::Node(ToNode::Answer { id: 4, users: vec![Some(card), None], is_settled: true }),
            r#"{"node":{"answer":{"id":4,"users":[{"user_id":"3","state":"away","last_active_at":1000,"status":"here","rev":2},null],"is_settled":true}}}"#,
        ),
    ]
}

fn versioned(version: u8, text: &str) -> Vec<u8> {
    [&[version], text.as_bytes()].concat()
}

#[test]
fn frames_have_a_fixed_form() {
    for (frame, text) in samples() {
        assert_eq!(String::from_utf8(frame.encode().unwrap()[1..].to_vec()).unwrap(), text);
        assert_eq!(Frame::decode(&versioned(1, text)).unwrap(), frame);
    }
}

#[test]
fn fields_of_a_later_release_are_ignored() {
    for (frame, text) in samples() {
        let later = text
            .replace(r#""number":"#, r#""later":{"a":[1]},"number":"#)
            .replace(r#""id":"#, r#""later":1,"id":"#);
        assert_eq!(Frame::decode(&versioned(1, &later)).unwrap(), frame);
    }
    let later = versioned(1, r#"{"core":{"later":{"number":1}}}"#);
    assert!(matches!(Frame::decode(&later), Err(Unreadable::Content(_))));
}

#[test]
fn frames_of_another_version_and_without_sense_are_refused() {
    let (_, text) = samples()[0].clone();
    assert!(matches!(Frame::decode(&versioned(2, text)), Err(Unreadable::Version(2))));
    assert!(matches!(Frame::decode(&[]), Err(Unreadable::Length(0))));
    assert!(matches!(Frame::decode(&vec![1; FRAME_BYTES + 1]), Err(Unreadable::Length(_))));
    assert!(matches!(Frame::decode(&[1, 0xff, 0xfe]), Err(Unreadable::Content(_))));
}

#[test]
fn a_frame_beyond_the_bound_is_not_sent() {
    let users = vec![Some(UserPresence::offline(user(1))); FRAME_BYTES / 30];
    assert!(Frame::Node(ToNode::Answer { id: 1, users, is_settled: true }).encode().is_none());
}
