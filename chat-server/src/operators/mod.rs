//! Operators: who they are, the configuration that they change while the server runs, and what they did.
//!
//! All of it is one [`Document`]. Each act of an operator appends a row with the document that follows from it to the store
//! ([`madang_store::ActStore`]), by compare-and-set; the document of the last row holds. So an act is recorded before it takes effect, two
//! operators cannot overwrite each other, and every node that can read the store finds the same state. Nodes of a fleet look for a new
//! row [`EVERY`] (`docs/decisions/0039`).

mod acts;
mod board;
mod document;
mod fleet;
mod outcome;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use madang_auth::{OperatorTokens, credential, is_operator_secret};
use madang_ids::Millis;
use madang_proto::rest::{OperatorConfig, OperatorScope, OperatorSignIn, OperatorToken};
use madang_proto::{ErrorBody, ErrorCode};
use madang_service::{Clock, Drain};
use madang_store::{Store, StoreResult};
use parking_lot::Mutex;

use crate::heat::{HeatSettings, Heats};
use crate::operations::LiveLimits;
use crate::refusal::Result;

pub use acts::Who;
pub use board::Watched;
pub use document::OperatorCard;
use document::{ConfigMark, Document};
use outcome::Outcomes;

/// How often a node of a fleet looks for what operators have changed on others: within a second it holds everywhere.
const EVERY: Duration = Duration::from_millis(800);

/// The document that holds, and where it is from.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The number of the act that made it; 0 before the first.
    version: u64,
    at: Millis,
    document: Document,
}

/// The operators of a server.
pub struct Operators {
    store: Arc<dyn Store>,
    clock: Clock,
    heats: Arc<Heats>,
    limits: Arc<LiveLimits>,
    tokens: OperatorTokens,
    known: ArcSwap<Known>,
    /// Held while a document is applied: an act and [`Self::refresh`] come at the same moment.
    applying: Mutex<()>,
    outcomes: Outcomes,
}

/// An operator who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The name.
    pub name: String,
    /// What they may do.
    pub scope: OperatorScope,
    /// When their token ends.
    pub ends_at: Millis,
}

impl Operators {
    /// Operators of which nothing is known until [`Self::refresh`].
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        heats: Arc<Heats>,
        limits: Arc<LiveLimits>,
        secret: &[u8; 32],
    ) -> Self {
        let tokens = OperatorTokens::new(secret);
        Self {
            store,
            clock,
            heats,
            limits,
            tokens,
            known: ArcSwap::default(),
            applying: Mutex::default(),
            outcomes: Outcomes::default(),
        }
    }

    /// The number of the last act that this node has applied.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.known.load().version
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> OperatorConfig {
        let known = self.known.load();
        let of_document = ConfigMark { version: known.version, at: known.at };
        let ConfigMark { version, at } = known.document.config_mark.unwrap_or(of_document);
        OperatorConfig { version, at, config: known.document.config, file_limits: self.limits.of_file() }
    }

    /// Exchanges a secret for a token.
    ///
    /// # Errors
    /// `unauthorized`: there is no such operator, or the secret is another one.
    pub fn sign_in(&self, request: &OperatorSignIn) -> Result<OperatorToken> {
        let known = self.known.load();
        let found = known.document.operator(&request.name);
        // Compared also for an unknown name, so that the time of the answer does not reveal names.
        let hash = found.map_or([0; 32], |(_, hash)| hash);
        let is_right = is_operator_secret(&request.secret, &hash);
        let Some((scope, _)) = found.filter(|_| is_right) else {
            let message = "no operator has this name and secret";
            return Err(ErrorBody::field(ErrorCode::Unauthorized, "secret", message).into());
        };
        let minted = self.tokens.mint(&request.name, &hash, self.clock.now_ms());
        let (token, ends_at) = minted.map_err(|_| unauthorized())?;
        tracing::info!(operator = request.name, scope = ?scope, "operator signed in");
        Ok(OperatorToken { token, scope, ends_at })
    }

    /// The operator with this token.
    ///
    /// # Errors
    /// `unauthorized`: the token is not valid any more, or the operator was removed or has another secret.
    pub fn identify(&self, token: &str) -> Result<Operator> {
        let claims = self.tokens.verify(token, self.clock.now_ms()).map_err(|_| unauthorized())?;
        let known = self.known.load();
        let found = known.document.operator(&claims.name);
        let (scope, _) =
            found.filter(|(_, hash)| credential(hash) == claims.credential).ok_or_else(unauthorized)?;
        Ok(Operator { name: claims.name, scope, ends_at: claims.ends_at })
    }

    /// Reads the last act, and applies its document if it is new.
    ///
    /// # Errors
    /// Those of the store. What held before holds on.
    pub async fn refresh(&self) -> StoreResult<()> {
        if let Some(last) = self.store.last_act().await? {
            match Document::parse(&last.document) {
                Ok(document) => self.apply(Known { version: last.seq, at: last.at, document }),
                // A newer version of the program may have written it. Acts of this one would lose what it does not know.
                Err(error) => {
                    tracing::error!(%error, act = last.seq, "a document of operators cannot be read; the one before holds")
                }
            }
        }
        Ok(())
    }

    /// Reads what operators have set, and looks for what they change on other nodes, until the drain begins.
    pub async fn run(self: Arc<Self>, drain: Drain) {
        loop {
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "reading the last act of operators failed");
            }
            self.measure().await;
            tokio::select! {
                () = self.clock.sleep(EVERY) => {}
                () = drain.draining() => return,
            }
        }
    }

    fn apply(&self, known: Known) {
        let _applying = self.applying.lock();
        let before = self.known.load().version;
        if known.version <= before {
            return;
        }
        tracing::info!(version = known.version, "the configuration of operators was applied");
        let settings = HeatSettings {
            config: known.document.config.heat,
            overrides: known.document.overrides().collect(),
        };
        self.limits.configure(known.document.config.limits);
        self.known.store(Arc::new(known));
        self.heats.configure(settings);
    }
}

