//! The presence of a chat process, in both placements: what the composition root makes, and the tasks that it runs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use madang_service::{Clock, Drain};
use madang_store::Store;

use crate::api::{Presence, Up, lease, local};
use crate::config::{Placement, PresenceConfig};
use crate::core::Notice;
use crate::fleet::{CoreInbox, Live, NodeInbox, Post, ProcessParts, Remote, remote, run_node, run_process};
use crate::metrics::{FleetMetrics, PresenceMetrics};
use crate::service::{Service, run};

/// What presence is made of in a chat process.
pub struct RoleParts {
    /// The settings.
    pub config: PresenceConfig,
    /// The clock.
    pub clock: Clock,
    /// The metrics of a core.
    pub metrics: PresenceMetrics,
    /// The rows.
    pub store: Arc<dyn Store>,
    /// The way to other processes; `None` in a server of one process.
    pub fleet: Option<FleetParts>,
    /// A core hands its users over when this drain begins. The node must then leave the processes that own users.
    pub drain: Drain,
}

/// The way to other processes.
pub struct FleetParts {
    /// The frames of this process.
    pub post: (Post, NodeInbox, CoreInbox),
    /// The live processes.
    pub live: Live,
    /// The metrics of what passes between processes.
    pub metrics: FleetMetrics,
}

/// The presence of a chat process, before its tasks run.
pub struct PresenceRole {
    presence: Presence,
    store: Arc<dyn Store>,
    placed: Placed,
}

/// Where the core is.
enum Placed {
    /// Here, and it owns everybody.
    Alone(Box<Service>),
    /// Here and in other processes, or only in others.
    InFleet {
        remote: Box<Remote>,
        post: (Post, NodeInbox),
        live: Live,
        core: Option<Box<(ProcessParts, Drain)>>,
    },
}

/// The tasks of a role. None of them is vital: everything else works without presence.
pub struct RoleTasks {
    /// They never end.
    pub endless: Vec<(&'static str, BoxFuture<'static, ()>)>,
    /// The core of a node of a fleet. It ends some seconds after the drain has begun, when it has handed over its users; the
    /// process waits for it.
    pub core: Option<BoxFuture<'static, ()>>,
}

impl PresenceRole {
    /// Makes both ends of presence in a chat process.
    #[must_use]
    pub fn open(parts: RoleParts) -> (Presence, Self) {
        let RoleParts { config, clock, metrics, store, fleet, drain } = parts;
        let Some(FleetParts { post: (post, inbox, of_core), live, metrics: fleet }) = fleet else {
            let (presence, service) = local(config, clock, metrics);
            let placed = Placed::Alone(Box::new(service));
            return (presence.clone(), Self { presence, store, placed });
        };
        let core = (config.placement == Placement::Inside).then(|| {
            let parts = ProcessParts {
                config,
                clock: clock.clone(),
                metrics: metrics.clone(),
                fleet: fleet.clone(),
                store: Arc::clone(&store),
                post: (post.clone(), of_core),
                live: live.clone(),
            };
            Box::new((parts, drain))
        });
        let (presence, remote) = remote(config, clock, metrics, fleet);
        let placed = Placed::InFleet { remote: Box::new(remote), post: (post, inbox), live, core };
        (presence.clone(), Self { presence, store, placed })
    }

    /// The tasks. `connections` are those of this node; it must not call the [`Presence`]. `deliver` is called for each notice, in
    /// order, and must not block.
    #[must_use]
    pub fn into_tasks(
        self,
        connections: impl Fn() -> Vec<Up> + Send + 'static,
        deliver: impl FnMut(Notice) + Send + 'static,
    ) -> RoleTasks {
        let Self { presence, store, placed } = self;
        match placed {
            Placed::Alone(service) => {
                let service: BoxFuture<'static, ()> = Box::pin(run(*service, store, deliver));
                let lease: BoxFuture<'static, ()> = Box::pin(lease(presence, connections));
                RoleTasks { endless: vec![("presence", service), ("presence_lease", lease)], core: None }
            }
            Placed::InFleet { remote, post, live, core } => {
                let node: BoxFuture<'static, ()> =
                    Box::pin(run_node(*remote, post, live, connections, deliver));
                let core = core.map(|core| -> BoxFuture<'static, ()> {
                    let (parts, drain) = *core;
                    Box::pin(run_process(parts, drain))
                });
                RoleTasks { endless: vec![("presence", node)], core }
            }
        }
    }
}
