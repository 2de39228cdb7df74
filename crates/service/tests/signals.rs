//! A process that is asked to end: it drains after the first signal and ends at once after the second.

use std::process::{Command, Stdio, id};
use std::time::Duration;

use madang_service::{Drain, Phase, Signals, Tasks};

/// Environment variable that makes this program, started again, the process that receives the signals.
const CHILD: &str = "SIGNALS_TEST_CHILD";

fn send(signal: &str, process: u32) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status().expect("`kill` runs");
    assert!(sent.success());
}

#[tokio::test]
async fn the_first_signal_drains() {
    let drain = Drain::new();
    let _signals = Signals::listen(drain.clone()).unwrap();
    assert_eq!(drain.phase(), Phase::Running);
    send("-TERM", id());
    drain.draining().await;
    assert_eq!(drain.phase(), Phase::Draining);
}

#[test]
fn the_second_signal_ends_the_process_at_once() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_drains_for_a_minute"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(128 + 2));
}

/// The child process of the test above: sends itself two signals, and would otherwise drain for a minute.
#[tokio::test]
async fn a_process_that_drains_for_a_minute() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let tasks = Tasks::new(Drain::new());
    let _signals = Signals::listen(tasks.drain().clone()).unwrap();
    tasks.spawn("stubborn", std::future::pending());
    send("-INT", id());
    tasks.drain().draining().await;
    send("-INT", id());
    let _cut = tasks.close_and_wait(Duration::from_secs(60)).await;
}
