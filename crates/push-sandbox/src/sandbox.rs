//! The whole: four ports on loopback, one ledger, one plan of faults.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::apns::Apns;
use crate::clock::Now;
use crate::faults::{Fault, FaultPlan};
use crate::fcm::Fcm;
use crate::keys::Key;
use crate::ledger::{Ledger, TimedOut};
use crate::notice::{Counters, Event, Face, Notice, Refusal, shown};
use crate::server::{Port, Service};
use crate::tls::{Identity, TlsError};
use crate::web_push::WebPush;
use crate::webhook::Webhook;

/// How a sandbox is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address of APNs. With a port other than 0, FCM, Web Push and webhooks have the next three ports.
    pub addr: SocketAddr,
    /// The host in all URLs: a name of the certificate that leads to `addr`.
    pub host: String,
    /// The team of the signing key of APNs.
    pub team_id: String,
    /// The id of the signing key of APNs.
    pub key_id: String,
    /// The only allowed `apns-topic`.
    pub topic: String,
    /// The project of the service account of FCM.
    pub project: String,
    /// The life of an access token of FCM.
    pub access_token_valid: Duration,
    /// The time of the sandbox.
    pub now: Now,
    /// Notices that are kept; older ones are dropped. One takes about 3 KiB.
    pub kept_notices: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            host: "localhost".to_owned(),
            team_id: "SANDBOXTEA".to_owned(),
            key_id: "SANDBOXKEY".to_owned(),
            topic: "test.example.chat".to_owned(),
            project: "madang-sandbox".to_owned(),
            access_token_valid: Duration::from_secs(3_599),
            now: Now::system(),
            kept_notices: 200_000,
        }
    }
}

/// A sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error("a port cannot be opened")]
    Listen(#[from] std::io::Error),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key.
    #[error("a key could not be made")]
    Key,
}

/// Stands in for APNs, FCM, a push service of browsers, and receivers of webhooks. All connections end when it is dropped.
///
/// A test takes addresses and keys from [`Self::apns`], [`Self::fcm`], [`Self::web_push`] and [`Self::webhook`], sets states of
/// tokens there, orders faults with [`Self::fail_next`] and [`Self::set_all`], waits with [`Self::wait_for`], and at its end
/// asserts that [`Self::wrong_requests`] is empty.
pub struct Sandbox {
    ca_pem: String,
    host: String,
    apns: Arc<Apns>,
    fcm: Arc<Fcm>,
    web_push: Arc<WebPush>,
    webhook: Arc<Webhook>,
    faults: Arc<FaultPlan>,
    ledger: Arc<Ledger>,
    _ports: JoinSet<()>,
}

