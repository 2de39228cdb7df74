//! A session driven by a script. The first byte of each line names the event.

use std::time::Duration;

use madang_engine::session::{Identity, Now, Session, SessionConfig, Step};
use madang_ids::{DeviceId, Millis, UserId};
use madang_proto::{ClientFrame, CloseReason, ErrorCode, ServerFrame};

const START: Millis = Millis::new(1_800_000_000_000);
const CONFIG: fn() -> SessionConfig = SessionConfig::default;

/// A session, and the state that it must have according to the events so far.
struct Script {
    session: Session,
    elapsed: Duration,
    is_verifying: bool,
    identity: Option<Identity>,
}

/// `t…` a text frame · `b` a binary frame · `v` the token is valid · `x` it is not · `r` a renewed token, `R` one of
/// another user · `w` and one byte: time passes.
pub(crate) fn check(data: &[u8]) {
    let session = Session::new(&CONFIG(), Now { at: START, elapsed: Duration::ZERO });
    let mut script = Script { session, elapsed: Duration::ZERO, is_verifying: false, identity: None };
    for line in data.split(|&byte| byte == b'\n') {
        match line {
            [b't', text @ ..] => script.text(&String::from_utf8_lossy(text)),
            [b'b', ..] => assert!(!matches!(script.binary(), Step::Run { .. } | Step::Verify { .. })),
            [b'v', ..] => script.verified(),
            [b'x', ..] => script.refused(),
            [b'r', ..] => script.renewed(1),
            [b'R', ..] => script.renewed(2),
            [b'w', byte, ..] if script.wait(*byte) => return,
            _ => {}
        }
    }
}

impl Script {
    fn now(&self) -> Now {
        let wall = START.plus(u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX));
        Now { at: wall, elapsed: self.elapsed }
    }

    fn text(&mut self, text: &str) {
        let (now, was_open) = (self.now(), self.identity);
        match self.session.handle_text(&CONFIG(), text, now) {
            Step::Verify { .. } => {
                assert!(was_open.is_none() && !self.is_verifying, "only the first hello is verified");
                self.is_verifying = true;
            }
            Step::Run { identity, id, frame } => {
                assert_eq!(Some(identity), was_open, "only a verified user is served");
                assert!(!matches!(frame, ClientFrame::Hello(_) | ClientFrame::Heartbeat));
                assert!(id.is_some() || matches!(frame, ClientFrame::Received { .. }));
                assert!(identity.expires_at > now.at || matches!(frame, ClientFrame::Auth { .. }));
            }
            Step::Answer(frame) => match *frame {
                ServerFrame::Heartbeat { at } => assert_eq!(at, now.at),
                ServerFrame::Error { error, .. } if error.code == ErrorCode::Limited => {
                    assert!(error.retry_after_ms.is_some_and(|wait| wait > 0));
                }
                ServerFrame::Error { error, .. } => {
                    assert!(error.field.is_some() || error.code == ErrorCode::Unauthorized, "{error:?}");
                }
                frame => panic!("unexpected frame of a session: {frame:?}"),
            },
            Step::Wait | Step::Close(_) => panic!("a text is answered"),
        }
        assert_eq!(self.session.identity(), was_open);
    }

    fn binary(&mut self) -> Step {
        let now = self.now();
        self.session.handle_binary(&CONFIG(), now)
    }

    fn identity(&self, device: u64) -> Identity {
        let (user_id, device_id) = (UserId::from_raw(1), DeviceId::from_raw(device));
        Identity { user_id, device_id, expires_at: self.now().at.plus(90_000) }
    }

    fn verified(&mut self) {
        let identity = self.identity(1);
        let opening = self.session.handle_verified(Some(identity));
        assert_eq!(opening.is_some(), self.is_verifying);
        if opening.is_some() {
            self.identity = Some(identity);
        }
        self.is_verifying = false;
        assert_eq!(self.session.identity(), self.identity, "an open session stays open");
    }

    fn refused(&mut self) {
        self.session.handle_refused();
        self.is_verifying = false;
        assert_eq!(self.session.identity(), self.identity);
    }

    fn renewed(&mut self, device: u64) {
        let identity = self.identity(device);
        let is_taken = self.session.handle_renewed(identity);
        assert_eq!(is_taken, self.identity.is_some() && device == 1);
        if is_taken {
            let later = self.identity.map_or(identity, |known| known).expires_at.max(identity.expires_at);
            self.identity = Some(madang_engine::session::Identity { expires_at: later, ..identity });
        }
    }

    /// Advances the time; returns `true` if the session ends. It must end at the time that it announced, not before,
    /// and for a valid reason.
    fn wait(&mut self, byte: u8) -> bool {
        let look_at = self.session.look_at(&CONFIG(), self.now());
        self.elapsed += Duration::from_millis(u64::from(byte).pow(2));
        let due = self.session.handle_tick(&CONFIG(), self.now());
        assert_eq!(due.is_some(), self.elapsed >= look_at, "{due:?} at {:?}, not {look_at:?}", self.elapsed);
        match due {
            None => {}
            Some(CloseReason::HelloTimeout) => assert!(self.identity.is_none()),
            Some(CloseReason::Silent) => assert!(self.identity.is_some()),
            Some(CloseReason::TokenExpired) => {
                assert!(self.identity.is_some_and(|identity| identity.expires_at < self.now().at));
            }
            Some(reason) => panic!("a session does not end for {reason:?}"),
        }
        due.is_some()
    }
}
