//! Plays the files of `transcripts/` on two nodes over a real CQL server and Redis. Each call and each socket goes to the other
//! node than the one before. `MADANG_CASE` selects the files whose name contains it.

use std::path::Path;
use std::time::Instant;

use madang_testkit::transcript::{Target, run};

use super::place;

/// Their clock is advanced by minutes, or by steps that must be exact; processes have only the real one.
const NEED_A_CLOCK: [&str; 12] = [
    "handshake.txt",
    "tokens.txt",
    "refresh.txt",
    "limits.txt",
    "frame-rate.txt",
    "moderation.txt",
    "open.txt",
    "presence.txt",
    "profiles.txt",
    "push-settings.txt",
    "reactions.txt",
    "typing.txt",
];

/// They expect of the next call what another node may know up to five seconds later (docs/operations.md, "A fleet"): that an account or
/// a channel is deleted. In `drain.txt` there is no other node.
const TAKE_EFFECT_LATER: [&str; 3] = ["accounts.txt", "delete-channel.txt", "drain.txt"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MADANG_TEST_CQL, MADANG_TEST_REDIS and MADANG_TEST_BINARY"]
async fn transcripts_hold_on_two_nodes() {
    let case = std::env::var("MADANG_CASE").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../transcripts");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let left_out = || NEED_A_CLOCK.iter().chain(&TAKE_EFFECT_LATER);
    assert!(left_out().all(|name| files.iter().any(|file| file == name)));
    let is_left_out = |file: &String| left_out().any(|name| file == name);
    files.retain(|file| file.ends_with(".txt") && !is_left_out(file) && file.contains(&case));
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files {
        let begun = Instant::now();
        let outcome = run(&folder.join(&file), Target::Fleet(place())).await;
        println!(
            "{file}: {} in {:.1} s",
            if outcome.is_ok() { "held" } else { "FAILED" },
            begun.elapsed().as_secs_f64()
        );
        if let Err(failure) = outcome {
            println!("{failure}");
            failures.push(failure.to_string());
        }
    }
    assert!(failures.is_empty(), "{} files failed:\n{}", failures.len(), failures.join("\n"));
}
