//! Carries out the requests of a session: each calls one use case and answers by the request's id.

use std::sync::Arc;

use madang_engine::body;
use madang_engine::session::Identity;
use madang_ids::ConnectionId;
use madang_proto::rest::HistoryPage;
use madang_proto::{Ack, ClientFrame, ErrorBody, RequestId, Send, ServerFrame};

use super::outbound::Outbound;
use super::{Gateway, encode};
use crate::operations::{Caller, Operations};

/// Carries out one request. Sends are handed to their homes in the order in which they come here; everything else is
/// done before the next frame is read. A token that was verified is handed back: the session takes it over.
pub(super) async fn carry_out(
    gateway: &Gateway,
    outbound: &Arc<Outbound>,
    caller: Caller,
    id: Option<RequestId>,
    frame: ClientFrame,
) -> Option<Identity> {
    let operations = &gateway.operations;
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
        ClientFrame::Received { cursor } => operations.received.put(caller.device_id, cursor),
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
            Err(error) => answer(outbound, id, Err(error)),
        },
        // The session answers these by itself.
        ClientFrame::Hello(_) | ClientFrame::Heartbeat => {}
    }
    None
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
    outbound.begin_request(bytes);
    let (to, id_of_answer) = (Arc::clone(outbound), id.clone());
    let on_answer = move |sent: Result<Ack, ErrorBody>| to.answer(ack(id_of_answer, sent), bytes);
    if let Err(error) = operations.send(caller, channel_id, client_msg_id, body, on_answer).await {
        outbound.answer(ack(id, Err(error)), bytes);
    }
}

/// What a request comes to, besides the ack of a send.
pub(super) enum Answer {
    Done,
    History(HistoryPage),
}

/// Answers a request by its id.
pub(super) fn answer(outbound: &Outbound, id: Option<RequestId>, result: Result<Answer, ErrorBody>) {
    // The session refuses such a request without an id.
    let known = id.clone().unwrap_or_else(|| RequestId(String::new()));
    let frame = match result {
        Ok(Answer::Done) => ServerFrame::Done { id: known },
        Ok(Answer::History(page)) => ServerFrame::History { id: known, page },
        Err(error) => ServerFrame::Error { id, error },
    };
    outbound.push(encode::frame(&frame));
}

fn ack(id: Option<RequestId>, sent: Result<Ack, ErrorBody>) -> encode::Frame {
    match sent {
        Ok(ack) => encode::frame(&ServerFrame::Ack(Ack { id, ..ack })),
        Err(error) => encode::frame(&ServerFrame::Error { id, error }),
    }
}
