//! Keeps the order of a connection's sends across a refusal: sends that left the client before it received the refusal must not
//! be appended ahead of the retry.
//!
//! When a send is refused with a retryable error, the gate is shut for its connection until that send comes again, but at most
//! for [`SHUT`], since the client may give the message up.

use std::collections::HashMap;
use std::time::Duration;

use madang_ids::ClientMsgId;
use madang_proto::ErrorBody;

use crate::home::command::Origin;
use crate::now::Now;

/// Longer than the longest `retry_after_ms` of a home (1 s) plus the way to the client and back.
pub(super) const SHUT: Duration = Duration::from_secs(2);
/// At most this many connections are held back at once. Above it, order is not kept; nothing is lost.
const SHUT_ORIGINS: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: HashMap<Origin, Shut>,
}

#[derive(Debug)]
struct Shut {
    until_sent: ClientMsgId,
    /// By the steady clock.
    since: Duration,
    error: ErrorBody,
}

impl Shut {
    fn lasts(&self, now: Now) -> bool {
        now.elapsed.saturating_sub(self.since) < SHUT
    }
}

impl Gate {
    /// Whether a send may pass. A send that would overtake the retry gets the same refusal as the send that it would overtake.
    pub(super) fn check(
        &mut self,
        origin: Origin,
        client_msg_id: ClientMsgId,
        now: Now,
    ) -> Result<(), ErrorBody> {
        match self.shut.get(&origin) {
            Some(shut) if shut.lasts(now) && shut.until_sent != client_msg_id => Err(shut.error.clone()),
            // The retry, or the gate has expired. The sends behind the retry come behind it on the same connection, so they may pass.
            Some(_) => {
                self.shut.remove(&origin);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Shuts the gate until `until_sent` comes again. It replaces the send for which the gate was shut before: the new one is
    /// that very retry, or was enqueued before the gate was shut and is earlier in the connection's order, or the gate had expired.
    pub(super) fn shut(&mut self, origin: Origin, until_sent: ClientMsgId, error: &ErrorBody, now: Now) {
        // Expired gates make room first.
        if self.shut.len() >= SHUT_ORIGINS {
            self.shut.retain(|_, shut| shut.lasts(now));
        }
        if self.shut.len() < SHUT_ORIGINS || self.shut.contains_key(&origin) {
            self.shut.insert(origin, Shut { until_sent, since: now.elapsed, error: error.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Millis;

    fn origin(id: u64) -> Origin {
        Origin::of_one_process(madang_ids::ConnectionId::from_raw(id))
    }

    fn message(id: u128) -> ClientMsgId {
        ClientMsgId::from_uuid(id)
    }

    fn at(ms: u64) -> Now {
        Now { at: Millis::new(1_800_000_000_000), elapsed: Duration::from_millis(ms) }
    }

    fn error() -> ErrorBody {
        ErrorBody::unavailable("not now", 500)
    }

    #[test]
    fn a_gate_opens_with_its_message_or_its_time() {
        let shut_ms = SHUT.as_millis() as u64;
        for (id, ms, passes) in [
            (1, 5_000, true),
            (2, 5_000, false),
            (2, 5_000 + shut_ms / 2, false),
            (2, 5_000 + shut_ms - 1, false),
            (2, 5_000 + shut_ms, true),
        ] {
            let mut gate = Gate::default();
            gate.shut(origin(7), message(1), &error(), at(5_000));
            assert!(gate.check(origin(8), message(id), at(ms)).is_ok(), "another connection");
            assert_eq!(gate.check(origin(7), message(id), at(ms)).is_ok(), passes, "{id} at {ms}");
            assert_eq!(gate.check(origin(7), message(3), at(ms)).is_ok(), passes, "behind {id} at {ms}");
        }
    }

    #[test]
    fn connections_above_the_bound_are_not_held_back() {
        let mut gate = Gate::default();
        for id in 0..=SHUT_ORIGINS as u64 {
            gate.shut(origin(id), message(1), &error(), at(5_000));
        }
        let last = origin(SHUT_ORIGINS as u64);
        assert!(gate.check(last, message(2), at(5_000)).is_ok());
        assert!(gate.check(origin(0), message(2), at(5_000)).is_err());
        let later = at(5_000 + SHUT.as_millis() as u64);
        gate.shut(last, message(1), &error(), later);
        assert!(gate.check(last, message(2), later).is_err(), "those whose time is over make room");
        assert_eq!(gate.shut.len(), 1);
    }
}
