//! What really came of an override, recorded beside its forecast.

use std::sync::Arc;
use std::time::Duration;

use madang_ids::{ChannelId, Millis};
use madang_proto::rest::{ActKind, Forecast};
use parking_lot::Mutex;

use super::acts::{Entry, Who};
use super::document::OVERRIDES;
use super::{Known, Operators};
use crate::heat::Paced;

/// An override is measured for this long, or until its end.
const MEASURED: Duration = Duration::from_secs(300);
/// An outcome that cannot be written is given up after this time: the store is gone for longer.
const GIVEN_UP: Duration = Duration::from_secs(600);
/// The figures of a shorter time say nothing.
const LEAST: Duration = Duration::from_secs(10);

/// Overrides that were set on this node and are measured. A node that ends takes them with it: their outcome is not recorded.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Mutex<Vec<Measured>>);

#[derive(Debug, Clone)]
struct Measured {
    channel: ChannelId,
    /// The act that set the override, and when.
    act: u64,
    set_at: Millis,
    forecast: Forecast,
    begun: Duration,
    before: Paced,
    /// The last counts, and when they were read.
    last: (Duration, Paced),
}

impl Outcomes {
    /// Begins to measure an override that the act `known.version` has set.
    pub(super) fn begin(
        &self,
        channel: ChannelId,
        known: &Known,
        forecast: Forecast,
        before: Paced,
        now: Duration,
    ) {
        let mut all = self.0.lock();
        if all.len() < OVERRIDES {
            let (act, set_at) = (known.version, known.at);
            all.push(Measured { channel, act, set_at, forecast, begun: now, before, last: (now, before) });
        }
    }
}

impl Operators {
    /// Reads the counts of overrides, and records the outcome of those that were measured for long enough or have ended.
    pub(super) async fn measure(self: &Arc<Self>) {
        let (known, now, wall) = (self.known.load_full(), self.clock.elapsed(), self.clock.now_ms());
        let mut ended = Vec::new();
        self.outcomes.0.lock().retain_mut(|measured| {
            let card = known.document.override_of(measured.channel);
            let holds = card.is_some_and(|card| card.since == measured.set_at && card.ends_at > wall);
            if let Some(paced) = self.heats.paced(measured.channel).filter(|_| holds) {
                measured.last = (now, paced);
            }
            let age = now.saturating_sub(measured.begun);
            if holds && age < MEASURED {
                return true;
            }
            ended.push(measured.clone());
            false
        });
        for measured in ended {
            if self.record(&measured).await.is_err() && now.saturating_sub(measured.begun) < GIVEN_UP {
                self.outcomes.0.lock().push(measured);
            }
        }
    }

    async fn record(&self, measured: &Measured) -> crate::refusal::Result<()> {
        let outcome = measured.words();
        let who = Who { name: "madang".to_owned(), from: String::new() };
        let (kind, channel) = (ActKind::OverrideMeasured, Some(measured.channel));
        let entry = Entry { who: &who, kind, channel, why: "", base: None };
        self.act(entry, |_, _| Ok(outcome.clone())).await?;
        Ok(())
    }
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "counts of minutes are far below 2^52")]
    fn words(&self) -> String {
        let (at, paced) = self.last;
        let lasted = at.saturating_sub(self.begun);
        if lasted < LEAST {
            return format!("act {} held for {} s, too short to measure", self.act, lasted.as_secs());
        }
        let minute =
            |after: u64, before: u64| after.saturating_sub(before) as f64 * 60.0 / lasted.as_secs_f64();
        let frames = minute(paced.frames, self.before.frames);
        let joins = minute(paced.joins_refused, self.before.joins_refused);
        let Forecast { frames: [_, frames_forecast], joins_refused: joins_forecast, .. } = self.forecast;
        format!(
            "within {} s after act {}: {frames:.0} frames a minute came, {frames_forecast:.0} were forecast; {joins:.0} joins a \
             minute were refused, {joins_forecast:.0} were forecast",
            lasted.as_secs(),
            self.act
        )
    }
}
