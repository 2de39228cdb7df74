//! Custom data leaves every type of the wire exactly as it entered it, even where serde buffers values.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::borrow::Cow;

use madang_ids::{ChannelId, ClientMsgId, MessageId, Millis, Ordinal, Seq, UserId};
use madang_proto::rest::{HistoryPage, SendMessage, Snapshot, parse_body};
use madang_proto::{
    Body, Change, ClientFrame, Content, Data, Entry, LogKind, Message, Request, RequestId, ServerFrame, json,
    limits,
};
use proptest::prelude::*;

/// JSON text of every shape, including the names and numbers that trees of `serde_json` values treat specially.
fn json_text() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just(r#""$serde_json::private::RawValue""#.to_owned()),
        Just(r#""$serde_json::private::Number""#.to_owned()),
        Just(r#""data""#.to_owned()),
        "\"[a-zé\u{ac00}]{0,3}\"",
        Just(r#""\u0061\ud83d\ude00""#.to_owned()),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[1-9][0-9]{0,40}",
        "-?[0-9]\\.[0-9]{1,30}([eE][+-]?[0-9]{1,2})?",
        Just("\"[1\"".to_owned()),
        "\"[ a-z\u{ac00}]{0,8}\"",
        Just(r#""\\\"\u0000\/""#.to_owned()),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        let members = prop::collection::vec((name.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[ {} ]", all.join(" ,"))),
            members.prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

fn message(data: &Data) -> Message {
    let body = Body { text: "hi".into(), data: Some(data.clone()), ..Body::default() };
    let key = ClientMsgId::from_uuid(7);
    Message::new(MessageId::from_raw(5), Ordinal::new(1), UserId::from_raw(3), key, body)
}

fn entries(data: &Data) -> Vec<Entry> {
    let message = message(data);
    let change = Change {
        target: Seq::new(1),
        version: 2,
        by: UserId::from_raw(3),
        message: Some(Box::new(message.clone())),
    };
    [Content::Message(Box::new(message)), Content::Edited(change)]
        .into_iter()
        .zip(1..)
        .map(|(content, seq)| Entry { seq: Seq::new(seq), at: Millis::new(9), content })
        .collect()
}

fn check_entries(read: &[Entry], data: &Data) {
    for entry in read {
        assert_eq!(entry.content.carried().unwrap().body.data.as_ref(), Some(data));
    }
}

/// Passes the data through everything that a body goes through: request, row, frame, pages.
fn check(text: &str, data: &Data) {
    let compact = data.get();
    let send = format!(
        r#"{{"channel_id":"9","client_msg_id":"01920000-0000-7000-8000-000000000001","body":{{"data":{text}}},"id":"1","type":"send"}}"#
    );
    let request = Request::parse(&send).unwrap();
    let ClientFrame::Send(sent) = &request.frame else { panic!("no send") };
    assert_eq!(sent.body.data.as_ref().unwrap().get(), compact);
    assert!(serde_json::to_string(&request).unwrap().contains(compact));
    let body: SendMessage = parse_body(send.as_bytes()).unwrap();
    assert_eq!(body.body.data.as_ref(), Some(data));

    let entries = entries(data);
    for entry in &entries {
        let row = serde_json::to_string(&entry.content).unwrap();
        let read: Content = json::read(&row).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), row);
    }
    let channel_id = Some(ChannelId::from_raw(9));
    let frame = ServerFrame::Entries { log: LogKind::Channel, channel_id, entries: Cow::Borrowed(&entries) }
        .to_json();
    assert!(frame.contains(compact));
    let ServerFrame::Entries { entries: read, .. } = json::read(&frame).unwrap() else {
        panic!("no entries")
    };
    check_entries(&read, data);
    let page = HistoryPage {
        as_of: Seq::new(2),
        entries: entries.clone(),
        more_before: false,
        more_after: false,
        users: Vec::new(),
    };
    let frame = ServerFrame::History { id: RequestId("1".into()), page: page.clone() }.to_json();
    let ServerFrame::History { page: read, .. } = json::read(&frame).unwrap() else { panic!("no page") };
    check_entries(&read.entries, data);
    let page: HistoryPage = json::read(&serde_json::to_string(&page).unwrap()).unwrap();
    check_entries(&page.entries, data);
    let recent = [(ChannelId::from_raw(9), entries)].into();
    let snapshot = Snapshot {
        cursor: None,
        channels: Vec::new(),
        gone: Vec::new(),
        recent,
        users: Vec::new(),
        invitations: 0,
        next: None,
    };
    let snapshot: Snapshot = json::read(&serde_json::to_string(&snapshot).unwrap()).unwrap();
    check_entries(&snapshot.recent[&ChannelId::from_raw(9)], data);
}

proptest! {
    #[test]
    fn accepted_data_is_preserved_byte_for_byte(text in json_text()) {
        // In place of a whole value, `null` means that there is no data.
        if text != "null" && let Ok(data) = text.parse::<Data>() {
            check(&text, &data);
        }
    }

    /// Nothing panics on any text, and no text that is not JSON is accepted as data.
    #[test]
    fn no_text_causes_a_panic(text in "[\\[\\]{}:,\"\\\\a-u0-9 .eE+-]{0,40}") {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert!(is_json || text.parse::<Data>().is_err());
        let _ = Request::parse(&text);
        let _ = Request::parse(&format!(r#"{{"type":"send","id":"1","body":{text}}}"#));
        let _ = json::read::<Entry>(&text);
    }
}

#[test]
fn known_attacks_are_harmless() {
    for text in [
        r#"{"a":1,"$serde_json::private::RawValue":"[1"}"#,
        r#"{"$serde_json::private::RawValue":"[1]"}"#,
        r#"{"$serde_json::private::Number":"1e5"}"#,
        r#"{"id":18446744073709551617,"z":1,"a":2}"#,
    ] {
        check(text, &text.parse().unwrap());
    }
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    check(&nested(limits::DATA_DEPTH), &nested(limits::DATA_DEPTH).parse().unwrap());
}

/// Deep nesting uses no stack, wherever in the text it is.
#[test]
fn a_small_stack_suffices_for_any_text() {
    let deep = "[".repeat(600_000);
    let run = move || {
        for text in [
            deep.clone(),
            format!(r#"{{"type":"send","id":"1","body":{{"data":{deep}"#),
            format!(r#"{{"x":{deep}"#),
        ] {
            assert!(Request::parse(&text).is_err());
            assert!(parse_body::<SendMessage>(text.as_bytes()).is_err());
            assert!(json::read::<ServerFrame<'_>>(&text).is_err());
            assert!(text.parse::<Data>().is_err());
        }
        let full = format!(r#"{{"type":"heartbeat","x":{}{}}}"#, "[".repeat(63), "]".repeat(63));
        assert!(Request::parse(&full).is_ok());
    };
    std::thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap().join().unwrap();
}