impl Sandbox {
    /// Opens four ports and makes keys and certificates.
    ///
    /// # Errors
    /// [`StartError`] if a port is taken.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let (listeners, urls) = listen(&settings).await?;
        let identity = Identity::new()?;
        let ledger = Arc::new(Ledger::new(settings.now.clone(), settings.kept_notices));
        let faults = Arc::new(FaultPlan::default());
        let faces = Faces::new(&settings, &urls, &ledger).map_err(|_| StartError::Key)?;
        let mut ports = JoinSet::new();
        let [first, second, third, fourth] = listeners;
        let shared = (&identity, &faults, &ledger);
        ports.spawn(port(&faces.apns, shared).serve(first));
        ports.spawn(port(&faces.fcm, shared).serve(second));
        ports.spawn(port(&faces.web_push, shared).serve(third));
        ports.spawn(port(&faces.webhook, shared).serve(fourth));
        let Faces { apns, fcm, web_push, webhook } = faces;
        let (ca_pem, host) = (identity.ca_pem, settings.host);
        Ok(Self { ca_pem, host, apns, fcm, web_push, webhook, faults, ledger, _ports: ports })
    }

    /// The certificate authority that clients must trust, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The host in all URLs.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The face of APNs.
    #[must_use]
    pub fn apns(&self) -> &Apns {
        &self.apns
    }

    /// The face of FCM.
    #[must_use]
    pub fn fcm(&self) -> &Fcm {
        &self.fcm
    }

    /// The face of a push service of browsers.
    #[must_use]
    pub fn web_push(&self) -> &WebPush {
        &self.web_push
    }

    /// The face of a receiver of webhooks.
    #[must_use]
    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }

    /// The next `times` requests of a face meet this fault. Faults that were ordered earlier come first.
    pub fn fail_next(&self, face: Face, fault: Fault, times: usize) {
        self.faults.fail_next(face, fault, times);
    }

    /// All requests of a face that begin from now on meet this fault, until [`Self::clear`].
    pub fn set_all(&self, face: Face, fault: Fault) {
        self.faults.set_all(face, fault);
    }

    /// Removes all faults of a face. Requests that wait for an answer because of [`Fault::Silence`] keep waiting.
    pub fn clear(&self, face: Face) {
        self.faults.clear(face);
    }

    /// Everything that was taken and refused.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// [`Ledger::notices`].
    #[must_use]
    pub fn notices(&self) -> Vec<Arc<Notice>> {
        self.ledger.notices()
    }

    /// [`Ledger::refusals`].
    #[must_use]
    pub fn refusals(&self) -> Vec<Arc<Refusal>> {
        self.ledger.refusals()
    }

    /// [`Ledger::wrong_requests`].
    #[must_use]
    pub fn wrong_requests(&self) -> Vec<Arc<Refusal>> {
        self.ledger.wrong_requests()
    }

    /// The alerts on the screen of a device: [`shown`].
    #[must_use]
    pub fn shown(&self, target: &str) -> Vec<Arc<Notice>> {
        shown(&self.ledger.notices(), target)
    }

    /// [`Ledger::counters`].
    #[must_use]
    pub fn counters(&self, face: Face) -> Counters {
        self.ledger.counters(face)
    }

    /// [`Ledger::events`].
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.ledger.events()
    }

    /// [`Ledger::wait_for`]. Cancel safe.
    ///
    /// # Errors
    /// [`TimedOut`] after `patience`.
    pub async fn wait_for(
        &self,
        is_enough: impl FnMut(&[Arc<Notice>]) -> bool,
        patience: Duration,
    ) -> Result<Vec<Arc<Notice>>, TimedOut> {
        self.ledger.wait_for(is_enough, patience).await
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

struct Faces {
    apns: Arc<Apns>,
    fcm: Arc<Fcm>,
    web_push: Arc<WebPush>,
    webhook: Arc<Webhook>,
}

impl Faces {
    fn new(
        settings: &Settings,
        ports: &[u16; 4],
        ledger: &Arc<Ledger>,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let Settings { host, team_id, key_id, topic, project, .. } = settings.clone();
        let url = |port: u16| format!("https://{host}:{port}");
        let shared = || (settings.now.clone(), Arc::clone(ledger));
        let [apns, fcm, web_push, webhook] = *ports;
        let valid = settings.access_token_valid;
        Ok(Self {
            apns: Arc::new(Apns::new(url(apns), topic, Key::p256()?, (team_id, key_id), shared())),
            fcm: Arc::new(Fcm::new(url(fcm), project, Key::rsa()?, valid, shared())),
            webhook: Arc::new(Webhook::new(url(webhook), shared())),
            web_push: Arc::new(WebPush::new(host, web_push, shared())),
        })
    }
}

/// Opens the ports in the order APNs, FCM, Web Push, webhooks.
async fn listen(settings: &Settings) -> Result<([TcpListener; 4], [u16; 4]), StartError> {
    let open = async |offset: u16| {
        let mut addr = settings.addr;
        if addr.port() != 0 {
            addr.set_port(addr.port().saturating_add(offset));
        }
        TcpListener::bind(addr).await
    };
    let listeners = [open(0).await?, open(1).await?, open(2).await?, open(3).await?];
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok((listeners, ports))
}

fn port<S: Service>(
    service: &Arc<S>,
    (identity, faults, ledger): (&Identity, &Arc<FaultPlan>, &Arc<Ledger>),
) -> Port<S> {
    Port {
        service: Arc::clone(service),
        faults: Arc::clone(faults),
        ledger: Arc::clone(ledger),
        acceptor: identity.acceptor.clone(),
    }
}
