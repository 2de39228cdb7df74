//! Keeps the order of a connection's sends across a refusal: what it sent on before it heard of the refusal must not
//! be appended ahead of the retry.
//!
//! After a send was refused in a way that may be retried, the gate is shut for its connection until that send comes
//! again. Not for longer than [`SHUT_MS`], since a client may give the refused message up.

use std::collections::HashMap;

use madang_ids::{ClientMsgId, Millis};
use madang_proto::ErrorBody;

use crate::home::command::Origin;

/// Longer than the waits that refusals of a home ask for, and their way there and back.
pub(super) const SHUT_MS: u64 = 2_000;
/// Above so many, connections are not waited for.
const SHUT_ORIGINS: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: HashMap<Origin, Shut>,
}

#[derive(Debug)]
struct Shut {
    until_sent: ClientMsgId,
    since: Millis,
    error: ErrorBody,
}

impl Shut {
    /// A clock that steps back opens as well.
    fn lasts(&self, now: Millis) -> bool {
        (self.since.get()..self.since.get().saturating_add(SHUT_MS)).contains(&now.get())
    }
}

impl Gate {
    /// Whether a send may pass; if not, the refusal of what it would overtake is its own.
    pub(super) fn check(
        &mut self,
        origin: Origin,
        client_msg_id: ClientMsgId,
        now: Millis,
    ) -> Result<(), ErrorBody> {
        match self.shut.get(&origin) {
            Some(shut) if shut.lasts(now) && shut.until_sent != client_msg_id => Err(shut.error.clone()),
            Some(_) => {
                self.shut.remove(&origin);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Shuts until `until_sent` comes again, which is earlier in order than whatever the gate was shut for.
    pub(super) fn shut(&mut self, origin: Origin, until_sent: ClientMsgId, error: &ErrorBody, now: Millis) {
        if self.shut.len() >= SHUT_ORIGINS {
            self.shut.retain(|_, shut| shut.lasts(now));
        }
        if self.shut.len() < SHUT_ORIGINS || self.shut.contains_key(&origin) {
            self.shut.insert(origin, Shut { until_sent, since: now, error: error.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(id: u64) -> Origin {
        Origin::from_raw(id)
    }

    fn message(id: u128) -> ClientMsgId {
        ClientMsgId::from_uuid(id)
    }

    fn error() -> ErrorBody {
        ErrorBody::unavailable("not now", 500)
    }

    #[test]
    fn a_gate_opens_with_its_message_or_its_time() {
        for (id, at, passes) in [
            (1, 5_000, true),
            (2, 5_000, false),
            (2, 4_999, true),
            (2, 5_000 + SHUT_MS - 1, false),
            (2, 5_000 + SHUT_MS, true),
        ] {
            let mut gate = Gate::default();
            gate.shut(origin(7), message(1), &error(), Millis::new(5_000));
            assert!(gate.check(origin(8), message(id), Millis::new(at)).is_ok(), "another connection");
            assert_eq!(gate.check(origin(7), message(id), Millis::new(at)).is_ok(), passes, "{id} at {at}");
            assert_eq!(
                gate.check(origin(7), message(3), Millis::new(at)).is_ok(),
                passes,
                "behind {id} at {at}"
            );
        }
    }

    #[test]
    fn connections_above_the_bound_are_not_waited_for() {
        let mut gate = Gate::default();
        for id in 0..=SHUT_ORIGINS as u64 {
            gate.shut(origin(id), message(1), &error(), Millis::new(5_000));
        }
        let last = origin(SHUT_ORIGINS as u64);
        assert!(gate.check(last, message(2), Millis::new(5_000)).is_ok());
        assert!(gate.check(origin(0), message(2), Millis::new(5_000)).is_err());
        let later = Millis::new(5_000 + SHUT_MS);
        gate.shut(last, message(1), &error(), later);
        assert!(gate.check(last, message(2), later).is_err(), "those whose time is over make room");
        assert_eq!(gate.shut.len(), 1);
    }
}
