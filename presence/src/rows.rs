//! Reads and writes the rows behind presence, in batches.

use std::sync::Arc;

use madang_ids::{Millis, UserId};
use madang_proto::limits;
use madang_store::{Store, StoreResult};

use crate::core::{Loaded, Wanted};

/// The result of a batch.
pub(crate) enum Done {
    Loaded(Vec<Loaded>),
    NotLoaded(Vec<Wanted>),
    Written,
    NotWritten(Vec<(UserId, Millis)>),
}

/// Reads what is wanted: all of it or nothing.
pub(crate) async fn load(store: Arc<dyn Store>, wanted: Vec<Wanted>) -> Done {
    match try_load(&*store, &wanted).await {
        Ok(loaded) => Done::Loaded(loaded),
        Err(error) => {
            tracing::warn!(%error, users = wanted.len(), "reading presence settings failed");
            Done::NotLoaded(wanted)
        }
    }
}

async fn try_load(store: &dyn Store, wanted: &[Wanted]) -> StoreResult<Vec<Loaded>> {
    let users: Vec<UserId> = wanted.iter().map(|wanted| wanted.user).collect();
    let rows = store.presence(&users).await?;
    let revs = store.users(&users).await?.into_iter().map(|user| user.map_or(1, |user| user.rev));
    let mut loaded = Vec::with_capacity(wanted.len());
    for ((Wanted { user, circle }, row), rev) in wanted.iter().zip(rows).zip(revs) {
        let most = limits::CONTACTS as usize;
        let circle = match circle {
            true => Some(store.circle(*user, limits::WATCHED_GROUP_MEMBERS, most).await?),
            false => None,
        };
        loaded.push(Loaded { user: *user, row, rev, circle });
    }
    Ok(loaded)
}

/// Writes when users were last active.
pub(crate) async fn write(store: Arc<dyn Store>, marks: Vec<(UserId, Millis)>) -> Done {
    match store.set_last_active(&marks).await {
        Ok(()) => Done::Written,
        Err(error) => {
            tracing::warn!(%error, users = marks.len(), "saving times of last activity failed");
            Done::NotWritten(marks)
        }
    }
}
