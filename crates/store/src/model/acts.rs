//! Acts of operators, in memory.

use async_trait::async_trait;

use super::Model;
use crate::acts::{Act, ActStore};
use crate::error::StoreResult;

#[async_trait]
impl ActStore for Model {
    async fn append_act(&self, act: &Act) -> StoreResult<bool> {
        let _call = self.journal.begin("append_act");
        self.write(|state| {
            let is_next = act.seq == state.acts.len() as u64 + 1;
            if is_next {
                state.acts.push(act.clone());
            }
            is_next
        })
        .await
    }

    async fn last_act(&self) -> StoreResult<Option<Act>> {
        let _call = self.journal.begin("last_act");
        self.read(|state| state.acts.last().cloned()).await
    }

    async fn acts(&self, before: Option<u64>, limit: usize) -> StoreResult<Vec<Act>> {
        let _call = self.journal.begin("acts");
        self.read(|state| {
            let is_before = |act: &&Act| before.is_none_or(|before| act.seq < before);
            state.acts.iter().rev().filter(is_before).take(limit).cloned().collect()
        })
        .await
    }
}
