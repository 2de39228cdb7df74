//! Keeps push services apart: one that is slow or fails holds up its own alerts, and no others.
//!
//! APNs, FCM and each origin of endpoints are a lane with a number of places for calls. Those of the large push services, and of hosts
//! that the operator allows, have places of their own. All other hosts are named by users, and share a few places, because a user may
//! name hosts without end that accept a connection and say nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::overload::{Attempt, Breaker, BreakerConfig, Outcome};
use madang_ids::Millis;
use madang_proto::{ApnsEnvironment, PushProvider, PushTarget};
use madang_service::Clock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::{Guard, Verdict};
use crate::metrics::PushMetrics;
use crate::notice::Answer;
use crate::web_push::Endpoint;

/// Calls at once in the lane of a known service.
const KNOWN_PLACES: usize = 64;
/// Calls at once to one host that a user named, and to all of them.
const STRANGE_PLACES: usize = 8;
const STRANGERS: usize = 64;
/// Lanes that are remembered. Idle ones are forgotten beyond it.
const LANES: usize = 1_024;
/// How long an alert waits for a place. A service that works has one much sooner.
const PATIENCE: Duration = Duration::from_secs(1);
/// When it is worth another try if all places are taken.
const BUSY: Duration = Duration::from_secs(5);
/// A service that fails is left alone for 30 s, and then tried with one call. An alert can wait, so there is no shorter rest.
const BREAKER: BreakerConfig =
    BreakerConfig { first_rest: Duration::from_secs(30), longest_rest: Duration::from_secs(30), probes: 1 };

/// All lanes of a process.
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
    strangers: Arc<Semaphore>,
    guards: Mutex<HashMap<PushProvider, Guard>>,
    allowed: Vec<String>,
    clock: Clock,
    metrics: PushMetrics,
}

struct Lane {
    provider: PushProvider,
    places: Arc<Semaphore>,
    is_known: bool,
    state: Mutex<LaneState>,
}

struct LaneState {
    breaker: Breaker,
    /// The operator must look: the keys of this server are not accepted.
    paused_until: Millis,
}

impl Default for LaneState {
    fn default() -> Self {
        Self { breaker: Breaker::new(BREAKER), paused_until: Millis::default() }
    }
}

/// The right to make one call. [`Lanes::count`] takes it back with the answer.
pub(crate) struct Place {
    lane: Arc<Lane>,
    clock: Clock,
    /// `None` once it is counted.
    attempt: Option<Attempt>,
    _permit: OwnedSemaphorePermit,
    _stranger: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.record(Outcome::Dropped);
    }
}

impl Place {
    /// Whether the service is named by a user, who chooses what it answers.
    pub(crate) fn is_strange(&self) -> bool {
        !self.lane.is_known
    }

    fn record(&mut self, outcome: Outcome) {
        if let Some(attempt) = self.attempt.take() {
            self.lane.state.lock().breaker.record(attempt, self.clock.elapsed(), outcome);
        }
    }
}

/// There is no place. It is worth another try after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// The time until then.
    pub(crate) wait: Duration,
}

impl Lanes {
    /// Without any lane. Endpoints on `allowed` hosts are known.
    #[must_use]
    pub(crate) fn new(allowed: Vec<String>, clock: Clock, metrics: PushMetrics) -> Self {
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        let (lanes, guards) = (Mutex::default(), Mutex::default());
        Self { lanes, strangers, guards, allowed, clock, metrics }
    }

