//! The protocol of one connection: its identity, the requests that are valid now, and its silence.
//!
//! Pure: texts and ticks go in, one [`Step`] comes out. Deliveries are the matter of [`crate::sync`].

use std::time::Duration;

use madang_ids::{DeviceId, Millis, SealedCursor, UserId};
use madang_proto::{ClientFrame, CloseReason, ErrorBody, ErrorCode, Request, RequestId, ServerFrame, limits};

use crate::bucket::{Bucket, Rate};
pub use crate::now::Now;
use crate::{body, emoji};

/// Refusals in a row, in bursts, after which the socket is not read for a while.
const REFUSED_BURSTS: u32 = 20;

/// The limits of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Frames of any type.
    pub frames: Rate,
    /// Messages.
    pub sends: Rate,
    /// The longest silence of a client. A heartbeat, or any other frame, ends the silence.
    pub silence_ms: u64,
    /// The time for which a session outlives its token.
    pub token_grace_ms: u64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            frames: Rate { per_second: 50, burst: 500 },
            sends: Rate { per_second: 20, burst: 200 },
            silence_ms: 25_000,
            token_grace_ms: 60_000,
        }
    }
}

/// The content of a verified token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The signed-in user.
    pub user_id: UserId,
    /// The device of the connection.
    pub device_id: DeviceId,
    /// The end of the token.
    pub expires_at: Millis,
}

/// The next action of the shell.
#[derive(Debug)]
pub enum Step {
    /// Do nothing.
    Wait,
    /// Send this frame.
    Answer(Box<ServerFrame<'static>>),
    /// Verify the token of `hello`, then call [`Session::handle_verified`].
    Verify {
        /// The token.
        token: String,
    },
    /// Carry out a request of `identity`; the answer repeats `id`.
    Run {
        /// The identity of the connection.
        identity: Identity,
        /// The id of the request, which the client chose.
        id: Option<RequestId>,
        /// The request: never `hello`, `heartbeat`.
        frame: ClientFrame,
    },
    /// Send the reason, then close.
    Close(CloseReason),
}

/// A session that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The id of the `hello`.
    pub id: Option<RequestId>,
    /// The identity of the connection.
    pub identity: Identity,
    /// The cursor that the device sent.
    pub cursor: Option<SealedCursor>,
}

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// By the steady clock.
    heard_at: Duration,
    frames: Bucket,
    sends: Bucket,
    /// Texts refused as `limited` since the last one that was accepted, by weight.
    refused: u32,
    /// The socket is not read before this time: the peer ignores its limit.
    paused_until: Duration,
}

#[derive(Debug)]
enum Phase {
    AwaitingHello,
    Verifying(Box<(Option<RequestId>, Option<SealedCursor>)>),
    Open(Identity),
}

impl Session {
    /// A connection was accepted.
    #[must_use]
    pub fn new(config: &SessionConfig, now: Now) -> Self {
        Self {
            phase: Phase::AwaitingHello,
            heard_at: now.elapsed,
            frames: Bucket::full(config.frames, now.elapsed),
            sends: Bucket::full(config.sends, now.elapsed),
            refused: 0,
            paused_until: Duration::ZERO,
        }
    }

    /// The identity, once it is verified.
    #[must_use]
    pub const fn identity(&self) -> Option<Identity> {
        match &self.phase {
            Phase::Open(identity) => Some(*identity),
            _ => None,
        }
    }

    /// A text frame came.
    pub fn handle_text(&mut self, config: &SessionConfig, text: &str, now: Now) -> Step {
        self.heard_at = self.heard_at.max(now.elapsed);
        if let Err(retry_after_ms) = self.frames.take(config.frames, 1, now.elapsed) {
            // Each refusal is answered, and a large text costs more to refuse; a peer that ignores refusals is slowed down.
            let weight = u32::try_from(text.len() / 1024).unwrap_or(u32::MAX).saturating_add(1);
            self.refused = self.refused.saturating_add(weight);
            if self.refused >= config.frames.burst.saturating_mul(REFUSED_BURSTS) {
                self.refused = 0;
                self.pause(retry_after_ms, now);
            }
            let id = Request::parse(text).ok().and_then(|request| request.id);
            let Rate { per_second, burst } = config.frames;
            let message =
                format!("more than {per_second} frames a second (burst {burst}) on this connection");
            return refuse(id, ErrorBody::limited(message, retry_after_ms));
        }
        self.refused = 0;
        match Request::parse(text) {
            Ok(Request { id, frame }) => self.handle_frame(config, id, frame, now),
            Err(refused) => refuse(refused.id, refused.error),
        }
    }

