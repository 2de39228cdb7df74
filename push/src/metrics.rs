//! The metrics of push.

use madang_proto::{AlertOutcome, PushProvider};
use madang_service::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// A word as the value of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

/// Labels of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// The provider.
    pub provider: Word,
    /// The meaning of its answer.
    pub outcome: Word,
}

/// The label of what one provider does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProviderLabel {
    /// The provider.
    pub provider: Word,
}

/// The label of an alert that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason.
    pub reason: Word,
}

/// The metrics of push. A clone shares them.
#[derive(Debug, Clone)]
pub struct PushMetrics {
    /// G9: calls to providers, by the meaning of the answer.
    pub calls: Family<CallLabels, Counter>,
    /// Seconds until the answer.
    pub call_seconds: Family<ProviderLabel, Histogram, fn() -> Histogram>,
    /// G9: alerts that were decided against, by reason.
    pub dropped: Family<ReasonLabel, Counter>,
    /// G9: calls whose worker died. What they did is unknown, and they are not repeated.
    pub abandoned: Counter,
    /// Seconds between the time at which an alert was due and the decision.
    pub late_seconds: Histogram,
    /// Alerts that are being decided or sent.
    pub working: Gauge,
    /// Failed reads and writes of the store. They are tried again.
    pub store_failures: Counter,
    /// Providers that are left alone because they fail, or do not accept the keys of this server.
    pub halted_lanes: Gauge,
    /// Calls for which there was no place, because a provider is slow. They are made later.
    pub postponed: Family<ProviderLabel, Counter>,
    /// Subscriptions that were kept although their provider calls them gone, because it calls too many so.
    pub guarded: Family<ProviderLabel, Counter>,
}

impl PushMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 13));
        let this = Self {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(seconds),
            dropped: Family::default(),
            abandoned: Counter::default(),
            late_seconds: Histogram::new(exponential_buckets(0.01, 3.0, 12)),
            working: Gauge::default(),
            store_failures: Counter::default(),
            halted_lanes: Gauge::default(),
            postponed: Family::default(),
            guarded: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "push_calls",
                "G9: calls to push providers, by the meaning of the answer",
                this.calls.clone(),
            );
            registry.register(
                "push_call_seconds",
                "Seconds until a provider answers",
                this.call_seconds.clone(),
            );
            registry.register("push_dropped", "G9: alerts decided against, by reason", this.dropped.clone());
            registry.register(
                "push_abandoned",
                "G9: calls whose worker died: unknown, not repeated",
                this.abandoned.clone(),
            );
            registry.register(
                "push_late_seconds",
                "Seconds between due and decided",
                this.late_seconds.clone(),
            );
            registry.register("push_working", "G7: alerts being decided or sent", this.working.clone());
            registry.register(
                "push_store_failures",
                "Failed reads and writes of push, tried again",
                this.store_failures.clone(),
            );
            registry.register(
                "push_halted_lanes",
                "Push services that are left alone at present",
                this.halted_lanes.clone(),
            );
            registry.register(
                "push_postponed",
                "G7: calls made later because a provider is slow",
                this.postponed.clone(),
            );
            registry.register(
                "push_guarded",
                "Subscriptions kept because too many are called gone",
                this.guarded.clone(),
            );
        });
        this
    }

    pub(crate) fn count_call(&self, provider: PushProvider, outcome: AlertOutcome) {
        let labels = CallLabels { provider: Word(provider.as_str()), outcome: Word(outcome_word(outcome)) };
        self.calls.get_or_create(&labels).inc();
    }

    /// The calls to a provider with this outcome.
    pub(crate) fn calls_of(&self, provider: PushProvider, outcome: AlertOutcome) -> u64 {
        let labels = CallLabels { provider: Word(provider.as_str()), outcome: Word(outcome_word(outcome)) };
        self.calls.get(&labels).map_or(0, |calls| calls.get())
    }

    pub(crate) fn of(provider: PushProvider) -> ProviderLabel {
        ProviderLabel { provider: Word(provider.as_str()) }
    }
}

const fn outcome_word(outcome: AlertOutcome) -> &'static str {
    match outcome {
        AlertOutcome::Dropped => "dropped",
        AlertOutcome::Taken => "taken",
        AlertOutcome::NotTaken => "not_taken",
        AlertOutcome::Unknown => "unknown",
        AlertOutcome::Gone => "gone",
        AlertOutcome::WrongEnvironment => "wrong_environment",
        AlertOutcome::Credential => "credential",
        AlertOutcome::Refused => "refused",
        AlertOutcome::Expired => "expired",
        AlertOutcome::Withdrawn => "withdrawn",
    }
}
