//! Messages: sent, changed, read, and what is served of them.

pub(super) mod carried;
pub(super) mod events;
pub(super) mod hidden;
pub(super) mod history;
pub(super) mod mentioned;
pub(super) mod message_changes;
pub(super) mod read_markers;
pub(super) mod received;
pub(super) mod send;
pub(super) mod shared_reads;
pub(super) mod texts;
