//! The text of a push for a browser: declarative Web Push, which Safari shows without running any code of the page. Service workers
//! of other browsers read the same JSON.

use madang_ids::{ChannelId, Seq};
use serde::Serialize;

use super::encrypt::TEXT_BYTES;
use crate::core::Words;

/// What a browser is to show.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// What it says.
    pub words: &'a Words,
    /// The page that a click opens.
    pub navigate: &'a str,
    /// A later notification with the same tag takes the place of this one.
    pub tag: &'a str,
    /// The user's unread messages; 0 clears the badge.
    pub badge: u32,
    /// The channel of the message.
    pub channel: ChannelId,
    /// The message.
    pub seq: Seq,
    /// How many messages it stands for.
    pub count: usize,
    /// Channels that were read elsewhere, and how far: the service worker closes their notifications.
    pub read: &'a [(ChannelId, Seq)],
}

#[derive(Serialize)]
struct Payload<'a> {
    /// The number of the RFC marks the payload as declarative.
    web_push: u16,
    notification: Notification<'a>,
}

#[derive(Serialize)]
struct Notification<'a> {
    title: &'a str,
    body: &'a str,
    navigate: &'a str,
    tag: &'a str,
    /// A number in a string, as in WebKit's "Meet Declarative Web Push".
    app_badge: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    channel_id: ChannelId,
    seq: Seq,
    count: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    read: &'a [(ChannelId, Seq)],
}

impl Push<'_> {
    /// The text. Of `read`, the first ones as fit. `None` if the page and the words alone are too long.
    #[must_use]
    pub fn text(&self) -> Option<Vec<u8>> {
        let mut read = self.read;
        loop {
            let notification = Notification {
                title: &self.words.title,
                body: &self.words.body,
                navigate: self.navigate,
                tag: self.tag,
                app_badge: self.badge.to_string(),
                data: Data { channel_id: self.channel, seq: self.seq, count: self.count, read },
            };
            // Strings and numbers can always be written.
            let text = serde_json::to_vec(&Payload { web_push: 8030, notification }).ok()?;
            if text.len() <= TEXT_BYTES {
                return Some(text);
            }
            if read.is_empty() {
                return None;
            }
            read = &read[..read.len() / 2];
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn push<'a>(words: &'a Words, read: &'a [(ChannelId, Seq)]) -> Push<'a> {
        Push {
            words,
            navigate: "https://chat.example.net/c/7",
            tag: "c7",
            badge: 3,
            channel: ChannelId::from_raw(7),
            seq: Seq::new(41),
            count: 2,
            read,
        }
    }

    #[test]
    fn a_browser_gets_what_it_shows_and_what_it_may_close() {
        let words = Words { title: "Ada".to_owned(), body: "Tea?".to_owned() };
        let read = [(ChannelId::from_raw(9), Seq::new(5))];
        let text = push(&words, &read).text().unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap(),
            json!({
                "web_push": 8030,
                "notification": {
                    "title": "Ada", "body": "Tea?", "navigate": "https://chat.example.net/c/7", "tag": "c7", "app_badge": "3",
                    "data": { "channel_id": "7", "seq": 41, "count": 2, "read": [["9", 5]] },
                },
            })
        );
    }

    #[test]
    fn what_was_read_is_cut_first_and_the_rest_fits() {
        let words = Words { title: "\u{1}".repeat(130), body: "\"".repeat(250) };
        let read: Vec<_> =
            (0..1_000).map(|id| (ChannelId::from_raw(u64::MAX - id), Seq::new(u64::MAX))).collect();
        let text = push(&words, &read).text().unwrap();
        assert!((2_000..=TEXT_BYTES).contains(&text.len()), "{}", text.len());
        let long = "a".repeat(TEXT_BYTES);
        assert_eq!(Push { navigate: &long, ..push(&words, &read) }.text(), None);
    }
}
