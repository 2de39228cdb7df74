//! How devices and calls reach the servers: one server directly, or the nodes of a fleet, as `POST /v1/connect` says.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::bail;
use madang_client::{Assigned, ClientError, Connection, Endpoint, Rest, SocketOptions, Trust};
use tokio::time::sleep;

use crate::args::Replay;
use crate::fleet::Fleet;

/// Time limit for each attempt of a call. In a fleet a silent node must not use up the patience of the run.
const CALL: Duration = Duration::from_secs(30);
const CALL_IN_FLEET: Duration = Duration::from_secs(10);

/// The servers of a run.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// One caller for each address. Each begins with another address, so that calls are spread.
    rests: Vec<Rest>,
    /// The same of the addresses that assign nodes to devices, if they are others.
    connectors: Option<Vec<Rest>>,
    /// The only server; `None` in a fleet, where devices ask for a node.
    direct: Option<Endpoint>,
    is_loopback: bool,
    pub(crate) trust: Trust,
}

impl Reach {
    /// The servers that the command line names.
    pub(crate) fn new(args: &Replay, fleet: Option<&Fleet>) -> anyhow::Result<Self> {
        let trust = match &args.root_cert {
            Some(path) => Trust::with_root_file(path)?,
            None => Trust::default(),
        };
        let urls = match fleet {
            Some(fleet) => fleet.calls()?,
            None if args.is_fleet() => args.connect.clone(),
            None => vec![args.url.clone()],
        };
        let endpoints = urls.iter().map(|url| Endpoint::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let connectors = fleet.map(|fleet| callers(fleet.connect(), CALL_IN_FLEET, &trust)).transpose()?;
        let limit = if args.is_fleet() { CALL_IN_FLEET } else { CALL };
        Ok(Self {
            rests: callers(&urls, limit, &trust)?,
            connectors,
            is_loopback: endpoints.iter().all(Endpoint::is_loopback_v4),
            direct: endpoints.into_iter().next().filter(|_| !args.is_fleet()),
            trust,
        })
    }

    /// The caller with this number; any number will do.
    pub(crate) fn rest(&self, number: u64) -> &Rest {
        at(&self.rests, number)
    }

    /// Callers that each begin with another server.
    pub(crate) fn rests(&self) -> &[Rest] {
        &self.rests
    }

    pub(crate) const fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// Fails unless a server accepts work.
    pub(crate) async fn check_ready(&self) -> anyhow::Result<()> {
        for rest in &self.rests {
            if rest.is_ready().await {
                return Ok(());
            }
        }
        bail!("no server of the fleet is ready")
    }

    /// Opens a socket on the first node that can be reached: of the nodes that a `reconnect` frame named, or else of
    /// those that a server names. Waits in line while the fleet is full.
    pub(crate) async fn open(
        &self,
        number: u64,
        token: &str,
        socket: &SocketOptions,
        named: &mut VecDeque<Endpoint>,
    ) -> Result<(Connection, Endpoint), ClientError> {
        if let Some(endpoint) = &self.direct {
            return Ok((Connection::open(endpoint, socket).await?, endpoint.clone()));
        }
        while let Some(node) = named.pop_front() {
            if let Ok(connection) = Connection::open(&node, socket).await {
                return Ok((connection, node));
            }
        }
        let nodes = loop {
            match at(self.connectors.as_ref().unwrap_or(&self.rests), number).connect(token, None).await? {
                Assigned::Nodes(nodes) => break nodes,
                Assigned::Wait(waiting) => sleep(Duration::from_millis(waiting.retry_after_ms)).await,
            }
        };
        let mut failed = None;
        for node in nodes {
            match Connection::open(&node, socket).await {
                Ok(connection) => return Ok((connection, node)),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| ClientError::Protocol("no node was assigned".into())))
    }
}

/// A caller that begins with each of these addresses.
fn callers(urls: &[String], limit: Duration, trust: &Trust) -> Result<Vec<Rest>, ClientError> {
    let rotated = |first: usize| -> Vec<&String> { urls[first..].iter().chain(&urls[..first]).collect() };
    (0..urls.len()).map(|first| Rest::with_servers(&rotated(first), limit, trust)).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "only the remainder matters")]
fn at(callers: &[Rest], number: u64) -> &Rest {
    &callers[number as usize % callers.len()]
}
