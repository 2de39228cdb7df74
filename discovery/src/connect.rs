//! Answers clients that ask where to connect.

use std::sync::Arc;

use madang_auth::{TicketPlace, Tickets};
use madang_bus::registry::{LiveProcess, ProcessRun};
use madang_ids::{Millis, UserId};
use madang_proto::rest::{AssignedNode, Assignment};
use madang_service::Clock;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::core::{Assigner, Decision, View};
use crate::metrics::DiscoveryMetrics;

/// The path of the socket on every node.
pub const SOCKET_PATH: &str = "/v1/ws";

/// Assigns clients to nodes, by the view of this process.
pub struct Connector {
    view: watch::Receiver<Arc<View>>,
    tickets: Arc<Tickets>,
    assigner: Mutex<Assigner>,
    clock: Clock,
    metrics: DiscoveryMetrics,
}

impl Connector {
    /// Assigns by this view, with tickets under the secret of the fleet.
    #[must_use]
    pub fn new(
        view: watch::Receiver<Arc<View>>,
        tickets: Arc<Tickets>,
        clock: Clock,
        metrics: DiscoveryMetrics,
    ) -> Self {
        Self { view, tickets, assigner: Mutex::default(), clock, metrics }
    }

    /// The answer to `POST /v1/connect`: nodes with a ticket each, or a place in the waiting line.
    #[must_use]
    pub fn assign(&self, user: UserId, region: Option<&str>) -> Assignment {
        let view = Arc::clone(&self.view.borrow());
        let mut assigner = self.assigner.lock();
        let region = region.unwrap_or_default();
        let decision = assigner.assign(&view, user, region, self.clock.elapsed(), below);
        self.metrics.waiting.set(i64::try_from(assigner.waiting()).unwrap_or(i64::MAX));
        drop(assigner);
        match decision {
            Decision::Connect(nodes) => {
                self.metrics.assignments.inc();
                Assignment { nodes: self.with_tickets(user, &nodes), wait: None }
            }
            Decision::Wait(waiting) => {
                self.metrics.waits.inc();
                Assignment { nodes: Vec::new(), wait: Some(waiting) }
            }
        }
    }

    /// Where the client of a node that drains goes next, for its `reconnect` frame: at most three URLs, each with a ticket. Empty if
    /// no other node has room; the client then comes back as usual.
    #[must_use]
    pub fn elsewhere(&self, user: UserId, leaving: ProcessRun, region: &str) -> Vec<String> {
        let view = Arc::clone(&self.view.borrow());
        let nodes = self.assigner.lock().others(&view, leaving, region, below);
        self.with_tickets(user, &nodes).into_iter().map(|node| node.url).collect()
    }

    fn with_tickets(&self, user: UserId, nodes: &[&LiveProcess]) -> Vec<AssignedNode> {
        let now = self.clock.raw_ms();
        let mut assigned: Vec<AssignedNode> = Vec::with_capacity(nodes.len());
        let mut has_shared = false;
        for node in nodes {
            // Nodes that share a URL are one address for the client: the load balancer chooses.
            let is_shared = node.card.url.is_empty();
            if !(is_shared && std::mem::replace(&mut has_shared, true)) {
                assigned.push(self.with_ticket(user, node, now));
            }
        }
        assigned
    }

    fn with_ticket(&self, user: UserId, node: &LiveProcess, now: Millis) -> AssignedNode {
        let (url, run) = (node.card.url.trim_end_matches('/'), node.card.run);
        let place = match url.is_empty() {
            true => TicketPlace::Fleet,
            false => TicketPlace::Node(run.id, run.epoch),
        };
        let (ticket, expires_at) = self.tickets.mint(user, place, now);
        AssignedNode { url: format!("{url}{SOCKET_PATH}?ticket={ticket}"), expires_at: Some(expires_at) }
    }
}

fn below(end: u64) -> u64 {
    rand::random_range(0..end.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_auth::TicketError;
    use madang_bus::registry::{ProcessCard, ProcessState, Role};
    use madang_ids::{NodeEpoch, NodeId};

    const ADA: UserId = UserId::from_raw(1);
    const NOON: Millis = Millis::new(1_800_000_000_000);

    fn node(id: u16, url: &str) -> LiveProcess {
        let card = ProcessCard {
            run: ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(7) },
            name: format!("chat-{id}"),
            url: url.to_owned(),
            region: String::new(),
            capacity: 10,
            version: String::new(),
        };
        LiveProcess { card, state: ProcessState::default(), renewal: 1 }
    }

    fn connector(nodes: &[LiveProcess]) -> Connector {
        let (clock, _) = Clock::manual(NOON);
        let view = watch::channel(Arc::new(View::new(nodes.to_vec()))).1;
        Connector::new(view, Arc::new(Tickets::new(&[7; 32])), clock, DiscoveryMetrics::default())
    }

    #[test]
    fn a_named_node_gets_a_ticket_for_itself() {
        let connector = connector(&[node(3, "wss://chat-3.example/")]);
        let assignment = connector.assign(ADA, None);
        let [assigned] = &*assignment.nodes else { panic!("{assignment:?}") };
        let ticket = assigned.url.strip_prefix("wss://chat-3.example/v1/ws?ticket=").unwrap();
        let ticket = Tickets::new(&[7; 32]).verify(ticket, ADA, NOON).unwrap();
        assert_eq!(ticket.place, TicketPlace::Node(NodeId(3), NodeEpoch(7)));
        assert_eq!((assigned.expires_at, assignment.wait), (Some(ticket.expires_at), None));
    }

    #[test]
    fn nodes_that_share_a_url_are_one_path_with_a_ticket_for_the_fleet() {
        let assignment = connector(&[node(1, ""), node(2, ""), node(3, "")]).assign(ADA, None);
        let [assigned] = &*assignment.nodes else { panic!("{assignment:?}") };
        let ticket = assigned.url.strip_prefix("/v1/ws?ticket=").unwrap();
        let tickets = Tickets::new(&[7; 32]);
        assert_eq!(tickets.verify(ticket, ADA, NOON).unwrap().place, TicketPlace::Fleet);
        assert_eq!(tickets.verify(ticket, UserId::from_raw(2), NOON), Err(TicketError::Invalid));
    }

    #[test]
    fn a_full_fleet_answers_with_a_place() {
        let mut full = node(1, "wss://chat-1.example");
        full.state.load = 10;
        let connector = connector(&[full]);
        let assignment = connector.assign(ADA, None);
        assert_eq!((assignment.nodes, assignment.wait.unwrap().place), (Vec::new(), 1));
        assert_eq!(connector.metrics.waiting.get(), 1);
    }

    #[test]
    fn a_drain_sends_its_clients_elsewhere() {
        let nodes = [node(1, "wss://chat-1.example"), node(2, "wss://chat-2.example")];
        let urls = connector(&nodes).elsewhere(ADA, nodes[0].card.run, "");
        assert!(urls.len() == 1 && urls[0].starts_with("wss://chat-2.example/v1/ws?ticket="), "{urls:?}");
        assert_eq!(connector(&nodes[..1]).elsewhere(ADA, nodes[0].card.run, ""), [""; 0]);
    }
}
