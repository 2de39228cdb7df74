//! The presence that the program sets for its user. It is kept until the server has acknowledged it. The part that
//! holds for one connection only is sent again on each connection.

use madang_proto::{ClientFrame, Request, RequestId, SetPresence};

/// Presence that has not been acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Presence {
    wish: SetPresence,
    is_idle: Option<bool>,
    is_said: bool,
    number: u64,
}

impl Presence {
    /// Merges with what is still pending: for each field the later value wins.
    pub(super) fn put(&mut self, set: SetPresence) {
        self.is_idle = set.idle.or(self.is_idle);
        let wish = &mut self.wish;
        wish.idle = set.idle.or(wish.idle);
        wish.invisible = set.invisible.or(wish.invisible);
        wish.status = set.status.or(wish.status.take());
        self.is_said = false;
    }

    /// A new connection is open.
    pub(super) fn handle_connected(&mut self) {
        self.wish.idle = self.is_idle;
        self.is_said = false;
    }

    /// The request to send now, if there is one.
    pub(super) fn poll_say(&mut self) -> Option<Request> {
        if self.is_said || self.wish == SetPresence::default() {
            return None;
        }
        self.is_said = true;
        self.number += 1;
        Some(Request { id: Some(self.id()), frame: ClientFrame::Presence(self.wish.clone()) })
    }

    /// Handles the answer to a request. Returns whether it answers the last presence request; that is not sent again
    /// then.
    pub(super) fn handle_answer(&mut self, id: &RequestId) -> bool {
        let is_it = *id == self.id();
        if is_it && self.is_said {
            self.wish = SetPresence::default();
        }
        is_it
    }

    fn id(&self) -> RequestId {
        RequestId(format!("presence-{}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(presence: &mut Presence) -> Option<(RequestId, SetPresence)> {
        let request = presence.poll_say()?;
        let ClientFrame::Presence(set) = request.frame else { panic!("not presence") };
        Some((request.id.unwrap(), set))
    }

    #[test]
    fn unanswered_presence_is_sent_again() {
        let mut presence = Presence::default();
        assert_eq!(said(&mut presence), None);
        presence.put(SetPresence { invisible: Some(true), ..SetPresence::default() });
        let (first, _) = said(&mut presence).unwrap();
        assert_eq!(said(&mut presence), None);
        presence.put(SetPresence { idle: Some(true), status: Some("tea".into()), ..SetPresence::default() });
        let all = SetPresence { idle: Some(true), invisible: Some(true), status: Some("tea".into()) };
        let (second, set) = said(&mut presence).unwrap();
        assert_eq!(set, all);
        assert!(!presence.handle_answer(&first));
        presence.handle_connected();
        let (third, set) = said(&mut presence).unwrap();
        assert_eq!((set, presence.handle_answer(&second)), (all, false));
        assert!(presence.handle_answer(&third));
        presence.handle_connected();
        let idle = SetPresence { idle: Some(true), ..SetPresence::default() };
        assert_eq!(said(&mut presence).map(|(_, set)| set), Some(idle));
    }
}
