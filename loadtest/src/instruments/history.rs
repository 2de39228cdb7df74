//! Checks at the end that the channel's history contains every acked message.

use std::time::Duration;

use anyhow::{Context, ensure};
use madang_client::{ClientError, Rest};
use madang_ids::{ChannelId, Seq};
use madang_proto::rest::{HistoryPage, HistoryQuery};
use madang_proto::{Content, Entry, ErrorCode};
use memchr::memmem;
use serde::Serialize;
use tokio::time::sleep;

use crate::bench::reader::DIGITS;

/// Entries of a page: the most that the protocol allows.
const PAGE: u32 = 200;
/// Pause after a refusal for now.
const PAUSE: Duration = Duration::from_millis(200);
const ATTEMPTS: usize = 50;

/// A message that was acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acked {
    pub(crate) seq: u64,
    pub(crate) sent_us: u64,
}

impl Acked {
    /// From an ack frame of a request whose `id` is its time.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let (sent_us, seq) = number(frame, br#""id":""#).zip(number(frame, br#""seq":"#))?;
        Some(Self { seq, sent_us })
    }
}

/// The number right after the first occurrence of `key`.
pub(crate) fn number(frame: &[u8], key: &[u8]) -> Option<u64> {
    let digits = &frame[memmem::find(frame, key)? + key.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Results of the check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stored {
    /// Entries of all kinds after the storm began.
    pub(crate) entries: u64,
    /// Messages among them.
    pub(crate) messages: u64,
    pub(crate) acked: u64,
    /// Acked messages that are not at the place which the ack gave.
    pub(crate) acked_missing: u64,
    /// Entries whose place does not follow that of the entry before.
    pub(crate) holes: u64,
}

/// Reads the history page by page. Keep it in the order of the log.
#[derive(Debug)]
struct Comparison<'a> {
    /// The acked messages that were not found yet, by their place.
    acked: &'a [Acked],
    last: u64,
    stored: Stored,
}

/// Reads all entries after `base`, one page at a time, and compares them with the acked messages.
pub(crate) async fn check(
    rest: &Rest,
    token: &str,
    channel: ChannelId,
    base: u64,
    mut acked: Vec<Acked>,
) -> anyhow::Result<Stored> {
    acked.sort_unstable();
    let mut comparison = Comparison::new(&acked, base);
    read(rest, token, channel, base, |entry| comparison.take(entry)).await?;
    Ok(comparison.end())
}

/// Visits all entries after `base`, in the order of the log, one page at a time.
pub(crate) async fn read(
    rest: &Rest,
    token: &str,
    channel: ChannelId,
    base: u64,
    mut visit: impl FnMut(&Entry),
) -> anyhow::Result<()> {
    let mut after = Seq::new(base);
    loop {
        let page = page(rest, token, channel, after).await?;
        page.entries.iter().for_each(&mut visit);
        let Some(last) = page.entries.last().filter(|_| page.more_after) else {
            ensure!(!page.more_after, "an empty page of history after {after}, and more after it");
            return Ok(());
        };
        after = last.seq;
    }
}

async fn page(rest: &Rest, token: &str, channel: ChannelId, after: Seq) -> anyhow::Result<HistoryPage> {
    let query = HistoryQuery { after: Some(after), limit: Some(PAGE), ..HistoryQuery::default() };
    let mut refused = None;
    for _ in 0..ATTEMPTS {
        match rest.history(token, channel, &query).await {
            Ok(page) => return Ok(page),
            Err(ClientError::Refused(error))
                if matches!(error.code, ErrorCode::Limited | ErrorCode::Unavailable) =>
            {
                refused = Some(error);
            }
            Err(error) => return Err(error).context("history cannot be read"),
        }
        sleep(PAUSE).await;
    }
    Err(anyhow::Error::from(refused.context("no attempt was made")?).context("history is refused"))
}

impl<'a> Comparison<'a> {
    fn new(acked: &'a [Acked], base: u64) -> Self {
        let stored = Stored { acked: acked.len() as u64, ..Stored::default() };
        Self { acked, last: base, stored }
    }

    fn take(&mut self, entry: &Entry) {
        let seq = entry.seq.get();
        self.stored.entries += 1;
        self.stored.holes += u64::from(seq != self.last + 1);
        self.last = seq;
        let skipped = self.acked.partition_point(|acked| acked.seq < seq);
        self.miss(skipped);
        let text = match &entry.content {
            Content::Message(message) => {
                self.stored.messages += 1;
                message.body.text.as_str()
            }
            _ => "",
        };
        let here = self.acked.partition_point(|acked| acked.seq == seq);
        let is_found = |acked: &Acked| sent_us(text) == Some(acked.sent_us);
        let found = self.acked[..here].iter().filter(|acked| is_found(acked)).count().min(1);
        self.miss(here);
        self.stored.acked_missing -= found as u64;
    }

    /// Counts the first acked messages as missing.
    fn miss(&mut self, count: usize) {
        self.stored.acked_missing += count as u64;
        self.acked = &self.acked[count..];
    }

    fn end(mut self) -> Stored {
        self.miss(self.acked.len());
        self.stored
    }
}

/// The time in the text of a message.
pub(crate) fn sent_us(text: &str) -> Option<u64> {
    text.get(..DIGITS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reader::text_of;

    fn entry(seq: u64, sent_us: Option<u64>) -> Entry {
        let text = match sent_us {
            Some(sent_us) => {
                let text = text_of(sent_us, 3, 20);
                format!(
                    r#""kind":"message","message_id":"5","ordinal":1,"sender_id":"6","client_msg_id":"0192f0e4-7b1c-7000-8000-000000000001","text":"{text}""#
                )
            }
            None => r#""kind":"joined","user_id":"6","by":"6""#.to_owned(),
        };
        serde_json::from_str(&format!(r#"{{"seq":{seq},"at":1,{text}}}"#)).unwrap()
    }

    fn compare(entries: &[Entry], acked: &[(u64, u64)]) -> Stored {
        let acked: Vec<Acked> =
            acked.iter().map(|(seq, sent_us)| Acked { seq: *seq, sent_us: *sent_us }).collect();
        let mut comparison = Comparison::new(&acked, 4);
        entries.iter().for_each(|entry| comparison.take(entry));
        comparison.end()
    }

    #[test]
    fn acked_messages_are_found() {
        let stored = compare(&[entry(5, Some(50)), entry(6, None), entry(7, Some(70))], &[(5, 50), (7, 70)]);
        assert_eq!(stored, Stored { entries: 3, messages: 2, acked: 2, acked_missing: 0, holes: 0 });
    }

    #[test]
    fn acked_messages_that_are_missing_are_counted() {
        // Another message, an entry of another kind, a hole, beyond the end, and two acks for one place.
        let entries = [entry(5, Some(51)), entry(6, None), entry(8, Some(80)), entry(9, Some(90))];
        let stored = compare(&entries, &[(5, 50), (6, 60), (7, 70), (8, 80), (9, 90), (9, 91), (12, 120)]);
        assert_eq!((stored.acked_missing, stored.holes), (5, 1));
    }
}
