//! Operators: who they are, the configuration that they change while the server runs, and what they did.
//!
//! All of it is one [`Document`]. Each act of an operator appends a row with the document that follows from it to the store
//! ([`madang_store::ActStore`]), by compare-and-set; the document of the last row holds. So an act is recorded before it takes effect, two
//! operators cannot overwrite each other, and every node that can read the store finds the same state. Nodes of a fleet look for a new
//! row [`EVERY`] (`docs/decisions/0039`).

mod acts;
mod board;
mod document;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use madang_auth::{OperatorTokens, credential, is_operator_secret};
use madang_ids::Millis;
use madang_proto::rest::{OperatorConfig, OperatorScope, OperatorSignIn, OperatorToken};
use madang_proto::{ErrorBody, ErrorCode};
use madang_service::{Clock, Drain};
use madang_store::{Store, StoreResult};

use crate::heat::{HeatSettings, Heats};
use crate::refusal::Result;

pub use acts::Who;
pub(crate) use board::Viewer;
pub use board::Watched;
use document::Document;
pub use document::OperatorCard;

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
    tokens: OperatorTokens,
    known: ArcSwap<Known>,
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
    pub fn new(store: Arc<dyn Store>, clock: Clock, heats: Arc<Heats>, secret: &[u8; 32]) -> Self {
        Self { store, clock, heats, tokens: OperatorTokens::new(secret), known: ArcSwap::default() }
    }

    /// The version of the configuration that this node has applied.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.known.load().version
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> OperatorConfig {
        let known = self.known.load();
        OperatorConfig { version: known.version, at: known.at, config: known.document.config }
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

    /// Looks for what operators have changed on other nodes, until the drain begins.
    pub async fn run(self: Arc<Self>, drain: Drain) {
        loop {
            tokio::select! {
                () = self.clock.sleep(EVERY) => {}
                () = drain.draining() => return,
            }
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "reading the last act of operators failed");
            }
        }
    }

    fn apply(&self, known: Known) {
        let before = self.known.load().version;
        if known.version <= before {
            return;
        }
        tracing::info!(version = known.version, "the configuration of operators was applied");
        let settings = HeatSettings {
            config: known.document.config.heat,
            overrides: known.document.overrides().collect(),
        };
        self.known.store(Arc::new(known));
        self.heats.configure(settings);
    }
}

fn unauthorized() -> ErrorBody {
    let message = "the token of this operator is not valid; sign in again";
    ErrorBody::field(ErrorCode::Unauthorized, "Authorization", message)
}
