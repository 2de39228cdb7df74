//! `madang check`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use madang_ids::Epoch;
use madang_store::CommitOrder;
use madang_store::embedded::{self, Embedded, EmbeddedConfig};

/// Check everything in a data folder.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The data folder of a stopped server, or a backup; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
    /// First continue from the end of the database, although acked messages after it are lost: begins a new epoch, so that
    /// devices that received them take a snapshot.
    #[arg(long)]
    accept_loss: bool,
}

impl Check {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<ExitCode> {
        let configured = || -> anyhow::Result<PathBuf> {
            let config = super::load(config)?;
            config.needs_folder()?;
            Ok(config.server.data)
        };
        let data = self.data.map_or_else(configured, Ok)?;
        if self.accept_loss {
            accept_loss(&data)?;
        }
        let report = embedded::check(&data, &mut print_progress)?;
        for finding in &report.findings {
            say!("{finding}");
        }
        if report.more > 0 {
            say!("and {} more", report.more);
        }
        let found = report.findings.len() as u64 + report.more;
        say!(
            "{}: {} rows in {} logs ({} rows without a checksum, from before version 4), position {}: {}",
            data.display(),
            report.rows,
            report.logs,
            report.rows_without_checksum,
            report.position.get(),
            if found == 0 { "no damage".to_owned() } else { format!("{found} findings") }
        );
        Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Shows progress, for an operator who waits for a large file.
pub(super) fn print_progress(what: &str) {
    eprintln!("  {what}");
}

fn accept_loss(data: &Path) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        let config = EmbeddedConfig { path: data.to_owned(), accept_loss: true, ..EmbeddedConfig::default() };
        let store = Embedded::open(config)?;
        let begun = store.begin_epoch(Epoch::random()).await?;
        eprintln!("a new epoch begins at position {}", begun.start.get());
        Ok(())
    })
}
