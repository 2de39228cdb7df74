//! Edits, deletions and reactions that a connection sends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_client::ClientError;
use madang_ids::Seq;
use madang_proto::{Body, Changed, ClientFrame, Edit, ErrorBody, ErrorCode, Request, RequestId};
use tokio::time::Instant;

use super::Live;
use crate::judge::fates::{Step, edited};
use crate::judge::faults::{Fault, FaultKind};
use crate::replay::changes::Chain;
use crate::replay::device::LineRef;
use crate::replay::plan;
use crate::replay::world::{count, lock};

/// Wait before a retry if the server named none.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Prefix of the number in the name of a request.
pub(super) const PREFIX: char = 'c';

impl Live<'_> {
    /// Writes the steps whose time has come. Returns `true` if there were any.
    pub(super) async fn feed_changes(&mut self) -> Result<bool, ClientError> {
        let mut fed = false;
        loop {
            let polled = lock(&self.device.changes).poll(Instant::now());
            let Some((request, chain)) = polled else { return Ok(fed) };
            let Some(frame) = self.change_frame(&chain) else { continue };
            if chain.tries > 1 {
                count(&self.world.counters.changes_retried);
            }
            let id = Some(RequestId(format!("{PREFIX}{request}")));
            self.connection.feed(&Request { id, frame }).await?;
            fed = true;
        }
    }

    fn change_frame(&self, chain: &Chain) -> Option<ClientFrame> {
        let step = chain.step()?;
        let (line, seq) = (chain.line.line as usize, Seq::new(chain.target));
        let mut book = lock(&self.world.day(chain.line.day).book);
        book.fates.ask(line, step, self.device.user.raw());
        let channel_id = book.channel;
        Some(match step {
            Step::Edit(number) => {
                let body = Body { text: edited(&book.lines[line].text, number), ..Body::default() };
                ClientFrame::Edit(Box::new(Edit { channel_id, seq, version: Some(chain.version), body }))
            }
            Step::Delete => ClientFrame::Delete { channel_id, seq },
            Step::React { emoji, on } => {
                ClientFrame::React { channel_id, seq, emoji: Step::emoji(emoji).to_owned(), on }
            }
        })
    }

    /// Handles the answer to a step that was done. The next step of its chain may wait for its time.
    pub(super) fn handle_changed(&self, changed: &Changed) {
        let Some(mut chain) = self.take_chain(changed.id.as_ref()) else { return };
        let (day, line) = (self.world.day(chain.line.day), chain.line.line as usize);
        if let Some(step) = chain.step() {
            let entry = changed.seq.map(Seq::get);
            let mut book = lock(&day.book);
            book.fates.ack(line, step, self.device.user.raw(), entry);
            book.know(entry.unwrap_or_default());
            let counters = &self.world.counters;
            count(match step {
                Step::Edit(_) => &counters.edits,
                Step::Delete => &counters.deletes,
                Step::React { .. } => &counters.reactions,
            });
            if changed.target.get() != chain.target {
                let what = format!("the answer to a change of it has seq {}", changed.target);
                self.world.faults.note(FaultKind::Conflict, book.fault(chain.target, what));
            }
        }
        chain.advance(changed.version);
        if chain.step().is_some() {
            lock(&self.device.changes).push(chain, Instant::now());
        } else {
            day.changing.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Handles a refused step: it is repeated later or given up.
    pub(super) fn handle_change_refused(&self, id: &RequestId, error: &ErrorBody) {
        let Some(chain) = self.take_chain(Some(id)) else { return };
        // An expired token is renewed, and then the same request may succeed.
        if error.retryable || error.code == ErrorCode::Unauthorized {
            let wait = error.retry_after_ms.map_or(RETRY_AFTER, Duration::from_millis);
            lock(&self.device.changes).push_again(chain, Instant::now() + wait);
            return;
        }
        let day = self.world.day(chain.line.day);
        day.changing.fetch_sub(1, Ordering::SeqCst);
        let Some(step) = chain.step() else { return };
        let line = chain.line.line as usize;
        let was_away = self.was_away(chain.line.day);
        let mut book = lock(&day.book);
        if chain.tries == 1 {
            book.fates.refuse(line, step, self.device.user.raw());
        }
        let is_gone = step != Step::Delete && book.fates.is_delete_asked(line);
        if !is_gone && !was_away {
            let what = format!("{step:?} of it was refused, {:?}: {}", error.code, error.message);
            let fault = Fault { device: Some(self.device.name.clone()), ..book.fault(chain.target, what) };
            self.world.faults.note(FaultKind::Conflict, fault);
        }
    }

    /// Whether the user was not a member at some time of that day.
    fn was_away(&self, day: u32) -> bool {
        let memory = lock(&self.device.memory);
        memory.records.get(&day).is_some_and(|record| !record.arrivals().is_empty())
    }

    fn take_chain(&self, id: Option<&RequestId>) -> Option<Chain> {
        let request = id?.0.strip_prefix(PREFIX)?.parse().ok()?;
        lock(&self.device.changes).take(request)
    }

    /// After the ack of a line: draws what happens to the message later, and hands the chains to the devices that carry
    /// them out.
    pub(super) fn schedule_changes(&self, line: LineRef, target: u64) {
        let (world, day) = (self.world, self.world.day(line.day));
        let plan = plan::draw(world.args.seed, (line.day, line.line), world.args.shares, day.members.len());
        let sender = day.schedule[line.line as usize].0;
        let others = plan.others.into_iter().map(|(who, steps)| (day.members[who], steps));
        for (nick, steps) in others.chain([(sender, plan.sender)]) {
            let devices = &world.devices[nick.get()];
            // Prefers a device other than the one that sent the line.
            let (Some(device), Some(chain)) = (devices.last(), Chain::new(line, target, steps)) else {
                continue;
            };
            let is_away = lock(&device.memory).records.get(&line.day).is_some_and(|record| record.is_away());
            if !is_away {
                day.changing.fetch_add(1, Ordering::SeqCst);
                lock(&device.changes).push(chain, Instant::now());
                device.wake.notify_one();
            }
        }
    }
}
