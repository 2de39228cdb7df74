//! Builds rows and ids for the cases.

use madang_ids::{ChannelId, ClientMsgId, LogId, MessageId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Body, Content, Entry, Message};

use crate::log::{Append, BodyHash, Head, Row, RowKey};

pub(super) fn user(id: u64) -> UserId {
    UserId::from_raw(id)
}

pub(super) fn channel(id: u64) -> ChannelId {
    ChannelId::from_raw(id)
}

pub(super) fn log(id: u64) -> LogId {
    LogId::Channel(channel(id))
}

pub(super) fn own_log(id: u64) -> LogId {
    LogId::User(user(id))
}

pub(super) fn seq(value: u64) -> Seq {
    Seq::new(value)
}

pub(super) fn key(sender: UserId, number: u64) -> RowKey {
    let client_msg_id = ClientMsgId::from_uuid(u128::from(number) | (7 << 100));
    RowKey { sender, client_msg_id, body_hash: BodyHash([number as u8; 16]) }
}

/// A message after `head`, 10 ms later.
pub(super) fn message(head: Head, key: RowKey, text: &str) -> Row {
    let (seq, ordinal, at) = (head.seq.next(), head.ordinal.next(), head.at.plus(10));
    let message_id = MessageId::from_raw(at.get() * 1_000);
    // Custom data is kept as it was written.
    let data = r#"{"b":1.50,"a":[1e3]}"#.parse().ok();
    let body = Body { text: text.into(), data, ..Body::default() };
    let message = Message::new(message_id, ordinal, key.sender, key.client_msg_id, body);
    let entry = Entry { seq, at, content: Content::Message(Box::new(message)) };
    Row { entry, ordinal, key: Some(key) }
}

/// An entry after `head` that is not a message.
pub(super) fn notice(head: Head, content: Content) -> Row {
    let entry = Entry { seq: head.seq.next(), at: head.at.plus(10), content };
    Row { entry, ordinal: head.ordinal, key: None }
}

pub(super) fn append(log: LogId, expected: Head, rows: Vec<Row>) -> Append {
    Append::of(log, expected, rows.into())
}

/// An append of one message.
pub(super) fn say(log: LogId, expected: Head, key: RowKey) -> Append {
    append(log, expected, vec![message(expected, key, "hello")])
}

/// An append of `count` messages of one sender, with consecutive keys from `first` on.
pub fn say_many(log: LogId, expected: Head, sender: UserId, first: u64, count: u64) -> Append {
    let (mut head, mut rows) = (expected, Vec::new());
    for number in first..first + count {
        let row = message(head, key(sender, number), &format!("line {number}"));
        head = Head::after(&row);
        rows.push(row);
    }
    Append::of(log, expected, rows.into())
}

pub(super) fn seqs(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| row.entry.seq.get()).collect()
}

pub(super) fn at(value: u64) -> Millis {
    Millis::new(value)
}

pub(super) fn ordinal(value: u64) -> Ordinal {
    Ordinal::new(value)
}

/// Both have the same rows with the same content.
pub(super) fn assert_same(found: &[Row], expected: &[Row]) {
    let say = |rows: &[Row]| -> Vec<String> {
        rows.iter()
            .map(|row| {
                let entry = serde_json::to_string(&row.entry).unwrap_or_default();
                format!("{entry} {:?} {:?}", row.ordinal, row.key)
            })
            .collect()
    };
    assert_eq!(say(found), say(expected));
}
