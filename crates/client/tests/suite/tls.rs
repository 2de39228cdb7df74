//! TLS: the socket and the calls of a client over it, with a certificate that the program trusts and without.

use madang_client::{Client, ClientError, ClientOptions, Event, Rest, Trust};
use madang_proto::rest::SignUp;
use madang_testkit::{Certificate, Config, PATIENCE, Storage, TestNode, manual_clock};

use crate::harness::body;

/// A node over TLS, and the folder of its certificate.
async fn node(certificate: &Certificate) -> (TestNode, tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { tls: certificate.write(folder.path()), ..Config::default() };
    config.limits.enabled = false;
    let (clock, _manual) = manual_clock();
    let storage = Storage::model();
    let node = TestNode::start(config, &storage, clock).await.unwrap();
    (node, folder, storage)
}

fn ada() -> SignUp {
    SignUp {
        handle: "ada".into(),
        display_name: "ada".into(),
        password: "correct horse".into(),
        device_name: "phone".into(),
        invitation: None,
    }
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_signs_up_connects_and_sends() {
    let certificate = Certificate::new();
    let (node, folder, _storage) = node(&certificate).await;
    let url = format!("https://{}", node.addr);
    let trust = Trust::with_root_file(&folder.path().join("cert.pem")).unwrap();
    let rest = Rest::with_servers(&[&url], PATIENCE, &trust).unwrap();
    let signed_in = rest.sign_up(&ada(), None).await.unwrap();
    let other = rest.sign_up(&SignUp { handle: "bob".into(), ..ada() }, None).await.unwrap();
    let channel = madang_proto::rest::NewChannel {
        kind: madang_proto::ChannelKind::Direct,
        name: None,
        topic: None,
        members: vec![other.user.id],
    };
    let channel = rest.create_channel(&signed_in.access_token, &channel, None).await.unwrap().card.id;
    let mut options = ClientOptions::new(&url, signed_in.into());
    options.socket.trust = trust;
    let (client, mut events) = Client::start(options).unwrap();
    let key = client.send(channel, body("over TLS")).await.unwrap();
    loop {
        match tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            Event::Acked { client_msg_id, .. } => break assert_eq!(client_msg_id, key),
            Event::Disconnected { cause, .. } => panic!("{cause}"),
            _ => {}
        }
    }
    client.close().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_every_connection() {
    let (node, folder, _storage) = node(&Certificate::new()).await;
    let url = format!("https://{}", node.addr);
    // The roots of the system and those of another server.
    std::fs::write(folder.path().join("other.pem"), &Certificate::new().cert_pem).unwrap();
    let trust = Trust::with_root_file(&folder.path().join("other.pem")).unwrap();
    let rest = Rest::with_servers(&[&url], PATIENCE, &trust).unwrap();
    let refused = rest.sign_up(&ada(), None).await.unwrap_err();
    assert!(matches!(refused, ClientError::Http(_)), "{refused:?}");
    let socket = madang_client::Endpoint::parse(&url).unwrap();
    let options = madang_client::SocketOptions { trust, ..Default::default() };
    match madang_client::Connection::open(&socket, &options).await {
        Err(ClientError::Connect(error)) => {
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
        }
        other => panic!("{other:?}"),
    }
}
