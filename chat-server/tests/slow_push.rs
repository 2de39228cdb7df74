//! Thousands of alerts while the server is killed again and again: nobody is alerted twice of a message, and nothing is stuck.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::path::Path;

use madang_push_sandbox::{Sandbox, Settings};
use madang_testkit::Server;
use madang_testkit::alerted::{AlertedGroups, GROUP, MESSAGES};

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
const KILLS: usize = 5;

async fn start(folder: &Path) -> Server {
    let config = folder.join("madang.toml");
    Server::start(BINARY, &folder.join("data"), &["--config", config.to_str().unwrap()]).await.unwrap()
}

fn configure(folder: &Path, sandbox: &Sandbox) {
    sandbox.write_files(folder).unwrap();
    let text = format!(
        "[limits]\nenabled = false\n[passwords]\nmemory_kib = 8\npasses = 1\n[accounts]\nconsent = false\n{}",
        sandbox.config_text(folder).replace("[push]\n", "[push]\ndelay_ms = 0\n")
    );
    std::fs::write(folder.join("madang.toml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_alerts_through_kills_reach_every_device_at_most_once() {
    let sandbox = Sandbox::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &sandbox);
    let mut server = start(folder.path()).await;
    let mut groups = AlertedGroups::make(&server.rest, &sandbox).await;
    for number in 0..MESSAGES {
        groups.say(&[&server.rest], &sandbox, number).await;
        if number % (MESSAGES / KILLS) == MESSAGES / KILLS / 2 {
            server.kill().await.unwrap();
            server = start(folder.path()).await;
        }
    }
    let alerts = groups.check(&server.rest, &sandbox).await;
    println!("{} pairs of a user and a message, {alerts} alerts, {KILLS} kills", 2 * GROUP * MESSAGES);
    assert!(alerts > 30 * GROUP, "{alerts}");
}
