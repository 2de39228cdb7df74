//! Drives the core: makes alerts of rows, decides those that are due, calls the providers, and writes what came of it.
//!
//! ```text
//! rows of logs ─ maker ─ queue ─ worker: facts → decide → begin (written) → call → finish (written) → notes
//! ```
//!
//! A worker may die anywhere. Before `begin` the record is due again after its lease. Between `begin` and `finish` the record names the
//! calls: the next worker notes that their outcome is unknown, and repeats none (G9).

mod calls;
mod facts;
mod maker;
mod operator;
mod withdraw;
mod worker;

use std::sync::Arc;

use madang_ids::{ChannelId, Cursor, Millis, Snowflakes, UserId};
use madang_proto::rest::{PushInfo, PushRow};
use madang_proto::{AlertOutcome, ErrorBody, PushProvider, PushTarget};
use madang_service::{Clock, Drain};
use madang_store::{AlertOutbox, AlertQueue, Store, StoreResult};
use tokio::sync::Notify;

use crate::config::PushConfig;
use crate::http::LookUp;
use crate::lanes::Lanes;
use crate::metrics::PushMetrics;
use crate::notice::Tags;
use crate::providers::Providers;
use crate::shelf::Keep;

pub use operator::Redriven;

/// What this process knows of users who are connected to it.
pub trait Nearby: Send + Sync + 'static {
    /// Whether a device of the user is connected.
    fn is_online(&self, user: UserId) -> bool;
    /// Positions that devices of the user have received, and that may not be in the store yet.
    fn received(&self, user: UserId) -> Vec<Cursor>;
    /// Milliseconds for which alerts of a channel wait longer than usual, so that more of its messages fold into one: it is hot.
    fn holds_ms(&self, channel: ChannelId) -> u64;
}

/// A process without connections. What devices have received is in the store a second later, and alerts of users who are online wait
/// longer than that.
pub struct Elsewhere;

impl Nearby for Elsewhere {
    fn is_online(&self, _user: UserId) -> bool {
        false
    }

    fn received(&self, _user: UserId) -> Vec<Cursor> {
        Vec::new()
    }

    fn holds_ms(&self, _channel: ChannelId) -> u64 {
        0
    }
}

/// What push needs.
pub struct PushParts {
    /// The settings.
    pub config: PushConfig,
    /// Accounts, channels, messages, subscriptions.
    pub store: Arc<dyn Store>,
    /// The queue of alerts.
    pub queue: Arc<dyn AlertQueue>,
    /// Where rows wait until alerts are made of them; `None` where the inboxes make them.
    pub outbox: Option<Arc<dyn AlertOutbox>>,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: PushMetrics,
    /// A secret of the server, from which the names of channels for providers are derived.
    pub secret: [u8; 32],
    /// Where the keys are that no setting names.
    pub keep: Keep,
    /// Mints the ids of dead letters.
    pub ids: Arc<Snowflakes>,
    /// Looks up the hosts of endpoints.
    pub look_up: Arc<dyn LookUp>,
}

/// The role. A clone is the same one.
#[derive(Clone)]
pub struct Push(Option<Arc<Inner>>);

struct Inner {
    config: PushConfig,
    store: Arc<dyn Store>,
    queue: Arc<dyn AlertQueue>,
    outbox: Option<Arc<dyn AlertOutbox>>,
    clock: Clock,
    metrics: PushMetrics,
    tags: Tags,
    providers: Providers,
    lanes: Lanes,
    ids: Arc<Snowflakes>,
    /// Alerts were made that may be due.
    made: Notify,
}

