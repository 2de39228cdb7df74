//! `cargo xtask test`: everything that must hold before a commit is shared.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{Metadata, cargo};
use crate::services::{self, Wanted};
use crate::steps::{Steps, call};
use crate::{autobahn, replay, tidy};

/// `--quick` skips test targets with this prefix.
const SLOW: &str = "slow_";

/// Runs the checks; the exit code says whether all of them passed.
pub(crate) fn run(quick: bool, fleet: bool) -> Result<ExitCode> {
    let metadata = Metadata::read()?;
    let (slow, fast): (Vec<&str>, Vec<&str>) =
        metadata.targets("test").into_iter().partition(|name| name.starts_with(SLOW));
    let mut steps = Steps::new(if quick { "test --quick" } else { "test" });
    steps.step("format", || call(&mut cargo(&["fmt", "--all", "--check"])));
    steps.step("clippy", || {
        call(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    steps.step("tidy", tidy::check);
    steps.step("tests", || call(&mut tests(&["--lib", "--bins"], &fast)));
    steps.step("doc tests", || call(&mut tests(&["--doc"], &[])));
    if fleet {
        steps.step("store over Cassandra", || store_over_cassandra(&metadata.target_directory));
    }
    if !quick {
        for name in slow {
            steps.step(name, || call(&mut tests(&[], &[name])));
        }
        steps.step("autobahn", autobahn::check);
        steps.step("replay with kills", || replay::with_kills(&metadata.target_directory));
        steps.step("planted faults", || replay::with_planted_faults(&metadata.target_directory));
    }
    Ok(steps.finish())
}

/// Passes the suite of the store on a real cluster of one node.
fn store_over_cassandra(target_directory: &Path) -> Result<()> {
    let running = services::ensure(target_directory, Wanted { redis: 0, cassandra: 1 })?;
    let node = running.cassandra.first().context("no node of the cluster")?;
    let mut command = cargo(&["test", "-p", "madang-store", "--all-features", "--test", "cql"]);
    command.args(["--", "--ignored", "--nocapture"]).env("MADANG_TEST_CQL", node.to_string());
    call(&mut command)
}

/// `cargo test` for the given kinds and integration test targets. All targets are named, because cargo cannot exclude
/// one.
fn tests(kinds: &[&str], targets: &[&str]) -> Command {
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(kinds);
    for target in targets {
        command.args(["--test", target]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_targets_are_named_one_by_one() {
        let command = tests(&["--lib", "--bins"], &["a", "b"]);
        let args: Vec<_> = command.get_args().filter_map(|arg| arg.to_str()).collect();
        assert_eq!(args[3..], ["--lib", "--bins", "--test", "a", "--test", "b"]);
    }
}
