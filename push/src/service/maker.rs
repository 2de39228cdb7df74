//! Makes alerts of rows, in a server of one process.

use std::time::Duration;

use futures_util::future::try_join_all;
use madang_engine::alerts::{Fold, Folded};
use madang_engine::spans::Spans;
use madang_ids::{Cursor, Epoch, LogId, Millis, Position, UserId};
use madang_store::{AlertEvent, AlertOutbox, StoreResult, Unmade};

use super::{Inner, Nearby};

/// Logs that are read at once.
const LOGS: usize = 64;
/// Rows are looked for after this time even if nobody says that there are any.
const LOOK: Duration = Duration::from_secs(2);
/// The pause after a failure of the store.
const AGAIN: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn make_alerts(&self, outbox: &dyn AlertOutbox, nearby: &dyn Nearby) {
        let mut after = None;
        loop {
            let looked = self.clock.elapsed();
            match self.make_some(outbox, after, nearby).await {
                Ok(Some(last)) => after = Some(last),
                // From the first log again, unless this was the first.
                Ok(None) if after.is_some() => after = None,
                Ok(None) => {
                    tokio::select! {
                        () = outbox.alerts_waiting() => {}
                        () = self.clock.sleep_until(looked + LOOK) => {}
                    }
                }
                Err(error) => {
                    self.metrics.store_failures.inc();
                    tracing::warn!(%error, "making alerts failed; it is repeated");
                    self.clock.sleep(AGAIN).await;
                }
            }
        }
    }

    /// Makes alerts of some rows of the logs after `after`, all at once, so that the store commits them together. The last of them.
    async fn make_some(
        &self,
        outbox: &dyn AlertOutbox,
        after: Option<LogId>,
        nearby: &dyn Nearby,
    ) -> StoreResult<Option<LogId>> {
        let unmade = outbox.unmade(after, LOGS).await?;
        let last = unmade.last().map(|unmade| unmade.log);
        let made = unmade.iter().map(|unmade| async {
            let folds = self.folds(unmade, nearby);
            let is_made = !folds.is_empty();
            outbox.make(unmade.log, unmade.upto, folds).await?;
            if is_made {
                self.made.notify_one();
            }
            Ok(())
        });
        try_join_all(made).await?;
        Ok(last)
    }

    fn folds(&self, unmade: &Unmade, nearby: &dyn Nearby) -> Vec<Fold> {
        let now = self.clock.now_ms();
        let message = |user, channel, seq, position: Position, sent: Millis| {
            let at = Cursor { epoch: Epoch::from_raw(0), position };
            // Times of rows rise, and may be ahead of the clock.
            let sent = sent.min(now);
            let due_at = self.due_at(sent, nearby.is_online(user)).plus(nearby.holds_ms(channel));
            let expires_at = self.expiry(sent);
            Fold { user, channel, what: Folded::Message { seq, at, due_at, expires_at } }
        };
        let mut folds = Vec::new();
        for event in &unmade.events {
            match (*event, unmade.log) {
                (AlertEvent::Message { seq, position, at, sender }, LogId::Channel(channel)) => {
                    let concerns = |(user, spans): &&(UserId, Spans)| *user != sender && spans.contains(seq);
                    let users = unmade.users.iter().filter(concerns);
                    folds.extend(users.map(|(user, _)| message(*user, channel, seq, position, at)));
                }
                (AlertEvent::Mentioned { channel, seq, position, at }, LogId::User(user)) => {
                    folds.push(message(user, channel, seq, position, at));
                }
                (AlertEvent::Read { channel, seq, at }, LogId::User(user)) => {
                    folds.push(Fold { user, channel, what: Folded::Read { seq, at: at.min(now) } });
                }
                _ => {}
            }
        }
        folds
    }

    /// A user who is online may receive the message on a device.
    fn due_at(&self, sent: Millis, is_online: bool) -> Millis {
        if is_online { sent.plus(self.config.delay_ms) } else { sent }
    }
}