    /// Waits for a place, for a second at most. Cancel safe.
    ///
    /// # Errors
    /// The service is slow, fails, or is paused.
    pub(crate) async fn enter(&self, target: &PushTarget) -> Result<Place, Full> {
        let lane = self.lane(target);
        self.check(&lane)?;
        let places = async {
            let permit = Arc::clone(&lane.places).acquire_owned().await.ok()?;
            let stranger = match lane.is_known {
                true => None,
                false => Some(Arc::clone(&self.strangers).acquire_owned().await.ok()?),
            };
            Some((permit, stranger))
        };
        let taken = tokio::time::timeout(PATIENCE, places).await.ok().flatten();
        let (permit, stranger) = taken.ok_or(Full { wait: BUSY })?;
        // After the place was taken: a breaker that tries the service again lets one call through, which must be made.
        self.check(&lane)?;
        let attempt = lane.state.lock().breaker.try_call(self.clock.elapsed());
        let attempt = Some(attempt.map_err(|_| Full { wait: BUSY })?);
        let clock = self.clock.clone();
        Ok(Place { lane, clock, attempt, _permit: permit, _stranger: stranger })
    }

    /// Whether the service is left alone at present.
    fn check(&self, lane: &Lane) -> Result<(), Full> {
        let (now, steady) = (self.clock.now_ms(), self.clock.elapsed());
        let state = lane.state.lock();
        let paused = state.paused_until.get().saturating_sub(now.get());
        let open = state.breaker.check(steady).err().map(|refused| refused.retry_after);
        match Duration::from_millis(paused).max(open.unwrap_or_default()) {
            Duration::ZERO => Ok(()),
            wait => Err(Full { wait }),
        }
    }

    /// Counts the answer to a call. Whether a subscription that is gone may be removed: not while the provider calls too many so.
    pub(crate) fn count(&self, mut place: Place, provider: PushProvider, answer: &Answer) -> bool {
        let has_failed = match answer.verdict {
            Verdict::Unknown => true,
            Verdict::NotTaken { .. } => answer.status.is_none_or(|status| status >= 500),
            _ => false,
        };
        place.record(if has_failed { Outcome::Failed } else { Outcome::Ok });
        let is_gone = matches!(answer.verdict, Verdict::Gone { .. } | Verdict::WrongEnvironment);
        let mut guards = self.guards.lock();
        let guard = guards.entry(provider).or_default();
        let was_tripped = guard.is_tripped();
        let may_remove = guard.count(self.clock.now_ms(), is_gone && !place.is_strange());
        if guard.is_tripped() && !was_tripped {
            let provider = provider.as_str();
            tracing::error!(
                provider,
                "a provider calls more than a tenth of the subscriptions gone: none is removed; look at \
                 the keys, the environment and the topics of this server"
            );
        }
        may_remove || place.is_strange()
    }

    /// Makes no calls in the lane of a target until then.
    pub(crate) fn pause(&self, target: &PushTarget, until: Millis) {
        let lane = self.lane(target);
        let mut state = lane.state.lock();
        state.paused_until = state.paused_until.max(until);
    }

    /// Notes the number of lanes that are left alone at present.
    pub(crate) fn note_halted(&self) {
        let halted = self.halted(|_| true);
        self.metrics.halted_lanes.set(i64::from(halted));
    }

    /// The number of lanes of a provider that are left alone at present. A service that serves two counts for the first one that used it.
    pub(crate) fn halted_of(&self, provider: PushProvider) -> u32 {
        self.halted(|lane| lane.provider == provider)
    }

    fn halted(&self, concerns: impl Fn(&Lane) -> bool) -> u32 {
        let lanes: Vec<Arc<Lane>> = self.lanes.lock().values().cloned().collect();
        let halted = lanes.iter().filter(|lane| concerns(lane) && self.check(lane).is_err()).count();
        u32::try_from(halted).unwrap_or(u32::MAX)
    }

