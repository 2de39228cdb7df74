//! Mistakes that a user may make: each gives one clear sentence at once, and exit code 2.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::net::TcpListener;
use std::process::Command;

/// Runs `replay` with these arguments. Returns its error output.
fn refusal(args: &[&str]) -> String {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_madang-loadtest"));
    let output = tool.arg("replay").args(args).env("RUST_BACKTRACE", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    said
}

fn expect(args: &[&str], words: &[&str]) {
    let said = refusal(args);
    assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
}

/// The URL of a port on which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_corpus_that_is_not_one() {
    let empty = std::env::temp_dir().join(format!("madang-empty-{}", std::process::id()));
    std::fs::create_dir_all(&empty).unwrap();
    expect(&["--corpus", "/nowhere"], &["could not read the corpus at /nowhere: No such file"]);
    expect(&["--corpus", empty.to_str().unwrap()], &["contains no IRC day files"]);
    expect(&["--corpus", env!("CARGO_BIN_EXE_madang-loadtest")], &["expected a folder, a .tar or a .tar.xz"]);
    std::fs::remove_dir_all(&empty).unwrap();
}

#[test]
fn nothing_to_play() {
    expect(&[], &["--corpus <PATH>", "--synthetic <DAYS>"]);
    expect(&["--corpus", "x", "--synthetic", "1"], &["cannot be used with"]);
    for flag in ["--synthetic", "--days", "--lines"] {
        expect(&[flag, "0"], &["invalid value '0'", flag]);
    }
}

#[test]
fn a_server_that_is_not_there() {
    let url = nobody();
    expect(&["--synthetic", "1", "--url", &url], &["no server is ready at", &url, "--server"]);
    expect(
        &["--synthetic", "1", "--url", "nonsense"],
        &["\"nonsense\" is not an address", "http://host:port"],
    );
}

#[test]
fn a_server_command_that_ends_at_once() {
    let url = nobody();
    let with = |command| ["--synthetic", "1", "--url", &url, "--server", command].map(str::to_owned);
    for (command, words) in [
        ("no-such-program", ["exit status: 127", "no-such-program: not found"]),
        ("sh -c 'echo the disk is full; exit 3'", ["exit status: 3", "the disk is full"]),
    ] {
        let args = with(command);
        expect(&args.each_ref().map(String::as_str), &words);
    }
}

#[test]
fn a_server_to_be_started_where_one_runs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ready = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        std::io::Read::read(&mut stream, &mut request).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    expect(
        &["--synthetic", "1", "--url", &url, "--server", "true"],
        &["another server already runs at", &url],
    );
    ready.join().unwrap();
}

#[test]
fn kills_without_a_server_to_kill() {
    expect(&["--synthetic", "1", "--kill-every", "3"], &["--server <CMD>"]);
    for seconds in ["0", "0.01", "nan", "inf", "1e300", "often"] {
        let args = ["--synthetic", "1", "--server", "true", "--kill-every", seconds];
        expect(&args, &["--kill-every", "expected seconds, 0.1 to 86400"]);
    }
}

#[test]
fn a_fleet_that_is_not_one() {
    let folder = std::env::temp_dir();
    let folder = folder.join(format!("madang-no-fleet-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.to_str().unwrap();
    expect(&["--synthetic", "1", "--fleet", path], &["could not read", path, "fleet.json: No such file"]);
    std::fs::write(folder.join("fleet.json"), "{}").unwrap();
    expect(&["--synthetic", "1", "--fleet", path], &["fleet.json does not describe a fleet"]);
    let url = nobody();
    let file = |nodes: &str| {
        let text = format!(r#"{{"connect":["{url}"],"nodes":[{nodes}]}}"#);
        std::fs::write(folder.join("fleet.json"), text).unwrap();
    };
    file("");
    expect(&["--synthetic", "1", "--fleet", path], &["fleet.json names no chat node"]);
    file(&format!(r#"{{"name":"chat-1","role":"chat","url":"{url}","pid":1}}"#));
    expect(&["--synthetic", "1", "--fleet", path], &["no server of the fleet is ready"]);
    expect(&["--synthetic", "1", "--connect", &url], &["no server of the fleet is ready"]);
    for with in [["--fleet", path, "--url", &url], ["--fleet", path, "--connect", &url]] {
        let args: Vec<&str> = ["--synthetic", "1"].into_iter().chain(with).collect();
        expect(&args, &["cannot be used with"]);
    }
    expect(&["--synthetic", "1", "--kill", "chat"], &["--fleet <DIR>"]);
    expect(&["--synthetic", "1", "--fleet", path, "--kill", "king"], &["invalid value 'king'", "presence"]);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn shares_out_of_range() {
    for flag in ["--edits", "--deletes", "--reactions", "--bans"] {
        for share in ["1.5", "-1", "nan", "some"] {
            let share = format!("{flag}={share}");
            expect(&["--synthetic", "1", &share], &[flag, "expected a share, 0 to 1"]);
        }
    }
}

#[test]
fn more_open_channels_than_a_connection_may_subscribe_to() {
    let args = ["--synthetic", "201", "--lines", "1", "--channel-kind", "open", "--url", &nobody()];
    expect(&args, &["201 open channels are more than the 200", "--days"]);
}

#[test]
fn a_report_that_cannot_be_written_is_found_before_the_run() {
    let args = ["--synthetic", "1", "--url", &nobody(), "--report", "/nowhere/report.json"];
    expect(&args, &["could not write the report to /nowhere/report.json: No such file"]);
}
