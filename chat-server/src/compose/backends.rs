//! What a node stands on: store, inbox, bus, clock, and the ways to other processes.

use std::sync::Arc;

use madang_bus::{Bus, Inbox, Peers};
use madang_ids::{Millis, NodeRun, Snowflakes};
use madang_presence::FleetParts;
use madang_push::{Keep, LookUp, PushProcesses, SystemLookUp};
use madang_service::Clock;
use madang_store::{AlertOutbox, AlertQueue, Store, Upkeep, Waits};

use crate::home::HomeNodes;

/// The parts that a test may replace, such as the store or the clock.
pub struct Backends {
    /// The durable store.
    pub store: Arc<dyn Store>,
    /// How long its calls wait for their turn. Those of a cluster are not seen.
    pub waits: Waits,
    /// Removal of what is old, if the store needs it.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    /// The inboxes over it.
    pub inbox: Arc<dyn Inbox>,
    /// The transport between nodes.
    pub bus: Arc<dyn Bus>,
    pub clock: Clock,
    /// Homes of each log: one, and more in a simulation.
    pub homes_of_a_log: u64,
    /// This node, and which life of it.
    pub node: NodeRun,
    /// Mints ids with the number of this node.
    pub ids: Arc<Snowflakes>,
    /// The way to the homes on other nodes; `None` in one process.
    pub others: Option<(Arc<dyn Peers>, HomeNodes)>,
    /// The way to the presence of other processes; `None` in one process.
    pub presence: Option<FleetParts>,
    /// The queue of alerts; `None`: there are no alerts.
    pub alerts: Option<Alerts>,
    /// Looks up the hosts of endpoints for alerts.
    pub look_up: Arc<dyn LookUp>,
    /// The key that signs access tokens.
    pub secret: [u8; 32],
    /// The latest time that is in the store. New ids are above it, whatever the clock says.
    pub latest: Millis,
}

/// The queue of alerts, and what belongs to it.
pub struct Alerts {
    /// The queue.
    pub queue: Arc<dyn AlertQueue>,
    /// Where rows wait until alerts are made of them; `None` in a fleet, whose inboxes make them.
    pub outbox: Option<Arc<dyn AlertOutbox>>,
    /// Where the keys are that no setting names; `None`: in the data folder.
    pub keep: Option<Keep>,
    /// Processes that send alerts and do nothing else; `None` in one process.
    pub processes: Option<Arc<dyn PushProcesses>>,
}

impl Backends {
    /// Those of one process: a store with a commit order, and the inbox that reads it.
    pub fn of_one_process<S: Store + Upkeep + AlertOutbox, I: Inbox + Bus>(
        store: Arc<S>,
        inbox: I,
        clock: Clock,
        secret: [u8; 32],
        latest: Millis,
    ) -> Self {
        let (upkeep, inbox) = (Some(Arc::clone(&store) as _), Arc::new(inbox));
        let bus = Arc::clone(&inbox) as _;
        let (homes_of_a_log, node, others, presence) = (1, NodeRun::ALONE, None, None);
        let ids = Arc::new(Snowflakes::of_one_process());
        let (queue, outbox) = (Arc::clone(&store) as _, Some(Arc::clone(&store) as _));
        let alerts = Some(Alerts { queue, outbox, keep: None, processes: None });
        let look_up = Arc::new(SystemLookUp::default());
        Self {
            store,
            waits: Waits::default(),
            upkeep,
            bus,
            inbox,
            clock,
            secret,
            latest,
            homes_of_a_log,
            node,
            ids,
            others,
            presence,
            alerts,
            look_up,
        }
    }
}
