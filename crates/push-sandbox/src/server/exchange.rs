//! One request: its body, its fault, its answer.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderName, HeaderValue, Response, StatusCode, request};

use super::{Port, Service};
use crate::answer::{Answer, Request};
use crate::faults::{Delivery, Fault};
use crate::notice::Blame;

/// The longest body that is read. Every face refuses shorter ones than this.
const BODY_BYTES: usize = 65_536;

/// What follows for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It continues.
    Answered,
    /// It is cut, without an answer and without a word.
    Cut,
}

/// Serves one request. Faults that happen before the body is read are not handled here.
pub(super) async fn exchange<S: Service>(
    port: &Port<S>,
    memory: &S::Connection,
    (request, mut respond): (http::Request<RecvStream>, SendResponse<Bytes>),
    fault: Option<Fault>,
) -> End {
    let (head, body) = request.into_parts();
    // The client has reset the stream.
    let Some(body) = read(body).await else { return End::Answered };
    let request = Request { method: head.method.clone(), path: path_of(&head), headers: head.headers, body };
    let take = || port.service.answer(memory, &request);
    let take_if = |delivery| match delivery {
        Delivery::Delivered => drop(take()),
        Delivery::Lost => {}
    };
    match fault {
        None => send(&mut respond, take()),
        Some(Fault::Status { status, headers, body }) => {
            send(&mut respond, ordered(port, &request, status, (headers, body)));
        }
        Some(Fault::Delay(delay)) => send_later(&mut respond, take(), delay).await,
        Some(Fault::ResetAfterBody(delivery)) => {
            take_if(delivery);
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Some(Fault::CloseBeforeAnswer(delivery)) => {
            take_if(delivery);
            return End::Cut;
        }
        Some(Fault::Silence(delivery)) => {
            take_if(delivery);
            reset_by_client(&mut respond).await;
        }
        // Handled by the connection; a stream that is dropped is reset.
        Some(Fault::GoAway | Fault::RefusedStream) => {}
    }
    End::Answered
}

fn path_of(head: &request::Parts) -> String {
    head.uri.path_and_query().map_or_else(String::new, |path| path.as_str().to_owned())
}

/// The body, or its beginning if it is too long for every face. `None` if the client reset the stream.
async fn read(mut stream: RecvStream) -> Option<Bytes> {
    let first = match stream.data().await {
        None => return Some(Bytes::new()),
        Some(chunk) => released(&mut stream, chunk)?,
    };
    // Most bodies are one frame, and are not copied.
    if stream.is_end_stream() {
        return Some(first);
    }
    let mut body = BytesMut::from(first);
    while body.len() < BODY_BYTES
        && let Some(chunk) = stream.data().await
    {
        body.extend_from_slice(&released(&mut stream, chunk)?);
    }
    Some(body.freeze())
}

/// Lets the client send further bytes in place of these.
fn released(stream: &mut RecvStream, chunk: Result<Bytes, h2::Error>) -> Option<Bytes> {
    let chunk = chunk.ok()?;
    stream.flow_control().release_capacity(chunk.len()).ok()?;
    Some(chunk)
}

/// The answer of [`Fault::Status`].
fn ordered<S: Service>(
    port: &Port<S>,
    request: &Request,
    status: u16,
    (headers, body): (Vec<(String, String)>, String),
) -> Answer {
    let face = port.service.face(&request.path);
    port.ledger.refuse(face, &request.path, (status, "fault"), "ordered by the test", Blame::Fault);
    let named =
        headers.into_iter().filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value)));
    Answer { status, headers: named.collect(), body: body.into() }
}

fn send(respond: &mut SendResponse<Bytes>, answer: Answer) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().append(name, value);
        }
    }
    // Fails if the client has reset the stream or closed the connection: it does not want the answer.
    if let Ok(mut stream) = respond.send_response(response, answer.body.is_empty())
        && !answer.body.is_empty()
    {
        let _ = stream.send_data(answer.body, true);
    }
}

/// The client may give up before.
async fn send_later(respond: &mut SendResponse<Bytes>, answer: Answer, delay: Duration) {
    tokio::select! {
        () = tokio::time::sleep(delay) => send(respond, answer),
        () = reset_by_client(respond) => {}
    }
}

/// Waits until the client gives the request up.
async fn reset_by_client(respond: &mut SendResponse<Bytes>) {
    // An error means that the connection is gone, which is the same here.
    let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
}
