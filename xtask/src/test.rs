//! `cargo xtask test`: everything that must hold before a commit is shared.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo::{Metadata, cargo};
use crate::steps::{Steps, call};
use crate::tidy;

/// Test targets whose names begin with this are left out by `--quick`.
const SLOW: &str = "slow_";

/// Whether `madang-loadtest replay` exists; the run with kills is part of the full test from then on.
const REPLAY_EXISTS: bool = false;

/// Runs the checks; the exit code says whether all of them passed.
pub(crate) fn run(quick: bool) -> Result<ExitCode> {
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
    if !quick {
        for name in slow {
            steps.step(name, || call(&mut tests(&[], &[name])));
        }
        if REPLAY_EXISTS {
            steps.step("replay with kills", || replay_with_kills(&metadata.target_directory));
        }
    }
    Ok(steps.finish())
}

/// `cargo test` of the given kinds and integration test targets. Each is named, because cargo cannot leave one out.
fn tests(kinds: &[&str], targets: &[&str]) -> Command {
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(kinds);
    for target in targets {
        command.args(["--test", target]);
    }
    command
}

/// A small run from end to end: clients chat while the server is killed every two seconds; nothing acked may be lost.
fn replay_with_kills(target_directory: &Path) -> Result<()> {
    call(&mut cargo(&["build", "-p", "madang-chat-server", "-p", "madang-loadtest", "--bins"]))?;
    let binaries = target_directory.join("debug");
    let mut replay = Command::new(binaries.join("madang-loadtest"));
    replay.args(["replay", "--synthetic", "3", "--kill-every", "2", "--server"]).arg(binaries.join("madang"));
    call(&mut replay)
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
