//! The prices of operations; they are defined only here. [`docs/limits.md`](../../../docs/limits.md) has the table.
//!
//! A call that is admitted has paid one token of its user's rate. What it reads or writes beyond a plain call is charged when it
//! is done, and the next call waits until the debt is paid off. So the rate bounds work and not only calls.

use madang_engine::body;
use madang_proto::{Body, Entry};

/// Rows that a plain call may read.
const ROWS: usize = 100;
/// Bytes that the answer of a plain call may have.
const BYTES: usize = 32 * 1024;
/// Ids of a request that a plain call may look up.
const IDS: usize = 100;
/// Rows that a plain call may look at without returning them, as in a search.
const LOOKED_AT: usize = 200;

/// A price in tokens, beyond the one token that each call pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost(u32);

impl Cost {
    /// A join, a leave or a membership: one or two appends, and rows in three places.
    pub(super) const MEMBER: Self = Self(1);
    /// Sorting by activity: the heads of all of a user's channels are read.
    pub(super) const ACTIVITY: Self = Self(4);

    pub(super) fn rows(rows: usize) -> Self {
        Self::parts(rows, ROWS)
    }

    pub(super) fn bytes(bytes: usize) -> Self {
        Self::parts(bytes, BYTES)
    }

    pub(super) fn ids(ids: usize) -> Self {
        Self::parts(ids, IDS)
    }

    pub(super) fn looked_at(rows: usize) -> Self {
        Self::parts(rows, LOOKED_AT)
    }

    /// The price of entries that are read and sent.
    pub(super) fn entries(entries: &[Entry]) -> Self {
        let bytes = entries.iter().map(|entry| body::entry_bytes(&entry.content)).sum();
        Self::rows(entries.len()).and(Self::bytes(bytes))
    }

    /// The price of a message in tokens of the rate of messages, beyond the one of a plain message: each mention is a row, and in
    /// an open channel an append to a user's log.
    pub(super) fn mentions(body: &Body) -> Self {
        Self(u32::try_from(body.mentions.len()).unwrap_or(u32::MAX))
    }

    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub(super) fn times(self, count: usize) -> Self {
        Self(self.0.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)))
    }

    pub(super) const fn tokens(self) -> u32 {
        self.0
    }

    fn parts(count: usize, a_token: usize) -> Self {
        Self(u32::try_from(count / a_token).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/limits.md");

    #[test]
    fn the_page_names_the_prices() {
        for (count, what) in
            [(ROWS, "rows"), (IDS, "ids"), (LOOKED_AT, "rows examined"), (BYTES / 1024, "KiB")]
        {
            let price = format!("{count} {what}");
            assert!(PAGE.contains(&price), "docs/limits.md does not say: {price}");
        }
    }

    #[test]
    fn a_plain_call_pays_for_itself() {
        assert_eq!(Cost::rows(ROWS - 1).and(Cost::bytes(BYTES - 1)).and(Cost::ids(IDS - 1)), Cost::default());
        assert_eq!(Cost::rows(500).and(Cost::bytes(262_144)).tokens(), 13);
        assert_eq!(Cost::ids(10_000).tokens(), 100);
        assert_eq!(Cost::MEMBER.times(100).tokens(), 100);
    }
}