    fn handle_frame(
        &mut self,
        config: &SessionConfig,
        id: Option<RequestId>,
        frame: ClientFrame,
        now: Now,
    ) -> Step {
        match (&self.phase, frame) {
            (Phase::AwaitingHello, ClientFrame::Hello(hello)) => {
                self.phase = Phase::Verifying(Box::new((id, hello.cursor)));
                Step::Verify { token: hello.token }
            }
            (_, ClientFrame::Hello(_)) => refuse(
                id,
                ErrorBody::invalid("type", "duplicate hello: this connection is already authenticated"),
            ),
            (_, ClientFrame::Heartbeat) => Step::Answer(Box::new(ServerFrame::Heartbeat { at: now.at })),
            (Phase::AwaitingHello | Phase::Verifying(_), _) => refuse(
                id,
                ErrorBody::invalid(
                    "type",
                    "the first frame must be hello; send other requests after \
                     welcome",
                ),
            ),
            (Phase::Open(identity), frame) => {
                let identity = *identity;
                match self.check(config, &id, &frame, identity, now) {
                    Ok(()) => Step::Run { identity, id, frame },
                    Err(error) => refuse(id, error),
                }
            }
        }
    }

    fn check(
        &mut self,
        config: &SessionConfig,
        id: &Option<RequestId>,
        frame: &ClientFrame,
        identity: Identity,
        now: Now,
    ) -> Result<(), ErrorBody> {
        if identity.expires_at <= now.at && !matches!(frame, ClientFrame::Auth { .. }) {
            let error = "the token has expired; send auth with a new token within 60 s of the expiry";
            return Err(ErrorBody::new(ErrorCode::Unauthorized, error));
        }
        let wants_id = !matches!(frame, ClientFrame::Received { .. } | ClientFrame::Typing { .. });
        if wants_id && id.is_none() {
            return Err(ErrorBody::invalid("id", "id is missing: the answer to this request repeats it"));
        }
        match frame {
            ClientFrame::Send(send) => body::check(&send.body)?,
            ClientFrame::Edit(edit) => body::check(&edit.body)?,
            ClientFrame::React { emoji, .. } => emoji::canonical(emoji).map(drop)?,
            ClientFrame::Delete { .. } => {}
            _ => return Ok(()),
        }
        let Rate { per_second, burst } = config.sends;
        self.sends.take(config.sends, 1, now.elapsed).map_err(|retry_after_ms| {
            let message =
                format!("more than {per_second} messages a second (burst {burst}) on this connection");
            ErrorBody::limited(message, retry_after_ms)
        })
    }

    /// A binary frame came. It counts as a frame; beyond the limit it is not even answered.
    #[must_use]
    pub fn handle_binary(&mut self, config: &SessionConfig, now: Now) -> Step {
        if self.frames.take(config.frames, 1, now.elapsed).is_err() {
            return Step::Wait;
        }
        refuse(None, ErrorBody::invalid("frame", "binary frame: madang.v1.json supports text frames only"))
    }

    /// `count` frames came that are no messages of their own: pings, pongs, and fragments. They count as frames; beyond the
    /// limit the socket is not read for a while.
    pub fn handle_other_frames(&mut self, config: &SessionConfig, count: u32, now: Now) {
        if count > 0
            && let Err(wait_ms) = self.frames.take(config.frames, count, now.elapsed)
        {
            self.pause(wait_ms, now);
        }
    }

    fn pause(&mut self, wait_ms: u64, now: Now) {
        self.paused_until = now.elapsed + Duration::from_millis(wait_ms);
    }

    /// Whether the socket is not to be read now.
    #[must_use]
    pub fn is_paused(&self, now: Now) -> bool {
        self.paused_until(now).is_some()
    }

    /// The steady time before which the socket is not read.
    #[must_use]
    pub fn paused_until(&self, now: Now) -> Option<Duration> {
        Some(self.paused_until).filter(|&until| now.elapsed < until)
    }

