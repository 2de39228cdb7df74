//! How a connection comes and goes: `welcome`, whether somebody uses the client, and the way to its end.

use madang_proto::CloseReason;

use super::Outbound;
use super::state::State;
use crate::gateway::delivery::encode::Frame;

/// How far a connection is on the way to its end. It only moves forward, in the order of the variants, and may skip some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// No close was asked for.
    Open,
    /// A drain has asked for a close. It waits for the requests in flight and for queued frames; deliveries and events go on.
    Draining,
    /// Another task has asked to close the connection now. No delivery and no event is for it any more, even if its task is still
    /// busy with a request (G5). Answers and pages of the task itself are still enqueued.
    CutOff(CloseReason),
    /// The close frame is enqueued. Later frames are dropped.
    Over,
    /// The socket is closed. Nothing waits and nothing is written any more.
    Gone,
}

impl Life {
    /// The life after a close for `reason` was asked for.
    pub(super) fn asked_to_close(self, reason: CloseReason) -> Self {
        match self {
            Self::Open if reason == CloseReason::Draining => Self::Draining,
            Self::Draining if reason == CloseReason::Draining => self,
            // Any other reason replaces a drain, and does not wait.
            Self::Open | Self::Draining => Self::CutOff(reason),
            // The first other reason stays.
            Self::CutOff(_) | Self::Over | Self::Gone => self,
        }
    }

    /// Whether live items and events may be enqueued.
    pub(super) const fn takes_deliveries(self) -> bool {
        matches!(self, Self::Open | Self::Draining)
    }

    /// Whether any frame may be enqueued.
    pub(super) const fn takes_frames(self) -> bool {
        matches!(self, Self::Open | Self::Draining | Self::CutOff(_))
    }
}

/// What is known of the client. It is independent of [`Life`]: presence counts a connection from `welcome` until the connection is
/// removed from the registry, also while a close is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// `welcome` was not sent. Events are dropped.
    Greeting,
    /// Somebody uses it.
    Active,
    /// The client has said that nobody uses it.
    Idle,
}

impl Client {
    pub(super) fn is_welcomed(self) -> bool {
        self != Self::Greeting
    }
}

impl State {
    /// The socket is closed, or the peer has gone.
    pub(super) fn go(&mut self) {
        self.queue.clear();
        self.settle();
        self.life = Life::Gone;
    }
}

impl Outbound {
    /// Accepts events from now on.
    pub(crate) fn welcome(&self) {
        let mut state = self.state.lock();
        if !state.client.is_welcomed() {
            state.client = Client::Active;
        }
    }

    /// Whether the client has said that nobody uses it. `None` before `welcome`.
    pub(crate) fn idle(&self) -> Option<bool> {
        match self.state.lock().client {
            Client::Greeting => None,
            Client::Active => Some(false),
            Client::Idle => Some(true),
        }
    }

    /// Sets whether nobody uses the client, as the client says. Before `welcome` it has no effect: the session lets no request
    /// through then.
    pub(crate) fn set_idle(&self, is_idle: bool) {
        let mut state = self.state.lock();
        if state.client.is_welcomed() {
            state.client = if is_idle { Client::Idle } else { Client::Active };
        }
    }

    /// Asks the connection's task to close the connection. A drain waits for the requests in flight and for queued frames.
    pub(crate) fn close(&self, reason: CloseReason) {
        {
            let mut state = self.state.lock();
            state.life = state.life.asked_to_close(reason);
        }
        self.wake.notify_one();
    }

