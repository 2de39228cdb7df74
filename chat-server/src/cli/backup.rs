//! `madang backup` and `madang restore`

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use madang_proto::{ErrorBody, ErrorCode};
use madang_store::embedded::{self, BackedUp, BackupError, Embedded, EmbeddedConfig};

use super::operator::{Ask, Told, ask_server};

/// Write a backup.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The folder to write; it must not be there yet.
    #[arg(long)]
    to: PathBuf,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Put a backup back.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup.
    #[arg(long)]
    from: PathBuf,
    /// The data folder to make; it must not be there yet. Default: madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Also if the backup is damaged: what cannot be read is lost.
    #[arg(long)]
    accept_damage: bool,
}

impl Backup {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let data = self.data.map_or_else(|| super::load(config).map(|config| config.server.data), Ok)?;
        // Absolute, because the server has another working directory.
        let to = std::path::absolute(&self.to).context("the folder to write")?;
        let told = super::runtime()?.block_on(async {
            if let Some(told) = ask_server(&data, &Ask::Backup { to: to.clone() }).await? {
                return Ok(told);
            }
            if !data.exists() {
                bail!("there is no data folder {}", data.display());
            }
            embedded::check_is_current(&data)?;
            let folder = Embedded::open(EmbeddedConfig { path: data, ..EmbeddedConfig::default() })?;
            Ok(make(Some(&folder), &to).await.unwrap_or_else(Told::Refused))
        })?;
        match told {
            Told::BackedUp { .. } if !to.exists() => bail!(
                "the server wrote {to}, and it is not there for others: a unit with PrivateTmp= has a /tmp of its own, which is \
                 deleted when it stops; name a folder elsewhere",
                to = to.display()
            ),
            Told::BackedUp { position, bytes } => {
                say!("{} holds everything up to position {position}, in {bytes} bytes", to.display());
            }
            Told::Refused(error) => bail!("{error}"),
            _ => bail!("the server's answer is to another question"),
        }
        Ok(())
    }
}

/// Writes a backup of the folder that this process has opened.
pub(super) async fn make(folder: Option<&Embedded>, to: &Path) -> Result<Told, ErrorBody> {
    let folder = folder.ok_or_else(|| ErrorBody::new(ErrorCode::Internal, "this node has no data folder"))?;
    match folder.back_up(to).await {
        Ok(BackedUp { position, bytes }) => {
            tracing::info!(to = %to.display(), position = position.get(), bytes, "a backup was written");
            Ok(Told::BackedUp { position: position.get(), bytes })
        }
        Err(error @ BackupError::Exists(_)) => Err(ErrorBody::invalid("to", error.to_string())),
        Err(BackupError::File { path, error }) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            let message = format!(
                "{}: {error}: the server may write only where its unit lets it (StateDirectory=, ReadWritePaths=)",
                path.display()
            );
            Err(ErrorBody::invalid("to", message))
        }
        Err(error) => {
            tracing::error!(to = %to.display(), %error, "a backup failed");
            Err(ErrorBody::new(ErrorCode::Internal, error.to_string()))
        }
    }
}

impl Restore {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let data = self.data.map_or_else(|| super::load(config).map(|config| config.server.data), Ok)?;
        let report =
            embedded::restore(&self.from, &data, self.accept_damage, &mut super::check::tell_progress)?;
        say!(
            "{} holds {} rows up to position {}; devices that are beyond it will take a snapshot",
            data.display(),
            report.rows,
            report.position.get()
        );
        Ok(())
    }
}
