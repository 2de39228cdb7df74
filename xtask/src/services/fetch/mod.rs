//! Programs of the servers: those of the machine, or downloads in the target directory. Nothing needs root, and nothing is
//! downloaded twice.

mod apt;
mod cassandra;
mod redis;

pub(super) use cassandra::{Cassandra, VERSION};
pub(super) use redis::Redis;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, bail};

use super::Wanted;
use super::lock::Lock;

/// The programs of the wanted servers.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) redis: Option<Redis>,
    pub(super) cassandra: Option<Cassandra>,
}

impl Programs {
    /// Finds the programs, and downloads those that are missing into `folder`. Of several processes, one downloads.
    ///
    /// # Errors
    /// The message names what is missing on the machine and what to install.
    pub(super) fn prepare(folder: &Path, wanted: Wanted) -> Result<Self> {
        let _lock = Lock::acquire(&folder.join("lock"))?;
        let redis = (wanted.redis > 0).then(|| Redis::prepare(&folder.join("redis"))).transpose()?;
        let cassandra =
            (wanted.cassandra > 0).then(|| Cassandra::prepare(&folder.join("cassandra"))).transpose()?;
        Ok(Self { redis, cassandra })
    }
}

/// A file that is written after a download, so that an interrupted one is not taken for a finished one.
struct Stamp {
    path: PathBuf,
    content: String,
}

impl Stamp {
    /// The stamp of what `content` describes, in `folder`.
    fn new(folder: &Path, content: String) -> Self {
        Self { path: folder.join("ready"), content }
    }

    fn is_there(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|content| content == self.content)
    }

    fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.content).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Makes an empty folder.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Runs a command to its end. If its program is missing, the error says what to install.
fn output_of(command: &mut Command, install: &str) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("`{program}` is missing: install {install}"),
        _ => anyhow!(error).context(format!("cannot run `{program}`")),
    })?;
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{}", output.status, last_words(&output));
    }
    Ok(output)
}

/// The end of both outputs: some programs write their errors to the standard output.
fn last_words(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = output_of(&mut Command::new("madang-no-such-program"), "it").unwrap_err();
        assert_eq!(error.to_string(), "`madang-no-such-program` is missing: install it");
    }

    #[test]
    fn a_failure_shows_the_last_words() {
        let error = output_of(Command::new("sh").args(["-c", "echo reason; exit 3"]), "sh").unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3:\nreason"), "{error}");
    }

    #[test]
    fn a_stamp_of_another_version_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = Stamp::new(folder.path(), "1".to_owned());
        assert!(!stamp.is_there());
        stamp.write().unwrap();
        assert!(stamp.is_there());
        assert!(!Stamp::new(folder.path(), "2".to_owned()).is_there());
    }
}
