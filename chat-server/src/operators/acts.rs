//! What operators do. An act is written before it takes effect.

use madang_auth::OperatorSecret;
use madang_ids::{ChannelId, Millis};
use madang_proto::rest::{
    ActCard, ActKind, ActQuery, ChannelName, ConfigChange, OperatorConfig, OperatorScope, OverrideAnswer,
    OverrideCard, OverrideWish, Page, RuntimeConfig,
};
use madang_proto::{ErrorBody, ErrorCode};
use madang_store::{Act, StoreError};
use serde_json::{Map, Value};

use super::document::{ConfigMark, Document, OPERATORS, OperatorCard, check_config, check_wish};
use super::{Known, Operators};
use crate::refusal::Result;

/// How often an act is tried again because another one was first.
const TRIES: usize = 5;
/// Characters of a reason.
const WHY_CHARS: std::ops::RangeInclusive<usize> = 10..=500;
/// Minutes of an override.
const MINUTES: std::ops::RangeInclusive<u32> = 1..=1_440;
const NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=40;
/// Names that stand in the record for commands beside the server, and for the server itself.
const OURS: [&str; 2] = ["local", "madang"];
/// Acts of a page.
const PAGE: u32 = 50;
const PAGE_MAX: u32 = 100;

/// The operator who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The name; `local` for a command beside the server.
    pub name: String,
    /// The address; empty for a command beside the server.
    pub from: String,
}

impl Who {
    /// A command beside the server.
    #[must_use]
    pub fn local() -> Self {
        Self { name: "local".to_owned(), from: String::new() }
    }
}

/// What is to be recorded of an act.
pub(super) struct Entry<'a> {
    pub(super) who: &'a Who,
    pub(super) kind: ActKind,
    pub(super) channel: Option<ChannelId>,
    pub(super) why: &'a str,
    /// The version of the configuration that the caller has seen, if it must be the present one.
    pub(super) base: Option<u64>,
}

impl Operators {
    /// Changes the configuration. `base` is the version that it replaces.
    ///
    /// # Errors
    /// `invalid` for a value out of bounds; `conflict` if the configuration has another version by now.
    pub async fn change_config(&self, who: &Who, base: u64, change: &ConfigChange) -> Result<OperatorConfig> {
        check_config(&change.config)?;
        let entry = Entry {
            who,
            kind: ActKind::ConfigChanged,
            channel: None,
            why: check_why(&change.why)?,
            base: Some(base),
        };
        self.act(entry, |document, _| {
            let before = std::mem::replace(&mut document.config, change.config);
            difference(&before, &change.config)
        })
        .await?;
        Ok(self.config())
    }

    /// What a configuration would change, in words.
    ///
    /// # Errors
    /// `invalid` for a value out of bounds, or if it changes nothing.
    pub fn difference(&self, wanted: &RuntimeConfig) -> Result<String> {
        check_config(wanted)?;
        Ok(difference(&self.config().config, wanted)?)
    }

    /// Sets an override, or says what would follow from it.
    ///
    /// # Errors
    /// `invalid` for a value out of bounds; `full` if there are too many.
    pub async fn set_override(
        &self,
        who: &Who,
        channel: ChannelId,
        wish: &OverrideWish,
    ) -> Result<OverrideAnswer> {
        check_wish(wish)?;
        let settings = wish.settings();
        if !MINUTES.contains(&wish.minutes) {
            let message = format!("minutes is {}, it must be 1 to 1440", wish.minutes);
            return Err(ErrorBody::invalid("minutes", message).into());
        }
        let why = check_why(&wish.why)?;
        let forecast = self.heats.forecast(channel, &settings);
        if wish.dry_run {
            return Ok(OverrideAnswer { forecast, set: None, config_version: self.version() });
        }
        let before = self.heats.paced(channel).unwrap_or_default();
        let entry = Entry { who, kind: ActKind::OverrideSet, channel: Some(channel), why, base: None };
        let known = self
            .act(entry, |document, now| {
                let card = OverrideCard {
                    settings,
                    away_from: wish.away_from.clone(),
                    by: who.name.clone(),
                    why: why.to_owned(),
                    since: now,
                    ends_at: now.plus(u64::from(wish.minutes) * 60_000),
                };
                document.set_override(channel, card, now)?;
                Ok(format!("{} for {} minutes", words(wish), wish.minutes))
            })
            .await?;
        self.outcomes.begin(channel, &known, forecast, before, self.clock.elapsed());
        let set = known.document.override_of(channel).cloned();
        Ok(OverrideAnswer { forecast, set, config_version: known.version })
    }

    /// Ends an override before its time.
    ///
    /// # Errors
    /// `not_found` if there is none.
    pub async fn end_override(&self, who: &Who, channel: ChannelId, why: &str) -> Result<()> {
        let why = check_why(why)?;
        let entry = Entry { who, kind: ActKind::OverrideEnded, channel: Some(channel), why, base: None };
        self.act(entry, |document, now| match document.end_override(channel, now) {
            true => Ok("ended before its time".to_owned()),
            false => Err(ErrorBody::not_found("channel_id")),
        })
        .await?;
        Ok(())
    }

