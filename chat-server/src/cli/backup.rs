//! `madang backup` and `madang restore`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use madang_store::embedded::{self, Embedded, EmbeddedConfig};

use super::operator::{AdminAnswer, Ask, ask_server, back_up};

/// Write a backup.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The folder to write; it must not exist yet.
    #[arg(long)]
    to: PathBuf,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Restore a backup.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup.
    #[arg(long)]
    from: PathBuf,
    /// The data folder to create; it must not exist yet. Default: madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Accept a damaged backup: data that cannot be read is lost.
    #[arg(long)]
    accept_damage: bool,
}

impl Backup {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let data = self.data.map_or_else(|| super::load(config).map(|config| config.server.data), Ok)?;
        // Absolute, because the server has another working directory.
        let to = std::path::absolute(&self.to).context("the folder to write")?;
        let answer = super::runtime()?.block_on(async {
            if let Some(answer) = ask_server(&data, &Ask::Backup { to: to.clone() }).await? {
                return Ok(answer);
            }
            if !data.exists() {
                bail!("the data folder {} does not exist", data.display());
            }
            super::load(config)?.needs_folder()?;
            embedded::check_is_current(&data)?;
            let folder = Embedded::open(EmbeddedConfig { path: data, ..EmbeddedConfig::default() })?;
            Ok(back_up(Some(&folder), &to).await.unwrap_or_else(AdminAnswer::Refused))
        })?;
        match answer {
            AdminAnswer::BackedUp { .. } if !to.exists() => bail!(
                "the server wrote {to}, but it is not visible here: a unit with PrivateTmp= has a /tmp of its own, \
                 which is deleted when it stops; name another folder",
                to = to.display()
            ),
            AdminAnswer::BackedUp { position, bytes } => {
                say!("{} contains everything up to position {position}, in {bytes} bytes", to.display());
            }
            AdminAnswer::Refused(error) => bail!("{error}"),
            _ => bail!("unexpected answer from the server"),
        }
        Ok(())
    }
}

impl Restore {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let data = self.data.map_or_else(|| super::load(config).map(|config| config.server.data), Ok)?;
        let report =
            embedded::restore(&self.from, &data, self.accept_damage, &mut super::check::print_progress)?;
        say!(
            "{} contains {} rows up to position {}; devices beyond that position will take a snapshot",
            data.display(),
            report.rows,
            report.position.get()
        );
        Ok(())
    }
}
