//! `cargo xtask faults`: a real server, conversations, and a fault in their middle. At the end the load tool's judge
//! decides whether an acked message was lost, duplicated or reordered.
//!
//! A scenario has a [`stage`] (the server), a [`talk`] (replays with their judge) and a [`probe`] (a user whose view is
//! checked during the fault). Faults that cannot be caused from outside a process are caused by a [`shim`].

mod circle;
mod clock;
mod crowd;
mod disk;
mod endurance;
mod fleet;
mod http;
mod pause;
mod probe;
mod read;
mod report;
mod shim;
mod socket;
mod stage;
mod talk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value};

use crate::cargo::{Metadata, cargo};
use crate::steps::call;
use report::{Entry, Report};

/// What a scenario measured besides that every guarantee held.
type Figures = Map<String, Value>;

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct Faults {
    /// Scenarios to run; all of one process if none is named. `fleet` names all of a fleet. `list` prints their names.
    names: Vec<String>,
    /// Minutes for which `soak` runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    soak_minutes: u64,
    /// Number of connections of `cut`.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..=16_000))]
    connections: u64,
    /// Corpus of `kills` and `fleet-kills`: a folder, .tar or .tar.xz of IRC day files. By default synthetic days.
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// Runs development builds of the programs.
    #[arg(long)]
    debug: bool,
    /// Keeps the folders of the scenarios: data, logs and reports.
    #[arg(long)]
    keep: bool,
}

/// Paths and time limits.
struct Tools {
    target: PathBuf,
    programs: PathBuf,
    build: &'static str,
    soak: Duration,
    connections: u64,
    corpus: Option<PathBuf>,
    keep: bool,
}

impl Tools {
    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }
}

struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&Tools) -> Result<Figures>,
}

const SCENARIOS: [Scenario; 13] = [
    Scenario { name: "disk-full", about: "the disk runs full, and has room again", run: disk::full },
    Scenario {
        name: "disk-read-only",
        about: "the disk becomes read-only for a while",
        run: disk::read_only,
    },
    Scenario { name: "disk-slow", about: "each sync takes up to two seconds longer", run: disk::slow },
    Scenario { name: "disk-failing", about: "a sync fails, three times", run: disk::failing },
    Scenario { name: "clock-back", about: "the wall clock steps an hour back", run: clock::back },
    Scenario { name: "clock-forward", about: "the wall clock steps an hour forward", run: clock::forward },
    Scenario { name: "pause", about: "the server is paused for 40 s", run: pause::of_the_server },
    Scenario { name: "pause-client", about: "a client is paused for 40 s", run: pause::of_a_client },
    Scenario {
        name: "cut",
        about: "thousands of connections are reset at once and reconnect",
        run: crowd::cut,
    },
    Scenario { name: "file-descriptors", about: "more sockets than the server may open", run: crowd::flood },
    Scenario { name: "far-behind", about: "devices whose cursor is no longer valid", run: pause::far_behind },
    Scenario { name: "kills", about: "three days with a kill every second", run: endurance::kills },
    Scenario {
        name: "soak",
        about: "minutes of conversation; memory and files stay flat",
        run: endurance::soak,
    },
];

/// Runs scenarios, and writes their results to docs/reports/faults.json.
pub(crate) fn run(args: Faults) -> Result<ExitCode> {
    if args.names.iter().any(|name| name == "list") {
        all().for_each(|scenario| println!("{:<22}{}", scenario.name, scenario.about));
        return Ok(ExitCode::SUCCESS);
    }
    let scenarios = chosen(&args.names)?;
    let tools = Tools::build(&args, scenarios.iter().any(|scenario| scenario.is_of_a_fleet()))?;
    let mut report = Report::new();
    let mut holds = true;
    for scenario in scenarios {
        println!("── {}: {}", scenario.name, scenario.about);
        let entry = scenario.play(&tools);
        holds &= entry.holds();
        report.put(scenario.name, &entry)?;
    }
    println!("{report}");
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(&fleet::SCENARIOS)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let mut found = Vec::new();
    for name in names {
        let before = found.len();
        found.extend(
            all().filter(|scenario| scenario.name == name || name == fleet::NAME && scenario.is_of_a_fleet()),
        );
        if found.len() == before {
            let known: Vec<&str> = all().map(|scenario| scenario.name).collect();
            bail!("there is no scenario `{name}`; there are: {}", known.join(", "));
        }
    }
    Ok(found)
}

impl Tools {
    /// Builds the programs. Those of a fleet are built for release only.
    fn build(args: &Faults, is_of_a_fleet: bool) -> Result<Self> {
        let target = Metadata::read()?.target_directory;
        ensure!(!(args.debug && is_of_a_fleet), "--debug is for scenarios of one process");
        if is_of_a_fleet {
            crate::fleet::build()?;
        } else {
            let mut build = cargo(&["build", "-p", "madang-chat-server", "-p", "madang-loadtest", "--bins"]);
            if !args.debug {
                build.arg("--release");
            }
            call(&mut build)?;
        }
        let name = if args.debug { "debug" } else { "release" };
        let programs = target.join(name);
        let soak = Duration::from_secs(args.soak_minutes * 60);
        Ok(Self {
            target,
            programs,
            build: name,
            soak,
            connections: args.connections,
            corpus: args.corpus.clone(),
            keep: args.keep,
        })
    }
}

impl Scenario {
    fn is_of_a_fleet(&self) -> bool {
        self.name.starts_with(fleet::NAME)
    }

    fn play(&self, tools: &Tools) -> Entry {
        let begun = Instant::now();
        let outcome = (self.run)(tools);
        let entry = Entry::new(self.about, outcome, begun.elapsed(), tools.build);
        println!("{entry}");
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scenario_is_refused_with_the_known_names() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let refusal = chosen(&names(&["pause", "disk-ful"])).err().unwrap().to_string();
        assert!(refusal.contains("`disk-ful`; there are: disk-full, "), "{refusal}");
        assert_eq!(chosen(&names(&["soak", "pause"])).unwrap()[1].name, "pause");
        assert_eq!(chosen(&[]).unwrap().len(), SCENARIOS.len());
        assert_eq!(chosen(&names(&["fleet"])).unwrap().len(), fleet::SCENARIOS.len());
    }
}
