//! The text of a push for a browser: declarative Web Push, which Safari shows without running any code of the page. Service workers
//! of other browsers, and apps with UnifiedPush, read the same JSON.

use madang_proto::rest::AlertData;
use serde::Serialize;

use super::encrypt::TEXT_BYTES;
use crate::notice::Notice;

#[derive(Serialize)]
struct Payload<'a> {
    /// The number of the RFC marks the payload as declarative.
    #[serde(skip_serializing_if = "Option::is_none")]
    web_push: Option<u16>,
    /// Lets the service worker close what was read elsewhere. Safari runs it for such payloads only.
    #[serde(skip_serializing_if = "Option::is_none")]
    mutable: Option<bool>,
    /// Where the specification has it; Safari 18 reads that of the notification.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_badge: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: Option<Notification<'a>>,
    data: &'a AlertData,
}

#[derive(Serialize)]
struct Notification<'a> {
    title: &'a str,
    body: &'a str,
    navigate: &'a str,
    tag: &'a str,
    /// A number in a string, as in WebKit's "Meet Declarative Web Push".
    app_badge: String,
    data: &'a AlertData,
}

/// The text. Of what was read elsewhere, the first channels as fit. `None` if the page and the words alone are too long.
#[must_use]
pub fn text(notice: &Notice) -> Option<Vec<u8>> {
    let mut data = notice.data.clone();
    loop {
        let notification = notice.words.as_ref().map(|words| Notification {
            title: &words.title,
            body: &words.body,
            navigate: &notice.link,
            tag: &notice.tag,
            app_badge: data.badge.to_string(),
            data: &data,
        });
        let is_shown = notification.is_some();
        let (web_push, mutable) = (is_shown.then_some(8030), is_shown.then_some(true));
        let app_badge = is_shown.then_some(data.badge);
        // Strings and numbers can always be written.
        let text =
            serde_json::to_vec(&Payload { web_push, mutable, app_badge, notification, data: &data }).ok()?;
        if text.len() <= TEXT_BYTES {
            return Some(text);
        }
        data.read.pop_last()?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use madang_ids::{ChannelId, Millis, Seq};
    use madang_proto::rest::AlertKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::core::Words;

    fn notice(words: Words, read: BTreeMap<ChannelId, Seq>) -> Notice {
        let data = AlertData {
            kind: AlertKind::Alert,
            channel_id: Some(ChannelId::from_raw(7)),
            seq: Some(Seq::new(41)),
            count: 2,
            badge: 3,
            read,
        };
        let link = "https://chat.example.net/c/7".to_owned();
        Notice { data, words: Some(words), tag: "c7".to_owned(), link, expires_at: Millis::new(1) }
    }

    #[test]
    fn a_browser_gets_what_it_shows_and_what_it_may_close() {
        let words = Words { title: "Ada".to_owned(), body: "Tea?".to_owned() };
        let data = json!({ "kind": "alert", "channel_id": "7", "seq": 41, "count": 2, "badge": 3, "read": {"9": 5} });
        let text = text(&notice(words, [(ChannelId::from_raw(9), Seq::new(5))].into())).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap(),
            json!({
                "web_push": 8030, "mutable": true, "app_badge": 3,
                "notification": {
                    "title": "Ada", "body": "Tea?", "navigate": "https://chat.example.net/c/7", "tag": "c7", "app_badge": "3",
                    "data": data,
                },
                "data": data,
            })
        );
    }

    #[test]
    fn what_was_read_is_cut_first_and_the_rest_fits() {
        let words = Words { title: "\u{1}".repeat(130), body: "\"".repeat(250) };
        let read: BTreeMap<_, _> =
            (0..1_000).map(|id| (ChannelId::from_raw(u64::MAX - id), Seq::new(u64::MAX))).collect();
        let long = notice(words, read);
        let cut = text(&long).unwrap();
        assert!((2_000..=TEXT_BYTES).contains(&cut.len()), "{}", cut.len());
        assert_eq!(text(&Notice { link: "a".repeat(TEXT_BYTES), ..long }), None);
    }
}
