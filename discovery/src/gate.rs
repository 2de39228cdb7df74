//! Judges the sockets that come to a node: those with a ticket are admitted, the others at a bounded rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use madang_auth::{TICKET_TTL_MS, Ticket, TicketId, TicketPlace, Tickets};
use madang_bus::registry::{ProcessRun, Registry};
use madang_engine::bucket::{Bucket, Rate};
use madang_ids::{Millis, UserId};
use madang_service::Clock;
use parking_lot::Mutex;

use crate::config::DiscoveryConfig;
use crate::metrics::DiscoveryMetrics;

/// Used tickets that are remembered, of 16 bytes each: 2,000 a second for their 30 s. Beyond that, sockets with a ticket count as
/// sockets without one.
const USED: usize = 60_000;
/// The registry remembers a ticket for this much longer than it is valid, because clocks differ.
const MARGIN_MS: u64 = 5_000;
/// Clients that were refused at the same time come back spread over this time.
const SPREAD_MS: u64 = 3_000;

/// What becomes of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It has a valid ticket.
    ByTicket,
    /// It has none, and is within the rate.
    ByRate,
    /// It has none, and too many others came. The client tries again after this time.
    Later {
        /// Milliseconds.
        retry_after_ms: u64,
    },
}

/// The gate of one node.
pub struct Gate {
    tickets: Arc<Tickets>,
    /// Remembers tickets that are valid on every node.
    registry: Arc<dyn Registry>,
    /// Used tickets of this node, and when they expire.
    used: Mutex<HashMap<TicketId, Millis>>,
    rate: Rate,
    bucket: Mutex<Bucket>,
    clock: Clock,
    metrics: DiscoveryMetrics,
}

impl Gate {
    /// A gate with the rate of the configuration.
    #[must_use]
    pub fn new(
        tickets: Arc<Tickets>,
        registry: Arc<dyn Registry>,
        config: &DiscoveryConfig,
        clock: Clock,
        metrics: DiscoveryMetrics,
    ) -> Self {
        let rate = config.admission();
        let bucket = Mutex::new(Bucket::full(rate, clock.elapsed()));
        Self { tickets, registry, used: Mutex::default(), rate, bucket, clock, metrics }
    }

    /// Judges a socket of `user` on the node `here`. A ticket that is not accepted is as none. Waits at most 2 s for the registry.
    pub async fn admit(&self, ticket: Option<&str>, user: UserId, here: ProcessRun) -> Admission {
        if let Some(ticket) = ticket {
            if self.accepts(ticket, user, here).await {
                self.metrics.tickets_accepted.inc();
                return Admission::ByTicket;
            }
            self.metrics.tickets_refused.inc();
        }
        match self.bucket.lock().take(self.rate, 1, self.clock.elapsed()) {
            Ok(()) => Admission::ByRate,
            Err(wait_ms) => {
                self.metrics.admissions_refused.inc();
                Admission::Later { retry_after_ms: wait_ms + rand::random_range(0..SPREAD_MS) }
            }
        }
    }

    async fn accepts(&self, text: &str, user: UserId, here: ProcessRun) -> bool {
        let now = self.clock.raw_ms();
        let ticket = match self.tickets.verify(text, user, now) {
            Ok(ticket) => ticket,
            Err(error) => {
                tracing::debug!(%error, "ticket refused");
                return false;
            }
        };
        let is_accepted = match ticket.place {
            TicketPlace::Node(id, epoch) if (id, epoch) == (here.id, here.epoch) => {
                self.use_here(ticket, now)
            }
            TicketPlace::Node(..) => false,
            TicketPlace::Fleet => self.use_in_fleet(ticket, now).await,
        };
        if !is_accepted {
            tracing::debug!(ticket = %ticket.id, "ticket refused: it was used before, or is not valid on this node");
        }
        is_accepted
    }

    fn use_here(&self, ticket: Ticket, now: Millis) -> bool {
        let mut used = self.used.lock();
        if used.len() >= USED {
            used.retain(|_, expires_at| *expires_at > now);
        }
        used.len() < USED && used.insert(ticket.id, ticket.expires_at).is_none()
    }

