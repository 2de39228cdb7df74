//! From no connection to `welcome`: asks which nodes accept this client, and opens a socket on the first that answers.

use std::time::Duration;

use madang_proto::rest::Waiting;
use madang_proto::{CloseReason, Welcome};

use super::Driver;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::event::Event;
use crate::rest::Assigned;

/// How an attempt to connect ended.
pub(super) enum Arrival {
    /// A node accepted this device.
    Welcome(Box<Arrived>),
    /// All nodes are full.
    Full(Waiting),
}

/// A socket after `welcome`.
pub(super) struct Arrived {
    pub(super) connection: Connection,
    pub(super) welcome: Welcome,
    /// Where the socket was opened. Paths in `reconnect` belong to it.
    pub(super) node: Endpoint,
}

impl Driver {
    /// Tries the nodes that a `reconnect` frame named. If there are none, or none can be reached, asks for others. So a
    /// node that died is tried again only if an answer names it again.
    pub(super) async fn arrive(&mut self) -> Result<Arrival, ClientError> {
        match self.try_nodes().await {
            Ok(Some(arrived)) => return Ok(Arrival::Welcome(Box::new(arrived))),
            Ok(None) => {}
            Err(error) if is_of_node(&error) => {}
            Err(error) => return Err(error),
        }
        match self.rest.connect(&self.tokens.access, self.region.as_deref()).await? {
            Assigned::Wait(waiting) => return Ok(Arrival::Full(waiting)),
            Assigned::Nodes(nodes) => self.route.set(nodes, Self::now()),
        }
        match self.try_nodes().await {
            Ok(Some(arrived)) => Ok(Arrival::Welcome(Box::new(arrived))),
            Ok(None) => Err(ClientError::Protocol("the tickets expired before a node answered".into())),
            Err(error) => {
                if is_of_node(&error) {
                    self.rest.ask_another_server();
                }
                Err(error)
            }
        }
    }

    /// The first node of the route that welcomes this device; `None` if the route is empty. The error is that of the
    /// last node, or one that another node would not help against.
    async fn try_nodes(&mut self) -> Result<Option<Arrived>, ClientError> {
        let mut failed = None;
        while let Some(node) = self.route.poll(Self::now()) {
            match self.greet(node).await {
                Ok(arrived) => {
                    self.route.clear();
                    return Ok(Some(arrived));
                }
                Err(error) if is_of_node(&error) => failed = Some(error),
                Err(error) => {
                    self.route.clear();
                    return Err(error);
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn greet(&self, node: Endpoint) -> Result<Arrived, ClientError> {
        let mut connection = Connection::open(&node, &self.socket).await?;
        let welcome = connection.hello(&self.tokens.access, self.received.cursor()).await?;
        Ok(Arrived { connection, welcome, node })
    }

    /// Keeps the nodes that a `reconnect` frame names for the next connection. Those that are no addresses are left out.
    pub(super) fn follow(&mut self, present: &Endpoint, urls: &[String]) {
        let nodes = urls.iter().filter_map(|url| present.join(url).ok()).collect();
        self.route.set(nodes, Self::now());
    }

    /// Reports the place in the waiting line. Returns the wait before the next question.
    pub(super) async fn wait_in_line(&mut self, waiting: Waiting) -> Duration {
        let ask_in = Duration::from_millis(waiting.retry_after_ms).min(self.backoff.cap());
        let estimate = Duration::from_millis(waiting.estimate_ms);
        self.emit(Event::Waiting { place: waiting.place, estimate, ask_in }).await;
        ask_in
    }
}

/// Whether another node may succeed where this one failed.
const fn is_of_node(error: &ClientError) -> bool {
    match error {
        ClientError::Connect(_) | ClientError::Timeout(_) | ClientError::Socket(_) => true,
        ClientError::Closed { code, .. } => {
            CloseReason::may_reconnect(*code) && *code != CloseReason::TokenExpired.code()
        }
        _ => false,
    }
}
