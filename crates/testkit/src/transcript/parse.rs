//! Parses the lines of a transcript into steps.

use std::time::Duration;

use super::template::{self, Template};

/// A step and the number of its line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) step: Step,
}

/// One statement.
#[derive(Debug)]
pub(super) enum Step {
    Config(Template),
    Users(Vec<String>),
    Device { user: String, device: String },
    Direct { name: String, users: Vec<String> },
    Group { name: String, title: Template, users: Vec<String> },
    Open { connection: String },
    Connect { connection: String, user: String, device: String, cursor: Option<String> },
    Send { connection: String, outgoing: Outgoing },
    Expect { connection: String, expected: Expected },
    Say { connection: String, channel: String, from: u64, to: u64, text: Template },
    Closed { connection: String, code: u16 },
    Close { connection: String },
    Drop { connection: String },
    Pause { connection: String, is_paused: bool },
    Nothing { connection: String },
    Time(Duration),
    Rest(Box<RestCall>),
    Subscribe { user: String, device: String, provider: String },
    Push { user: String, device: String, expected: Template },
    Drain,
    Restart,
    Times { count: u64, step: Box<Step> },
}

#[derive(Debug)]
pub(super) enum Outgoing {
    Json(Template),
    Text(String),
    Binary(Vec<u8>),
}

#[derive(Debug)]
pub(super) enum Expected {
    Frame(Template),
    Entry { log: String, seq: Template, content: Template },
    Said { channel: String, from: u64, to: u64, with_resync: bool },
    Cursor(String),
}

#[derive(Debug)]
pub(super) struct RestCall {
    /// Repeated until the answer is the expected one: what it shows may follow behind an ack.
    pub(super) is_soon: bool,
    pub(super) who: Option<String>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) key: Option<Template>,
    pub(super) body: Option<Template>,
    pub(super) status: u16,
    pub(super) answer: Option<Template>,
}

/// Parses a whole file. A line that begins with a blank continues the one before; a line that begins with `#` is a
/// comment.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match statements.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            Some((_, statement)) => {
                statement.push('\n');
                statement.push_str(line.trim());
            }
            None => statements.push((index + 1, line.trim_end().to_owned())),
        }
    }
    let read = |(number, statement): (usize, String)| match step(&statement) {
        Ok(step) => Ok(Line { number, step }),
        Err(message) => Err((number, message)),
    };
    statements.into_iter().map(read).collect()
}

fn step(statement: &str) -> Result<Step, String> {
    let (first, rest) = word(statement);
    let rest = rest.trim_start();
    match first {
        "config" => whole(rest).map(Step::Config),
        "user" => Ok(Step::Users(words(rest))),
        "device" => match words(rest).as_slice() {
            [user, device] => Ok(Step::Device { user: user.clone(), device: device.clone() }),
            _ => Err("device needs a user and a name".into()),
        },
        "direct" => {
            let (name, users) = rest.split_once(':').ok_or("direct NAME: USER USER")?;
            Ok(Step::Direct { name: name.trim().to_owned(), users: words(users) })
        }
        "group" => {
            let (name, rest) = word(rest);
            let (title, rest) = template::read(rest)?;
            let users = rest.trim_start().strip_prefix(':').ok_or("group NAME \"TITLE\": USER …")?;
            Ok(Step::Group { name: name.to_owned(), title, users: words(users) })
        }
        "open" => Ok(Step::Open { connection: connection(rest)? }),
        "connect" => connect(rest),
        "say" => say(rest),
        "close" => Ok(Step::Close { connection: connection(rest)? }),
        "drop" => Ok(Step::Drop { connection: connection(rest)? }),
        "pause" => Ok(Step::Pause { connection: connection(rest)?, is_paused: true }),
        "unpause" => Ok(Step::Pause { connection: connection(rest)?, is_paused: false }),
        "nothing" => Ok(Step::Nothing { connection: connection(rest)? }),
        "time" => duration(rest).map(Step::Time),
        "rest" => rest_call(rest, false).map(Box::new).map(Step::Rest),
        "soon" => rest_call(rest, true).map(Box::new).map(Step::Rest),
        "subscribe" => match words(rest).as_slice() {
            [user, device, provider] => {
                let [user, device, provider] = [user, device, provider].map(Clone::clone);
                Ok(Step::Subscribe { user, device, provider })
            }
            _ => Err("subscribe USER DEVICE PROVIDER".into()),
        },
        "push" => {
            let (user, rest) = word(rest);
            let (device, rest) = word(rest.trim_start());
            let (user, device) = (user.to_owned(), device.to_owned());
            Ok(Step::Push { user, device, expected: whole(rest)? })
        }
        "drain" if rest.is_empty() => Ok(Step::Drain),
        "restart" if rest.is_empty() => Ok(Step::Restart),
        count if count.bytes().all(|byte| byte.is_ascii_digit()) => {
            let count = count.parse().map_err(|_| "the count is too large")?;
            let rest = rest.strip_prefix("times ").ok_or("N times STATEMENT")?;
            Ok(Step::Times { count, step: Box::new(step(rest.trim_start())?) })
        }
        name => on_connection(connection(name)?, rest),
    }
}

fn on_connection(connection: String, rest: &str) -> Result<Step, String> {
    if let Some(rest) = rest.strip_prefix("-> ") {
        return outgoing(rest.trim_start()).map(|outgoing| Step::Send { connection, outgoing });
    }
    if let Some(rest) = rest.strip_prefix("<- ") {
        return expected(rest.trim_start()).map(|expected| Step::Expect { connection, expected });
    }
    if let Some(code) = rest.strip_prefix("closed ") {
        let code = code.trim().parse().map_err(|_| "closed needs a code")?;
        return Ok(Step::Closed { connection, code });
    }
    Err(format!("`{connection} {rest}` is no statement"))
}

