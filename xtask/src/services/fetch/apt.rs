//! Debian packages, downloaded and unpacked into a folder without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{empty, output_of};

const INSTALL: &str = "`redis-server` or `valkey-server`";

/// Downloads into `downloads` and unpacks into `root`, both in one folder.
pub(super) struct Apt {
    folder: PathBuf,
    /// Whether apt reads package lists of our own. The lists of the machine may be missing or older than the packages that
    /// the archive still has.
    has_own_lists: bool,
}

impl Apt {
    /// Begins with an empty folder.
    ///
    /// # Errors
    /// If this is not Debian or a relative of it.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        for program in ["apt-get", "dpkg", "dpkg-deb"] {
            output_of(Command::new(program).arg("--version"), INSTALL)?;
        }
        empty(folder)?;
        Ok(Self { folder: folder.to_owned(), has_own_lists: false })
    }

    /// The folder with the unpacked files.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Downloads and unpacks these packages, without what they depend on.
    pub(super) fn unpack(&mut self, packages: &[String]) -> Result<()> {
        let downloaded = self.download(packages);
        if downloaded.is_err() && !self.has_own_lists {
            self.update()?;
            self.download(packages)?;
        } else {
            downloaded?;
        }
        for entry in fs::read_dir(self.downloads())? {
            let mut dpkg = Command::new("dpkg");
            output_of(dpkg.arg("-x").arg(entry?.path()).arg(self.root()), INSTALL)?;
        }
        Ok(())
    }

    fn download(&self, packages: &[String]) -> Result<()> {
        empty(&self.downloads())?;
        let mut apt = self.apt("download");
        output_of(apt.args(packages).current_dir(self.downloads()), INSTALL)?;
        Ok(())
    }

    /// Reads the package lists of the archives that the machine uses into our folder.
    fn update(&mut self) -> Result<()> {
        self.has_own_lists = true;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        output_of(&mut self.apt("update"), INSTALL)?;
        Ok(())
    }

    fn apt(&self, verb: &str) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["-qq", verb]);
        if self.has_own_lists {
            for (key, name) in [("Dir::State", "state"), ("Dir::Cache", "cache")] {
                command.arg("-o").arg(format!("{key}={}", self.folder.join(name).display()));
            }
            command.args(["-o", "Dir::State::status=/var/lib/dpkg/status"]);
        }
        command
    }

    fn downloads(&self) -> PathBuf {
        self.folder.join("downloads")
    }

    /// Removes everything but the unpacked files.
    pub(super) fn clean(self) -> Result<()> {
        for name in ["downloads", "state", "cache"] {
            let folder = self.folder.join(name);
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    }
}