fn unauthorized() -> ErrorBody {
    let message = "the token of this operator is not valid; sign in again";
    ErrorBody::field(ErrorCode::Unauthorized, "Authorization", message)
}

#[cfg(test)]
mod tests {
    use madang_ids::ChannelId;
    use madang_proto::HeatLevel;
    use madang_proto::rest::{ConfigChange, OverrideCard, OverrideSettings, OverrideWish};
    use madang_service::{ManualClock, Tasks};
    use madang_store::Act;
    use madang_store::model::{Faults, Model, ModelConfig};

    use super::*;
    use crate::config::LimitConfig;

    const TEA: ChannelId = ChannelId::from_raw(7);

    fn limits() -> Arc<LiveLimits> {
        Arc::new(LiveLimits::new(LimitConfig::default()))
    }

    /// The operators of two nodes over one store.
    struct Fleet {
        near: Arc<Operators>,
        far: Arc<Operators>,
        hand: ManualClock,
    }

    impl Fleet {
        fn new(faults: Faults) -> Self {
            let store = Model::new(ModelConfig { seed: 1, faults });
            let (clock, hand) = Clock::manual(Millis::new(1_800_000_000_000));
            let node = || {
                let heats = Heats::of_a_test(&clock);
                Arc::new(Operators::new(Arc::clone(&store) as _, clock.clone(), heats, limits(), &[1; 32]))
            };
            Self { near: node(), far: node(), hand }
        }

        fn wish(minutes: u32) -> OverrideWish {
            OverrideWish {
                level: Some(HeatLevel::Hot),
                batch_ms: None,
                slow_mode_seconds: None,
                joins_per_second: None,
                away_from: None,
                minutes,
                why: "the concert begins".to_owned(),
                dry_run: false,
            }
        }
    }

