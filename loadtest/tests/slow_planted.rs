//! The whole tool against a server in memory: it reports no fault without one, and names each planted fault.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod fake;

use fake::fleet::Fleet;
use fake::{Fake, Plant};
use serde_json::Value;

/// Runs the tool, by default on one synthetic day. Returns its exit code and its report.
async fn replay(url: &str, more: &[&str]) -> (i32, Value) {
    let url = ["--url", url];
    replay_with(&url.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()).await
}

async fn replay_with(more: &[&str]) -> (i32, Value) {
    let args = ["replay", "--lines", "200", "--devices", "2"];
    let days: &[&str] = if more.contains(&"--synthetic") { &[] } else { &["--synthetic", "1"] };
    // The tool waits this long for lost entries.
    let patience: &[&str] = if more.contains(&"--patience") { &[] } else { &["--patience", "6"] };
    let mut tool = tokio::process::Command::new(env!("CARGO_BIN_EXE_madang-loadtest"));
    let output = tool.args(args).args(days).args(patience).args(more).output().await.unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no report ({error}): {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().unwrap(), report)
}

/// The counts of faults of places.
fn faults(report: &Value) -> [u64; 6] {
    ["lost", "duplicated", "reordered", "holes", "conflicts", "snapshots"]
        .map(|name| report[name].as_u64().unwrap())
}

/// The counts of faults of what messages contain, and of who may read them.
fn later_faults(report: &Value) -> [u64; 5] {
    ["stale", "edit_lost", "reaction_lost", "undeleted", "leaked"].map(|name| report[name].as_u64().unwrap())
}

/// A high rate of everything that happens besides the lines.
const CHANGES: [&str; 6] = ["--edits", "0.2", "--deletes", "0.1", "--reactions", "0.3"];
const OPEN: [&str; 2] = ["--channel-kind", "open"];

/// Whether the report counts each of these.
fn happened(report: &Value, names: &[&str]) -> bool {
    names.iter().all(|name| report["changes"][name].as_u64().unwrap() > 0)
}

/// Plants a fault and expects that exactly these later counts are not zero, and that its place is reported.
async fn finds_later(plant: Plant, args: &[&str], expected: [bool; 5]) {
    let (fake, url) = Fake::start(plant).await;
    let (code, report) = replay(&url, args).await;
    assert_eq!(later_faults(&report).map(|count| count > 0), expected, "{report:#}");
    assert!(fake.planted().into_iter().any(|place| names(&report, place)), "{report:#}");
    assert_eq!(code, 1);
}

/// Whether the report names the place at which a fault was planted.
fn names(report: &Value, (channel, seq): (u64, u64)) -> bool {
    let channel = channel.to_string();
    let at = |fault: &Value| fault["channel"] == channel.as_str() && fault["seq"] == seq;
    report["broken"].as_array().unwrap().iter().any(at)
}

