//! What operators have set, as one document.

use std::collections::BTreeMap;

use madang_ids::{ChannelId, Millis};
use madang_proto::rest::{
    OperatorScope, OverrideCard, OverrideSettings, OverrideWish, RateLimits, RuntimeConfig,
};
use madang_proto::{CapacityConfig, Costs, ErrorBody, LevelPacing, PacingConfig, limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Overrides, and operators, at the same time.
pub(super) const OVERRIDES: usize = 100;
pub(super) const OPERATORS: usize = 100;
/// The bounds of a batch, in milliseconds: freshness depends on it.
const BATCH_MS: u16 = 1_000;
const SECONDS_MAX: u32 = 600;
const RATE_MAX: u32 = 100_000;
const LIMIT_MAX: u32 = 1_000_000;
const SHARED_READ_MS: u32 = 1_000;
const COST_MAX: f64 = 1_000_000.0;
const CAPACITY_MAX: f64 = 1e12;

/// Everything that operators set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    pub(super) config: RuntimeConfig,
    /// The act that made the configuration what it is; `None` in a document of an earlier version of the program: then it is the act
    /// with the document. So while nodes of both versions run, no change is overlooked.
    pub(super) config_mark: Option<ConfigMark>,
    overrides: Vec<StoredOverride>,
    operators: BTreeMap<String, Credential>,
}

/// An act that changed the configuration. Other acts leave it as it is: they do not come between an operator and what they have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConfigMark {
    /// The number of the act; 0 if there was none yet.
    pub(super) version: u64,
    pub(super) at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredOverride {
    channel_id: ChannelId,
    #[serde(flatten)]
    card: OverrideCard,
}

/// An operator. Of the secret only the hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Credential {
    scope: OperatorScope,
    hash: [u8; 32],
    added_at: Millis,
}

/// An operator as others see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCard {
    /// The name.
    pub name: String,
    /// What they may do.
    pub scope: OperatorScope,
    /// When they were added, or got their present secret.
    pub added_at: Millis,
}

impl Document {
    /// Reads a stored document. What an earlier version of the program did not know has its default.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut document = serde_json::to_value(Self::default())?;
        put_over(&mut document, serde_json::from_str(text)?);
        serde_json::from_value(document)
    }

    pub(super) fn overrides(&self) -> impl Iterator<Item = (ChannelId, OverrideCard)> + '_ {
        self.overrides.iter().map(|stored| (stored.channel_id, stored.card.clone()))
    }

    pub(super) fn override_of(&self, channel: ChannelId) -> Option<&OverrideCard> {
        self.overrides.iter().find(|stored| stored.channel_id == channel).map(|stored| &stored.card)
    }

    /// Sets an override, which replaces an earlier one of the channel. Those that have ended are removed.
    pub(super) fn set_override(
        &mut self,
        channel_id: ChannelId,
        card: OverrideCard,
        now: Millis,
    ) -> Result<(), ErrorBody> {
        self.overrides.retain(|stored| stored.channel_id != channel_id && stored.card.ends_at > now);
        if self.overrides.len() >= OVERRIDES {
            let message = format!("there are {OVERRIDES} overrides, the limit: end one first");
            return Err(ErrorBody::field(madang_proto::ErrorCode::Full, "channel_id", message));
        }
        self.overrides.push(StoredOverride { channel_id, card });
        Ok(())
    }

    /// Ends an override. `false` if there is none.
    pub(super) fn end_override(&mut self, channel: ChannelId, now: Millis) -> bool {
        let has = self.override_of(channel).is_some_and(|card| card.ends_at > now);
        self.overrides.retain(|stored| stored.channel_id != channel && stored.card.ends_at > now);
        has
    }

    /// The scope of an operator, and the hash of the secret.
    pub(super) fn operator(&self, name: &str) -> Option<(OperatorScope, [u8; 32])> {
        self.operators.get(name).map(|operator| (operator.scope, operator.hash))
    }

    pub(super) fn operators(&self) -> impl Iterator<Item = OperatorCard> + '_ {
        self.operators.iter().map(|(name, operator)| OperatorCard {
            name: name.clone(),
            scope: operator.scope,
            added_at: operator.added_at,
        })
    }

    /// Adds an operator, or gives an operator another secret and scope. `true` if the name is new.
    pub(super) fn put_operator(
        &mut self,
        name: &str,
        scope: OperatorScope,
        hash: [u8; 32],
        added_at: Millis,
    ) -> bool {
        self.operators.insert(name.to_owned(), Credential { scope, hash, added_at }).is_none()
    }

    pub(super) fn remove_operator(&mut self, name: &str) -> bool {
        self.operators.remove(name).is_some()
    }
}

