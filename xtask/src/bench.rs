//! `cargo xtask bench <name>`: one table of what can be measured.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cargo::{Metadata, become_command, cargo};

/// One measurement: a target that is built for release and run.
struct Bench {
    name: &'static str,
    about: &'static str,
    package: &'static str,
    /// `bin` or `example`.
    kind: &'static str,
    target: &'static str,
    args: &'static [&'static str],
}

/// What can be measured. A new line here is all that a new measurement needs.
const BENCHES: [Bench; 2] = [
    Bench {
        name: "store",
        about: "durable appends of the embedded store",
        package: "madang-store",
        kind: "example",
        target: "appends",
        args: &[],
    },
    Bench {
        name: "load",
        about: "scenarios of the load tool; its own arguments follow",
        package: "madang-loadtest",
        kind: "bin",
        target: "madang-loadtest",
        args: &["bench"],
    },
];

/// Runs one measurement in place of this process, or lists them.
pub(crate) fn run(name: Option<&str>, args: &[OsString]) -> Result<ExitCode> {
    let Some(name) = name else {
        BENCHES.iter().for_each(|bench| println!("{:<10}{}", bench.name, bench.about));
        return Ok(ExitCode::SUCCESS);
    };
    let bench = find(name)?;
    if !Metadata::read()?.has(bench.package, bench.kind, bench.target) {
        bail!("{} has no {} `{}` yet", bench.package, bench.kind, bench.target);
    }
    let kind = format!("--{}", bench.kind);
    let mut command = cargo(&["run", "--release", "-p", bench.package, &kind, bench.target, "--"]);
    command.args(bench.args).args(args);
    Err(become_command(&mut command))
}

fn find(name: &str) -> Result<&'static Bench> {
    match BENCHES.iter().find(|bench| bench.name == name) {
        Some(bench) => Ok(bench),
        None => {
            let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
            bail!("there is no bench `{name}`; there are: {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_answered_with_the_known_ones() {
        assert_eq!(find("store").unwrap().target, "appends");
        assert!(find("stroe").err().unwrap().to_string().contains("there are: store"));
    }
}
