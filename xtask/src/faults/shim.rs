//! A library between the server and the C library (`shim.c`), and the page of memory that controls it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::call;

/// Linux error code for a read-only file system.
pub(super) const EROFS: i64 = 30;

const SOURCE: &str = include_str!("shim.c");
const PAGE_BYTES: u64 = 4_096;

/// The page.
pub(super) struct Shim(File);

/// Offsets on the page, in units of eight bytes.
#[derive(Clone, Copy)]
pub(super) enum Switch {
    /// Milliseconds that are added to the wall clock.
    ClockMs = 0,
    /// Milliseconds by which each sync is delayed.
    SyncMs = 1,
    /// Number of following syncs that fail.
    SyncFailures = 2,
    /// Error code with which writes to files fail.
    WriteError = 3,
}

impl Shim {
    /// Builds the library in a folder. Also returns the script that starts a server with it.
    pub(super) fn build(folder: &Path) -> Result<(Self, String)> {
        let path = |name: &str| folder.join(name);
        fs::write(path("shim.c"), SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(path("shim.so")).arg(path("shim.c"));
        call(&mut compiler).context("the shim needs a C compiler")?;
        let page = File::options().create(true).truncate(true).read(true).write(true).open(path("faults"))?;
        page.set_len(PAGE_BYTES)?;
        let set: Vec<String> =
            Self::environment(folder).iter().map(|(name, value)| format!("{name}='{value}'")).collect();
        Ok((Self(page), format!("{} exec \"$@\"", set.join(" "))))
    }

    /// What a process needs in its environment to run with the library of this folder.
    pub(super) fn environment(folder: &Path) -> [(&'static str, String); 2] {
        let path = |name: &str| folder.join(name).display().to_string();
        [("FAULTS", path("faults")), ("LD_PRELOAD", path("shim.so"))]
    }

    /// Sets a switch. It takes effect at once, in a running server too.
    pub(super) fn set(&self, switch: Switch, value: i64) -> Result<()> {
        Ok(self.0.write_all_at(&value.to_ne_bytes(), switch as u64 * 8)?)
    }
}
