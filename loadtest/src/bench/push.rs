//! Alerts through stand-ins for the push services, beside a bare HTTP/2 client: how many in a second, at what cost, with how much
//! memory; and what a service that hangs costs the users who talk meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::Rest;
use madang_ids::ChannelId;
use madang_push_sandbox::{Delivery, Face, Fault, Sandbox, Settings};
use serde_json::json;
use tokio::time::sleep;

use super::args::PushArgs;
use super::beside::{Beside, SENDERS};
use super::figures::{figure, print_conditions, quantile_ms, verdict};
use super::folder::Folder;
use super::people::{self, Person};
use super::process::Process;

/// Members of each group, without its owner.
const GROUP: usize = 499;
/// Calls of the bare client at once: as many as the server makes.
const AT_ONCE: usize = 64;
/// Calls of the bare client.
const BARE_CALLS: usize = 20_000;
/// The memory that the alerts of a server may take: 256 that are decided at once with 400 KB each.
const BOUND_BYTES: f64 = 128.0 * 1024.0 * 1024.0;
/// The least part of the rate of the bare client.
const RATE_TARGET: f64 = 0.5;
/// An ack beside a service that hangs takes at most this many times as long.
const ACK_TARGET: f64 = 1.2;
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures and prints the results.
pub(super) async fn run(args: PushArgs) -> anyhow::Result<()> {
    let rounds = args.alerts.div_ceil(GROUP * args.groups);
    print_conditions(&format!(
        "push: {} alerts for {GROUP} devices in {} groups, {rounds} messages in each, all due at once, over HTTP/2",
        GROUP * args.groups * rounds,
        args.groups,
    ));
    let sandbox = Sandbox::start(Settings { kept_notices: 1_000, ..Settings::default() }).await?;
    let bare = bare(&sandbox).await?;
    println!("bare client: {bare:.0} calls/s, {AT_ONCE} at once");
    let folder = Folder::new()?;
    sandbox.write_files(&folder.join("keys"))?;
    std::fs::write(folder.join("madang.toml"), sandbox.config_text(&folder.join("keys")))?;
    let server = Process::configured(&folder.join("data"), &folder, &folder.join("madang.toml")).await?;
    let rest = people::rest(&server.url())?;
    let mut people = people::sign_up(&rest, 1 + GROUP + 2 * SENDERS).await?;
    let talkers = people.split_off(1 + GROUP);
    subscribe(&server, &people[1..], &sandbox).await?;
    let talkers = Beside::meet(&server.url(), talkers).await?;
    let channels = channels(&rest, &people, args.groups).await?;
    for round in 0..rounds {
        due_at_once(&server, &rest, &people[0], &channels, &sandbox, bare, round).await?;
    }
    hang(&server, &rest, &people[0], &channels, &sandbox, &talkers).await?;
    ensure!(
        sandbox.wrong_requests().is_empty(),
        "a push service has refused: {:?}",
        sandbox.wrong_requests().first()
    );
    server.kill().await
}

/// The rate of a client that does nothing else.
async fn bare(sandbox: &Sandbox) -> anyhow::Result<f64> {
    let name = sandbox.webhook().hook("bare")?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(sandbox.ca_pem().as_bytes())?])
        .build()?;
    // A request that is refused costs the client as much as one that is taken.
    let body = json!({ "aps": { "alert": { "title": "person0", "body": "x".repeat(100) }, "badge": 1 } })
        .to_string();
    let call = async || -> anyhow::Result<()> {
        let answer = client.post(&name.url).body(body.clone()).send().await?;
        answer.bytes().await?;
        Ok(())
    };
    call().await?;
    let began = Instant::now();
    stream::iter(0..BARE_CALLS)
        .map(|_| call())
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    sandbox.ledger().clear();
    Ok(figure(BARE_CALLS as u64) / began.elapsed().as_secs_f64())
}

async fn subscribe(server: &Process, people: &[Person], sandbox: &Sandbox) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    for (number, person) in people.iter().enumerate() {
        let (topic, token) = (sandbox.apns().topic(), format!("{number:08x}"));
        let body = json!({ "provider": "apns", "token": token, "topic": topic, "environment": "production" });
        let url = format!("{}/v1/push/subscription", server.url());
        let answer = http.put(url).bearer_auth(&person.token).json(&body).send().await?;
        answer.error_for_status().context("a subscription")?;
    }
    Ok(())
}

async fn channels(rest: &Rest, people: &[Person], groups: usize) -> anyhow::Result<Vec<ChannelId>> {
    let members: Vec<&Person> = people.iter().collect();
    stream::iter(0..groups).map(|_| people::group(rest, &members)).buffered(8).try_collect().await
}

/// One message in each group: an alert for each member of each, all due at the same moment.
async fn due_at_once(
    server: &Process,
    rest: &Rest,
    owner: &Person,
    channels: &[ChannelId],
    sandbox: &Sandbox,
    bare: f64,
    round: usize,
) -> anyhow::Result<()> {
    let before = server.usage()?;
    let taken = sandbox.counters(Face::Apns).notices;
    let began = Instant::now();
    for channel in channels {
        people::say(rest, owner, *channel, 1).await?;
    }
    let alerts = (GROUP * channels.len()) as u64;
    wait_for(sandbox, taken + alerts).await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = server.usage()?;
    let (rate, cpu) = (figure(alerts) / seconds, after.cpu_seconds - before.cpu_seconds);
    let grown = after.peak_bytes - before.anon_bytes;
    println!(
        "round {round}: {alerts} alerts in {seconds:.1} s, {rate:.0}/s; {:.0} µs of CPU each; memory at most {:.0} MiB above before",
        cpu * 1e6 / figure(alerts),
        grown / 1_048_576.0
    );
    let ratio = rate / bare;
    println!(
        "target: at least {RATE_TARGET} of the bare client: {} ({ratio:.2})",
        verdict(ratio >= RATE_TARGET)
    );
    println!("target: at most {:.0} MiB: {}", BOUND_BYTES / 1_048_576.0, verdict(grown <= BOUND_BYTES));
    Ok(())
}

async fn wait_for(sandbox: &Sandbox, count: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    while sandbox.counters(Face::Apns).notices < count {
        ensure!(began.elapsed() < PATIENCE, "{} of {count} alerts", sandbox.counters(Face::Apns).notices);
        // waits for: the alerts
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Users talk, first on a quiet server, then while alerts for everybody meet a service that says nothing.
async fn hang(
    server: &Process,
    rest: &Rest,
    owner: &Person,
    channels: &[ChannelId],
    sandbox: &Sandbox,
    talkers: &Beside,
) -> anyhow::Result<()> {
    let quiet = talkers.quiet(&server.addr).await?;
    sandbox.set_all(Face::Apns, Fault::Silence(Delivery::Lost));
    for channel in channels {
        people::say(rest, owner, *channel, 1).await?;
    }
    // The jobs are made, and the first calls hang.
    sleep(Duration::from_secs(3)).await;
    let talk = talkers.begin(&server.addr).await?;
    sleep(Duration::from_secs(15)).await;
    let beside = talk.end().await?;
    let p99 = |latency| quantile_ms(latency, 0.99);
    let ratio = p99(&beside) / p99(&quiet);
    println!(
        "acks of {SENDERS} senders: p99 {:.2} ms on the quiet server, {:.2} ms beside a service that hangs",
        p99(&quiet),
        p99(&beside)
    );
    println!("target: p99 at most {ACK_TARGET} times: {} ({ratio:.2})", verdict(ratio <= ACK_TARGET));
    Ok(())
}
