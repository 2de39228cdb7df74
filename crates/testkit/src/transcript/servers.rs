//! The servers that a transcript talks to: a node in this process, or the nodes of a fleet.

use std::net::SocketAddr;
use std::time::Duration;

use madang_chat_server::config::Config;
use madang_service::{Clock, ManualClock};

use super::Target;
#[cfg(feature = "fleet")]
use crate::fleet::FleetNodes;
use crate::node::{Storage, TestNode};

/// What a transcript does to servers.
pub(super) enum Servers {
    Node(Box<OneNode>),
    #[cfg(feature = "fleet")]
    Fleet(FleetNodes),
}

/// A node, its store and its clock.
pub(super) struct OneNode {
    config: Config,
    storage: Storage,
    clock: Clock,
    hand: ManualClock,
    node: Option<TestNode>,
}

impl Servers {
    pub(super) async fn start(
        config: Config,
        target: &Target,
        (clock, hand): (Clock, ManualClock),
    ) -> anyhow::Result<Self> {
        let storage = match target {
            Target::Model => Storage::model(),
            Target::TwoHomes => Storage::model_with_two_homes(),
            Target::Embedded => Storage::embedded(),
            #[cfg(feature = "fleet")]
            Target::Fleet(place) => {
                let mut config = config;
                // The same as in other tests of processes.
                config.heat.enabled = false;
                return Ok(Self::Fleet(FleetNodes::start(place, config, 2).await?));
            }
        };
        let node = Some(TestNode::start_asking(config.clone(), &storage, clock.clone()).await?);
        Ok(Self::Node(Box::new(OneNode { config, storage, clock, hand, node })))
    }

    /// The address for the next call or socket. In a fleet it is each time that of another node.
    pub(super) fn addr(&mut self) -> Result<SocketAddr, String> {
        match self {
            Self::Node(one) => {
                one.node.as_ref().map(|node| node.addr).ok_or_else(|| "there is no node".into())
            }
            #[cfg(feature = "fleet")]
            Self::Fleet(fleet) => Ok(fleet.next_addr()),
        }
    }

    /// The same as a URL.
    pub(super) fn url(&mut self) -> Result<String, String> {
        self.addr().map(|addr| format!("http://{addr}"))
    }

    /// Lets time pass.
    pub(super) async fn pass(&self, by: Duration) {
        match self {
            Self::Node(one) => one.hand.advance(by),
            #[cfg(feature = "fleet")]
            // waits for: the time of the transcript, which processes only have for real
            Self::Fleet(_) => tokio::time::sleep(by).await,
        }
    }

    pub(super) fn drain(&self) -> Result<(), String> {
        match self {
            Self::Node(one) => one.node.as_ref().ok_or("there is no node")?.drain.begin(),
            #[cfg(feature = "fleet")]
            Self::Fleet(fleet) => fleet.drain().map_err(explain)?,
        }
        Ok(())
    }

    /// Ends the servers abruptly and starts others over the same store.
    pub(super) async fn restart(&mut self) -> Result<(), String> {
        match self {
            Self::Node(one) => {
                if let Some(node) = one.node.take() {
                    node.stop().await.map_err(explain)?;
                }
                let node = TestNode::start_asking(one.config.clone(), &one.storage, one.clock.clone()).await;
                one.node = Some(node.map_err(explain)?);
                Ok(())
            }
            #[cfg(feature = "fleet")]
            Self::Fleet(fleet) => fleet.restart().await.map_err(explain),
        }
    }

    pub(super) async fn stop(self) -> Result<(), String> {
        match self {
            Self::Node(one) => match one.node {
                Some(node) => node.stop().await.map_err(explain),
                None => Ok(()),
            },
            #[cfg(feature = "fleet")]
            Self::Fleet(fleet) => fleet.stop().await.map_err(explain),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn explain(error: anyhow::Error) -> String {
    format!("{error:#}")
}
