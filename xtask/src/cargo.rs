//! Calls of cargo, and its metadata of the workspace.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// A command that runs the cargo that started this program, with `args`, at the root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// What only a fleet has, of all packages, and what tests want of libraries.
const ALL: &str = "madang-bus/redis,madang-chat-server/fleet,madang-discovery/fleet,madang-presence/fleet,madang-push/fleet,madang-testkit/fleet,madang-testkit/as_in_tests";

/// A command over all packages, with what only a fleet has. Cargo builds a library once for each set of features that the packages of a
/// command want of it: commands for single packages would build most of what they share again.
pub(crate) fn for_all(command: &str) -> Command {
    cargo(&[command, "--workspace", "--features", ALL])
}

/// Replaces this process by the command, so that signals reach it. Returns only when that fails.
pub(crate) fn become_command(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow!(error).context(format!("cannot run {command:?}"))
}

/// Packages and targets of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Metadata {
    /// Reads the metadata from cargo.
    pub(crate) fn read() -> Result<Self> {
        let output = cargo(&["metadata", "--no-deps", "--format-version", "1"]).output()?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("cannot read the answer of cargo metadata")
    }

    /// Names of the targets of one kind (`test`, `example` …), sorted and without duplicates.
    pub(crate) fn targets(&self, kind: &str) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        let mut names: Vec<&str> = targets
            .filter(|target| target.kind.iter().any(|k| k == kind))
            .map(|target| target.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a package has a target of this kind and name.
    pub(crate) fn has(&self, package: &str, kind: &str, name: &str) -> bool {
        self.packages
            .iter()
            .filter(|candidate| candidate.name == package)
            .flat_map(|package| &package.targets)
            .any(|target| target.name == name && target.kind.iter().any(|k| k == kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_knows_its_targets() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"target_directory": "/t", "packages": [
                {"name": "a", "targets": [{"name": "slow_x", "kind": ["test"]}, {"name": "a", "kind": ["lib"]}]},
                {"name": "b", "targets": [{"name": "fast", "kind": ["test"]}, {"name": "fast", "kind": ["test"]}]}]}"#,
        )
        .unwrap();
        assert_eq!(metadata.targets("test"), ["fast", "slow_x"]);
        assert!(metadata.has("a", "lib", "a") && !metadata.has("b", "lib", "a"));
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("Cargo.lock").exists());
    }
}
