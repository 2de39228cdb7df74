//! Carries out the requests of a session: each calls one use case and answers with the id of the request.

use std::sync::Arc;

use madang_engine::body;
use madang_engine::session::Identity;
use madang_ids::{ChannelId, ConnectionId, Millis, Seq};
use madang_proto::rest::HistoryPage;
use madang_proto::{Ack, Changed, ClientFrame, Edit, ErrorBody, RequestId, Send, ServerFrame};

use crate::gateway::Gateway;
use crate::gateway::connection::outbound::Outbound;
use crate::gateway::delivery::encode;
use crate::gateway::delivery::open_channels::Subscribe;
use crate::operations::{Caller, Change, Operations};
use crate::refusal::OperationError;

/// Carries out one request. Sends are handed to their homes in the order in which they arrive; everything else is complete before
/// the next frame is read. Returns the identity of a verified token, which the session takes over.
pub(in crate::gateway) async fn carry_out(
    gateway: &Gateway,
    outbound: &Arc<Outbound>,
    caller: Caller,
    id: Option<RequestId>,
    frame: ClientFrame,
) -> Option<Identity> {
    let operations = &gateway.operations;
    if is_large(&frame) && !outbound.may_ask() {
        let message = "unread answers have used up the bytes in progress of this user, address or node";
        refuse(outbound, id, ErrorBody::limited(message, 1_000));
        return None;
    }
    if is_limited(&frame)
        && let Err(error) = operations.callers.take_request(caller.user_id)
    {
        refuse(outbound, id, error);
        return None;
    }
    match frame {
        ClientFrame::Send(message) => send(operations, outbound, caller, id, *message).await,
        ClientFrame::Read { channel_id, seq } => {
            let read = operations.mark_read(caller, channel_id, seq).await;
            answer(outbound, id, read.map(|()| Answer::Done));
        }
        ClientFrame::History { channel_id, page } => {
            let page = operations.history(caller, channel_id, &page).await;
            answer(outbound, id, page.map(Answer::History));
        }
        ClientFrame::Received { cursor } => {
            if let Err(error) = operations.note_received(caller, &cursor) {
                refuse(outbound, id, error);
            }
        }
        ClientFrame::Presence(set) => {
            let kept = operations.set_presence(caller, &set).await;
            if let (Ok(()), Some(is_idle)) = (&kept, set.idle) {
                outbound.set_idle(is_idle);
                let connection = ConnectionId::from_raw(outbound.number);
                operations.presence.set_idle(caller.user_id, connection, is_idle);
            }
            answer(outbound, id, kept.map(|()| Answer::Done));
        }
        ClientFrame::Auth { token } => match operations.identify(&token).await {
            Ok(identity) => return Some(identity),
            Err(error) => refuse(outbound, id, error),
        },
        ClientFrame::Edit(edit) => {
            let Edit { channel_id, seq, version, body } = *edit;
            let change = Change::Edit { body, version };
            self::change(operations, outbound, caller, id, (channel_id, seq), change).await;
        }
        ClientFrame::Delete { channel_id, seq } => {
            self::change(operations, outbound, caller, id, (channel_id, seq), Change::Delete).await;
        }
        ClientFrame::React { channel_id, seq, emoji, on } => {
            let change = Change::React { emoji, on };
            self::change(operations, outbound, caller, id, (channel_id, seq), change).await;
        }
        ClientFrame::Typing { channel_id } => {
            if let Err(error) = operations.typing(caller, channel_id).await {
                refuse(outbound, id, error);
            }
        }
        ClientFrame::Subscribe { channel_id, after_seq, mode } => {
            let request = Subscribe { channel: channel_id, after: after_seq, mode };
            gateway.subscribe(outbound, caller.user_id, id, request).await;
        }
        ClientFrame::Unsubscribe { channel_id } => {
            gateway.unsubscribe(outbound, channel_id);
            answer(outbound, id, Ok(Answer::Done));
        }
        // The session answers these itself.
        ClientFrame::Hello(_) | ClientFrame::Heartbeat => {}
    }
    None
}

