//! `cargo xtask bench fleet`: what a message costs in a fleet, beside the least that its servers need for one.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use super::{Place, Shape, build};
use crate::cargo::{Metadata, cargo};
use crate::steps::call;

pub(crate) const NAME: &str = "fleet";
pub(crate) const ABOUT: &str = "the cost of a message in a fleet, beside bare calls of its servers";

/// Starts a fleet in a folder of its own, measures, and removes it. Arguments are those of the load tool's bench.
pub(crate) fn bench(args: &[OsString]) -> Result<ExitCode> {
    let target = Metadata::read()?.target_directory;
    build()?;
    let example = |package: &str, features: &str, name: &str| {
        cargo(&["run", "--release", "-p", package, "--features", features, "--example", name, "--"])
    };
    let place = Place::new(target.join("bench-fleet"), target.clone());
    place.down(true)?;
    let redis = place.redis(1)?[0].to_string();
    call(example("madang-bus", "redis", "inbox").arg(&redis))?;
    place.up(&Shape {
        nodes: 3,
        discovery: 2,
        presence: 2,
        cassandra: 1,
        is_open: true,
        ..Shape::default()
    })?;
    let cassandra = place.cassandra(1)?[0].to_string();
    let said = output(example("madang-store", "scylla,conformance", "cql").arg(&cassandra))?;
    print!("{said}");
    let bare = said
        .lines()
        .find_map(|line| line.strip_prefix("bare_ms "))
        .context("the example printed no figure")?;
    let mut tool = Command::new(target.join("release/madang-loadtest"));
    tool.args(["bench", "fleet", "--bare-ms", bare, "--dir"]).arg(target.join("bench-fleet")).args(args);
    let measured = call(&mut tool);
    place.down(true)?;
    fs::remove_dir_all(target.join("bench-fleet"))?;
    measured.map(|()| ExitCode::SUCCESS)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
