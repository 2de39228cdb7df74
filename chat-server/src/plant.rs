//! Faults that are planted on purpose, to check that the load tool's judge finds them. Without the feature `plant` the binary
//! contains none of this: [`strikes`] is `false` at compile time.
//!
//! `PLANTED_FAULT=<fault>:<n>` lets a fault strike once in `n` times.

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Acknowledges an append that was never made.
    AckWithoutWriting,
    /// Moves a connection's cursor past an item that the connection never gets.
    SkipFanout,
    /// Enqueues an item twice.
    DeliverTwice,
    /// Swaps two waiting frames.
    SwapTwo,
    /// Leaves a row out of a page of history.
    HistoryWithoutRow,
    /// Delivers the entry of an edit without its message, so that clients keep the old one.
    EditNotDelivered,
    /// Acknowledges a reaction that was never made.
    ReactionLost,
    /// Leaves a banned user subscribed.
    BanLeaks,
    /// Does not report to presence that a connection has ended.
    PresenceSticks,
}

/// Whether `fault` strikes now.
#[cfg(not(feature = "plant"))]
pub(crate) const fn strikes(_: Fault) -> bool {
    false
}

#[cfg(feature = "plant")]
pub(crate) use planted::strikes;

#[cfg(feature = "plant")]
mod planted {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Fault;

    static PLANTED: LazyLock<Option<(Fault, u64)>> = LazyLock::new(|| {
        let text = std::env::var("PLANTED_FAULT").ok()?;
        let (fault, every) = text.split_once(':')?;
        let fault = match fault {
            "ack_without_writing" => Fault::AckWithoutWriting,
            "skip_fanout" => Fault::SkipFanout,
            "deliver_twice" => Fault::DeliverTwice,
            "swap_two" => Fault::SwapTwo,
            "history_without_row" => Fault::HistoryWithoutRow,
            "edit_not_delivered" => Fault::EditNotDelivered,
            "reaction_lost" => Fault::ReactionLost,
            "ban_leaks" => Fault::BanLeaks,
            "presence_sticks" => Fault::PresenceSticks,
            _ => return None,
        };
        eprintln!("PLANTED FAULT: {text}");
        Some((fault, every.parse().ok()?))
    });
    static CALLS: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn strikes(fault: Fault) -> bool {
        match *PLANTED {
            Some((planted, every)) if planted == fault => {
                CALLS.fetch_add(1, Ordering::Relaxed) % every.max(1) == every.max(1) / 2
            }
            _ => false,
        }
    }
}
