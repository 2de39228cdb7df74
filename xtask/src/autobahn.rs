//! `cargo xtask autobahn`: the server cases of the Autobahn testsuite against the gateway's own socket code. An echo
//! takes the place of the chat (`chat-server/examples/echo.rs`).

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, Serializer};

use crate::cargo::{Metadata, for_all, root};
use crate::steps::call;

/// Cases without 12 and 13, which test compression: the gateway offers none.
const CASES: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];
/// Cases without 9, which measures messages of up to 16 MiB.
const QUICK_CASES: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
/// Acceptable results of a case.
const FINE: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];
/// Cases with another result that are run once more. Most of them give the server a second, which a busy machine may take for itself; what
/// the server does wrong, it does again.
const REPEATED: usize = 5;

/// The result of a case according to the suite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    behavior: String,
    behavior_close: String,
}

impl Outcome {
    fn is_fine(&self) -> bool {
        [&self.behavior, &self.behavior_close].iter().all(|word| FINE.contains(&word.as_str()))
    }
}

impl Display for Outcome {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{}, close {}", self.behavior, self.behavior_close)
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// By case.
type Outcomes = BTreeMap<String, Outcome>;

/// Those that are not acceptable.
fn wrong(outcomes: &Outcomes) -> Outcomes {
    outcomes.iter().filter(|(_, it)| !it.is_fine()).map(|(case, it)| (case.clone(), it.clone())).collect()
}

/// `docs/reports/autobahn.json`
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    suite: &'static str,
    cases: usize,
    left_out: &'static str,
    behaviour: BTreeMap<String, usize>,
    behaviour_of_closes: BTreeMap<String, usize>,
    /// Cases whose behaviour or close is not exactly `OK`.
    other_than_ok: Outcomes,
    /// The first result of cases that were run once more.
    repeated: Outcomes,
    seconds: u64,
}

/// Runs all cases and writes the report.
pub(crate) fn run() -> Result<ExitCode> {
    let report = report(&CASES)?;
    let path = root().join("docs/reports/autobahn.json");
    fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
    println!("the report is {}", path.display());
    report.check()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the cases that take at most a minute.
pub(crate) fn check() -> Result<()> {
    report(&QUICK_CASES)?.check()
}

fn report(cases: &[&str]) -> Result<Report> {
    let target = Metadata::read()?.target_directory;
    let suite = Suite::prepare(&target.join("autobahn"))?;
    call(for_all("build").args(["--features", "madang-chat-server/echo", "--example", "echo"]))?;
    let started = Instant::now();
    let echo = target.join("debug/examples/echo");
    let mut outcomes = suite.run(&echo, cases)?;
    let mut repeated = wrong(&outcomes);
    if repeated.len() > REPEATED {
        repeated.clear();
    }
    if !repeated.is_empty() {
        let cases: Vec<&str> = repeated.keys().map(String::as_str).collect();
        outcomes.extend(suite.run(&echo, &cases)?);
    }
    let report = Report::of(&outcomes, repeated, started.elapsed().as_secs());
    report.print(&outcomes);
    Ok(report)
}

/// The unpacked suite, and a Python with the packages that it needs.
struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Downloads what is missing. `xtask/autobahn` contains the hash of each file.
    fn prepare(folder: &Path) -> Result<Self> {
        let ours = root().join("xtask/autobahn");
        let mut wanted = String::new();
        for name in ["requirements.txt", "suite.txt", "port.py"] {
            wanted += &fs::read_to_string(ours.join(name))?;
        }
        let (suite, ready) = (Self { folder: folder.to_owned() }, folder.join("ready"));
        if fs::read_to_string(&ready).is_ok_and(|is| is == wanted) {
            return Ok(suite);
        }
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let mut venv = Command::new("python3");
        call(venv.args(["-m", "venv"]).arg(folder.join("venv"))).context("Python 3 with venv is needed")?;
        let hashes = ["--quiet", "--no-deps", "--require-hashes"];
        call(suite.pip("install").args(hashes).arg("-r").arg(ours.join("requirements.txt")))?;
        let source = ["--no-binary", ":all:", "--no-build-isolation"];
        call(suite.pip("download").args(hashes).args(source).arg("-r").arg(ours.join("suite.txt")))?;
        let archive = find(folder, ".tar.gz")?;
        call(suite.python("port.py").arg(archive).arg(folder.join("suite")))?;
        fs::write(ready, wanted)?;
        Ok(suite)
    }

    fn pip(&self, verb: &str) -> Command {
        let mut command = Command::new(self.folder.join("venv/bin/pip"));
        command.arg(verb).current_dir(&self.folder);
        command
    }

    fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.folder.join("venv/bin/python"));
        command.args(["-W", "ignore"]).arg(root().join("xtask/autobahn").join(script));
        command
    }

    fn run(&self, echo: &Path, cases: &[&str]) -> Result<Outcomes> {
        let mut server = Server::start(echo)?;
        let url = format!("ws://{}/v1/ws", server.addr()?);
        let (suite, out) = (find(&self.folder.join("suite"), "")?, self.folder.join("out"));
        let mut client = self.python("run.py");
        client.arg(suite).args([&url, "madang.v1.json"]).arg(&out).args(cases);
        call(client.stdout(fs::File::create(self.folder.join("run.log"))?))?;
        let mut agents: BTreeMap<String, Outcomes> =
            serde_json::from_slice(&fs::read(out.join("index.json"))?)?;
        agents.remove("madang").context("the suite has no results for our server")
    }
}

