//! Very many connections: all cut at once, or more than the server may have open.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::probe::Probe;
use super::read::read_in_time;
use super::report::{millis, ratio};
use super::stage::Stage;
use super::talk::{Size, Talk};
use super::{Figures, Tools};

/// Time limit for all devices to be up to date again.
const CURRENT_WITHIN_S: f64 = 30.0;
/// Limit of the memory peak during the reconnects, as a multiple of the memory while all are connected.
const PEAK: f64 = 1.5;
const SIZE: Size = Size { days: 1, lines: 200, seconds: 60 };
/// A size that needs few sockets, so that few files suffice.
const SMALL: Size = Size { days: 1, lines: 150, seconds: 30 };
/// Open files of the server.
const FILES: &str = "512";
/// Sockets in addition to those of the conversation.
const FLOOD: usize = 700;
const BEFORE: Duration = Duration::from_secs(5);
/// Number of waves of sockets, which last less than a server waits for `hello`.
const WAVES: usize = 4;
const FLOODED: Duration = Duration::from_secs(3);
/// Time in which the server answers a socket that it accepts.
const ANSWERED_WITHIN: Duration = Duration::from_millis(5);
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Resets all connections of one process; all devices reconnect, while messages are sent to some of them.
pub(super) fn cut(tools: &Tools) -> Result<Figures> {
    let mut stage = Stage::new(tools, "cut")?
        .with_environment("MADANG_GATEWAY__CONNECTIONS", "16000")
        .with_environment("MADANG_GATEWAY__SILENCE_MS", "600000");
    stage.start()?;
    let (url, count) = (format!("http://{}", stage.addr), tools.connections.to_string());
    let mut command = Command::new(tools.program("madang-loadtest"));
    command.args(["bench", "cut", "--url", &url, "--count", &count]);
    let mut crowd = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(crowd.stdout.take().context("no output")?).lines();
    let mut next = || said.next().context("the crowd ended")?.context("cannot read the output of the crowd");
    ensure!(next()? == "connected", "the crowd is not connected");
    let there = stage.usage()?;
    // The devices of the conversation are not cut and must not be affected.
    let talk = Talk::start_groups(&stage, SIZE, &["--churn", "--sockets", "400"])?;
    let seconds: f64 = next()?.trim_start_matches("current after ").parse()?;
    let after = stage.usage()?;
    ensure!(crowd.wait()?.success(), "not all devices reconnected");
    let mut figures = talk.finish()?;
    stage.stop_and_check()?;
    ensure!(seconds < CURRENT_WITHIN_S, "the last device was up to date after {seconds} s");
    let peak = ratio(after.peak_kib, there.rss_kib);
    ensure!(peak < PEAK, "the peak was {peak} times the {} KiB before", there.rss_kib);
    figures.insert("connections".to_owned(), tools.connections.into());
    figures.insert("current_after_s".to_owned(), seconds.into());
    figures.insert("rss_before_kib".to_owned(), there.rss_kib.into());
    figures.insert("rss_peak_kib".to_owned(), after.peak_kib.into());
    Ok(figures)
}

/// Sockets above the limit wait in the kernel or get an answer; open ones keep working.
pub(super) fn flood(tools: &Tools) -> Result<Figures> {
    let script = format!("ulimit -n {FILES}; exec \"$@\"");
    let mut stage = Stage::new(tools, "file-descriptors")?.with_script(script);
    stage.start()?;
    let mut probe = Probe::sign_up(stage.addr)?;
    let talk = Talk::start_groups(&stage, SMALL, &[])?;
    probe.say(BACK_WITHIN)?;
    sleep(BEFORE);
    let (mut figures, mut open_files) = (Figures::new(), 0);
    for _ in 0..WAVES {
        let flood: Vec<Option<TcpStream>> = (0..FLOOD).map(|_| knock(stage.addr)).collect::<Result<_>>()?;
        sleep(FLOODED);
        open_files = stage.usage()?.open_files.max(open_files);
        for stream in &flood {
            let outcome = outcome(stream.as_ref())?;
            let known = figures.get(&outcome).and_then(serde_json::Value::as_u64).unwrap_or_default();
            figures.insert(outcome, (known + 1).into());
        }
    }
    let back = probe.say(BACK_WITHIN)?;
    figures.extend(talk.finish()?);
    probe.check()?;
    stage.stop_and_check()?;
    figures.insert("open_files".to_owned(), open_files.into());
    figures.insert("back_after_ms".to_owned(), millis(back).into());
    ensure!(figures.contains_key("sockets_that_waited"), "the limit was not reached: {figures:?}");
    Ok(figures)
}

/// Requests an upgrade and sends nothing more. `None` if the kernel's queue is full.
fn knock(addr: SocketAddr) -> Result<Option<TcpStream>> {
    let Ok(mut stream) = TcpStream::connect_timeout(&addr, ANSWERED_WITHIN) else { return Ok(None) };
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: madang.v1.json\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    Ok(Some(stream))
}

/// What happened to a socket, for the report.
fn outcome(stream: Option<&TcpStream>) -> Result<String> {
    let Some(stream) = stream else { return Ok("sockets_that_waited".to_owned()) };
    stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
    let mut head = [0; 12];
    Ok(match read_in_time(stream, &mut head) {
        Ok(None) => "sockets_that_waited".to_owned(),
        Ok(Some(0)) => "sockets_closed".to_owned(),
        Ok(Some(_)) => format!("sockets_answered_{}", String::from_utf8_lossy(&head[9..])),
        Err(_) => "sockets_reset".to_owned(),
    })
}
