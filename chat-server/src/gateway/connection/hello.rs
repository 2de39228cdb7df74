//! The first frame of a socket: its user, and whether the node admits it now.

use std::sync::Arc;
use std::time::Duration;

use madang_discovery::Admission;
use madang_engine::session::Step;
use madang_ids::UserId;
use madang_proto::{CloseReason, ErrorBody, ErrorCode, RequestId, ServerFrame};

use super::Connection;
use super::registration::Registered;
use super::retry::Patience;
use crate::gateway::socket::ConnectionEnd;

/// How long a `hello` waits for a store that is unavailable. Clients usually wait ten seconds for `welcome`.
const OPEN_PATIENCE: Duration = Duration::from_secs(8);

impl Connection {
    /// Waits for `hello` and returns its token.
    pub(super) async fn hello(&mut self) -> Result<String, ConnectionEnd> {
        loop {
            let message = self.next_before_hello().await?;
            match self.handle(&message) {
                // The library may have queued a pong.
                Step::Wait => self.write_all().await?,
                Step::Answer(frame) => self.write_now(&frame).await?,
                Step::Close(reason) => return Err(ConnectionEnd::Close(reason)),
                Step::Verify { token } => return Ok(token),
                // The session lets no request through before it is open.
                Step::Run { .. } => return Err(ConnectionEnd::Close(CloseReason::ProtocolViolation)),
            }
        }
    }

    /// Answers `hello`, with `welcome` if its user may connect now. Waits for the store for at most [`OPEN_PATIENCE`].
    pub(super) async fn answer_hello(
        &mut self,
        token: &str,
        ticket: Option<&str>,
    ) -> Result<Registered, ConnectionEnd> {
        let operations = Arc::clone(&self.gateway.operations);
        let mut patience = Patience::new(&operations.clock, OPEN_PATIENCE, self.outbound().number);
        let identified = loop {
            match operations.identify(token).await {
                Err(error) if patience.waits_after(&error).await => {}
                answer => break answer,
            }
        };
        match identified {
            Ok(identity) => {
                self.admit(ticket, identity.user_id).await?;
                match self.session.handle_verified(Some(identity)) {
                    Some(opening) => self.open(opening, patience).await,
                    None => Err(ConnectionEnd::Close(CloseReason::Unauthorized)),
                }
            }
            Err(error) => {
                let id = self.session.handle_refused();
                self.refuse(id, error.into()).await
            }
        }
    }

    /// In a fleet, bounds how fast sockets without a ticket are admitted: after a failure of discovery, or of a node, all its clients
    /// come at the same time.
    async fn admit(&mut self, ticket: Option<&str>, user: UserId) -> Result<(), ConnectionEnd> {
        let Some(discovery) = self.gateway.discovery().cloned() else { return Ok(()) };
        match discovery.admit(ticket, user).await {
            Admission::ByTicket | Admission::ByRate => Ok(()),
            Admission::Later { retry_after_ms } => {
                let message = "too many clients connect to this node at the same time";
                let error = ErrorBody::unavailable(message, retry_after_ms);
                let id = self.session.handle_refused();
                self.write_now(&ServerFrame::Error { id, error }).await?;
                Err(ConnectionEnd::Close(CloseReason::Overloaded))
            }
        }
    }

    /// Answers `hello` with an error and closes the connection for the matching reason.
    pub(super) async fn refuse<T>(
        &mut self,
        id: Option<RequestId>,
        error: ErrorBody,
    ) -> Result<T, ConnectionEnd> {
        let reason = match error.code {
            ErrorCode::Unauthorized => CloseReason::Unauthorized,
            ErrorCode::Revoked => CloseReason::DeviceRevoked,
            _ => CloseReason::Internal,
        };
        self.write_now(&ServerFrame::Error { id, error }).await?;
        Err(ConnectionEnd::Close(reason))
    }
}