impl Push {
    /// Opens the providers. What is wrong with one of them is logged, and the others work.
    #[must_use]
    pub fn open(parts: PushParts) -> Self {
        let PushParts { config, store, queue, outbox, clock, metrics, secret, keep, ids, look_up } = parts;
        let (providers, problems) = Providers::open(&config, &keep, &look_up);
        for problem in problems {
            tracing::error!("push: {problem}");
        }
        if !providers.is_empty()
            && let Some(outbox) = &outbox
        {
            outbox.begin_alerts();
        }
        let lanes = Lanes::new(providers.allowed.clone(), clock.clone(), metrics.clone());
        let (tags, made) = (Tags::new(&secret), Notify::new());
        Self(Some(Arc::new(Inner {
            config,
            store,
            queue,
            outbox,
            clock,
            metrics,
            tags,
            providers,
            lanes,
            ids,
            made,
        })))
    }

    /// A server without alerts.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Whether there is a provider. Without one nothing is to be driven.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.providers.is_empty())
    }

    /// What an app needs to subscribe.
    #[must_use]
    pub fn info(&self) -> PushInfo {
        self.0.as_ref().map(|inner| inner.providers.info().clone()).unwrap_or_default()
    }

    /// What this process has sent to the providers that it has called.
    #[must_use]
    pub fn figures(&self) -> Vec<PushRow> {
        let Some(inner) = &self.0 else { return Vec::new() };
        PushProvider::ALL.into_iter().filter_map(|provider| inner.figures_of(provider)).collect()
    }

    /// Checks what an app registers.
    ///
    /// # Errors
    /// `unsupported` for a provider that this server does not use; `invalid` names the field.
    pub fn check(&self, target: &PushTarget) -> Result<(), ErrorBody> {
        match &self.0 {
            Some(inner) => inner.providers.check(target),
            None => Providers::default().check(target),
        }
    }

    /// Notes that a device of a user has a subscription. To be called once that is in the store.
    ///
    /// # Errors
    /// Those of the queue: the call for the subscription should be repeated then.
    pub async fn subscribed(&self, user: UserId) -> StoreResult<()> {
        match &self.0 {
            Some(inner) => inner.queue.subscribed(user).await,
            None => Ok(()),
        }
    }

    /// Makes alerts of rows, until the task is dropped.
    pub async fn make(self, nearby: Arc<dyn Nearby>) {
        if let Some(inner) = &self.0
            && let Some(outbox) = &inner.outbox
        {
            inner.make_alerts(outbox.as_ref(), nearby.as_ref()).await;
        }
    }

    /// Decides and sends what is due, until the task is dropped. Calls that are under way then have an unknown outcome. When `drain`
    /// begins, no further call is begun, and the task ends with the last one.
    pub async fn work(self, nearby: Arc<dyn Nearby>, drain: Drain) {
        if let Some(inner) = &self.0 {
            inner.work(nearby, drain).await;
        }
    }
}

impl Inner {
    /// `None` if the provider was not called.
    fn figures_of(&self, provider: PushProvider) -> Option<PushRow> {
        let calls = |outcome| self.metrics.calls_of(provider, outcome);
        let row = PushRow {
            provider,
            taken: calls(AlertOutcome::Taken),
            not_taken: calls(AlertOutcome::NotTaken),
            unknown: calls(AlertOutcome::Unknown),
            gone: calls(AlertOutcome::Gone) + calls(AlertOutcome::WrongEnvironment),
            dead: calls(AlertOutcome::Refused) + calls(AlertOutcome::Expired),
            credential: calls(AlertOutcome::Credential),
            halted: self.lanes.halted_of(provider),
        };
        let PushRow { taken, not_taken, unknown, gone, dead, credential, .. } = row;
        let is_called = taken + not_taken + unknown + gone + dead + credential > 0;
        is_called.then_some(row)
    }

    fn expiry(&self, now: Millis) -> Millis {
        now.plus(self.config.kept_hours * 3_600_000)
    }

    /// The page that a click opens.
    fn link(&self, channel: Option<madang_ids::ChannelId>) -> String {
        let channel = channel.map(|channel| channel.to_string()).unwrap_or_default();
        self.config.link.replace("{channel_id}", &channel)
    }
}