    /// Whether the connection is on its way to its end.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().life != Life::Open
    }

    /// The reason for which the connection must be closed now, if any.
    pub(crate) fn close_due(&self) -> Option<CloseReason> {
        let state = self.state.lock();
        match state.life {
            Life::Draining if state.in_flight == 0 && state.queue.is_empty() => Some(CloseReason::Draining),
            Life::CutOff(reason) => Some(reason),
            Life::Open | Life::Draining | Life::Over | Life::Gone => None,
        }
    }

    /// Enqueues the close frame. Later frames are dropped.
    pub(crate) fn push_close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        if state.life.takes_frames() {
            state.push(Frame::close(reason));
            state.life = Life::Over;
        }
    }

    /// Ends the socket at once, even if other tasks still hold the connection.
    pub(crate) fn shut_down(&self) {
        self.state.lock().go();
        self.pipe.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMIT, Pair, frame, frames, place, said};
    use super::super::write::Written;
    use super::*;

    #[test]
    fn a_life_only_moves_forward_and_the_first_reason_but_a_drain_stays() {
        use CloseReason::{DeviceRevoked, Draining, Replaced};
        let cut_off = Life::CutOff(DeviceRevoked);
        for (life, reason, expected) in [
            (Life::Open, Draining, Life::Draining),
            (Life::Open, DeviceRevoked, cut_off),
            (Life::Draining, Draining, Life::Draining),
            (Life::Draining, DeviceRevoked, cut_off),
            (cut_off, Draining, cut_off),
            (cut_off, Replaced, cut_off),
            (Life::Over, Draining, Life::Over),
            (Life::Over, Replaced, Life::Over),
            (Life::Gone, Draining, Life::Gone),
            (Life::Gone, Replaced, Life::Gone),
        ] {
            assert_eq!(life.asked_to_close(reason), expected, "{life:?} and {reason:?}");
        }
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_requests_in_flight() {
        let mut pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::Draining);
        assert!(!pair.outbound.may_read(3, LIMIT));
        assert_eq!(pair.outbound.close_due(), None);
        pair.outbound.answer(frame("a"), 10);
        assert_eq!(pair.outbound.close_due(), None, "the answer waits");
        pair.written(&[&frame("a")]).await;
        assert_eq!(pair.outbound.close_due(), Some(CloseReason::Draining));
    }

    #[tokio::test]
    async fn a_draining_connection_still_receives_deliveries_and_events() {
        let mut pair = Pair::live().await;
        pair.outbound.welcome();
        pair.outbound.close(CloseReason::Draining);
        assert!(pair.outbound.is_closing());
        assert!(!pair.outbound.deliver(&frames("a"), place(4, 5), true, LIMIT));
        assert!(pair.outbound.offer(&frame("typing"), LIMIT));
        assert_eq!(pair.outbound.close_due(), None, "both wait");
        pair.written(&[&frame("a"), &frame("typing"), &said(5)]).await;
        assert_eq!(pair.outbound.close_due(), Some(CloseReason::Draining));
    }

    #[tokio::test]
    async fn a_drain_gives_way_to_a_revocation() {
        let pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::Draining);
        pair.outbound.close(CloseReason::DeviceRevoked);
        pair.outbound.close(CloseReason::Replaced);
        assert_eq!(pair.outbound.close_due(), Some(CloseReason::DeviceRevoked));
    }

    #[tokio::test]
    async fn a_revoked_connection_receives_nothing_more_even_with_a_request_in_flight() {
        let mut pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::DeviceRevoked);
        assert!(!pair.outbound.deliver(&frames("late"), place(4, 5), true, LIMIT));
        assert!(pair.outbound.offer(&frame("typing"), LIMIT));
        pair.outbound.push_close(CloseReason::DeviceRevoked);
        pair.written(&[&Frame::close(CloseReason::DeviceRevoked)]).await;
    }

    #[tokio::test]
    async fn the_answer_to_a_request_of_a_revoked_connection_is_still_written() {
        let mut pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::DeviceRevoked);
        pair.outbound.answer(frame("a"), 10);
        pair.outbound.push_close(CloseReason::DeviceRevoked);
        pair.written(&[&frame("a"), &Frame::close(CloseReason::DeviceRevoked)]).await;
    }

    #[tokio::test]
    async fn nothing_comes_behind_the_close_frame() {
        let mut pair = Pair::live().await;
        pair.outbound.push(frame("a"));
        pair.outbound.push_close(CloseReason::Replaced);
        assert!(!pair.outbound.deliver(&frames("b"), place(4, 5), true, LIMIT));
        pair.outbound.push(frame("c"));
        pair.outbound.push_close(CloseReason::Silent);
        pair.outbound.close(CloseReason::DeviceRevoked);
        assert_eq!(pair.outbound.close_due(), None, "it is being closed");
        pair.written(&[&frame("a"), &Frame::close(CloseReason::Replaced)]).await;
    }

    #[tokio::test]
    async fn a_connection_that_has_gone_takes_nothing() {
        let pair = Pair::live().await;
        pair.outbound.welcome();
        pair.outbound.push(frame("a"));
        pair.outbound.shut_down();
        assert!(!pair.outbound.deliver(&frames("b"), place(4, 5), true, LIMIT));
        assert!(pair.outbound.offer(&frame("typing"), LIMIT));
        pair.outbound.push(frame("c"));
        pair.outbound.push_close(CloseReason::Replaced);
        pair.outbound.close(CloseReason::Replaced);
        assert_eq!((pair.outbound.waiting_bytes(), pair.outbound.close_due()), (0, None));
        assert!(pair.outbound.is_closing() && !pair.outbound.may_read(3, LIMIT));
        assert_eq!(pair.outbound.write(&pair.metrics), Written::Gone);
    }

    #[tokio::test]
    async fn presence_counts_a_client_from_welcome_and_also_while_it_is_closed() {
        let pair = Pair::live().await;
        pair.outbound.set_idle(true);
        assert_eq!(pair.outbound.idle(), None);
        pair.outbound.welcome();
        assert_eq!(pair.outbound.idle(), Some(false));
        pair.outbound.set_idle(true);
        pair.outbound.welcome();
        pair.outbound.close(CloseReason::Replaced);
        assert_eq!(pair.outbound.idle(), Some(true));
        pair.outbound.set_idle(false);
        pair.outbound.shut_down();
        assert_eq!(pair.outbound.idle(), Some(false));
    }
}