/// Puts the members of one value over those of another.
fn put_over(value: &mut Value, over: Value) {
    match (value, over) {
        (Value::Object(members), Value::Object(over)) => {
            for (name, inner) in over {
                put_over(members.entry(name).or_insert(Value::Null), inner);
            }
        }
        (value, over) => *value = over,
    }
}

/// Checks a configuration from outside.
///
/// # Errors
/// `invalid`: names the field and its bounds.
pub(super) fn check_config(config: &RuntimeConfig) -> Result<(), ErrorBody> {
    let heat = &config.heat;
    check_costs(&heat.costs)?;
    check_capacity(&heat.capacity)?;
    check_pacing(&heat.pacing)?;
    check_limits(&config.limits)
}

fn check_limits(limits: &RateLimits) -> Result<(), ErrorBody> {
    let RateLimits { user_sends, user_write_kib, user_requests, address_requests, address_logins } = *limits;
    let named = [
        ("user_sends", user_sends),
        ("user_write_kib", user_write_kib),
        ("user_requests", user_requests),
        ("address_requests", address_requests),
        ("address_logins", address_logins),
    ];
    named
        .into_iter()
        .try_for_each(|(name, rate)| whole(&format!("config.limits.{name}"), rate.unwrap_or(0), 0, LIMIT_MAX))
}

fn check_costs(costs: &Costs) -> Result<(), ErrorBody> {
    let Costs { entry, kib, delivery, read, join } = *costs;
    for (name, cost) in
        [("entry", entry), ("kib", kib), ("delivery", delivery), ("read", read), ("join", join)]
    {
        between(&format!("config.heat.costs.{name}"), cost, 0.0, COST_MAX)?;
    }
    if entry + kib + delivery + read + join > 0.0 {
        return Ok(());
    }
    Err(ErrorBody::invalid("config.heat.costs", "config.heat.costs: at least one must be above 0"))
}

fn check_capacity(capacity: &CapacityConfig) -> Result<(), ErrorBody> {
    let CapacityConfig { shares, floor, cap, lag_ms, assumed } = capacity;
    rising("config.heat.capacity.shares", shares, 1.0)?;
    rising("config.heat.capacity.floor", floor, CAPACITY_MAX)?;
    rising("config.heat.capacity.cap", cap, CAPACITY_MAX)?;
    if floor.iter().zip(cap).any(|(floor, cap)| floor > cap) {
        let message = "config.heat.capacity.floor: each must be at most the cap of the same level";
        return Err(ErrorBody::invalid("config.heat.capacity.floor", message));
    }
    between("config.heat.capacity.lag_ms", *lag_ms, 1.0, 10_000.0)?;
    between("config.heat.capacity.assumed", *assumed, 1.0, CAPACITY_MAX)
}

fn check_pacing(pacing: &PacingConfig) -> Result<(), ErrorBody> {
    for (name, level) in [("warm", pacing.warm), ("hot", pacing.hot), ("blazing", pacing.blazing)] {
        let field = |part: &str| format!("config.heat.pacing.{name}.{part}");
        let LevelPacing { batch_ms, heads_seconds, joins_per_second, slow_mode_seconds, .. } = level;
        check_batch(&field("batch_ms"), batch_ms)?;
        whole(&field("heads_seconds"), heads_seconds, 1, 60)?;
        whole(&field("joins_per_second"), joins_per_second, 0, RATE_MAX)?;
        check_slow_mode(&field("slow_mode_seconds"), slow_mode_seconds)?;
        whole(&field("slow_reader_entries"), level.slow_reader_entries, 0, RATE_MAX)?;
        whole(&field("shared_read_ms"), level.shared_read_ms, 0, SHARED_READ_MS)?;
        whole(&field("alert_hold_seconds"), level.alert_hold_seconds, 0, SECONDS_MAX)?;
    }
    let batches = [pacing.warm.batch_ms, pacing.hot.batch_ms, pacing.blazing.batch_ms];
    if batches.is_sorted() {
        return Ok(());
    }
    let message = "config.heat.pacing: batch_ms of a hotter level must not be shorter";
    Err(ErrorBody::invalid("config.heat.pacing", message))
}

/// Checks what an operator sets for one channel.
///
/// # Errors
/// `invalid`: names the field and its bounds.
pub(super) fn check_wish(wish: &OverrideWish) -> Result<(), ErrorBody> {
    let settings = wish.settings();
    if settings == OverrideSettings::default() && wish.away_from.is_none() {
        let message = "level: at least one of level, batch_ms, slow_mode_seconds, joins_per_second, away_from must be given";
        return Err(ErrorBody::invalid("level", message));
    }
    check_batch("batch_ms", settings.batch_ms.unwrap_or(0))?;
    check_slow_mode("slow_mode_seconds", settings.slow_mode_seconds.unwrap_or(0))?;
    whole("joins_per_second", settings.joins_per_second.unwrap_or(0), 0, RATE_MAX)
}