/// Whether the answer may be large.
const fn is_large(frame: &ClientFrame) -> bool {
    matches!(frame, ClientFrame::History { .. } | ClientFrame::Subscribe { .. })
}

/// Whether it counts against the user's rate of requests: those that read or write the store and have no limit of their own.
const fn is_limited(frame: &ClientFrame) -> bool {
    match frame {
        ClientFrame::History { .. } | ClientFrame::Read { .. } | ClientFrame::Subscribe { .. } => true,
        // Whether a connection is idle is kept in memory only.
        ClientFrame::Presence(set) => set.invisible.is_some() || set.status.is_some(),
        _ => false,
    }
}

async fn send(
    operations: &Operations,
    outbound: &Arc<Outbound>,
    caller: Caller,
    id: Option<RequestId>,
    message: Send,
) {
    let Send { channel_id, client_msg_id, body } = message;
    let bytes = body::json_bytes(&body);
    // Counted before the home is asked: `on_answer` may run in another task before `send` returns.
    outbound.begin_request(bytes);
    let (to, id_of_answer) = (Arc::clone(outbound), id.clone());
    let on_answer = move |sent: Result<Ack, ErrorBody>| to.answer(ack(id_of_answer, sent), bytes);
    if let Err(error) = operations.send(caller, channel_id, client_msg_id, body, on_answer).await {
        outbound.answer(ack(id, Err(error.into())), bytes);
    }
}

/// Changes a message. The answer follows when the change is durable, which may take a second for reactions.
async fn change(
    operations: &Operations,
    outbound: &Arc<Outbound>,
    caller: Caller,
    id: Option<RequestId>,
    (channel_id, target): (ChannelId, Seq),
    change: Change,
) {
    let bytes = match &change {
        Change::Edit { body, .. } => body::json_bytes(body),
        Change::Delete | Change::React { .. } => 0,
    };
    outbound.begin_request(bytes);
    let (to, id_of_answer) = (Arc::clone(outbound), id.clone());
    let on_answer =
        move |changed: Result<Changed, ErrorBody>| to.answer(answer_frame(id_of_answer, changed), bytes);
    if let Err(error) = operations.change(caller, channel_id, target, change, on_answer).await {
        outbound.answer(answer_frame(id, Err(error.into())), bytes);
    }
}

fn answer_frame(id: Option<RequestId>, changed: Result<Changed, ErrorBody>) -> encode::Frame {
    match changed {
        Ok(changed) => encode::frame(&ServerFrame::Changed(Changed { id, ..changed })),
        Err(error) => encode::frame(&ServerFrame::Error { id, error }),
    }
}

/// The result of a request, other than a send or a change.
pub(in crate::gateway) enum Answer {
    Done,
    /// When the token of the session expires.
    Renewed(Millis),
    History(HistoryPage),
}

/// Answers a request with its id.
pub(in crate::gateway) fn answer(
    outbound: &Outbound,
    id: Option<RequestId>,
    result: Result<Answer, OperationError>,
) {
    // The session refuses such a request if it has no id.
    let known = id.clone().unwrap_or_else(|| RequestId(String::new()));
    let frame = match result {
        Ok(Answer::Done) => ServerFrame::Done { id: known, token_expires_at: None },
        Ok(Answer::Renewed(end)) => ServerFrame::Done { id: known, token_expires_at: Some(end) },
        Ok(Answer::History(page)) => ServerFrame::History { id: known, page },
        Err(error) => return refuse(outbound, id, error),
    };
    outbound.push(encode::frame(&frame));
}

fn refuse(outbound: &Outbound, id: Option<RequestId>, error: impl Into<ErrorBody>) {
    outbound.push(encode::frame(&ServerFrame::Error { id, error: error.into() }));
}

fn ack(id: Option<RequestId>, sent: Result<Ack, ErrorBody>) -> encode::Frame {
    match sent {
        Ok(ack) => encode::frame(&ServerFrame::Ack(Ack { id, ..ack })),
        Err(error) => encode::frame(&ServerFrame::Error { id, error }),
    }
}
