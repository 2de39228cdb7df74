//! Keeps push services apart: one that is slow or fails holds up its own alerts, and no others.
//!
//! APNs, FCM and each host of an endpoint are a lane with a number of places for calls. Hosts of the large push services, and those
//! that the operator allows, have places of their own. All other hosts are named by users, and share a few places, because a user may
//! name hosts without end that accept a connection and say nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use madang_ids::Millis;
use madang_proto::{ApnsEnvironment, PushProvider, PushTarget};
use madang_service::Clock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::core::{Breaker, Guard, Verdict};
use crate::metrics::PushMetrics;
use crate::notice::Answer;

/// Calls at once in the lane of a known service.
const KNOWN_PLACES: usize = 64;
/// Calls at once to one host that a user named, and to all of them.
const STRANGE_PLACES: usize = 8;
const STRANGERS: usize = 64;
/// Lanes that are remembered. Idle ones are forgotten beyond it.
const LANES: usize = 1_024;
/// How long an alert waits for a place. A service that works has one much sooner.
const PATIENCE: Duration = Duration::from_secs(1);

/// Push services of browsers. Everybody who uses such a browser has an endpoint there.
const KNOWN_HOSTS: [&str; 4] = [
    "fcm.googleapis.com",
    "android.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
];
/// The end of the names of Microsoft's.
const KNOWN_END: &str = ".notify.windows.com";

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
    places: Arc<Semaphore>,
    is_known: bool,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    breaker: Breaker,
    /// The operator must look: the keys of this server are not accepted.
    paused_until: Millis,
    /// Whether it is counted among those that are left alone.
    is_halted: bool,
}

/// The right to make one call. The answer is counted with [`Lanes::count`].
pub(crate) struct Place {
    lane: Arc<Lane>,
    _permit: OwnedSemaphorePermit,
    _stranger: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    /// Without any lane. Endpoints on `allowed` hosts are known.
    #[must_use]
    pub(crate) fn new(allowed: Vec<String>, clock: Clock, metrics: PushMetrics) -> Self {
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        let (lanes, guards) = (Mutex::default(), Mutex::default());
        Self { lanes, strangers, guards, allowed, clock, metrics }
    }

    /// Waits for a place, for a second at most. `None`: the service is slow, fails, or is paused; try again later. Cancel safe.
    pub(crate) async fn enter(&self, target: &PushTarget) -> Option<Place> {
        let lane = self.lane(target);
        if lane.state.lock().paused_until > self.clock.now_ms() {
            return None;
        }
        let stranger = async {
            match lane.is_known {
                true => Some(None),
                false => Arc::clone(&self.strangers).acquire_owned().await.ok().map(Some),
            }
        };
        let places = async {
            let permit = Arc::clone(&lane.places).acquire_owned().await.ok()?;
            Some((permit, stranger.await?))
        };
        let (permit, stranger) = tokio::time::timeout(PATIENCE, places).await.ok().flatten()?;
        // After the place was taken: a breaker that tries the service again lets one call through, which must be made.
        if !lane.state.lock().breaker.may_call(self.clock.elapsed()) {
            return None;
        }
        Some(Place { lane, _permit: permit, _stranger: stranger })
    }

    /// Counts the answer to a call. Whether a subscription that is gone may be removed: not while the provider calls too many so.
    pub(crate) fn count(&self, place: &Place, provider: PushProvider, answer: &Answer) -> bool {
        let has_failed = match answer.verdict {
            Verdict::Unknown => true,
            Verdict::NotTaken { .. } => answer.status.is_none_or(|status| status >= 500),
            _ => false,
        };
        let mut state = place.lane.state.lock();
        state.breaker.count(self.clock.elapsed(), has_failed);
        self.note_halt(&mut state);
        drop(state);
        let is_gone = matches!(answer.verdict, Verdict::Gone { .. } | Verdict::WrongEnvironment);
        let mut guards = self.guards.lock();
        let guard = guards.entry(provider).or_default();
        let was_tripped = guard.is_tripped();
        let may_remove = guard.count(self.clock.now_ms(), is_gone);
        if guard.is_tripped() && !was_tripped {
            let provider = provider.as_str();
            tracing::error!(
                provider,
                "a provider calls more than a tenth of the subscriptions gone: none is removed; look at \
                 the keys, the environment and the topics of this server"
            );
        }
        may_remove
    }

    /// Makes no calls in the lane until then.
    pub(crate) fn pause(&self, place: &Place, until: Millis) {
        let mut state = place.lane.state.lock();
        state.paused_until = state.paused_until.max(until);
        self.note_halt(&mut state);
    }

    fn note_halt(&self, state: &mut LaneState) {
        let is_halted = state.breaker.is_open() || state.paused_until > self.clock.now_ms();
        if is_halted != state.is_halted {
            state.is_halted = is_halted;
            self.metrics.halted_lanes.inc_by(if is_halted { 1 } else { -1 });
        }
    }

    fn lane(&self, target: &PushTarget) -> Arc<Lane> {
        let (name, is_known) = self.name(target);
        let mut lanes = self.lanes.lock();
        if lanes.len() >= LANES && !lanes.contains_key(&name) {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || lane.state.lock().is_halted);
        }
        let places = if is_known { KNOWN_PLACES } else { STRANGE_PLACES };
        let made = || Lane { places: Arc::new(Semaphore::new(places)), is_known, state: Mutex::default() };
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
            | PushTarget::Webhook { url } => {
                let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
                let host = host.unwrap_or_default();
                let is_known = KNOWN_HOSTS.contains(&&*host) || host.ends_with(KNOWN_END);
                let is_known = is_known || self.allowed.contains(&host);
                (format!("host {host}"), is_known)
            }
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
        assert!(lanes.enter(&hook("slow0.example")).await.is_none(), "all places of the host are taken");
        assert!(lanes.enter(&hook("other.example")).await.is_none(), "all places for strangers are taken");
        for target in [FCM(), hook("push.lan"), hook("updates.push.services.mozilla.com")] {
            assert!(lanes.enter(&target).await.is_some(), "{target:?}");
        }
        held.pop();
        assert!(lanes.enter(&hook("other.example")).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_is_left_alone_and_the_others_are_not() {
        let lanes = lanes();
        for _ in 0..20 {
            let place = lanes.enter(&hook("broken.example")).await.unwrap();
            lanes.count(&place, PushProvider::Webhook, &Answer::without(Verdict::Unknown, "silence"));
        }
        assert!(lanes.enter(&hook("broken.example")).await.is_none());
        assert_eq!(lanes.metrics.halted_lanes.get(), 1);
        let place = lanes.enter(&FCM()).await.unwrap();
        lanes.pause(&place, lanes.clock.now_ms().plus(10));
        assert!(lanes.enter(&FCM()).await.is_none());
        assert!(lanes.enter(&hook("works.example")).await.is_some());
    }

    #[tokio::test]
    async fn lanes_that_are_idle_are_forgotten() {
        let lanes = lanes();
        for number in 0..3 * LANES {
            lanes.enter(&hook(&format!("host{number}.example"))).await.unwrap();
        }
        assert!(lanes.lanes.lock().len() <= LANES);
    }
}