    #[tokio::test]
    async fn what_is_set_on_one_node_holds_on_the_other_within_a_second() {
        let fleet = Fleet::new(Faults::NONE);
        let tasks = Tasks::new(Drain::new());
        tasks.spawn("operators", Arc::clone(&fleet.far).run(tasks.drain().clone()));
        fleet.near.set_override(&Who::local(), TEA, &Fleet::wish(10)).await.unwrap();
        let secret = fleet.near.add("ada", OperatorScope::Act).await.unwrap();
        let sign_in = OperatorSignIn { name: "ada".to_owned(), secret: secret.reveal().to_owned() };
        let mut waited = Duration::ZERO;
        while fleet.far.version() < 2 {
            assert!(waited < Duration::from_secs(1), "not within a second");
            fleet.hand.advance(Duration::from_millis(50));
            waited += Duration::from_millis(50);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(fleet.far.heats.level(TEA), HeatLevel::Hot);
        let token = fleet.far.sign_in(&sign_in).unwrap().token;
        assert!(fleet.near.identify(&token).is_ok());
        fleet.near.remove("ada").await.unwrap();
        fleet.far.refresh().await.unwrap();
        assert!(fleet.far.identify(&token).is_err(), "removed everywhere");
    }

    #[tokio::test]
    async fn two_operators_on_two_nodes_do_not_overwrite_each_other() {
        let fleet = Fleet::new(Faults::NONE);
        let change = |lag_ms| {
            let mut config = fleet.near.config().config;
            config.heat.capacity.lag_ms = lag_ms;
            ConfigChange { config, why: "a better figure".to_owned() }
        };
        fleet.near.change_config(&Who::local(), 0, &change(30.0)).await.unwrap();
        // The far node has not heard of it, and is refused by the store.
        assert_eq!(fleet.far.version(), 0);
        let late = fleet.far.change_config(&Who::local(), 0, &change(40.0)).await;
        assert_eq!(ErrorBody::from(late.unwrap_err()).code, ErrorCode::Conflict);
        // Overrides are added to what is there, whatever the node has heard.
        fleet.far.set_override(&Who::local(), TEA, &Fleet::wish(10)).await.unwrap();
        assert_eq!((fleet.far.version(), fleet.far.config().config.heat.capacity.lag_ms), (2, 30.0));
        // And they leave the version of the configuration as it was: its next change is no conflict.
        assert_eq!(fleet.far.config().version, 1);
        fleet.near.change_config(&Who::local(), 1, &change(50.0)).await.unwrap();
        assert_eq!((fleet.near.version(), fleet.near.config().version), (3, 3));
        // An earlier version of the program knows of no mark: each of its acts counts, because it may have changed the configuration.
        let last = fleet.near.store.last_act().await.unwrap().unwrap();
        let mut document: serde_json::Value = serde_json::from_str(&last.document).unwrap();
        document.as_object_mut().unwrap().remove("config_mark").unwrap();
        let act = Act { seq: 4, document: document.to_string(), ..last };
        assert!(fleet.near.store.append_act(&act).await.unwrap());
        fleet.near.refresh().await.unwrap();
        assert_eq!(fleet.near.config().version, 4);
        let late = fleet.far.change_config(&Who::local(), 3, &change(60.0)).await;
        assert_eq!(ErrorBody::from(late.unwrap_err()).code, ErrorCode::Conflict);
        fleet.far.set_override(&Who::local(), TEA, &Fleet::wish(10)).await.unwrap();
        assert_eq!((fleet.far.version(), fleet.far.config().version), (5, 4));
    }

    #[test]
    fn an_older_document_is_never_put_over_a_newer_one() {
        let node = Fleet::new(Faults::NONE).near;
        let at = Millis::new(1_800_000_000_000);
        for round in 0..2_000 {
            let known = |version: u64| {
                let (mut document, batch_ms) = (Document::default(), u16::try_from(version).ok());
                let settings = OverrideSettings { batch_ms, ..OverrideSettings::default() };
                let (by, why) = ("ada".to_owned(), "the concert begins".to_owned());
                let card =
                    OverrideCard { settings, away_from: None, by, why, since: at, ends_at: at.plus(60_000) };
                document.set_override(TEA, card, at).unwrap();
                Known { version, at, document }
            };
            let (one, two) = (known(round * 2 + 1), known(round * 2 + 2));
            std::thread::scope(|scope| {
                scope.spawn(|| node.apply(one.clone()));
                node.apply(two.clone());
            });
            assert_eq!(node.version(), two.version);
            assert_eq!(
                node.heats.window(TEA),
                Duration::from_millis(two.version),
                "what holds is of the last version"
            );
        }
    }

    #[tokio::test]
    async fn an_act_of_unknown_outcome_is_looked_up_and_happens_once() {
        for seed in 0..20 {
            let faults = Faults { unknown: 0.5, ..Faults::NONE };
            let store = Model::new(ModelConfig { seed, faults });
            let (clock, _) = Clock::manual(Millis::new(1_800_000_000_000));
            let heats = Heats::of_a_test(&clock);
            let operators = Operators::new(Arc::clone(&store) as _, clock, heats, limits(), &[1; 32]);
            let mut added = 0;
            for number in 0..10 {
                added += u64::from(operators.add(&format!("op{number}"), OperatorScope::View).await.is_ok());
            }
            store.set_faults(Faults::NONE);
            operators.refresh().await.unwrap();
            assert!(operators.version() >= added, "an act that was confirmed is there");
            assert_eq!(operators.list().len() as u64, operators.version());
        }
    }
}
