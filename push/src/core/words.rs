//! What an alert says. Apps may say it in their own words: the same facts are in the data of every notification.

use madang_proto::AlertPreview;

/// Characters of a message that are shown.
const BODY_CHARS: usize = 240;
/// Characters of a name.
const NAME_CHARS: usize = 64;

/// What there is to say.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// How much of it.
    pub preview: AlertPreview,
    /// The name of the app.
    pub app: &'a str,
    /// The name of the channel; `None` for a direct channel.
    pub channel: Option<&'a str>,
    /// The display name of the sender.
    pub sender: &'a str,
    /// The text.
    pub text: &'a str,
    /// How many messages the alert stands for.
    pub count: usize,
}

/// The two lines of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The first.
    pub title: String,
    /// The second.
    pub body: String,
}

/// Puts an alert into words. Both lines are bounded, and have no line breaks.
#[must_use]
pub fn words(said: &Said<'_>) -> Words {
    let (sender, app) = (line(said.sender, NAME_CHARS), line(said.app, NAME_CHARS));
    let number = match said.count {
        0 | 1 => "New message".to_owned(),
        count => format!("{count} new messages"),
    };
    let title = match said.channel.map(|name| line(name, NAME_CHARS)) {
        Some(channel) => format!("{sender} in {channel}"),
        None => sender,
    };
    match said.preview {
        AlertPreview::Nothing => Words { title: app, body: number },
        AlertPreview::Sender => Words { title, body: number },
        AlertPreview::Full => {
            let text = line(said.text, BODY_CHARS);
            let body = match said.count {
                _ if text.is_empty() => number,
                0 | 1 => text,
                count => format!("{text} (+{})", count - 1),
            };
            Words { title, body }
        }
    }
}

/// The text on one line, without control characters, cut after `most` characters.
fn line(text: &str, most: usize) -> String {
    let mut chars = text
        .split_whitespace()
        .flat_map(|word| [" ", word])
        .skip(1)
        .flat_map(str::chars)
        .filter(|it| !it.is_control());
    let mut line: String = chars.by_ref().take(most).collect();
    if chars.next().is_some() {
        line.pop();
        line.truncate(line.trim_end().len());
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: Said<'static> = Said {
        preview: AlertPreview::Full,
        app: "Madang",
        channel: Some("Tea"),
        sender: "Ada",
        text: "Is there\n any left?",
        count: 1,
    };

    fn pair(said: Said<'_>) -> (String, String) {
        let Words { title, body } = words(&said);
        (title, body)
    }

    fn of(title: &str, body: &str) -> (String, String) {
        (title.to_owned(), body.to_owned())
    }

    #[test]
    fn an_alert_says_who_where_and_what() {
        assert_eq!(pair(SAID), of("Ada in Tea", "Is there any left?"));
        assert_eq!(pair(Said { channel: None, ..SAID }), of("Ada", "Is there any left?"));
        assert_eq!(pair(Said { count: 3, ..SAID }), of("Ada in Tea", "Is there any left? (+2)"));
        assert_eq!(
            pair(Said { text: " \n", ..SAID }),
            of("Ada in Tea", "New message"),
            "a message without text"
        );
    }

    #[test]
    fn a_user_may_want_less() {
        let said = Said { preview: AlertPreview::Sender, count: 2, ..SAID };
        assert_eq!(pair(said), of("Ada in Tea", "2 new messages"));
        assert_eq!(pair(Said { preview: AlertPreview::Nothing, ..SAID }), of("Madang", "New message"));
    }

    #[test]
    fn both_lines_are_bounded() {
        let long = "wörd ".repeat(30_000);
        let Words { title, body } = words(&Said { sender: &long, channel: Some(&long), text: &long, ..SAID });
        assert!(title.chars().count() <= 2 * NAME_CHARS + 4, "{title}");
        assert!(body.chars().count() <= BODY_CHARS && body.ends_with("wörd…"), "{body}");
        let exact = "x".repeat(BODY_CHARS);
        assert_eq!(pair(Said { text: &exact, ..SAID }).1, exact);
        assert_eq!(pair(Said { text: "a\u{7}b\u{1b}[0m", ..SAID }).1, "ab[0m");
    }
}