fn outgoing(rest: &str) -> Result<Outgoing, String> {
    if let Some(text) = rest.strip_prefix("text ") {
        return Ok(Outgoing::Text(text.to_owned()));
    }
    if let Some(digits) = rest.strip_prefix("binary ") {
        let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = (0..digits.trim().len()).step_by(2).map(byte).collect();
        return bytes.map(Outgoing::Binary).ok_or_else(|| "binary needs hexadecimal digits".into());
    }
    whole(rest).map(Outgoing::Json)
}

fn expected(rest: &str) -> Result<Expected, String> {
    let (first, tail) = word(rest);
    match first {
        "cursor" => {
            let name = tail.trim().strip_prefix('$').ok_or("cursor needs a variable")?;
            Ok(Expected::Cursor(name.to_owned()))
        }
        "entry" => {
            let (log, tail) = word(tail.trim_start());
            let (seq, tail) = template::read(tail)?;
            Ok(Expected::Entry { log: log.to_owned(), seq, content: whole(tail)? })
        }
        "said" => {
            let (channel, tail) = word(tail.trim_start());
            let (places, tail) = word(tail.trim_start());
            let (from, to) = range(places)?;
            let with_resync = match tail.trim() {
                "" => false,
                "with resync" => true,
                other => return Err(format!("`{other}` behind said")),
            };
            Ok(Expected::Said { channel: channel.to_owned(), from, to, with_resync })
        }
        _ => whole(rest).map(Expected::Frame),
    }
}

fn connect(rest: &str) -> Result<Step, String> {
    let (name, rest) = rest.split_once(':').ok_or("connect NAME: USER DEVICE [from $CURSOR]")?;
    let connection = connection(name)?;
    match words(rest).as_slice() {
        [user, device] => {
            Ok(Step::Connect { connection, user: user.clone(), device: device.clone(), cursor: None })
        }
        [user, device, from, cursor] if from == "from" && cursor.starts_with('$') => {
            let cursor = Some(cursor[1..].to_owned());
            Ok(Step::Connect { connection, user: user.clone(), device: device.clone(), cursor })
        }
        _ => Err("connect NAME: USER DEVICE [from $CURSOR]".into()),
    }
}

fn say(rest: &str) -> Result<Step, String> {
    let (name, rest) = word(rest);
    let (channel, rest) = word(rest.trim_start());
    let (places, rest) = word(rest.trim_start());
    let (from, to) = range(places)?;
    Ok(Step::Say { connection: connection(name)?, channel: channel.to_owned(), from, to, text: whole(rest)? })
}

fn rest_call(rest: &str, is_soon: bool) -> Result<RestCall, String> {
    let (who, rest) = word(rest);
    let (method, rest) = word(rest.trim_start());
    let (path, rest) = word(rest.trim_start());
    let mut rest = rest.trim_start();
    let mut key = None;
    if let Some(tail) = rest.strip_prefix("key ") {
        let (template, tail) = template::read(tail)?;
        (key, rest) = (Some(template), tail.trim_start());
    }
    let mut body = None;
    if !rest.starts_with("=>") {
        let (template, tail) = template::read(rest)?;
        (body, rest) = (Some(template), tail.trim_start());
    }
    let (status, rest) = word(rest.strip_prefix("=>").ok_or("`=> STATUS` is missing")?.trim_start());
    let status = status.parse().map_err(|_| "the status is no number")?;
    let answer = if rest.trim().is_empty() { None } else { Some(whole(rest)?) };
    let who = (who != "-").then(|| who.to_owned());
    Ok(RestCall { is_soon, who, method: method.to_owned(), path: path.to_owned(), key, body, status, answer })
}

fn duration(text: &str) -> Result<Duration, String> {
    let usage = || "time +25s or time +500ms".to_owned();
    let amount = text.trim().strip_prefix('+').ok_or_else(usage)?;
    let (number, unit) = match amount.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (amount.strip_suffix('s').ok_or_else(usage)?, 1000),
    };
    number.parse::<u64>().map(|number| Duration::from_millis(number * unit)).map_err(|_| usage())
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let places = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    places.filter(|(from, to)| from <= to).ok_or_else(|| format!("`{text}` is no range such as 5..9"))
}

/// Names of connections begin with a capital letter.
fn connection(text: &str) -> Result<String, String> {
    let name = text.trim();
    let is_name =
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    if is_name {
        Ok(name.to_owned())
    } else {
        Err(format!("`{name}` is neither a statement nor a connection"))
    }
}

fn whole(text: &str) -> Result<Template, String> {
    let (template, rest) = template::read(text)?;
    if rest.trim().is_empty() { Ok(template) } else { Err(format!("`{}` is too much", rest.trim())) }
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_continue_and_comments_are_skipped() {
        let lines = parse("# a remark\nuser ada bob\n\nA -> {\"a\":\n   1}\n").unwrap();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
        assert!(matches!(&lines[1].step, Step::Send { connection, .. } if connection == "A"));
    }

    #[test]
    fn errors_name_their_line() {
        for text in [
            "A ->",
            "a -> {}",
            "A <- entry d",
            "connect A ada",
            "time 5",
            "rest ada GET /v1/me",
            "A closed soon",
            "say A d 5 \"x\"",
            "A <- {} {}",
            "drain now",
        ] {
            assert_eq!(parse(&format!("user ada\n{text}")).unwrap_err().0, 2, "{text}");
        }
    }
}
