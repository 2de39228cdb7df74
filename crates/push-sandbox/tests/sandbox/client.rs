//! A client that can make mistakes: it signs and encrypts what a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use madang_push_sandbox::{Now, Sandbox, Settings};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response, retry};
use serde_json::Value;

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The time at which a sandbox with its own clock begins, in seconds since 1970.
pub(crate) const NOW_S: u64 = 1_800_000_000;

/// A sandbox whose time stands still, and the time.
pub(crate) async fn start() -> (Sandbox, Clock) {
    let clock = Clock(Arc::new(AtomicU64::new(NOW_S * 1_000)));
    let now = clock.clone();
    let now = Now::from_fn(move || now.0.load(Ordering::Relaxed));
    let sandbox = Sandbox::start(Settings { now, ..Settings::default() }).await.unwrap();
    (sandbox, clock)
}

/// Advances the time of a sandbox.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / 1_000
    }
}

/// A client that trusts the sandbox, tries once and follows nothing.
pub(crate) fn builder(sandbox: &Sandbox) -> ClientBuilder {
    let ca = Certificate::from_pem(sandbox.ca_pem().as_bytes()).unwrap();
    Client::builder()
        .tls_certs_only([ca])
        .retry(retry::never())
        .redirect(Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .resolve("push.example.test", ([127, 0, 0, 1], 0).into())
}

pub(crate) fn client(sandbox: &Sandbox) -> Client {
    builder(sandbox).build().unwrap()
}

/// Headers from pairs.
pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// The same headers with one replaced, or removed if the value is empty.
pub(crate) fn with(headers: &HeaderMap, name: &'static str, value: &str) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(name);
    if !value.is_empty() {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Status and body of an answer.
pub(crate) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Asserts that the last request was refused for this reason, and that the detail contains a text.
#[track_caller]
pub(crate) fn assert_refused(sandbox: &Sandbox, status: u16, reason: &str, detail: &str) {
    let refusals = sandbox.refusals();
    let last = refusals.last().expect("nothing was refused");
    assert_eq!((last.status, last.reason.as_str()), (status, reason), "{last:?}");
    assert!(last.detail.contains(detail), "`{detail}` is not in {last:?}");
}

/// A private key that signs tokens.
pub(crate) enum Signer {
    P256(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

impl Signer {
    pub(crate) fn p256_of(pem: &str) -> Self {
        Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der(pem)).unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn rsa_of(pem: &str) -> Self {
        Self::Rsa(rsa::KeyPair::from_pkcs8(&der(pem)).unwrap())
    }

    /// The public key as a point; only of a key of P-256.
    pub(crate) fn point(&self) -> Vec<u8> {
        use aws_lc_rs::signature::KeyPair;
        match self {
            Self::P256(pair) => pair.public_key().as_ref().to_vec(),
            Self::Rsa(_) => panic!("not a point"),
        }
    }

    pub(crate) fn jwt(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::P256(pair) => pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}
