//! Runs steps one after another, prints how long each took, and sums up.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// The steps of one run. After a failed step the next one is still tried, so that one run shows all failures.
pub(crate) struct Steps {
    title: &'static str,
    started: Instant,
    done: Vec<Done>,
}

struct Done {
    name: String,
    took: Duration,
    passed: bool,
}

impl Steps {
    /// A run without steps.
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, started: Instant::now(), done: Vec::new() }
    }

    /// Runs one step.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("\n── {name}");
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        let word = if outcome.is_ok() { "passed" } else { "FAILED" };
        println!("── {name}: {word} in {:.1} s", took.as_secs_f64());
        self.done.push(Done { name: name.to_owned(), took, passed: outcome.is_ok() });
    }

    /// Prints the final table and a summary line.
    pub(crate) fn finish(self) -> ExitCode {
        println!();
        for done in &self.done {
            let word = if done.passed { "passed" } else { "FAILED" };
            println!("{:>8.1} s  {word}  {}", done.took.as_secs_f64(), done.name);
        }
        println!("{}", self.summary());
        if self.done.iter().all(|done| done.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn summary(&self) -> String {
        let failed: Vec<&str> =
            self.done.iter().filter(|done| !done.passed).map(|done| done.name.as_str()).collect();
        let passed = self.done.len() - failed.len();
        let took = self.started.elapsed().as_secs_f64();
        let tail = if failed.is_empty() { String::new() } else { format!("; FAILED: {}", failed.join(", ")) };
        format!("{}: {passed} of {} steps passed in {took:.0} s{tail}", self.title, self.done.len())
    }
}

/// Runs a command and shows its output.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn after_a_failure_the_next_step_runs() {
        let mut steps = Steps::new("check");
        steps.step("one", || bail!("planted"));
        steps.step("two", || call(&mut Command::new("true")));
        steps.step("three", || call(&mut Command::new("false")));
        assert_eq!(steps.summary(), "check: 1 of 3 steps passed in 0 s; FAILED: one, three");
        assert_eq!(format!("{:?}", steps.finish()), format!("{:?}", ExitCode::FAILURE));
    }
}