/// The only entry of `folder` whose name ends with `ending`.
fn find(folder: &Path, ending: &str) -> Result<PathBuf> {
    let paths = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = paths.filter(|path| path.to_string_lossy().ends_with(ending));
    found.next().with_context(|| format!("nothing in {} ends with `{ending}`", folder.display()))
}

/// The echo server. It is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// The address in its first line of output.
    fn addr(&mut self) -> Result<String> {
        let output: ChildStdout = self.0.stdout.take().context("the echo's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(!line.is_empty(), "the echo has not started");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let killed = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = killed {
            eprintln!("cannot stop the echo: {error}");
        }
    }
}

impl Report {
    fn of(outcomes: &Outcomes, repeated: Outcomes, seconds: u64) -> Self {
        let mut report = Self {
            suite: "autobahntestsuite 25.10.1, server cases",
            cases: outcomes.len(),
            left_out: "12.* and 13.*: compression, which is not offered",
            behaviour: BTreeMap::new(),
            behaviour_of_closes: BTreeMap::new(),
            other_than_ok: BTreeMap::new(),
            repeated,
            seconds,
        };
        for (case, outcome) in outcomes {
            let Outcome { behavior, behavior_close } = outcome;
            *report.behaviour.entry(behavior.clone()).or_default() += 1;
            *report.behaviour_of_closes.entry(behavior_close.clone()).or_default() += 1;
            if (behavior.as_str(), behavior_close.as_str()) != ("OK", "OK") {
                report.other_than_ok.insert(case.clone(), outcome.clone());
            }
        }
        report
    }

    /// Prints a line for each group of cases, then the cases that are not exactly `OK`.
    fn print(&self, outcomes: &Outcomes) {
        let mut groups: BTreeMap<u32, BTreeMap<&str, usize>> = BTreeMap::new();
        for (case, outcome) in outcomes {
            let group = case.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            *groups.entry(group).or_default().entry(&outcome.behavior).or_default() += 1;
        }
        for (group, counts) in groups {
            let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
            println!("{group:>4}.*  {}", counts.join(", "));
        }
        self.other_than_ok.iter().for_each(|(case, words)| println!("{case:>8}  {words}"));
        self.repeated.iter().for_each(|(case, words)| println!("{case:>8}  {words} at first; run once more"));
        println!("{} cases in {} s; left out: {}", self.cases, self.seconds, self.left_out);
    }

    fn check(&self) -> Result<()> {
        ensure!(self.cases > 0, "no case was run");
        let wrong: Vec<String> =
            wrong(&self.other_than_ok).iter().map(|(case, it)| format!("{case}: {it}")).collect();
        ensure!(wrong.is_empty(), "results that are not acceptable: {wrong:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(behavior: &str, close: &str) -> Report {
        let fine = r#"{"behavior": "OK", "behaviorClose": "OK", "duration": 1}"#;
        let other = format!(r#"{{"behavior": "{behavior}", "behaviorClose": "{close}"}}"#);
        let outcomes = serde_json::from_str(&format!(r#"{{"1.1": {fine}, "1.2": {other}}}"#)).unwrap();
        Report::of(&outcomes, Outcomes::new(), 1)
    }

    #[test]
    fn a_case_that_fails_is_found() {
        for (behavior, close) in
            [("FAILED", "OK"), ("OK", "WRONG CODE"), ("OK", "FAILED BY CLIENT"), ("UNIMPLEMENTED", "OK")]
        {
            assert!(report(behavior, close).check().is_err(), "{behavior}, {close}");
        }
        let fine = report("NON-STRICT", "OK");
        assert!(fine.check().is_ok());
        assert_eq!(fine.other_than_ok["1.2"].to_string(), "NON-STRICT, close OK");
        assert!(Report::of(&Outcomes::new(), Outcomes::new(), 0).check().is_err());
    }
}
