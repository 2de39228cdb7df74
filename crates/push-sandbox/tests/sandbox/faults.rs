//! Each fault as a client sees it.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::Reason;
use madang_push_sandbox::{Blame, Delivery, Face, Fault, Hook, Now, Sandbox, Settings};
use reqwest::{Client, Response};

use crate::client::{PATIENCE, builder, client};

/// Sends webhooks to one hook: the face with the fewest rules.
struct Sender {
    http: Client,
    sandbox: Arc<Sandbox>,
    hook: Hook,
}

impl Sender {
    async fn new() -> Self {
        let sandbox = Arc::new(Sandbox::start(Settings::default()).await.unwrap());
        let hook = sandbox.webhook().hook("bot").unwrap();
        Self { http: client(&sandbox), sandbox, hook }
    }

    fn order(&self, fault: Fault) {
        self.sandbox.fail_next(Face::Webhook, fault, 1);
    }

    async fn send(&self) -> reqwest::Result<Response> {
        let request = self.http.post(&self.hook.url).headers(signed(&self.hook)).body("{}");
        request.send().await
    }

    async fn send_ok(&self) {
        assert_eq!(self.send().await.unwrap().status().as_u16(), 204);
    }

    fn taken(&self) -> usize {
        self.sandbox.notices().len()
    }

    fn connections(&self) -> u64 {
        self.sandbox.counters(Face::Webhook).connections
    }
}

fn signed(hook: &Hook) -> http::HeaderMap {
    crate::webhook::signed(hook, Now::system().seconds(), "{}")
}

/// What `h2` says about a failed request.
fn http2_error(error: &reqwest::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

#[tokio::test]
async fn a_status_is_answered_as_ordered() {
    let sender = Sender::new().await;
    let headers = vec![("retry-after".to_owned(), "77".to_owned())];
    sender.order(Fault::Status { status: 503, headers, body: "{\"reason\":\"Shutdown\"}".to_owned() });
    let response = sender.send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
        (503, "77")
    );
    assert_eq!(response.text().await.unwrap(), "{\"reason\":\"Shutdown\"}");
    assert_eq!((sender.taken(), sender.sandbox.wrong_requests().len()), (0, 0));
    let refusals = sender.sandbox.refusals();
    assert_eq!((refusals[0].status, refusals[0].blame), (503, Blame::Fault));
    sender.send_ok().await;
    assert_eq!((sender.taken(), sender.connections()), (1, 1));
}

#[tokio::test]
async fn a_refused_stream_leaves_the_connection_good() {
    let sender = Sender::new().await;
    sender.order(Fault::RefusedStream);
    let error = sender.send().await.unwrap_err();
    let cause = http2_error(&error).expect("an error of HTTP/2");
    assert_eq!(
        (cause.is_reset(), cause.is_remote(), cause.reason()),
        (true, true, Some(Reason::REFUSED_STREAM))
    );
    sender.send_ok().await;
    assert_eq!((sender.taken(), sender.connections()), (1, 1));
}

#[tokio::test]
async fn a_goaway_below_a_request_refuses_it_and_ends_the_connection() {
    let sender = Sender::new().await;
    sender.send_ok().await;
    sender.order(Fault::Delay(Duration::from_millis(300)));
    sender.order(Fault::GoAway);
    let (first, second) = tokio::join!(sender.send(), async {
        // The second request begins when the first has been taken, and is not answered yet.
        sender.sandbox.wait_for(|notices| notices.len() == 2, PATIENCE).await.unwrap();
        sender.send().await
    });
    let error = second.unwrap_err();
    let cause = http2_error(&error).expect("an error of HTTP/2");
    assert_eq!((cause.is_go_away(), cause.is_remote(), cause.reason()), (true, true, Some(Reason::NO_ERROR)));
    assert_eq!(first.unwrap().status().as_u16(), 204, "a request below the GOAWAY is answered");
    assert_eq!((sender.taken(), sender.connections()), (2, 1));
    sender.send_ok().await;
    assert_eq!((sender.taken(), sender.connections()), (3, 2));
}

#[tokio::test]
async fn a_client_that_sends_again_what_was_certainly_not_taken_succeeds() {
    let mut sender = Sender::new().await;
    // The default of reqwest: it sends again after REFUSED_STREAM and GOAWAY.
    sender.http = retrying(&sender.sandbox);
    sender.order(Fault::RefusedStream);
    sender.order(Fault::GoAway);
    sender.send_ok().await;
    assert_eq!((sender.taken(), sender.sandbox.counters(Face::Webhook).requests), (1, 3));
}

