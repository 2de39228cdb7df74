//! Nodes that the next connection may use. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;

/// Time for which nodes are used. Their tickets are valid for 30 s; later the node would treat the socket as one without
/// a ticket, so the client asks again.
const LIFE: Duration = Duration::from_secs(25);

/// The nodes of one answer, the best first. Each is used once, because its ticket is.
#[derive(Debug, Default)]
pub(super) struct Route {
    nodes: VecDeque<Endpoint>,
    until: Option<Instant>,
}

impl Route {
    /// Replaces the nodes.
    pub(super) fn set(&mut self, nodes: Vec<Endpoint>, now: Instant) {
        (self.nodes, self.until) = (nodes.into(), Some(now + LIFE));
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Removes and returns the best node that was not used yet.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Endpoint> {
        self.until.filter(|until| now < *until)?;
        self.nodes.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_used_once_and_in_order_while_their_tickets_are_valid() {
        let node = |name: &str| Endpoint::parse(&format!("ws://{name}/v1/ws?ticket=x")).unwrap();
        let (now, mut route) = (Instant::now(), Route::default());
        assert_eq!(route.poll(now), None);
        route.set(vec![node("a"), node("b"), node("c")], now);
        assert_eq!(route.poll(now), Some(node("a")));
        assert_eq!(route.poll(now + LIFE / 2), Some(node("b")));
        assert_eq!(route.poll(now + LIFE), None, "the ticket may have expired");
        route.set(vec![node("d")], now + LIFE);
        assert_eq!(route.poll(now + LIFE), Some(node("d")));
        assert_eq!(route.poll(now + LIFE), None);
    }
}