    /// A registry that does not answer cannot say whether the ticket was used before, so the ticket does not count.
    async fn use_in_fleet(&self, ticket: Ticket, now: Millis) -> bool {
        let left_ms = ticket.expires_at.get().saturating_sub(now.get()).min(TICKET_TTL_MS);
        let ttl = Duration::from_millis(left_ms + MARGIN_MS);
        let used = self.registry.use_ticket(&ticket.id.to_string(), ttl).await;
        used.unwrap_or_else(|error| {
            tracing::debug!(%error, "a ticket cannot be checked");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_bus::registry::{MemoryRegistry, Role};
    use madang_ids::{NodeEpoch, NodeId};
    use madang_service::ManualClock;

    const ADA: UserId = UserId::from_raw(1);
    const NOON: Millis = Millis::new(1_800_000_000_000);
    const SECRET: [u8; 32] = [7; 32];

    fn run(id: u16, epoch: u64) -> ProcessRun {
        ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(epoch) }
    }

    /// Gates that admit nobody without a ticket, after their first socket.
    fn gates(registry: &Arc<dyn Registry>) -> (Gate, Gate, ManualClock) {
        let (clock, hand) = Clock::manual(NOON);
        let config = DiscoveryConfig { admission_per_second: 1, ..DiscoveryConfig::default() };
        let gate = || {
            let (tickets, registry) = (Arc::new(Tickets::new(&SECRET)), Arc::clone(registry));
            let gate = Gate::new(tickets, registry, &config, clock.clone(), DiscoveryMetrics::default());
            gate.bucket.lock().take(gate.rate, 1, clock.elapsed()).unwrap();
            gate
        };
        (gate(), gate(), hand)
    }

    fn registry() -> Arc<dyn Registry> {
        Arc::new(MemoryRegistry::default())
    }

    fn ticket(place: TicketPlace) -> String {
        Tickets::new(&SECRET).mint(ADA, place, NOON).0
    }

    fn is_later(admission: Admission) -> bool {
        matches!(admission, Admission::Later { .. })
    }

    #[tokio::test]
    async fn a_ticket_is_accepted_once_on_its_node_in_its_life() {
        let (gate, _, _) = gates(&registry());
        let ticket = ticket(TicketPlace::Node(NodeId(1), NodeEpoch(5)));
        for other in [run(2, 5), run(1, 6), run(1, 4)] {
            assert!(is_later(gate.admit(Some(&ticket), ADA, other).await), "{other:?}");
        }
        assert_eq!(gate.admit(Some(&ticket), ADA, run(1, 5)).await, Admission::ByTicket);
        assert!(is_later(gate.admit(Some(&ticket), ADA, run(1, 5)).await), "used twice");
        assert_eq!((gate.metrics.tickets_accepted.get(), gate.metrics.tickets_refused.get()), (1, 4));
        assert_eq!(gate.metrics.admissions_refused.get(), 4);
    }

    #[tokio::test]
    async fn a_ticket_of_the_fleet_is_accepted_once_on_any_node() {
        let (here, there, _) = gates(&registry());
        let ticket = ticket(TicketPlace::Fleet);
        assert_eq!(there.admit(Some(&ticket), ADA, run(2, 1)).await, Admission::ByTicket);
        assert!(is_later(here.admit(Some(&ticket), ADA, run(1, 1)).await));
        assert!(is_later(there.admit(Some(&ticket), ADA, run(2, 1)).await));
    }

    #[tokio::test]
    async fn an_expired_forged_or_foreign_ticket_is_as_none() {
        let (gate, _, hand) = gates(&registry());
        let place = TicketPlace::Node(NodeId(1), NodeEpoch(5));
        let forged = Tickets::new(&[8; 32]).mint(ADA, place, NOON).0;
        assert!(is_later(gate.admit(Some(&forged), ADA, run(1, 5)).await));
        assert!(is_later(gate.admit(Some(&ticket(place)), UserId::from_raw(2), run(1, 5)).await));
        let late = ticket(place);
        hand.advance(Duration::from_millis(TICKET_TTL_MS));
        // The rate has a token again by now, and the ticket none.
        assert_eq!(gate.admit(Some(&late), ADA, run(1, 5)).await, Admission::ByRate);
    }

    #[tokio::test]
    async fn sockets_without_a_ticket_are_admitted_at_the_rate() {
        let (clock, hand) = Clock::manual(NOON);
        let config = DiscoveryConfig { admission_per_second: 10, ..DiscoveryConfig::default() };
        let metrics = DiscoveryMetrics::default();
        let tickets = Arc::new(Tickets::new(&SECRET));
        let gate = Gate::new(tickets, registry(), &config, clock, metrics);
        let mut admitted = 0;
        for _ in 0..100 {
            admitted += u32::from(gate.admit(None, ADA, run(1, 1)).await == Admission::ByRate);
        }
        assert_eq!(admitted, 10);
        let Admission::Later { retry_after_ms } = gate.admit(None, ADA, run(1, 1)).await else { panic!() };
        assert!(retry_after_ms < 1_000 + SPREAD_MS, "{retry_after_ms}");
        hand.advance(Duration::from_millis(retry_after_ms));
        assert_eq!(gate.admit(None, ADA, run(1, 1)).await, Admission::ByRate);
    }

    #[tokio::test]
    async fn more_used_tickets_than_are_remembered_are_not_accepted() {
        let (gate, _, hand) = gates(&registry());
        let expired = NOON.plus(10);
        let ids = (0..USED as u64).map(TicketId::from_raw);
        gate.used.lock().extend(ids.map(|id| (id, expired)));
        let mint = |now| gate.tickets.mint(ADA, TicketPlace::Node(NodeId(1), NodeEpoch(1)), now).0;
        assert!(is_later(gate.admit(Some(&mint(NOON)), ADA, run(1, 1)).await));
        hand.advance(Duration::from_millis(10));
        assert_eq!(gate.admit(Some(&mint(NOON)), ADA, run(1, 1)).await, Admission::ByTicket);
        assert_eq!(gate.used.lock().len(), 1);
    }
}
