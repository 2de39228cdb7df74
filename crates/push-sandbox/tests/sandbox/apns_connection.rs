//! What APNs asks of a connection.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Connection, SendRequest};
use madang_push_sandbox::{ApnsKey, Delivery, Face, Fault, Sandbox};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use crate::apns::{Provider, alert};
use crate::client::{NOW_S, PATIENCE, Signer, assert_refused, start, with};

/// A TLS connection to APNs that offers these protocols.
async fn connect(sandbox: &Sandbox, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sandbox.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let port = Url::parse(sandbox.apns().url()).unwrap().port().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}

type Http2 = (SendRequest<Bytes>, Connection<TlsStream<TcpStream>>);

async fn http2(sandbox: &Sandbox) -> Http2 {
    h2::client::handshake(connect(sandbox, &["h2"]).await.unwrap()).await.unwrap()
}

/// Drives a connection until the server has announced this number of streams.
async fn until_streams(connection: &mut Connection<TlsStream<TcpStream>>, streams: usize) {
    let driven = std::future::poll_fn(|cx| {
        let ended = std::future::Future::poll(std::pin::Pin::new(&mut *connection), cx);
        assert!(ended.is_pending(), "the connection ended: {ended:?}");
        if connection.max_concurrent_send_streams() == streams {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    tokio::time::timeout(PATIENCE, driven).await.expect("the number was not announced");
}

fn request(sandbox: &Sandbox) -> http::Request<()> {
    let provider = Provider::new(sandbox);
    let mut request = http::Request::post(format!("{}/3/device/00", sandbox.apns().url())).body(()).unwrap();
    *request.headers_mut() = provider.headers;
    request
}

#[tokio::test]
async fn one_stream_is_allowed_until_the_first_authenticated_request_and_then_a_thousand() {
    let (sandbox, _) = start().await;
    let (mut send, mut connection) = http2(&sandbox).await;
    until_streams(&mut connection, 1).await;
    let mut unauthorized = request(&sandbox);
    unauthorized.headers_mut().remove("authorization");
    for (request, status) in [(unauthorized, 403), (request(&sandbox), 200)] {
        let (response, mut body) = send.send_request(request, false).unwrap();
        body.send_data(alert().to_string().into(), true).unwrap();
        let answered = tokio::select! {
            response = response => response.unwrap(),
            ended = &mut connection => panic!("the connection ended: {ended:?}"),
        };
        assert_eq!(answered.status().as_u16(), status);
        if status == 403 {
            assert_eq!(connection.max_concurrent_send_streams(), 1);
        }
        send = tokio::select! {
            ready = send.ready() => ready.unwrap(),
            ended = &mut connection => panic!("the connection ended: {ended:?}"),
        };
    }
    until_streams(&mut connection, 1_000).await;
    // Acknowledging the announcements did not disturb the connection.
    let (response, mut body) = send.send_request(request(&sandbox), false).unwrap();
    body.send_data(alert().to_string().into(), true).unwrap();
    let answered = tokio::select! {
        response = response => response.unwrap(),
        ended = &mut connection => panic!("the connection ended: {ended:?}"),
    };
    // Another token: only the first of 20 minutes is accepted.
    assert_eq!(answered.status().as_u16(), 429);
}

#[tokio::test]
async fn a_second_stream_before_the_first_answer_is_refused() {
    let (sandbox, _) = start().await;
    sandbox.fail_next(Face::Apns, Fault::Silence(Delivery::Lost), 1);
    // Before it has read the settings of the server, a client may open as many streams as it likes.
    let (mut send, connection) = http2(&sandbox).await;
    let (first, _) = send.send_request(request(&sandbox), true).unwrap();
    let (second, _) = send.send_request(request(&sandbox), true).unwrap();
    let error = tokio::select! {
        response = second => response.unwrap_err(),
        response = first => panic!("the first request was answered: {response:?}"),
        ended = connection => panic!("the connection ended: {ended:?}"),
    };
    assert_eq!(
        (error.is_reset(), error.is_remote(), error.reason()),
        (true, true, Some(Reason::REFUSED_STREAM))
    );
    assert_refused(&sandbox, 0, "TooManyStreams", "one stream");
    assert_eq!(sandbox.wrong_requests().len(), 1);
}

#[tokio::test]
async fn only_http2_is_spoken() {
    let (sandbox, _) = start().await;
    assert!(connect(&sandbox, &["http/1.1"]).await.is_err());
    let mut silent = connect(&sandbox, &[]).await.unwrap();
    let mut end = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut end).await;
    assert_eq!(end, b"");
    let refusals = sandbox.wrong_requests();
    assert!(refusals.iter().all(|refusal| refusal.reason == "NotHttp2"), "{refusals:?}");
    assert_eq!((refusals.len(), sandbox.counters(Face::Apns).connections), (2, 0));
}

#[tokio::test]
async fn a_connection_belongs_to_one_team_and_one_key() {
    let (sandbox, _) = start().await;
    let own = sandbox.apns().key().team_id.clone();
    let provider = Provider::new(&sandbox);
    assert_eq!(provider.send(&provider.headers, &alert()).await.0, 200);
    for (team_id, reason, detail) in [
        ("OTHERTEAM1", "InvalidProviderToken", "another team"),
        (own.as_str(), "UnrelatedKeyIdInToken", "another key"),
    ] {
        let signer = Signer::p256();
        let (key_id, public) = (format!("KEY-{team_id}"), signer.point());
        sandbox.apns().add_key(ApnsKey { team_id: team_id.to_owned(), key_id: key_id.clone(), public });
        let token =
            signer.jwt(&json!({ "alg": "ES256", "kid": key_id }), &json!({ "iss": team_id, "iat": NOW_S }));
        let headers = with(&provider.headers, "authorization", &format!("bearer {token}"));
        assert_eq!(provider.send(&headers, &alert()).await, (403, json!({ "reason": reason })));
        assert_refused(&sandbox, 403, reason, detail);
        let other = Provider::new(&sandbox);
        assert_eq!(other.send(&headers, &alert()).await.0, 200, "on a connection of its own");
    }
}