    /// The token of `hello` was verified. `None` means that the session must be closed as unauthorized.
    pub fn handle_verified(&mut self, identity: Option<Identity>) -> Option<Opening> {
        match std::mem::replace(&mut self.phase, Phase::AwaitingHello) {
            Phase::Verifying(hello) => {
                let identity = identity?;
                self.phase = Phase::Open(identity);
                Some(Opening { id: hello.0, identity, cursor: hello.1 })
            }
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// The token of `hello` was refused, and the session must be closed. Returns the request's id for the answer.
    pub fn handle_refused(&mut self) -> Option<RequestId> {
        match std::mem::replace(&mut self.phase, Phase::AwaitingHello) {
            Phase::Verifying(hello) => hello.0,
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// A token in `auth` was verified. `false` if it names another user or device. Of two tokens the one that ends later
    /// counts: a client that sends an older one again must not shorten its session.
    pub fn handle_renewed(&mut self, renewed: Identity) -> bool {
        let Phase::Open(identity) = &mut self.phase else { return false };
        let is_same = identity.user_id == renewed.user_id && identity.device_id == renewed.device_id;
        if is_same {
            identity.expires_at = identity.expires_at.max(renewed.expires_at);
        }
        is_same
    }

    /// The steady time at which [`Self::handle_tick`] must be called again, unless a frame comes before.
    #[must_use]
    pub fn look_at(&self, config: &SessionConfig, now: Now) -> Duration {
        let silent_at = self.heard_at + self.patience(config);
        match &self.phase {
            Phase::AwaitingHello | Phase::Verifying(_) => silent_at,
            Phase::Open(identity) => {
                let left_ms = ends_at(identity, config).get().saturating_sub(now.at.get());
                silent_at.min(now.elapsed + Duration::from_millis(left_ms))
            }
        }
    }

    /// Time has passed. Called about once a second.
    #[must_use]
    pub fn handle_tick(&self, config: &SessionConfig, now: Now) -> Option<CloseReason> {
        let is_silent = now.elapsed >= self.heard_at + self.patience(config);
        match &self.phase {
            Phase::AwaitingHello | Phase::Verifying(_) => is_silent.then_some(CloseReason::HelloTimeout),
            Phase::Open(identity) if ends_at(identity, config) <= now.at => Some(CloseReason::TokenExpired),
            Phase::Open(_) => is_silent.then_some(CloseReason::Silent),
        }
    }

    const fn patience(&self, config: &SessionConfig) -> Duration {
        match &self.phase {
            Phase::AwaitingHello | Phase::Verifying(_) => Duration::from_secs(limits::HELLO_SECONDS),
            Phase::Open(_) => Duration::from_millis(config.silence_ms),
        }
    }
}

const fn ends_at(identity: &Identity, config: &SessionConfig) -> Millis {
    identity.expires_at.plus(config.token_grace_ms)
}

fn refuse(id: Option<RequestId>, error: ErrorBody) -> Step {
    Step::Answer(Box::new(ServerFrame::Error { id, error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SessionConfig = SessionConfig {
        frames: Rate { per_second: 50, burst: 500 },
        sends: Rate { per_second: 20, burst: 200 },
        silence_ms: 25_000,
        token_grace_ms: 60_000,
    };

    fn wall(ms: u64) -> Millis {
        Millis::new(1_000_000 + ms)
    }

    fn at(ms: u64) -> Now {
        Now { at: wall(ms), elapsed: Duration::from_millis(ms) }
    }

    fn identity() -> Identity {
        Identity { user_id: UserId::from_raw(1), device_id: DeviceId::from_raw(2), expires_at: wall(100_000) }
    }

    fn open() -> Session {
        let mut session = Session::new(&CONFIG, at(0));
        let step = session.handle_text(&CONFIG, r#"{"type":"hello","id":"1","token":"t"}"#, at(0));
        assert!(matches!(step, Step::Verify { token } if token == "t"));
        session.handle_verified(Some(identity())).expect("it was verified");
        session
    }

    fn refused(step: Step) -> ErrorBody {
        match step {
            Step::Answer(frame) => match *frame {
                ServerFrame::Error { error, .. } => error,
                other => panic!("not an error: {other:?}"),
            },
            other => panic!("not an answer: {other:?}"),
        }
    }

    #[test]
    fn hello_comes_first_and_once() {
        let mut session = Session::new(&CONFIG, at(0));
        let early = r#"{"type":"read","id":"1","channel_id":"9","seq":1}"#;
        assert_eq!(refused(session.handle_text(&CONFIG, early, at(0))).field.as_deref(), Some("type"));
        let mut session = open();
        let again = r#"{"type":"hello","id":"2","token":"t"}"#;
        assert_eq!(refused(session.handle_text(&CONFIG, again, at(1))).field.as_deref(), Some("type"));
        assert!(session.identity().is_some());
    }

    #[test]
    fn pings_and_fragments_count_as_frames_and_pause_reading() {
        let mut session = open();
        session.handle_other_frames(&CONFIG, 499, at(0));
        assert!(!session.is_paused(at(0)));
        session.handle_other_frames(&CONFIG, 10_000, at(0));
        assert!(session.is_paused(at(0)));
        assert_eq!(
            session.paused_until(at(0)),
            Some(Duration::from_secs(10)),
            "a burst is refilled in ten seconds"
        );
        assert!(!session.is_paused(at(10_000)));
    }

    #[test]
    fn a_peer_that_ignores_refusals_is_not_read_for_a_while() {
        let mut session = open();
        let heartbeat = r#"{"type":"heartbeat"}"#;
        let mut count = 0;
        while !session.is_paused(at(0)) {
            session.handle_text(&CONFIG, heartbeat, at(0));
            count += 1;
        }
        // The burst, of which hello was one, and twenty bursts of refusals.
        assert_eq!(count, 10_499);
        assert_eq!(session.paused_until(at(0)), Some(Duration::from_millis(2_500)));
    }

    #[test]
    fn an_open_session_stays_open_whatever_is_verified_again() {
        let mut session = open();
        assert_eq!(session.handle_verified(Some(identity())), None);
        assert_eq!(session.handle_verified(None), None);
        assert_eq!(session.identity(), Some(identity()));
    }

    #[test]
    fn silence_is_noticed_in_every_phase() {
        let session = Session::new(&CONFIG, at(0));
        assert_eq!(session.handle_tick(&CONFIG, at(9_999)), None);
        assert_eq!(session.handle_tick(&CONFIG, at(10_000)), Some(CloseReason::HelloTimeout));
        let mut session = open();
        assert_eq!(session.handle_tick(&CONFIG, at(24_999)), None);
        session.handle_text(&CONFIG, r#"{"type":"heartbeat"}"#, at(24_999));
        assert_eq!(session.handle_tick(&CONFIG, at(30_000)), None);
        assert_eq!(session.handle_tick(&CONFIG, at(49_999)), Some(CloseReason::Silent));
    }

    #[test]
    fn a_clock_that_is_set_closes_and_limits_nobody() {
        let mut session = open();
        let heartbeat = r#"{"type":"heartbeat"}"#;
        for second in 1..2_000 {
            // The wall's clock stands still, as one does that was set back.
            let now = Now { at: wall(0), elapsed: Duration::from_secs(second) };
            let step = session.handle_text(&CONFIG, heartbeat, now);
            assert!(matches!(step, Step::Answer(frame) if matches!(*frame, ServerFrame::Heartbeat { .. })));
            assert_eq!(session.handle_tick(&CONFIG, now), None);
        }
        let leap = Now { at: wall(99_999), elapsed: Duration::from_secs(2_000) };
        assert_eq!(session.handle_tick(&CONFIG, leap), None);
        assert_eq!(session.look_at(&CONFIG, leap), Duration::from_millis(2_000_000 + 24_000));
    }

    #[test]
    fn an_ended_token_can_be_renewed_for_a_minute() {
        let mut session = open();
        let read = r#"{"type":"read","id":"1","channel_id":"9","seq":1}"#;
        assert_eq!(refused(session.handle_text(&CONFIG, read, at(100_000))).code, ErrorCode::Unauthorized);
        let auth = r#"{"type":"auth","id":"1","token":"new"}"#;
        assert!(matches!(session.handle_text(&CONFIG, auth, at(150_000)), Step::Run { .. }));
        assert!(!session.handle_renewed(Identity { device_id: DeviceId::from_raw(3), ..identity() }));
        assert!(session.handle_renewed(Identity { expires_at: wall(900_000), ..identity() }));
        assert!(session.handle_renewed(Identity { expires_at: wall(200_000), ..identity() }));
        assert_eq!(session.identity().map(|identity| identity.expires_at), Some(wall(900_000)));
        assert_eq!(session.handle_tick(&CONFIG, at(160_001)), None);
    }

    #[test]
    fn too_many_sends_are_refused_with_a_time() {
        let mut session = open();
        let send = r#"{"type":"send","id":"1","channel_id":"9","client_msg_id":"01920000-0000-7000-8000-000000000001","body":{"text":"x"}}"#;
        for _ in 0..200 {
            assert!(matches!(session.handle_text(&CONFIG, send, at(0)), Step::Run { .. }));
        }
        let error = refused(session.handle_text(&CONFIG, send, at(0)));
        assert_eq!((error.code, error.retryable), (ErrorCode::Limited, true));
        assert!(error.retry_after_ms.is_some_and(|wait| wait > 0));
    }
}