    fn lane(&self, target: &PushTarget) -> Arc<Lane> {
        let (name, is_known) = self.name(target);
        let mut lanes = self.lanes.lock();
        if lanes.len() >= LANES && !lanes.contains_key(&name) {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || self.check(lane).is_err());
            if lanes.len() >= LANES {
                // Users have named more hosts that fail than are remembered.
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || lane.is_known);
            }
        }
        let places = if is_known { KNOWN_PLACES } else { STRANGE_PLACES };
        let made = || Lane {
            provider: target.provider(),
            places: Arc::new(Semaphore::new(places)),
            is_known,
            state: Mutex::default(),
        };
        Arc::clone(lanes.entry(name).or_insert_with(|| Arc::new(made())))
    }

    /// The name of a lane, and whether the service is known.
    fn name(&self, target: &PushTarget) -> (String, bool) {
        match target {
            PushTarget::Apns { environment: ApnsEnvironment::Production, .. } => ("apns".to_owned(), true),
            PushTarget::Apns { environment: ApnsEnvironment::Sandbox, .. } => {
                ("apns sandbox".to_owned(), true)
            }
            PushTarget::Fcm { .. } => ("fcm".to_owned(), true),
            PushTarget::WebPush { endpoint: url, .. }
            | PushTarget::UnifiedPush { endpoint: url, .. }
            | PushTarget::Webhook { url } => match Endpoint::parse(url, &self.allowed) {
                Ok(endpoint) => (endpoint.origin(), endpoint.is_known(&self.allowed)),
                // It is refused before it is called.
                Err(_) => ("none".to_owned(), false),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_service::Metrics;

    fn lanes() -> Lanes {
        let (clock, _) = Clock::manual(Millis::new(1_800_000_000_000));
        Lanes::new(vec!["push.lan".to_owned()], clock, PushMetrics::register(&Metrics::new()))
    }

    fn hook(host: &str) -> PushTarget {
        PushTarget::Webhook { url: format!("https://{host}/x") }
    }

    const FCM: fn() -> PushTarget = || PushTarget::Fcm { token: "t".to_owned(), project: "p".to_owned() };

    #[tokio::test(start_paused = true)]
    async fn hosts_that_users_name_hold_up_only_each_other() {
        let lanes = lanes();
        let mut held = Vec::new();
        for number in 0..STRANGERS / STRANGE_PLACES {
            for _ in 0..STRANGE_PLACES {
                held.push(lanes.enter(&hook(&format!("slow{number}.example"))).await.unwrap());
            }
        }
        assert!(lanes.enter(&hook("slow0.example")).await.is_err(), "all places of the host are taken");
        assert!(lanes.enter(&hook("other.example")).await.is_err(), "all places for strangers are taken");
        assert!(
            lanes.enter(&hook("fcm.googleapis.com:81")).await.is_err(),
            "another port is another service"
        );
        for target in [FCM(), hook("push.lan"), hook("updates.push.services.mozilla.com")] {
            assert!(lanes.enter(&target).await.is_ok(), "{target:?}");
        }
        held.pop();
        assert!(lanes.enter(&hook("other.example")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_is_left_alone_and_the_others_are_not() {
        let lanes = lanes();
        for _ in 0..20 {
            let place = lanes.enter(&hook("broken.example")).await.ok().unwrap();
            lanes.count(place, PushProvider::Webhook, &Answer::without(Verdict::Unknown, "silence"));
        }
        let full = lanes.enter(&hook("broken.example")).await.err().unwrap();
        assert_eq!(full.wait, Duration::from_secs(30), "it says when to come back");
        lanes.note_halted();
        assert_eq!(lanes.metrics.halted_lanes.get(), 1);
        assert_eq!((lanes.halted_of(PushProvider::Webhook), lanes.halted_of(PushProvider::Fcm)), (1, 0));
        lanes.pause(&FCM(), lanes.clock.now_ms().plus(10));
        assert_eq!(lanes.enter(&FCM()).await.err().unwrap().wait, Duration::from_millis(10));
        assert!(lanes.enter(&hook("works.example")).await.is_ok());
    }

    #[tokio::test]
    async fn lanes_that_are_idle_are_forgotten() {
        let lanes = lanes();
        for number in 0..3 * LANES {
            let place = lanes.enter(&hook(&format!("host{number}.example"))).await.ok().unwrap();
            lanes.pause(&hook(&format!("host{number}.example")), Millis::new(u64::MAX >> 1));
            drop(place);
        }
        assert!(lanes.lanes.lock().len() <= LANES);
    }
}
