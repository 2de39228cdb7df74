//! `cargo xtask bench <name>`: the table of all measurements.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::cargo::{Metadata, become_command, cargo};
use crate::fleet::bench as fleet;
use crate::steps::call;

/// A program of the workspace.
#[derive(Clone, Copy)]
struct Program {
    package: &'static str,
    /// `bin` or `example`.
    kind: &'static str,
    target: &'static str,
}

const LOAD_TOOL: Program = Program { package: "madang-loadtest", kind: "bin", target: "madang-loadtest" };
const SERVER: Program = Program { package: "madang-chat-server", kind: "bin", target: "madang" };
const APPENDS: Program = Program { package: "madang-store", kind: "example", target: "appends" };

/// A measurement: a program that is built for release and run.
struct Bench {
    name: &'static str,
    about: &'static str,
    program: Program,
    args: &'static [&'static str],
    /// Programs that it starts; they are built first.
    starts: &'static [Program],
}

/// All measurements. A new measurement needs only a new row. Further arguments, such as `--help`, are passed to the
/// program. docs/performance.md contains the figures.
const BENCHES: [Bench; 11] = [
    Bench {
        name: "connections",
        about: "memory of 15,000 idle connections, and the cost of their heartbeats",
        program: LOAD_TOOL,
        args: &["bench", "connections"],
        starts: &[SERVER],
    },
    Bench {
        name: "fanout",
        about: "deliveries in one open channel at a steady rate",
        program: LOAD_TOOL,
        args: &["bench", "fanout"],
        starts: &[SERVER],
    },
    Bench {
        name: "pairs",
        about: "CPU time for 1,000 channels with little traffic",
        program: LOAD_TOOL,
        args: &["bench", "pairs"],
        starts: &[SERVER],
    },
    Bench {
        name: "sends",
        about: "durable sends over direct channels",
        program: LOAD_TOOL,
        args: &["bench", "sends"],
        starts: &[SERVER, APPENDS],
    },
    Bench {
        name: "push",
        about: "100,000 alerts that are due at once, beside a bare HTTP/2 client, and a push service that hangs",
        program: LOAD_TOOL,
        args: &["bench", "push"],
        starts: &[SERVER],
    },
    Bench {
        name: "presence",
        about: "time until users see that others come, leave and crash",
        program: LOAD_TOOL,
        args: &["bench", "presence"],
        starts: &[SERVER],
    },
    Bench {
        name: "resume",
        about: "catching up with a device that missed entries in some of many channels",
        program: LOAD_TOOL,
        args: &["bench", "resume"],
        starts: &[SERVER],
    },
    Bench {
        name: "returns",
        about: "10,000 devices that reconnect at once after a crash",
        program: LOAD_TOOL,
        args: &["bench", "returns"],
        starts: &[SERVER],
    },
    Bench {
        name: "greedy",
        about: "latency for others while one user asks for all that the limits admit",
        program: LOAD_TOOL,
        args: &["bench", "greedy"],
        starts: &[SERVER],
    },
    Bench {
        name: "startup",
        about: "time until the server is ready",
        program: LOAD_TOOL,
        args: &["bench", "startup"],
        starts: &[SERVER],
    },
    Bench {
        name: "store",
        about: "durable appends of the embedded store",
        program: APPENDS,
        args: &[],
        starts: &[],
    },
];

/// Runs one measurement in place of this process. Without a name, lists all.
pub(crate) fn run(name: Option<&str>, args: &[OsString]) -> Result<ExitCode> {
    let Some(name) = name else {
        BENCHES.iter().for_each(|bench| println!("{:<13}{}", bench.name, bench.about));
        println!("{:<13}{}", fleet::NAME, fleet::ABOUT);
        return Ok(ExitCode::SUCCESS);
    };
    if name == fleet::NAME {
        return fleet::bench(args);
    }
    let bench = find(name)?;
    let metadata = Metadata::read()?;
    let mut programs = bench.starts.iter().chain([&bench.program]);
    if let Some(Program { package, kind, target }) = programs.find(|program| !program.is_in(&metadata)) {
        bail!("{package} has no {kind} `{target}`");
    }
    for program in bench.starts {
        call(&mut program.cargo("build"))?;
    }
    let mut command = bench.program.cargo("run");
    command.arg("--").args(bench.args).args(args);
    Err(become_command(&mut command))
}

impl Program {
    fn is_in(self, metadata: &Metadata) -> bool {
        metadata.has(self.package, self.kind, self.target)
    }

    fn cargo(self, command: &str) -> Command {
        let kind = format!("--{}", self.kind);
        cargo(&[command, "--release", "-p", self.package, &kind, self.target])
    }
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
    fn an_unknown_bench_is_refused_with_the_known_names() {
        assert!(find("fanuot").err().unwrap().to_string().contains("there are: connections, fanout"));
    }

    #[test]
    fn every_program_is_in_the_workspace() {
        let metadata = Metadata::read().unwrap();
        for bench in &BENCHES {
            for program in bench.starts.iter().chain([&bench.program]) {
                assert!(metadata.has(program.package, program.kind, program.target), "{}", program.target);
            }
        }
    }
}