fn check_batch(field: &str, ms: u16) -> Result<(), ErrorBody> {
    whole(field, ms.into(), 0, BATCH_MS.into())
}

fn check_slow_mode(field: &str, seconds: u16) -> Result<(), ErrorBody> {
    whole(field, seconds.into(), 0, limits::SLOW_MODE_SECONDS)
}

fn whole(field: &str, value: u32, least: u32, most: u32) -> Result<(), ErrorBody> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ErrorBody::invalid(field, format!("{field} is {value}, it must be {least} to {most}")))
}

fn between(field: &str, value: f64, least: f64, most: f64) -> Result<(), ErrorBody> {
    // NaN is not between anything.
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ErrorBody::invalid(field, format!("{field} is {value}, it must be {least} to {most}")))
}

fn rising(field: &str, values: &[f64; 3], most: f64) -> Result<(), ErrorBody> {
    for value in values {
        between(field, *value, f64::MIN_POSITIVE, most)?;
    }
    if values.is_sorted() {
        return Ok(());
    }
    Err(ErrorBody::invalid(field, format!("{field}: a hotter level must not have a lower value")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_out_of_bounds_is_refused_by_name() {
        assert_eq!(check_config(&RuntimeConfig::default()), Ok(()));
        type Change = fn(&mut RuntimeConfig);
        let wrong: [(&str, Change); 12] = [
            ("limits.address_logins", |config| config.limits.address_logins = Some(1_000_001)),
            ("heat.costs.entry", |config| config.heat.costs.entry = -1.0),
            ("heat.costs.join", |config| config.heat.costs.join = f64::NAN),
            ("heat.costs", |config| {
                config.heat.costs = Costs { entry: 0.0, kib: 0.0, delivery: 0.0, read: 0.0, join: 0.0 };
            }),
            ("heat.capacity.shares", |config| config.heat.capacity.shares = [0.3, 0.2, 0.1]),
            ("heat.capacity.shares", |config| config.heat.capacity.shares = [0.3, 0.4, 1.5]),
            ("heat.capacity.floor", |config| config.heat.capacity.floor = [1.0, 2.0, 60_000.0]),
            ("heat.capacity.lag_ms", |config| config.heat.capacity.lag_ms = 0.0),
            ("heat.capacity.assumed", |config| config.heat.capacity.assumed = f64::INFINITY),
            ("heat.pacing.hot.batch_ms", |config| config.heat.pacing.hot.batch_ms = 1_001),
            ("heat.pacing", |config| config.heat.pacing.hot.batch_ms = 50),
            ("heat.pacing.warm.heads_seconds", |config| config.heat.pacing.warm.heads_seconds = 0),
        ];
        for (field, change) in wrong {
            let mut config = RuntimeConfig::default();
            change(&mut config);
            let refusal = check_config(&config).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(&*format!("config.{field}")), "{refusal:?}");
        }
    }

    #[test]
    fn a_document_of_an_earlier_version_has_the_defaults_of_what_it_did_not_know() {
        let document = Document::parse(r#"{"config": {"heat": {"costs": {"entry": 3.0}}}}"#).unwrap();
        let mut expected = RuntimeConfig::default();
        expected.heat.costs.entry = 3.0;
        assert_eq!(document.config, expected);
        assert_eq!(document.config_mark, None, "the act with the document stands for it");
        assert!(Document::parse(r#"{"config": {"later": 1}}"#).is_err(), "of a later version");
    }

    #[test]
    fn overrides_are_bounded_and_those_that_have_ended_leave() {
        let card = |ends_at| OverrideCard {
            settings: OverrideSettings { batch_ms: Some(5), ..OverrideSettings::default() },
            away_from: None,
            by: "ada".to_owned(),
            why: "a concert".to_owned(),
            since: Millis::ZERO,
            ends_at: Millis::new(ends_at),
        };
        let mut document = Document::default();
        for id in 1..=OVERRIDES as u64 {
            document.set_override(ChannelId::from_raw(id), card(10), Millis::new(1)).unwrap();
        }
        let one_more = ChannelId::from_raw(1_000);
        assert!(document.set_override(one_more, card(10), Millis::new(1)).is_err());
        document.set_override(one_more, card(20), Millis::new(10)).unwrap();
        assert_eq!(document.overrides().count(), 1);
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(Document::parse(&text).unwrap(), document);
        assert!(document.end_override(one_more, Millis::new(11)));
        assert!(!document.end_override(one_more, Millis::new(11)));
    }
}
