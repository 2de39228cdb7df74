//! `POST /v1/connect`: which node the client opens its socket on.

use madang_proto::rest::{Assignment, Connect, Waiting};
use reqwest::StatusCode;

use super::{Repeat, Rest, Result, decode};
use crate::endpoint::Endpoint;
use crate::error::ClientError;

/// Answer to [`Rest::connect`].
#[derive(Debug, Clone)]
pub enum Assigned {
    /// The nodes to open the socket on, the best first; at least one. Their tickets are valid for 30 s and once.
    Nodes(Vec<Endpoint>),
    /// The fleet is full: ask again after `retry_after_ms`.
    Wait(Waiting),
}

impl Rest {
    /// Asks for the node to open a socket on. A server that does not know the call is the only node itself.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn connect(&self, token: &str, region: Option<&str>) -> Result<Assigned> {
        let body = Connect { region: region.map(str::to_owned) };
        let call = self.http.post(self.url("/v1/connect")).bearer_auth(token).json(&body);
        let answer = self.answer(call, Repeat::Allowed).await?;
        let server = self.servers.endpoint(answer.server)?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Assigned::Nodes(vec![server]));
        }
        let assignment: Assignment = decode(&answer.accepted()?)?;
        let nodes = assignment.nodes.iter().filter_map(|node| server.join(&node.url).ok());
        let nodes: Vec<Endpoint> = nodes.collect();
        match assignment.wait {
            Some(wait) if nodes.is_empty() => Ok(Assigned::Wait(wait)),
            _ if nodes.is_empty() => Err(ClientError::Protocol("no node was assigned".into())),
            _ => Ok(Assigned::Nodes(nodes)),
        }
    }

    /// The server that answered last assigns nodes that cannot be reached: the next one is asked first.
    pub(crate) fn ask_another_server(&self) {
        self.servers.skip_first();
    }
}
