//! What a chat node of a fleet has of discovery, put together.

use std::sync::Arc;

use madang_auth::Tickets;
use madang_bus::registry::{ProcessCard, Registry};
use madang_ids::UserId;
use madang_proto::rest::Assignment;
use madang_service::{Check, Clock, Drain};
use tokio::sync::watch;

use crate::api::Discovery;
use crate::config::DiscoveryConfig;
use crate::connect::Connector;
use crate::core::View;
use crate::gate::{Admission, Gate};
use crate::metrics::DiscoveryMetrics;
use crate::service::{Lease, LiveView};

/// What a node's part of discovery is made of.
pub struct NodeParts {
    /// What the node registers. Its number and epoch come from the store.
    pub card: ProcessCard,
    /// The section of the configuration.
    pub config: DiscoveryConfig,
    /// The secret of the fleet.
    pub secret: [u8; 32],
    /// Over the registry itself, or over discovery processes.
    pub discovery: Arc<dyn Discovery>,
    /// Remembers tickets that are valid on every node.
    pub registry: Arc<dyn Registry>,
    /// The clock of the node.
    pub clock: Clock,
    /// The metrics of the node.
    pub metrics: DiscoveryMetrics,
}

/// The lease of a node, its view of the fleet, its gate, and where it sends clients. The caller runs [`Self::keep_lease`] and
/// [`Self::keep_view`] as tasks, and [`Lease::leave`] at the end of a drain.
pub struct NodeDiscovery {
    lease: Lease,
    live: LiveView,
    connector: Connector,
    gate: Gate,
    region: String,
}

impl NodeDiscovery {
    /// Puts the parts together. Nothing is registered yet.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let NodeParts { card, config, secret, discovery, registry, clock, metrics } = parts;
        let region = card.region.clone();
        let tickets = Arc::new(Tickets::new(&secret));
        let lease = Lease::new(Arc::clone(&discovery), card, &config, clock.clone(), metrics.clone());
        let live = LiveView::new(discovery, Some(lease.clone()), &config, clock.clone(), metrics.clone());
        let connector =
            Connector::new(live.subscribe(), Arc::clone(&tickets), clock.clone(), metrics.clone());
        let gate = Gate::new(tickets, registry, &config, clock, metrics);
        Self { lease, live, connector, gate, region }
    }

    /// The registration of this node.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The present view, and every change of it.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.live.subscribe()
    }

    /// See [`Lease::keep`].
    pub fn keep_lease<L: Fn() -> u32 + Send>(
        &self,
        load: L,
        drain: Drain,
    ) -> impl Future<Output = ()> + Send + use<L> {
        self.lease.clone().keep(load, drain)
    }

    /// See [`LiveView::keep`].
    pub fn keep_view(&self, check: Check) -> impl Future<Output = ()> + Send + use<> {
        self.live.clone().keep(check)
    }

    /// See [`Connector::assign`].
    #[must_use]
    pub fn assign(&self, user: UserId, region: Option<&str>) -> Assignment {
        self.connector.assign(user, region)
    }

    /// Where a client of this node goes when the node drains. See [`Connector::elsewhere`].
    #[must_use]
    pub fn elsewhere(&self, user: UserId) -> Vec<String> {
        self.connector.elsewhere(user, self.lease.run(), &self.region)
    }

    /// Judges a socket. See [`Gate::admit`].
    pub async fn admit(&self, ticket: Option<&str>, user: UserId) -> Admission {
        self.gate.admit(ticket, user, self.lease.run()).await
    }
}
