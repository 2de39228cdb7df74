//! Bodies of `POST /v1/connect`: which node a client connects to.

use madang_ids::Millis;
use serde::{Deserialize, Serialize};

/// `POST /v1/connect`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connect {
    /// The region of the client, at most 64 characters. Nodes of the same region come first. A region without nodes,
    /// and an absent one, prefers no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Answer to `POST /v1/connect`: nodes to connect to, or a place in the waiting line. Exactly one of the two is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assignment {
    /// The nodes to connect to, the best first: at most 3. Empty if the client must wait.
    #[serde(default)]
    pub nodes: Vec<AssignedNode>,
    /// The place in the waiting line; absent if `nodes` is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Waiting>,
}

/// A node to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AssignedNode {
    /// The address of the socket: `wss://…` or `ws://…`, or a path (`/v1/ws…`) on the server that was asked. It contains
    /// the ticket, so it must not be logged or changed.
    pub url: String,
    /// The time at which the ticket in `url` expires; absent if there is none. A ticket can be used once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
}

/// The place of a client in the waiting line of a full fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiting {
    /// Number of clients before this one, plus one.
    pub place: u64,
    /// Estimated milliseconds until a node accepts the client.
    pub estimate_ms: u64,
    /// Milliseconds to wait before the same call is repeated. A client that does not repeat it loses its place.
    pub retry_after_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn an_assignment_has_nodes_or_a_place() {
        let text = r#"{"nodes":[{"url":"wss://chat-1.example/v1/ws?ticket=x","expires_at":1800000030000}]}"#;
        let assignment: Assignment = json::read(text).unwrap();
        assert_eq!(assignment.nodes[0].expires_at, Some(Millis::new(1_800_000_030_000)));
        assert_eq!(serde_json::to_string(&assignment).unwrap(), text);
        let with_null: Assignment = json::read(&text.replace("]}", r#"],"wait":null}"#)).unwrap();
        assert_eq!(with_null, assignment);

        let text = r#"{"nodes":[],"wait":{"place":1203,"estimate_ms":8000,"retry_after_ms":2000}}"#;
        let full: Assignment = json::read(text).unwrap();
        assert_eq!(full.wait.map(|wait| (wait.place, wait.retry_after_ms)), Some((1203, 2000)));
        assert_eq!(serde_json::to_string(&full).unwrap(), text);
    }

    #[test]
    fn a_request_may_name_a_region() {
        assert_eq!(crate::rest::parse_body::<Connect>(b"{}").unwrap(), Connect::default());
        let connect: Connect = crate::rest::parse_body(br#"{"region":"eu"}"#).unwrap();
        assert_eq!(connect.region.as_deref(), Some("eu"));
        assert!(
            crate::rest::parse_body::<Connect>(br#"{"regon":"eu"}"#).is_err(),
            "a misspelt field is refused"
        );
    }
}
