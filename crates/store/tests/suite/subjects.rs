//! The stores of this crate, as subjects of the suite.

use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::{LogId, Seq};
use madang_store::Store;
use madang_store::conformance::{OrderedStore, OrderedSubject, Subject};
use madang_store::embedded::{Embedded, EmbeddedConfig};
use madang_store::model::{Faults, Model, ModelConfig, Mutant};

/// The embedded store in a folder that goes with it.
pub(crate) struct EmbeddedSubject {
    folder: tempfile::TempDir,
}

impl EmbeddedSubject {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { folder: tempfile::tempdir().expect("a temporary folder") })
    }

    fn store(&self) -> Arc<Embedded> {
        let path = self.folder.path().to_owned();
        Embedded::open(EmbeddedConfig { path, ..EmbeddedConfig::default() }).expect("a store")
    }
}

#[async_trait]
impl Subject for EmbeddedSubject {
    async fn open(&self) -> Arc<dyn Store> {
        self.store()
    }

    async fn spoil(&self, log: LogId, seq: Seq) {
        let (table, id) = match log {
            LogId::Channel(id) => ("log", id.raw()),
            LogId::User(id) => ("user_log", id.raw()),
        };
        // The last handle may be dropped on another thread.
        drop(self.store());
        let db = rusqlite::Connection::open(self.folder.path().join("madang.db")).expect("the database");
        let sql = format!(
            "UPDATE {table} SET content = replace(content, 'line', 'lime') WHERE id = ?1 AND seq = ?2"
        );
        let changed = db.execute(&sql, [id.cast_signed(), seq.get().cast_signed()]);
        assert_eq!(changed, Ok(1));
    }
}

#[async_trait]
impl OrderedSubject for EmbeddedSubject {
    async fn open(&self) -> Arc<dyn OrderedStore> {
        self.store()
    }
}

/// The model; its memory is its disk.
pub(crate) struct ModelSubject {
    model: Arc<Model>,
}

impl ModelSubject {
    pub(crate) fn calm() -> Arc<Self> {
        Self::with(0, Faults::NONE, None)
    }

    pub(crate) fn slow() -> Arc<Self> {
        Self::with(1, Faults { delay_yields: 5, ..Faults::NONE }, None)
    }

    pub(crate) fn rough(seed: u64) -> Arc<Self> {
        Self::with(seed, Faults::ROUGH, None)
    }

    pub(crate) fn with(seed: u64, faults: Faults, mutant: Option<Mutant>) -> Arc<Self> {
        Arc::new(Self { model: Model::with_mutant(ModelConfig { seed, faults }, mutant) })
    }
}

#[async_trait]
impl Subject for ModelSubject {
    async fn open(&self) -> Arc<dyn Store> {
        self.model.clone()
    }

    async fn spoil(&self, log: LogId, seq: Seq) {
        self.model.spoil(log, seq);
    }
}

#[async_trait]
impl OrderedSubject for ModelSubject {
    async fn open(&self) -> Arc<dyn OrderedStore> {
        self.model.clone()
    }
}