    /// Shows the name of a channel, which the board hides if it is not open. That it was shown is recorded first.
    ///
    /// # Errors
    /// `not_found` if there is no such channel.
    pub async fn show_name(&self, who: &Who, id: ChannelId, why: &str) -> Result<ChannelName> {
        let why = check_why(why)?;
        let not_found = || ErrorBody::not_found("channel_id");
        let card = self.store.channel(id).await?.ok_or_else(not_found)?.card;
        let entry = Entry { who, kind: ActKind::NameShown, channel: Some(id), why, base: None };
        self.act(entry, |_, _| Ok("its name was shown".to_owned())).await?;
        Ok(ChannelName { kind: card.kind, name: card.name })
    }

    /// Records that alerts that were given up are sent again, before they are.
    ///
    /// # Errors
    /// `invalid` for a reason out of bounds.
    pub async fn note_sent_again(
        &self,
        who: &Who,
        why: &str,
        channel: Option<ChannelId>,
        change: String,
    ) -> Result<()> {
        let why = check_why(why)?;
        let entry = Entry { who, kind: ActKind::AlertsSentAgain, channel, why, base: None };
        self.act(entry, |_, _| Ok(change.clone())).await?;
        Ok(())
    }

    /// Adds an operator, or gives an operator a new secret. Returns the secret, which is not stored.
    ///
    /// # Errors
    /// `invalid` for a name out of bounds; `full` if there are too many.
    pub async fn add(&self, name: &str, scope: OperatorScope) -> Result<OperatorSecret> {
        check_name(name)?;
        let secret = OperatorSecret::random();
        let who = Who::local();
        let entry = Entry { who: &who, kind: ActKind::OperatorAdded, channel: None, why: "", base: None };
        self.act(entry, |document, now| {
            if document.operator(name).is_none() && document.operators().count() >= OPERATORS {
                let message = format!("there are {OPERATORS} operators, the limit");
                return Err(ErrorBody::field(ErrorCode::Full, "name", message));
            }
            let is_new = document.put_operator(name, scope, secret.hash(), now);
            let what = if is_new { "added" } else { "has a new secret" };
            Ok(format!("{name} {what}, scope {}", scope.as_str()))
        })
        .await?;
        Ok(secret)
    }

    /// Removes an operator. Their tokens end at once.
    ///
    /// # Errors
    /// `not_found` if there is none of this name.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let who = Who::local();
        let entry = Entry { who: &who, kind: ActKind::OperatorRemoved, channel: None, why: "", base: None };
        self.act(entry, |document, _| match document.remove_operator(name) {
            true => Ok(format!("{name} removed")),
            false => Err(ErrorBody::not_found("name")),
        })
        .await?;
        Ok(())
    }

    /// All operators.
    #[must_use]
    pub fn list(&self) -> Vec<OperatorCard> {
        self.known.load().document.operators().collect()
    }

    /// What operators did, the newest first.
    ///
    /// # Errors
    /// `invalid` for a limit out of bounds.
    pub async fn acts(&self, query: ActQuery) -> Result<Page<ActCard>> {
        let limit = query.limit.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            let message = format!("limit is {limit}, it must be 1 to {PAGE_MAX}");
            return Err(ErrorBody::invalid("limit", message).into());
        }
        let acts = self.store.acts(query.before, limit as usize).await?;
        let next = acts.last().filter(|act| act.seq > 1 && acts.len() == limit as usize);
        let next = next.map(|act| act.seq.to_string());
        Ok(Page { items: acts.into_iter().map(card).collect(), next })
    }

    /// Appends an act. `edit` changes the document and says in words what changed; it may be called several times.
    pub(super) async fn act(
        &self,
        entry: Entry<'_>,
        edit: impl Fn(&mut Document, Millis) -> std::result::Result<String, ErrorBody>,
    ) -> Result<Known> {
        for _ in 0..TRIES {
            let last = self.store.last_act().await?;
            let mut document = match &last {
                None => Document::default(),
                Some(act) => Document::parse(&act.document).map_err(unreadable)?,
            };
            let last = last.map(|act| ConfigMark { version: act.seq, at: act.at }).unwrap_or_default();
            let mark = document.config_mark.unwrap_or(last);
            let version = mark.version;
            if entry.base.is_some_and(|base| base != version) {
                let message = format!("the configuration has version {version} by now");
                return Err(ErrorBody::field(ErrorCode::Conflict, "If-Match", message).into());
            }
            // Times of acts rise, whatever the clocks of nodes say.
            let (seq, at) = (last.version + 1, last.at.max(self.clock.now_ms()));
            let change = edit(&mut document, at)?;
            let is_config = entry.kind == ActKind::ConfigChanged;
            document.config_mark = Some(if is_config { ConfigMark { version: seq, at } } else { mark });
            let act = Act {
                seq,
                at,
                by: entry.who.name.clone(),
                from: entry.who.from.clone(),
                kind: kind_word(entry.kind).to_owned(),
                channel: entry.channel,
                change,
                why: entry.why.to_owned(),
                document: serde_json::to_string(&document).map_err(unreadable)?,
            };
            if self.append(&act).await? {
                tracing::warn!(
                    act = act.seq,
                    operator = act.by,
                    what = act.kind,
                    change = act.change,
                    "an operator acted"
                );
                let known = Known { version: act.seq, at, document };
                self.apply(known.clone());
                return Ok(known);
            }
        }
        Err(ErrorBody::unavailable("too many operators act at once; try again", 1_000).into())
    }

    /// After an unknown outcome the store is asked whether the act is there.
    async fn append(&self, act: &Act) -> Result<bool> {
        match self.store.append_act(act).await {
            Err(StoreError::Unknown(_)) => {
                let found = self.store.acts(Some(act.seq + 1), 1).await?;
                Ok(found.first() == Some(act))
            }
            done => Ok(done?),
        }
    }
}

