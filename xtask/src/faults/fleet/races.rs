//! The same thing is asked of several nodes at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::http::Answer;
use super::super::report::millis;
use super::super::socket::Socket;
use super::super::{Figures, Tools};
use super::link::Link;
use super::stage::Stage;
use super::user::User;

const KEYS: u64 = 1_000;
const CUT_EVERY: Duration = Duration::from_millis(70);
const NODES: u64 = 5;
const ROUNDS: u64 = 20;
/// How long a node may take to find that a device was revoked while it heard nothing.
const FOUND: Duration = Duration::from_secs(60);
/// The close code of a revoked device.
const REVOKED: u16 = 4_501;

/// One row for each key, and the same ack from both nodes.
pub(super) fn same_key(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-same-key")?;
    let link = Link::to(stage.place.redis(1)?[0])?;
    stage.start(|shape| shape.redis_through = Some(link.addr))?;
    let nodes = [stage.addr("chat-1")?, stage.addr("chat-2")?];
    let user = User::sign_up(nodes[0], "twice")?;
    let channel = user.make_channel(&json!({ "kind": "group", "name": "twice", "members": [] }))?;
    let path = format!("/v1/channels/{channel}/messages");
    let (is_over, together) = (AtomicBool::new(false), Barrier::new(nodes.len()));
    let send = |addr: SocketAddr| -> Result<Vec<Value>> {
        let (user, mut acks) = (user.at(addr), Vec::new());
        for number in 0..KEYS {
            let key = format!("01920000-0000-7000-8000-{number:012}");
            let body = json!({ "client_msg_id": key, "body": { "text": format!("message {number}") } });
            together.wait();
            acks.push(user.call("POST", &path, Some(&body))?);
        }
        Ok(acks)
    };
    let send = &send;
    let acks = thread::scope(|scope| -> Result<Vec<Vec<Value>>> {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                thread::sleep(CUT_EVERY);
                link.cut();
            }
        });
        let senders: Vec<_> = nodes.iter().map(|addr| scope.spawn(move || send(*addr))).collect();
        let acks = senders.into_iter().map(|sender| sender.join().unwrap_or_else(|_| Ok(Vec::new())));
        let acks = acks.collect();
        is_over.store(true, Ordering::SeqCst);
        acks
    })?;
    let place = |ack: &Value| (ack["seq"].clone(), ack["message_id"].clone());
    for number in 0..KEYS {
        let index = usize::try_from(number)?;
        let (one, other) = (place(&acks[0][index]), place(&acks[1][index]));
        ensure!(one == other, "message {number} has two rows: {one:?}, {other:?}");
    }
    let texts = history(&user, &channel)?;
    ensure!(
        texts.len() as u64 == KEYS && texts.values().all(|count| *count == 1),
        "{} different messages in history, the most frequent {:?} times",
        texts.len(),
        texts.values().max()
    );
    let mut figures = Figures::new();
    figures.insert("messages".to_owned(), KEYS.into());
    figures.insert("connections_to_redis".to_owned(), link.connections().into());
    Ok(figures)
}

/// How often each text is in the history of a channel.
fn history(user: &User, channel: &str) -> Result<BTreeMap<String, u32>> {
    let (mut texts, mut after) = (BTreeMap::new(), 0);
    loop {
        let path = format!("/v1/channels/{channel}/entries?limit=200&after={after}");
        let page = user.call("GET", &path, None)?;
        let entries = page["entries"].as_array().context("no entries")?;
        let Some(last) = entries.last() else { return Ok(texts) };
        after = last["seq"].as_u64().context("no seq")?;
        for entry in entries.iter().filter(|entry| entry["kind"] == "message") {
            let text = entry["text"].as_str().unwrap_or_default();
            *texts.entry(text.to_owned()).or_default() += 1;
        }
    }
}

/// One of them gets it; the others learn that the channel is full; and the members are as many as it has seats.
pub(super) fn last_seat(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-last-seat", |shape| {
        shape.nodes = 5;
        shape.channels = "open_members = 2\n";
    })?;
    let addrs = (1..=NODES).map(|node| stage.addr(&format!("chat-{node}"))).collect::<Result<Vec<_>>>()?;
    let owner = User::sign_up(addrs[0], "owner")?;
    let users = addrs.iter().zip(1..).map(|(addr, number)| User::sign_up(*addr, &format!("guest{number}")));
    let users = users.collect::<Result<Vec<_>>>()?;
    let mut winners = BTreeMap::<usize, u32>::new();
    for round in 0..ROUNDS {
        let body = json!({ "kind": "open", "name": format!("seats {round}"), "topic": "one seat" });
        let channel = owner.make_channel(&body)?;
        let path = format!("/v1/channels/{channel}/membership");
        let together = Barrier::new(users.len());
        let join = |user: &User| {
            together.wait();
            user.call_or("PUT", &path, None, "full")
        };
        let join = &join;
        let answers = thread::scope(|scope| {
            let joining: Vec<_> = users.iter().map(|user| scope.spawn(move || join(user))).collect();
            let answers =
                joining.into_iter().map(|joining| joining.join().ok().context("a thread failed")?);
            answers.collect::<Result<Vec<Answer>>>()
        })?;
        let inside: Vec<usize> = (0..users.len()).filter(|index| answers[*index].is_success()).collect();
        ensure!(inside.len() == 1, "round {round}: {} users got the last seat", inside.len());
        *winners.entry(inside[0] + 1).or_default() += 1;
        let path = format!("/v1/channels/{channel}/members");
        let members = owner.at(addrs[1]).call("GET", &path, None)?;
        let ids: Vec<&str> = members["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| {
                member["user"]["id"].as_str().or(member["user_id"].as_str()).or(member["id"].as_str())
            })
            .collect();
        ensure!(
            ids.len() == 2 && ids.contains(&users[inside[0]].id.as_str()),
            "round {round}: the members are {members}"
        );
    }
    let mut figures = Figures::new();
    figures.insert("rounds".to_owned(), ROUNDS.into());
    for (node, count) in winners {
        figures.insert(format!("won_by_chat_{node}"), count.into());
    }
    Ok(figures)
}

/// The node that has the device's socket hears nothing of it, and closes the socket all the same.
pub(super) fn revoked(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-revoked", |_| ())?;
    let (one, other) = (stage.addr("chat-1")?, stage.addr("chat-2")?);
    let user = User::sign_up(one, "careful")?;
    let phone = user.sign_in(other, "lost phone")?;
    let mut socket = Socket::open(other, &phone.token)?;
    let devices = user.call("GET", "/v1/devices", None)?;
    let devices = devices["items"].as_array().context("no devices")?;
    let lost = devices.iter().find(|device| device["name"] == "lost phone").context("no phone")?;
    let path = format!("/v1/devices/{}", lost["id"].as_str().context("no id")?);
    stage.place.kill("redis-1")?;
    user.call("DELETE", &path, None)?;
    let begun = Instant::now();
    let code = socket.wait_for_close(FOUND)?;
    ensure!(code == REVOKED, "the socket was closed with {code}");
    let mut figures = Figures::new();
    figures.insert("closed_after_ms".to_owned(), millis(begun.elapsed()).into());
    stage.place.restart("redis-1")?;
    Ok(figures)
}
