//! `cargo xtask test`: everything that must hold before a commit is shared.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{Metadata, cargo, for_all};
use crate::services::{self, ThreeNodes, Wanted};
use crate::steps::{Steps, call};
use crate::{autobahn, replay, tidy, web};

/// `--quick` skips test targets with this prefix.
const SLOW: &str = "slow_";

/// The test target that needs programs and servers of a fleet; it has a step of its own.
const OF_A_FLEET: &str = "fleet";

/// Runs the checks; the exit code says whether all of them passed.
pub(crate) fn run(quick: bool, fleet: bool) -> Result<ExitCode> {
    let metadata = Metadata::read()?;
    let (slow, fast): (Vec<&str>, Vec<&str>) = metadata
        .targets("test")
        .into_iter()
        .filter(|name| *name != OF_A_FLEET)
        .partition(|name| name.starts_with(SLOW));
    let mut steps = Steps::new(if quick { "test --quick" } else { "test" });
    steps.step("format", || call(&mut cargo(&["fmt", "--all", "--check"])));
    // Before the server is built, which embeds the pages.
    steps.step("web", web::check);
    steps.step("clippy", || call(for_all("clippy").args(["--all-targets", "--", "-D", "warnings"])));
    // What is built on a laptop.
    steps.step("clippy of one process", || {
        call(&mut cargo(&["clippy", "-p", "madang-chat-server", "--", "-D", "warnings"]))
    });
    steps.step("tidy", tidy::check);
    steps.step("tests", || call(&mut tests(&["--lib", "--bins"], &fast)));
    steps.step("doc tests", || call(&mut tests(&["--doc"], &[])));
    let target = &metadata.target_directory;
    if !quick || fleet {
        steps.step("bus over Redis", || bus_over_redis(target));
        steps.step("store over Cassandra", || store_over_cassandra(target));
        if fleet {
            steps.step("transcripts and push on several nodes", || on_several_nodes(target));
        }
        steps.step("services are stopped", || services::stop(target));
    }
    if !quick && fleet {
        steps.step("store over three nodes, one killed", || store_over_three(target));
    }
    if !quick {
        for name in slow {
            steps.step(name, || call(&mut tests(&[], &[name])));
        }
        steps.step("web in a browser", || web::in_browser(target));
        steps.step("autobahn", autobahn::check);
        steps.step("replay with kills", || replay::with_kills(&metadata.target_directory));
        steps.step("planted faults", || replay::with_planted_faults(&metadata.target_directory));
    }
    Ok(steps.finish())
}

/// Passes the suite of the inbox on a real Redis, and the tests of several nodes on servers that they start and stop.
fn bus_over_redis(target_directory: &Path) -> Result<()> {
    let running = services::ensure(target_directory, Wanted { redis: 1, cassandra: 0 })?;
    let redis = running.redis.first().context("no Redis server")?;
    let (program, environment) = services::redis_program(target_directory)?;
    let mut command = for_all("test");
    command.args(["--lib", "--test", "redis", "--test", "registry"]);
    command.args(["--", "--ignored", "--nocapture", "--test-threads=1"]);
    command
        .env("MADANG_TEST_REDIS", redis.to_string())
        .env("MADANG_TEST_REDIS_SERVER", program)
        .envs(environment);
    call(&mut command)
}

/// Passes the suite of the store on a real cluster of one node.
fn store_over_cassandra(target_directory: &Path) -> Result<()> {
    let running = services::ensure(target_directory, Wanted { redis: 0, cassandra: 1 })?;
    let node = running.cassandra.first().context("no node of the cluster")?;
    call(cql_tests(&["--skip", "three_replicas"]).env("MADANG_TEST_CQL", node.to_string()))
}

/// Plays the transcripts on two nodes, which are processes, over the same servers; and sends alerts of three nodes while processes are
/// killed.
fn on_several_nodes(target_directory: &Path) -> Result<()> {
    let running = services::ensure(target_directory, Wanted { redis: 1, cassandra: 1 })?;
    let redis = running.redis.first().context("no Redis server")?;
    let node = running.cassandra.first().context("no node of the cluster")?;
    call(for_all("build").arg("--bins"))?;
    let mut command = for_all("test");
    command.args(["--test", OF_A_FLEET, "--", "--ignored", "--nocapture", "--test-threads=1"]);
    command
        .env("MADANG_TEST_REDIS", redis.to_string())
        .env("MADANG_TEST_CQL", node.to_string())
        .env("MADANG_TEST_BINARY", target_directory.join("debug/madang"))
        .env("MADANG_TEST_PUSH", target_directory.join("debug/madang-push"));
    call(&mut command)
}

/// Passes it on three nodes with three replicas; the test kills the last node in the middle. The cluster is not used again.
fn store_over_three(target_directory: &Path) -> Result<()> {
    let three = ThreeNodes::up(target_directory)?;
    let nodes: Vec<String> = three.addrs.iter().map(ToString::to_string).collect();
    let mut tests = cql_tests(&["three_replicas"]);
    tests.env("MADANG_TEST_CQL", nodes.join(",")).env("MADANG_TEST_KILL", three.kill_last.join(" "));
    let passed = call(&mut tests);
    three.remove()?;
    passed
}

/// The tests over a CQL server, one after another: several keyspaces at once would be too much for a small machine.
fn cql_tests(arguments: &[&str]) -> Command {
    let mut command = for_all("test");
    command.args(["--test", "cql", "--", "--ignored", "--nocapture", "--test-threads=1"]).args(arguments);
    command
}

/// `cargo test` for the given kinds and integration test targets. All targets are named, because cargo cannot exclude
/// one.
fn tests(kinds: &[&str], targets: &[&str]) -> Command {
    let mut command = for_all("test");
    command.arg("--no-fail-fast").args(kinds);
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
        assert_eq!(args[4..], ["--no-fail-fast", "--lib", "--bins", "--test", "a", "--test", "b"]);
    }
}
