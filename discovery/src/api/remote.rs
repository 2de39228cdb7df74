//! Discovery over the internal HTTP API of other processes: see docs/internal.md.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use madang_auth::{InternalCall, InternalCalls};
use madang_bus::registry::{ProcessCard, ProcessRun, ProcessState, RegistryError, RegistryView, Renewal};
use madang_service::Clock;
use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;

use super::Discovery;
use crate::core::ViewRevision;

/// The longest time of one attempt. A view may wait for a second at the other end.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest answer: a view of 4,096 processes of at most 1.5 KiB.
pub const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Most discovery processes that one call tries.
const ATTEMPTS: usize = 3;

/// What travels.
pub(crate) mod wire {
    use std::borrow::Cow;

    use madang_bus::registry::{ProcessCard, ProcessRun, ProcessState, RegistryError};
    use madang_ids::{NodeEpoch, NodeId};
    use serde::{Deserialize, Serialize};

    /// The common beginning of all paths.
    pub(crate) const PREFIX: &str = "/internal/v1";
    /// Headers of a call; the last one also of an answer.
    pub(crate) const TIME: &str = "x-madang-time";
    pub(crate) const NONCE: &str = "x-madang-nonce";
    pub(crate) const MAC: &str = "x-madang-mac";

    /// `POST /internal/v1/register`
    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) struct Register {
        pub(crate) card: ProcessCard,
        pub(crate) state: ProcessState,
    }

    /// `POST /internal/v1/renew`
    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) struct Renew {
        pub(crate) run: ProcessRun,
        pub(crate) state: ProcessState,
    }

    /// `POST /internal/v1/leave`
    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) struct Leave {
        pub(crate) run: ProcessRun,
    }

    /// Why a call has no result.
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "error", rename_all = "snake_case")]
    pub(crate) enum Refused {
        OlderEpoch { known: NodeEpoch },
        NameTaken { id: NodeId },
        Invalid { message: Cow<'static, str> },
        Unavailable { message: String },
    }

    impl Refused {
        pub(crate) const fn status(&self) -> u16 {
            match self {
                Self::OlderEpoch { .. } | Self::NameTaken { .. } => 409,
                Self::Invalid { .. } => 400,
                Self::Unavailable { .. } => 503,
            }
        }
    }

    impl From<RegistryError> for Refused {
        fn from(error: RegistryError) -> Self {
            match error {
                RegistryError::OlderEpoch { known } => Self::OlderEpoch { known },
                RegistryError::NameTaken { id } => Self::NameTaken { id },
                RegistryError::Invalid(message) => Self::Invalid { message },
                RegistryError::Unavailable(message) => Self::Unavailable { message },
            }
        }
    }

    impl From<Refused> for RegistryError {
        fn from(refused: Refused) -> Self {
            match refused {
                Refused::OlderEpoch { known } => Self::OlderEpoch { known },
                Refused::NameTaken { id } => Self::NameTaken { id },
                Refused::Invalid { message } => Self::Invalid(message),
                Refused::Unavailable { message } => Self::Unavailable(message),
            }
        }
    }
}

/// Discovery in processes of its own. A call that one of them does not answer goes to the next; the one that answered last is asked
/// first.
pub struct Remote {
    client: Client,
    urls: Vec<String>,
    /// The place in `urls` of the process that is asked first.
    first: AtomicUsize,
    calls: InternalCalls,
    clock: Clock,
}

impl Remote {
    /// Discovery at these URLs, such as `http://10.0.0.9:7100`, with the secret of the fleet.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(urls: &[String], secret: &[u8; 32], clock: Clock) -> Result<Self, RegistryError> {
        let client = Client::builder()
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| RegistryError::Unavailable(format!("no HTTP client: {error}")))?;
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { client, urls, first: AtomicUsize::new(0), calls: InternalCalls::new(secret), clock })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<T, RegistryError> {
        let (count, first) = (self.urls.len(), self.first.load(Ordering::Relaxed));
        let mut last = RegistryError::Unavailable("discovery.urls is empty".to_owned());
        for attempt in 0..count.min(ATTEMPTS) {
            let at = (first + attempt) % count;
            match self.attempt(&self.urls[at], method.clone(), target, body.clone()).await {
                // Another process may reach Redis.
                Err(error @ RegistryError::Unavailable(_)) => last = error,
                answer => {
                    self.first.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        url: &str,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<T, RegistryError> {
        let unavailable = |what: String| RegistryError::Unavailable(format!("{url}: {what}"));
        let call = InternalCall { method: method.as_str(), target, body: &body };
        // The machine's clock as it is: the other end compares it with its own.
        let stamp = self.calls.sign(call, self.clock.raw_ms());
        let request = self
            .client
            .request(method, format!("{url}{target}"))
            .header(wire::TIME, stamp.time.get())
            .header(wire::NONCE, &stamp.nonce)
            .header(wire::MAC, &stamp.mac)
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await.map_err(|error| unavailable(error.without_url().to_string()))?;
        let status = response.status().as_u16();
        let mac = response.headers().get(wire::MAC).and_then(|mac| mac.to_str().ok());
        let mac = mac.unwrap_or_default().to_owned();
        let answer = bounded(response).await.map_err(&unavailable)?;
        if self.calls.verify_answer(&stamp.nonce, status, &answer, &mac).is_err() {
            return Err(unavailable(match status {
                401 => "it refused our credentials: is tokens.secret_file the same on all processes, and are the \
                        clocks right?"
                    .to_owned(),
                _ => format!("its answer {status} has no valid signature: is it a discovery process of this fleet?"),
            }));
        }
        if status == 200 {
            return serde_json::from_slice(&answer).map_err(|error| unavailable(error.to_string()));
        }
        let refused = serde_json::from_slice::<wire::Refused>(&answer);
        Err(refused.map_or_else(|_| unavailable(format!("it answered {status}")), RegistryError::from))
    }

    async fn post<B: serde::Serialize, T: DeserializeOwned>(
        &self,
        what: &str,
        body: &B,
    ) -> Result<T, RegistryError> {
        let body =
            serde_json::to_vec(body).map_err(|error| RegistryError::Invalid(error.to_string().into()))?;
        self.call(Method::POST, &format!("{}/{what}", wire::PREFIX), body).await
    }
}

/// The body, up to its bound.
async fn bounded(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err("its answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[async_trait]
impl Discovery for Remote {
    async fn register(&self, card: &ProcessCard, state: ProcessState) -> Result<(), RegistryError> {
        card.check()?;
        self.post("register", &wire::Register { card: card.clone(), state }).await
    }

    async fn renew(&self, run: ProcessRun, state: ProcessState) -> Result<Renewal, RegistryError> {
        self.post("renew", &wire::Renew { run, state }).await
    }

    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError> {
        self.post("leave", &wire::Leave { run }).await
    }

    async fn view(&self, known: ViewRevision) -> Result<RegistryView, RegistryError> {
        let target = format!("{}/view?known={}", wire::PREFIX, known.0);
        self.call(Method::GET, &target, Vec::new()).await
    }
}