/// Plants a fault and expects that exactly these counts are not zero, and that its place is reported.
async fn finds(plant: Plant, lost: bool, duplicated: bool, reordered: bool, holes: bool, conflicts: bool) {
    let (fake, url) = Fake::start(plant).await;
    let (code, report) = replay(&url, &[]).await;
    let found = faults(&report).map(|count| count > 0);
    assert_eq!(found, [lost, duplicated, reordered, holes, conflicts, false], "{report:#}");
    assert!(fake.planted().into_iter().any(|place| names(&report, place)), "{report:#}");
    assert_eq!(code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_server_has_no_faults_and_everything_is_counted() {
    let (_fake, url) = Fake::start(Plant::Nothing).await;
    let (code, report) = replay(&url, &[]).await;
    assert_eq!((code, faults(&report)), (0, [0; 6]), "{report:#}");
    assert_eq!((report["sent"].as_u64(), report["acked"].as_u64()), (Some(200), Some(200)));
    assert_eq!(report["deliveries_live"], report["deliveries_expected"]);
    assert_eq!(report["deliveries_expected"], 200 * report["devices"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_disconnect_and_resume_miss_nothing() {
    let (_fake, url) = Fake::start(Plant::Nothing).await;
    let (code, report) = replay(&url, &["--churn", "--churn-every", "1", "--speed", "100x"]).await;
    assert_eq!((code, faults(&report)), (0, [0; 6]), "{report:#}");
    assert!(report["resumes"].as_u64() > report["devices"].as_u64());
    assert!(report["deliveries_after_resume"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_message_without_a_row_is_reported() {
    finds(Plant::ForgetRow(120), true, false, false, true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_fan_out_is_reported() {
    finds(Plant::SkipFanOut(120), true, false, false, true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicated_delivery_is_reported() {
    finds(Plant::Twice(120), false, true, false, false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_swapped_deliveries_are_reported() {
    finds(Plant::Swap(120), false, false, true, true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_text_is_reported() {
    finds(Plant::OtherWords(120), false, false, false, false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_in_a_group_are_made_and_are_no_fault() {
    let (_fake, url) = Fake::start(Plant::Nothing).await;
    let (code, report) = replay(&url, &CHANGES).await;
    assert_eq!((code, faults(&report), later_faults(&report)), (0, [0; 6], [0; 5]), "{report:#}");
    assert!(happened(&report, &["edits", "deletes", "reactions"]), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_channel_with_all_kinds_of_changes_has_no_faults() {
    let (_fake, url) = Fake::start(Plant::Nothing).await;
    let args = [
        "--membership",
        "corpus",
        "--bans",
        "0.05",
        "--churn",
        "--churn-every",
        "2",
        "--speed",
        "1000x",
        "--patience",
        "9",
    ];
    let args: Vec<&str> = OPEN.into_iter().chain(CHANGES).chain(args).collect();
    let (code, report) = replay(&url, &args).await;
    assert_eq!((code, faults(&report), later_faults(&report)), (0, [0; 6], [0; 5]), "{report:#}");
    assert!(
        happened(&report, &["edits", "deletes", "reactions", "joins", "leaves", "bans", "gaps"]),
        "{report:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_departures_in_a_group_are_no_fault() {
    let (_fake, url) = Fake::start(Plant::Nothing).await;
    let args: Vec<&str> = CHANGES.into_iter().chain(["--membership", "corpus", "--bans", "0.05"]).collect();
    let (code, report) = replay(&url, &args).await;
    assert_eq!((code, faults(&report), later_faults(&report)), (0, [0; 6], [0; 5]), "{report:#}");
    assert_eq!(
        report["deliveries_expected"].as_u64().unwrap(),
        report["deliveries_live"].as_u64().unwrap() + report["deliveries_after_resume"].as_u64().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_not_delivered_is_reported() {
    finds_later(Plant::ChangeNotDelivered(20), &CHANGES, [true, false, false, false, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_delivered_with_the_wrong_version_is_reported() {
    finds_later(Plant::WrongVersion(20), &CHANGES, [true, false, false, false, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_edit_that_was_not_made_is_reported() {
    let args = ["--edits", "0.2"];
    finds_later(Plant::EditLost(5), &args, [false, true, false, false, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_reaction_that_was_not_made_is_reported() {
    let args = ["--reactions", "0.3"];
    finds_later(Plant::ReactionLost(5), &args, [false, false, true, false, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_was_not_made_is_reported() {
    let args = ["--deletes", "0.2"];
    finds_later(Plant::Undeleted(5), &args, [false, false, false, true, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_delivered_to_a_banned_user_are_reported() {
    let args: Vec<&str> = OPEN.into_iter().chain(["--bans", "0.05"]).collect();
    finds_later(Plant::BanLeaks, &args, [false, false, false, false, true]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_delivered_to_strangers_are_reported() {
    // The users of one day are strangers to the channel of the other.
    for more in [&["--membership", "corpus"][..], &[]] {
        let args: Vec<&str> = ["--synthetic", "2"].into_iter().chain(more.iter().copied()).collect();
        finds_later(Plant::TellsStrangers(120), &args, [false, false, false, false, true]).await;
    }
}

/// A run in which members of a fleet are killed.
const KILLS: [&str; 4] = ["--speed", "100x", "--kill-every", "0.4"];

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_whose_members_are_killed_has_no_faults() {
    let fleet = Fleet::start(Plant::Nothing).await;
    let args = ["--fleet", fleet.folder(), "--kill", "chat,redis", "--patience", "20"];
    let args: Vec<&str> = args.into_iter().chain(KILLS).chain(CHANGES).collect();
    let (code, report) = replay_with(&args).await;
    assert_eq!((code, faults(&report), later_faults(&report)), (0, [0; 6], [0; 5]), "{report:#}");
    let kills = |role: &str| report["kills_by_role"][role]["kills"].as_u64().unwrap_or_default();
    assert!(kills("chat") > 0 && kills("redis") > 0, "{report:#}");
    assert_eq!(report["kills"].as_u64(), Some(kills("chat") + kills("redis")));
    assert!(report["resumes"].as_u64() > Some(0) && !fleet.fake.was_misused());
    assert!(report["snapshots_taken"]["inbox_reset"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["deliveries_expected"], 200 * report["devices"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_faults_are_reported_in_a_fleet_with_kills() {
    for (plant, kind) in [
        (Plant::SkipFanOut(120), "lost"),
        (Plant::Twice(120), "duplicated"),
        (Plant::ForgetRow(120), "lost"),
        (Plant::OtherWords(120), "conflicts"),
    ] {
        let fleet = Fleet::start(plant).await;
        let args = ["--fleet", fleet.folder(), "--kill", "chat", "--patience", "6"];
        let args: Vec<&str> = args.into_iter().chain(KILLS).collect();
        let (code, report) = replay_with(&args).await;
        assert!(report[kind].as_u64() > Some(0) && code == 1, "{plant:?}: {report:#}");
        assert!(fleet.fake.planted().into_iter().any(|place| names(&report, place)), "{report:#}");
        assert!(report["kills_by_role"]["chat"]["kills"].as_u64() > Some(0), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_ask_the_given_addresses_for_a_node() {
    let fleet = Fleet::start(Plant::Nothing).await;
    let (code, report) = replay_with(&["--connect", &fleet.urls(), "--churn", "--churn-every", "1"]).await;
    assert_eq!((code, faults(&report)), (0, [0; 6]), "{report:#}");
    assert!(!fleet.fake.was_misused());
}
