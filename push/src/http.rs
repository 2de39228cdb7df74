//! The HTTP client of all adapters, and what it means if there is no answer.

use std::error::Error;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, Response};
use tokio::sync::Semaphore;

use crate::core::Verdict;
use crate::notice::{ANSWER_BYTES, Answer};
use crate::web_push::is_public;

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for a call.
const TOTAL: Duration = Duration::from_secs(20);
/// An idle connection is asked this often whether it still works.
const PING: Duration = Duration::from_secs(60);
/// Names that are looked up at once.
const LOOK_UPS: usize = 16;
/// An unused connection to an endpoint is closed after this time, and one to a host that a user named at once: a user may name hosts
/// without end.
const IDLE: Duration = Duration::from_secs(90);
/// Unused connections to one host.
const IDLE_CONNECTIONS: usize = 8;
/// The longest `Retry-After` that is believed.
const LONGEST_WAIT: u64 = 86_400;

/// Looks names up. Tests have their own.
#[async_trait]
pub trait LookUp: Send + Sync + 'static {
    /// The addresses of a host.
    async fn look_up(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system. It blocks threads, which others need as well: a name may take half a minute.
#[derive(Debug, Clone)]
pub struct SystemLookUp(Arc<Semaphore>);

impl Default for SystemLookUp {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOK_UPS)))
    }
}

#[async_trait]
impl LookUp for SystemLookUp {
    async fn look_up(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(std::io::Error::other)?;
        let host = host.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            // Until the thread is free, also if the caller is gone.
            let _permit = permit;
            (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        });
        found.await.map_err(std::io::Error::other)?
    }
}

/// A name has an address on which nobody on the internet is.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to an address that is not public")]
struct NotPublic;

/// Looks up a name right before the connection, and connects to nothing but what it has checked: a name may lead elsewhere each time.
#[derive(Clone)]
pub(crate) struct GuardedResolver {
    look_up: Arc<dyn LookUp>,
    /// Hosts that the operator allows.
    allowed: Arc<[String]>,
}

impl GuardedResolver {
    /// Allows `allowed` hosts any address, and others public ones.
    #[must_use]
    pub(crate) fn new(look_up: Arc<dyn LookUp>, allowed: &[String]) -> Self {
        Self { look_up, allowed: allowed.into() }
    }

    async fn addresses(self, host: String) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
        let found = self.look_up.look_up(&host).await?;
        let is_allowed = self.allowed.contains(&host);
        if !is_allowed && !found.iter().copied().all(is_public) {
            return Err(NotPublic.into());
        }
        Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))))
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(self.clone().addresses(name.as_str().to_owned()))
    }
}

/// A client without proxies, redirects and retries: what follows from a failure is decided by the core. The only exception is a
/// request that was certainly never sent, because its connection had ended before.
pub(crate) fn builder(roots: &[Certificate]) -> ClientBuilder {
    Client::builder()
        .use_rustls_tls()
        .tls_certs_merge(roots.iter().cloned())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT)
        .timeout(TOTAL)
        .user_agent(concat!("madang/", env!("CARGO_PKG_VERSION")))
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_while_idle(true)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
}

/// Clients for endpoints, which users name.
#[derive(Debug, Clone)]
pub(crate) struct EndpointClients {
    known: Client,
    strange: Client,
}

impl EndpointClients {
    /// They connect to public addresses, and to hosts in `allowed`.
    ///
    /// # Errors
    /// The clients cannot be made.
    pub(crate) fn new(
        roots: &[Certificate],
        allowed: &[String],
        look_up: &Arc<dyn LookUp>,
    ) -> reqwest::Result<Self> {
        let resolver = Arc::new(GuardedResolver::new(Arc::clone(look_up), allowed));
        let builder = || builder(roots).dns_resolver(Arc::clone(&resolver));
        Ok(Self { known: builder().build()?, strange: builder().pool_max_idle_per_host(0).build()? })
    }

    /// The client for an endpoint.
    pub(crate) const fn of(&self, is_known: bool) -> &Client {
        if is_known { &self.known } else { &self.strange }
    }
}

/// An answer whose body was read, up to its bound.
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) retry_after: Option<Duration>,
}

/// Sends a request and reads its answer.
///
/// # Errors
/// There is no answer.
pub(crate) async fn call(request: RequestBuilder) -> Result<Received, Answer> {
    let response = request.send().await.map_err(|error| no_answer(&error))?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    Ok(Received { status, body: body(response).await, retry_after })
}

/// The beginning of the body. The status says enough if it cannot be read.
async fn body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_BYTES {
            break;
        }
    }
    body
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

/// Only what certainly did not reach the provider is sent again: no connection was made; the provider has refused the stream, or has
/// said goodbye with the number of the last stream that it took (RFC 9113, sections 6.8 and 8.7).
fn no_answer(error: &reqwest::Error) -> Answer {
    let causes = causes(error);
    // The last cause: the first ones contain the address, which is a secret.
    let text = causes.last().map_or_else(String::new, ToString::to_string);
    if error.is_timeout() && !error.is_connect() {
        return Answer::without(Verdict::Unknown, "no answer in time");
    }
    if causes.iter().any(|cause| cause.is::<NotPublic>()) {
        return Answer::without(Verdict::WrongEnvironment, &text);
    }
    let is_refused = causes.iter().any(|cause| {
        let frame = cause.downcast_ref::<h2::Error>().filter(|error| error.is_remote());
        frame.is_some_and(|error| error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    });
    let certainly_not = error.is_connect() || error.is_builder() || is_refused;
    let verdict = match certainly_not {
        true if is_refused => Verdict::NotTaken { after: Some(Duration::ZERO) },
        true => Verdict::NotTaken { after: None },
        false => Verdict::Unknown,
    };
    Answer::without(verdict, &text)
}

/// The error and its causes, the first one last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let (mut causes, mut next) = (vec![error], error.source());
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    causes
}

/// Certificates of a PEM file.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub(crate) fn roots(file: &std::path::Path) -> std::io::Result<Vec<Certificate>> {
    if file.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let certificates = Certificate::from_pem_bundle(&std::fs::read(file)?);
    match certificates {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, "has no certificate in PEM")),
    }
}
