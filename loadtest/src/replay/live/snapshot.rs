//! Snapshots: the server does not continue from the cursor of the device. The device learns the heads of its groups over
//! REST and reads what it lacks from history, as `docs/protocol.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_client::ClientError;
use madang_ids::{ChannelId, Seq};
use madang_proto::SnapshotReason;
use madang_proto::rest::{ChannelView, Since, SnapshotQuery};
use tokio::time::sleep;

use super::Live;
use crate::fleet::Role;
use crate::judge::faults::{Fault, FaultKind};
use crate::replay::world::lock;

const AGAIN: Duration = Duration::from_millis(500);

/// The name of a reason on the wire.
pub(super) fn name(reason: SnapshotReason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{reason:?}"),
    }
}

impl Live<'_> {
    /// A snapshot is taken before the next frame is read. It is a fault unless something justifies it: the inboxes of a
    /// fleet are bounded, and a Redis that was killed may have lost its memory.
    pub(super) fn handle_snapshot_required(&mut self, reason: &str) {
        let args = &self.world.args;
        let is_justified = match reason {
            "too_far_behind" => args.is_fleet(),
            "inbox_reset" | "inbox_unavailable" => {
                args.snapshots
                    || args.kill_every.is_some() && args.fleet.is_some() && args.kill.contains(&Role::Redis)
            }
            _ => false,
        };
        if is_justified {
            *lock(&self.world.snapshots).entry(reason.to_owned()).or_default() += 1;
        } else {
            let what = format!("had to take a snapshot: {reason}");
            let fault = Fault { channel: None, seq: None, device: Some(self.device.name.clone()), what };
            self.world.faults.note(FaultKind::Snapshot, fault);
        }
        self.is_snapshot_due = true;
        self.must_have_cursor = reason != "inbox_unavailable";
    }

    /// Reads all pages. The connection is registered already, so entries that are appended meanwhile arrive on it.
    pub(super) async fn take_snapshot(&mut self) -> Result<(), ClientError> {
        let (rest, token) = (self.world.rest_of(self.device), self.device.access_token());
        // Of each group that the device has: a channel that its user has left is in no page otherwise, and the last entries of the stay
        // would be missing.
        let query = SnapshotQuery { since: self.known_groups(), ..SnapshotQuery::default() };
        let (mut query, mut cursor, mut heads) = (query, None, Vec::new());
        loop {
            let page = rest.snapshot(&token, &query).await?;
            if self.must_have_cursor && query.after.is_none() && page.cursor.is_none() {
                // The inbox answered this connection, and does not answer the node of the call: the protocol says to try again.
                sleep(AGAIN).await;
                continue;
            }
            cursor = cursor.or(page.cursor);
            let last = |view: &ChannelView| view.until_seq.unwrap_or(view.head_seq).get();
            heads.extend(page.channels.iter().map(|view| (view.card.id.raw(), last(view))));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        self.is_snapshot_due = false;
        let mut memory = lock(&self.device.memory);
        memory.cursor = cursor.or(memory.cursor.take());
        for (channel, head) in heads {
            let Some(day) = self.world.books_by_channel.get(&channel) else { continue };
            let mut book = lock(&self.world.day(*day).book);
            if !book.is_open {
                book.know(head);
                memory.records.entry(*day).or_default().show(head);
                memory.behind.insert(*day);
            }
        }
        Ok(())
    }

    fn known_groups(&self) -> BTreeMap<ChannelId, Since> {
        let memory = lock(&self.device.memory);
        let channel = |day: &u32| {
            let book = lock(&self.world.day(*day).book);
            let nothing = Since { head_seq: Seq::ZERO, read_seq: Seq::ZERO, settings_rev: 0 };
            (!book.is_open).then_some((book.channel, nothing))
        };
        memory.records.keys().filter_map(channel).collect()
    }

    /// Days of groups whose history must be read further, with the place after which.
    pub(super) fn holes(&self) -> Vec<(u32, u64)> {
        let mut memory = lock(&self.device.memory);
        let memory = &mut *memory;
        let hole = |day: &u32| {
            let base = lock(&self.world.day(*day).book).base;
            memory.records.get(day)?.gap_after(base).map(|after| (*day, after))
        };
        let holes: Vec<(u32, u64)> = memory.behind.iter().filter_map(hole).collect();
        memory.behind = holes.iter().map(|(day, _)| *day).collect::<BTreeSet<_>>();
        holes
    }
}
