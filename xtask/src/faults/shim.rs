//! What stands between the server and the C library (`shim.c`), and the page of memory that tells it what to do.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::call;

/// "Read-only file system" of Linux.
pub(super) const EROFS: i64 = 30;

const SOURCE: &str = include_str!("shim.c");
const PAGE_BYTES: u64 = 4_096;

/// The page.
pub(super) struct Shim(File);

/// Places on the page, of eight bytes each.
#[derive(Clone, Copy)]
pub(super) enum Switch {
    /// Seconds that are added to the wall clock.
    ClockSeconds = 0,
    /// Milliseconds that each sync takes longer.
    SyncMs = 1,
    /// How many of the next syncs fail.
    SyncFailures = 2,
    /// With what writes to files fail.
    WriteError = 3,
}

impl Shim {
    /// Builds it in a folder. Returns the script as well that starts a server with it.
    pub(super) fn build(folder: &Path) -> Result<(Self, String)> {
        let path = |name: &str| folder.join(name);
        fs::write(path("shim.c"), SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(path("shim.so")).arg(path("shim.c"));
        call(&mut compiler).context("the shim wants a C compiler")?;
        let page = File::options().create(true).truncate(true).read(true).write(true).open(path("faults"))?;
        page.set_len(PAGE_BYTES)?;
        let (faults, shim) = (path("faults"), path("shim.so"));
        let script = format!("FAULTS='{}' LD_PRELOAD='{}' exec \"$@\"", faults.display(), shim.display());
        Ok((Self(page), script))
    }

    /// Takes effect at once, in a running server.
    pub(super) fn set(&self, switch: Switch, value: i64) -> Result<()> {
        Ok(self.0.write_all_at(&value.to_ne_bytes(), switch as u64 * 8)?)
    }
}