fn retrying(sandbox: &Sandbox) -> Client {
    let ca = reqwest::Certificate::from_pem(sandbox.ca_pem().as_bytes()).unwrap();
    Client::builder().tls_certs_only([ca]).no_proxy().timeout(PATIENCE).build().unwrap()
}

#[tokio::test]
async fn a_reset_after_the_body_hides_whether_the_request_was_taken() {
    let sender = Sender::new().await;
    for (delivery, taken) in [(Delivery::Delivered, 1), (Delivery::Lost, 1)] {
        sender.order(Fault::ResetAfterBody(delivery));
        let error = sender.send().await.unwrap_err();
        let cause = http2_error(&error).expect("an error of HTTP/2");
        assert_eq!((cause.is_reset(), cause.reason()), (true, Some(Reason::INTERNAL_ERROR)), "{delivery:?}");
        assert_eq!(sender.taken(), taken, "{delivery:?}");
    }
    sender.send_ok().await;
    assert_eq!((sender.taken(), sender.connections()), (2, 1));
}

#[tokio::test]
async fn a_connection_that_is_cut_hides_whether_the_request_was_taken() {
    let sender = Sender::new().await;
    for (delivery, taken) in [(Delivery::Delivered, 1), (Delivery::Lost, 1)] {
        sender.order(Fault::CloseBeforeAnswer(delivery));
        let error = sender.send().await.unwrap_err();
        assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
        assert_eq!(sender.taken(), taken, "{delivery:?}");
    }
    sender.send_ok().await;
    assert_eq!(sender.connections(), 3);
}

#[tokio::test]
async fn silence_concerns_one_request_and_hides_whether_it_was_taken() {
    let sender = Sender::new().await;
    sender.send_ok().await;
    for (delivery, taken) in [(Delivery::Delivered, 3), (Delivery::Lost, 4)] {
        sender.order(Fault::Silence(delivery));
        // A later request on the same connection is answered; the silent one is not, and the client gives it up.
        tokio::select! {
            biased;
            answer = sender.send() => panic!("{answer:?}"),
            () = sender.send_ok() => {}
        }
        sender.sandbox.wait_for(|notices| notices.len() == taken, PATIENCE).await.unwrap();
    }
    sender.send_ok().await;
    let counters = sender.sandbox.counters(Face::Webhook);
    assert_eq!((sender.taken(), counters.requests, counters.connections), (5, 6, 1));
}

#[tokio::test]
async fn a_face_that_hangs_lets_all_clients_time_out_until_it_is_cleared() {
    let mut sender = Sender::new().await;
    let patient = std::mem::replace(
        &mut sender.http,
        builder(&sender.sandbox).timeout(Duration::from_millis(300)).build().unwrap(),
    );
    sender.sandbox.set_all(Face::Webhook, Fault::Silence(Delivery::Lost));
    let (first, second) = tokio::join!(sender.send(), sender.send());
    assert!(first.unwrap_err().is_timeout() && second.unwrap_err().is_timeout());
    sender.sandbox.set_all(Face::Apns, Fault::RefusedStream);
    sender.sandbox.clear(Face::Webhook);
    sender.http = patient;
    sender.send_ok().await;
    assert_eq!(sender.taken(), 1);
}

#[tokio::test]
async fn a_delay_takes_the_request_at_once_and_answers_late() {
    let sender = Sender::new().await;
    let delay = Duration::from_millis(400);
    sender.order(Fault::Delay(delay));
    let started = Instant::now();
    let (answer, taken) = tokio::join!(sender.send(), async {
        sender.sandbox.wait_for(|notices| notices.len() == 1, PATIENCE).await.unwrap()
    });
    assert_eq!((answer.unwrap().status().as_u16(), taken.len()), (204, 1));
    assert!(started.elapsed() >= delay);
    assert!(taken[0].arrived.duration_since(started) < started.elapsed() - delay / 2);
}

#[tokio::test]
async fn connections_end_with_the_sandbox() {
    let Sender { http, sandbox, hook } = Sender::new().await;
    sandbox.set_all(Face::Webhook, Fault::Silence(Delivery::Delivered));
    let request = http.post(&hook.url).headers(signed(&hook)).body("{}");
    let sandbox = Arc::into_inner(sandbox).unwrap();
    let (answer, ()) = tokio::join!(request.send(), async {
        sandbox.wait_for(|notices| notices.len() == 1, PATIENCE).await.unwrap();
        drop(sandbox);
    });
    let error = answer.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
}
