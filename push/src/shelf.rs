//! Where the token for APNs is kept, for the next process and for other workers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use madang_auth::replace_secret_file;

/// Keeps one text.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// The text, if there is one.
    async fn load(&self) -> io::Result<Option<String>>;
    /// Puts `after` in the place of `before`. `false` if something else is there by now.
    async fn replace(&self, before: Option<&str>, after: &str) -> io::Result<bool>;
}

/// Where the keys and the token of this server are that no setting names.
#[derive(Clone)]
pub enum Keep {
    /// In a folder that only this process uses.
    Folder(PathBuf),
    /// All processes of a fleet have the same token, and a setting names each key.
    Shared(Arc<dyn Shelf>),
}

impl Keep {
    /// The file with the key of Web Push that is created if it is missing; `None` where a setting must name one.
    pub(crate) fn vapid_file(&self) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join("vapid.pem")),
            Self::Shared(_) => None,
        }
    }

    pub(crate) fn token_shelf(&self) -> Arc<dyn Shelf> {
        match self {
            Self::Folder(folder) => Arc::new(FileShelf::new(&folder.join("apns.token"))),
            Self::Shared(shelf) => Arc::clone(shelf),
        }
    }
}

/// A file of one process.
pub(crate) struct FileShelf(PathBuf);

impl FileShelf {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

#[async_trait]
impl Shelf for FileShelf {
    async fn load(&self) -> io::Result<Option<String>> {
        match tokio::fs::read_to_string(&self.0).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    async fn replace(&self, _: Option<&str>, after: &str) -> io::Result<bool> {
        let (path, after) = (self.0.clone(), after.to_owned());
        tokio::task::spawn_blocking(move || replace_secret_file(&path, after.as_bytes())).await??;
        Ok(true)
    }
}
