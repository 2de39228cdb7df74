//! `cargo xtask fuzz`: libFuzzer searches for an input that violates a property of `fuzz/`, guided by coverage.
//!
//! `cargo fuzz` requires a nightly compiler for its sanitizers. libFuzzer itself only needs counters at every edge,
//! which the stable compiler can insert too, because this is a pass of LLVM.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cargo::{Metadata, cargo, root};
use crate::steps::call;

const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
/// No decoder needs longer inputs, and no input may take longer or need more memory.
const BOUNDS: [&str; 3] = ["-max_len=4096", "-rss_limit_mb=1024", "-timeout=10"];

/// `docs/reports/fuzzing.json`: the last run of each target.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    targets: BTreeMap<String, Figures>,
}

/// Results of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Figures {
    seconds: u64,
    executions: u64,
    /// Edges of the code that were reached.
    edges: u64,
    /// Edges, distinguished by how often they were passed and by the values that were compared there.
    features: u64,
    /// Inputs that violated a property, panicked, or took too much time or memory.
    crashes: u64,
}

/// Searches each target, or one, for `seconds` seconds.
pub(crate) fn run(seconds: u64, at_once: Option<usize>, only: Option<&str>) -> Result<ExitCode> {
    let names = names()?;
    let wanted: Vec<&String> = names.iter().filter(|name| only.is_none_or(|only| only == *name)).collect();
    if wanted.is_empty() {
        bail!("there is no target `{}`; there are: {}", only.unwrap_or_default(), names.join(", "));
    }
    let folder = Metadata::read()?.target_directory.join("fuzz");
    let program = build(&folder)?;
    let at_once = at_once.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let results = search_all(&wanted, at_once, |name| search(&program, &folder, name, seconds))?;
    write_report(&results)?;
    let crashed: Vec<&String> =
        results.iter().filter(|(_, figures)| figures.crashes > 0).map(|(name, _)| name).collect();
    ensure!(crashed.is_empty(), "{crashed:?} failed; see {}", folder.join("found").display());
    Ok(ExitCode::SUCCESS)
}

/// Names of the targets: each target has a file of seeds.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("fuzz/seeds"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".txt").map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

fn build(folder: &Path) -> Result<PathBuf> {
    let host = host()?;
    // If a target is given, the flags do not apply to build scripts and macros.
    let args = ["build", "-p", "madang-fuzz", "--features", "libfuzzer", "--profile", "fuzz"];
    let mut command = cargo(&args);
    command.args(["--target", &host, "--target-dir"]).arg(folder).env("RUSTFLAGS", RUSTFLAGS);
    call(&mut command)?;
    Ok(folder.join(host).join("fuzz/fuzz"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").current_dir(root()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say its host")
}

fn search_all(
    names: &[&String],
    at_once: usize,
    search: impl Fn(&str) -> Result<Figures> + Sync,
) -> Result<BTreeMap<String, Figures>> {
    let (waiting, done) = (Mutex::new(names.iter()), Mutex::new(BTreeMap::new()));
    let search_next = || -> Result<()> {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(name) = next else { return Ok(()) };
            let figures = search(name)?;
            println!("{name}: {figures}");
            done.lock().unwrap_or_else(PoisonError::into_inner).insert((*name).clone(), figures);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(search_next)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker"))?)
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn search(program: &Path, folder: &Path, name: &str, seconds: u64) -> Result<Figures> {
    let (corpus, found) = (folder.join("corpus").join(name), folder.join("found"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let log = folder.join(format!("{name}.log"));
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program).arg(&corpus).args(BOUNDS);
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1").arg("-use_value_profile=1");
    command.arg(format!("-dict={}", root().join("fuzz/words.dict").display()));
    command.arg(format!("-artifact_prefix={}/{name}-", found.display()));
    command.env("MADANG_FUZZ_TARGET", name).env("MADANG_FUZZ_CORPUS", &corpus);
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).status()?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    figures(&text, seconds, u64::from(!status.success()))
        .with_context(|| format!("{name} did not start; see {}", log.display()))
}

/// Parses the last figures that libFuzzer printed.
fn figures(log: &str, seconds: u64, crashes: u64) -> Option<Figures> {
    let progress = log.lines().rfind(|line| line.contains(" cov: "))?;
    let mut words = progress.split_whitespace();
    let executions = words.next()?.strip_prefix('#')?.parse().ok()?;
    let after = |label: &str| -> Option<u64> {
        progress.split_once(label)?.1.split_whitespace().next()?.parse().ok()
    };
    let all = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions = all.and_then(|all| all.trim().parse().ok()).unwrap_or(executions);
    Some(Figures { seconds, executions, edges: after(" cov: ")?, features: after(" ft: ")?, crashes })
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, executions, edges, features, crashes } = self;
        write!(
            f,
            "{executions} executions in {seconds} s, {edges} edges, {features} features, {crashes} crashes"
        )
    }
}

fn write_report(results: &BTreeMap<String, Figures>) -> Result<()> {
    let path = root().join("docs/reports/fuzzing.json");
    let mut report: Report =
        fs::read(&path).map_or_else(|_| Ok(Report::default()), |text| serde_json::from_slice(&text))?;
    report.targets.extend(results.iter().map(|(name, figures)| (name.clone(), figures.clone())));
    fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
    println!("the report is {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_the_fuzzer_is_parsed() {
        let log = "INFO: seed\n#12\tINITED cov: 30 ft: 31 corp: 1/1b\n#4096\tNEW    cov: 512 ft: 1024 corp: 9/99b\n";
        let read = Figures { seconds: 5, executions: 4_096, edges: 512, features: 1_024, crashes: 1 };
        assert_eq!(figures(log, 5, 1), Some(read.clone()));
        let ended = format!("{log}stat::number_of_executed_units: 5000\n");
        assert_eq!(figures(&ended, 5, 1), Some(Figures { executions: 5_000, ..read }));
        assert_eq!(figures("cannot begin", 5, 1), None);
    }

    #[test]
    fn every_target_has_seeds() {
        let names = names().unwrap();
        assert!(names.len() >= 9 && names.iter().any(|name| name == "socket"), "{names:?}");
    }
}