fn unreadable(error: serde_json::Error) -> ErrorBody {
    tracing::error!(%error, "the document of operators cannot be read or written");
    let message = "the configuration was written by a newer version of this program";
    ErrorBody::new(ErrorCode::Internal, message)
}

fn check_why(why: &str) -> std::result::Result<&str, ErrorBody> {
    let why = why.trim();
    let count = why.chars().count();
    if WHY_CHARS.contains(&count) && !why.chars().any(char::is_control) {
        return Ok(why);
    }
    let message = format!("why has {count} characters, it must have 10 to 500 and no control characters");
    Err(ErrorBody::invalid("why", message))
}

fn check_name(name: &str) -> std::result::Result<(), ErrorBody> {
    let is_good = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    if NAME_CHARS.contains(&name.len()) && name.chars().all(is_good) && !OURS.contains(&name) {
        return Ok(());
    }
    let message = "name must have 1 to 40 of a-z, A-Z, 0-9, '.', '_', '-', and must not be local or madang";
    Err(ErrorBody::invalid("name", message))
}

/// The members that differ, with their values before and after. Refuses a change that changes nothing.
fn difference<T: serde::Serialize>(before: &T, after: &T) -> std::result::Result<String, ErrorBody> {
    let values = [before, after].map(|value| serde_json::to_value(value).unwrap_or_default());
    let mut lines = Vec::new();
    differ("", &values[0], &values[1], &mut lines);
    if lines.is_empty() {
        return Err(ErrorBody::invalid("config", "config: it is the same as the present one"));
    }
    Ok(lines.join("; "))
}

fn differ(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before.as_object(), after.as_object()) {
        (Some(one), Some(other)) => {
            for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let [before, after] = [one, other].map(|members| members.get(name).unwrap_or(&Value::Null));
                differ(&inner, before, after, lines);
            }
        }
        // All members of one side come or go.
        (Some(_), None) if after.is_null() => differ(path, before, &Value::Object(Map::new()), lines),
        (None, Some(_)) if before.is_null() => differ(path, &Value::Object(Map::new()), after, lines),
        _ if before == after => {}
        _ => {
            let [before, after] = [before, after].map(|value| match value {
                Value::Null => "unset".to_owned(),
                value => value.to_string(),
            });
            lines.push(format!("{path}: {before} -> {after}"));
        }
    }
}

/// What an override sets, in words.
fn words(wish: &OverrideWish) -> String {
    let OverrideWish { level, batch_ms, slow_mode_seconds, joins_per_second, away_from, .. } = wish;
    let parts = [
        level.map(|level| format!("level {}", level.as_str())),
        batch_ms.map(|ms| format!("batches of {ms} ms")),
        slow_mode_seconds.map(|seconds| format!("slow mode of {seconds} s")),
        joins_per_second.map(|joins| match joins {
            0 => "joins closed".to_owned(),
            joins => format!("{joins} joins a second"),
        }),
        away_from.as_ref().map(|node| format!("home away from {node}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

const KINDS: [(ActKind, &str); 8] = [
    (ActKind::ConfigChanged, "config_changed"),
    (ActKind::OverrideSet, "override_set"),
    (ActKind::OverrideEnded, "override_ended"),
    (ActKind::OverrideMeasured, "override_measured"),
    (ActKind::NameShown, "name_shown"),
    (ActKind::AlertsSentAgain, "alerts_sent_again"),
    (ActKind::OperatorAdded, "operator_added"),
    (ActKind::OperatorRemoved, "operator_removed"),
];

fn kind_word(kind: ActKind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("config_changed", |(_, word)| word)
}

fn card(act: Act) -> ActCard {
    let kind = KINDS.iter().find(|(_, word)| *word == act.kind).map(|(kind, _)| *kind);
    let Act { seq, at, by, from, channel, change, why, .. } = act;
    // A kind of a newer version of this program changed the document in some way.
    let what = kind.unwrap_or(ActKind::ConfigChanged);
    ActCard { seq, at, by, from, what, channel_id: channel, change, why }
}
