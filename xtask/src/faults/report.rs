//! Results of the scenarios: a table for people, and docs/reports/faults.json with the last run of each scenario.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Figures;
use crate::cargo::root;

const HELD: &str = "held";
const BROKE: &str = "BROKE";

/// One run of one scenario.
pub(super) struct Entry(Value);

impl Entry {
    /// `build` names the build profile of the programs.
    pub(super) fn new(about: &str, outcome: Result<Figures>, took: Duration, build: &str) -> Self {
        let (verdict, why, figures) = match outcome {
            Ok(figures) => (HELD, Value::Null, figures),
            Err(error) => (BROKE, format!("{error:#}").into(), Figures::new()),
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self(json!({
            "about": about, "verdict": verdict, "why": why, "figures": figures,
            "took_s": took.as_secs(), "cores": cores, "build": build,
        }))
    }

    pub(super) fn holds(&self) -> bool {
        self.0["verdict"] == HELD
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(entry) = self;
        write!(f, "{} ({} s)", entry["verdict"].as_str().unwrap_or_default(), entry["took_s"])?;
        for (name, figure) in entry["figures"].as_object().into_iter().flatten() {
            write!(f, ", {} {figure}", name.replace('_', " "))?;
        }
        entry["why"].as_str().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// The last run of each scenario.
pub(super) struct Report {
    path: PathBuf,
    /// One line for each scenario of this run.
    ran: Vec<String>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { path: root().join("docs/reports/faults.json"), ran: Vec::new() }
    }

    /// Stores one run; the last runs of other scenarios are kept.
    pub(super) fn put(&mut self, name: &str, entry: &Entry) -> Result<()> {
        self.ran.push(format!("{name:<22}{entry}"));
        let mut scenarios: Map<String, Value> = match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => Map::new(),
        };
        scenarios.insert(name.to_owned(), entry.0.clone());
        Ok(fs::write(&self.path, serde_json::to_string_pretty(&scenarios)? + "\n")?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ran.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Whole milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A ratio with two decimal places.
#[expect(clippy::cast_precision_loss, reason = "KiB and files are far below 2^52")]
pub(super) fn ratio(one: u64, other: u64) -> f64 {
    (one as f64 / other as f64 * 100.0).round() / 100.0
}
