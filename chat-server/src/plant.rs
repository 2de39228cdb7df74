//! Faults that are planted on purpose, to check that the load tool's judge finds them. Only a build with the feature `plant`
//! contains this module. Each fault is part of a decorator that `compose.rs` puts around a part of the node, so the code of the
//! product contains none of them.
//!
//! `PLANTED_FAULT=<fault>:<n>` lets a fault strike once in `n` times.

mod envelopes;
mod inbox;
mod logs;
mod presence;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use envelopes::spoil_envelopes;
pub(crate) use inbox::LateInbox;
pub(crate) use logs::FaultyLogs;
pub(crate) use presence::keep_up;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Acknowledges an append that was never made.
    AckWithoutWriting,
    /// Moves the cursors of connections past an item that they never get.
    SkipFanout,
    /// Delivers an item twice.
    DeliverTwice,
    /// Exchanges the rows of two deliveries.
    SwapTwo,
    /// Leaves a row out of a page of history.
    HistoryWithoutRow,
    /// Delivers the entry of an edit without its message, so that clients keep the old one.
    EditNotDelivered,
    /// Acknowledges a reaction that was never made.
    ReactionLost,
    /// Leaves a banned user subscribed.
    BanLeaks,
    /// Lets presence count a connection that has ended.
    PresenceSticks,
    /// Brings rows of channels to the inboxes ten seconds late.
    FanoutLate,
    /// The same, and does not bring what a dead node owes.
    RedriveSkipped,
}

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
        "fanout_late" => Fault::FanoutLate,
        "redrive_skipped" => Fault::RedriveSkipped,
        _ => return None,
    };
    eprintln!("PLANTED FAULT: {text}");
    Some((fault, every.parse().ok()?))
});

/// Whether `fault` strikes now.
fn strikes(fault: Fault) -> bool {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    match *PLANTED {
        Some((planted, every)) if planted == fault => {
            CALLS.fetch_add(1, Ordering::Relaxed) % every.max(1) == every.max(1) / 2
        }
        _ => false,
    }
}
