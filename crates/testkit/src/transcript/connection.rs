//! One connection of a transcript. Its frames are sorted into streams that keep their order: answers, the entries of
//! each log, presence, and the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::parse::Outgoing;
use super::schemas::Schemas;
use super::template::{Template, Variables};
use crate::PATIENCE;
use crate::socket::{Ended, Reader, Socket, Writer};

/// Most frames that were read and that no statement has asked for. No transcript reaches it.
const FRAMES: usize = 100_000;

/// Frames that answer a request; all others are pushed.
const ANSWERS: [&str; 6] = ["welcome", "ack", "done", "error", "history", "heartbeat"];

/// A connection, and the frames that no statement has asked for yet.
pub(super) struct Connection {
    writer: Writer,
    frames: mpsc::Receiver<Result<Value, Ended>>,
    is_paused: watch::Sender<bool>,
    _reading: JoinSet<()>,
    answers: VecDeque<Value>,
    /// By log: a channel's id, or `me`.
    logs: BTreeMap<String, Log>,
    /// `presence` frames, and whether an unexpected one is a failure.
    presence: VecDeque<Value>,
    minds_presence: bool,
    /// All other frames.
    others: VecDeque<Value>,
    /// Cursors with their places in the order of arrival.
    cursors: VecDeque<(u64, Value)>,
    /// Number of entries and cursors that have arrived.
    arrived: u64,
    /// The place of the last entry that a statement has taken.
    taken: u64,
    ended: Option<Ended>,
    schemas: Arc<Schemas>,
}

#[derive(Default)]
struct Log {
    /// Entries with their places in the order of arrival.
    entries: VecDeque<(u64, Value)>,
    last_at: u64,
}

impl Connection {
    pub(super) fn new(socket: Socket, minds_presence: bool, schemas: Arc<Schemas>) -> Self {
        let Socket { writer, reader } = socket;
        let (sender, frames) = mpsc::channel(FRAMES);
        let (is_paused, watched) = watch::channel(false);
        let mut reading = JoinSet::new();
        reading.spawn(read(reader, sender, watched));
        Self {
            writer,
            frames,
            is_paused,
            _reading: reading,
            answers: VecDeque::new(),
            logs: BTreeMap::new(),
            presence: VecDeque::new(),
            minds_presence,
            others: VecDeque::new(),
            cursors: VecDeque::new(),
            arrived: 0,
            taken: 0,
            ended: None,
            schemas,
        }
    }

    /// Stops reading the socket, or continues.
    pub(super) fn pause(&self, is_paused: bool) {
        self.is_paused.send_replace(is_paused);
    }

    pub(super) async fn send(
        &mut self,
        outgoing: &Outgoing,
        variables: &mut Variables,
    ) -> Result<(), String> {
        let sent = match outgoing {
            Outgoing::Json(template) => return self.send_json(&variables.fill(template)?).await,
            Outgoing::Text(text) => self.writer.send(Message::Text(text.into())).await,
            Outgoing::Binary(bytes) => self.writer.send(Message::Binary(bytes.clone().into())).await,
        };
        sent.map_err(|error| error.to_string())
    }

    pub(super) async fn send_json(&mut self, frame: &Value) -> Result<(), String> {
        self.writer.send(Message::Text(frame.to_string().into())).await.map_err(|error| error.to_string())
    }

    /// Reads one frame into its stream.
    async fn pull(&mut self) -> Result<(), String> {
        if let Some(ended) = &self.ended {
            return Err(format!("the connection ended: {ended:?}"));
        }
        let frame = tokio::time::timeout(PATIENCE, self.frames.recv()).await;
        let waiting = || self.check_rest().err().map_or_else(String::new, |waiting| format!("; {waiting}"));
        match frame.map_err(|_| format!("nothing arrived within {PATIENCE:?}{}", waiting()))? {
            Some(Ok(frame)) => self.sort(frame),
            Some(Err(ended)) => {
                self.ended = Some(ended);
                Ok(())
            }
            None => Err("the reader has ended".into()),
        }
    }

    fn sort(&mut self, frame: Value) -> Result<(), String> {
        self.schemas.check_frame(&frame).map_err(|why| format!("{why}; it was {}", short(&frame)))?;
        let kind = frame["type"].as_str().unwrap_or_default();
        if ANSWERS.contains(&kind) {
            self.answers.push_back(frame);
        } else if kind == "presence" {
            self.presence.push_back(frame);
        } else if kind == "cursor" {
            self.arrived += 1;
            self.cursors.push_back((self.arrived, frame["cursor"].clone()));
        } else if kind == "entries" {
            let log = match frame["log"].as_str() {
                Some("user") => "me",
                _ => {
                    frame["channel_id"].as_str().ok_or_else(|| format!("entries without channel: {frame}"))?
                }
            };
            let entries = frame["entries"].as_array().filter(|entries| !entries.is_empty());
            let log = self.logs.entry(log.to_owned()).or_default();
            for entry in entries.ok_or_else(|| format!("entries is empty: {}", short(&frame)))? {
                self.arrived += 1;
                log.entries.push_back((self.arrived, entry.clone()));
            }
        } else {
            self.others.push_back(frame);
        }
        Ok(())
    }

    async fn next_answer(&mut self) -> Result<Value, String> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            self.pull().await?;
        }
    }

    async fn next_presence(&mut self) -> Result<Value, String> {
        loop {
            if let Some(frame) = self.presence.pop_front() {
                return Ok(frame);
            }
            self.pull().await?;
        }
    }

    async fn next_other(&mut self) -> Result<Value, String> {
        loop {
            if let Some(other) = self.others.pop_front() {
                return Ok(other);
            }
            self.pull().await?;
        }
    }

    pub(super) async fn expect_frame(
        &mut self,
        template: &Template,
        variables: &mut Variables,
    ) -> Result<(), String> {
        let frame = match kind_of(template) {
            Some(kind) if ANSWERS.contains(&kind) => self.next_answer().await?,
            Some("presence") => self.next_presence().await?,
            _ => self.next_other().await?,
        };
        variables.compare(template, &frame, "frame").map_err(|why| format!("{why}; it was {}", short(&frame)))
    }

    pub(super) async fn expect_entry(
        &mut self,
        log: &str,
        seq: &Template,
        content: &Template,
        variables: &mut Variables,
    ) -> Result<(), String> {
        let entry = self.next_entry(log).await?;
        let explain = |why: String| format!("{why}; it was {}", short(&entry));
        variables.compare(seq, &entry["seq"], "seq").map_err(explain)?;
        let mut rest = entry.clone();
        if let Some(members) = rest.as_object_mut() {
            members.remove("seq");
            members.remove("at");
        }
        variables.compare(content, &rest, "entry").map_err(explain)
    }

    /// The next entry of this log.
    async fn next_entry(&mut self, log: &str) -> Result<Value, String> {
        loop {
            let log = self.logs.entry(log.to_owned()).or_default();
            let Some((place, entry)) = log.entries.pop_front() else {
                self.pull().await?;
                continue;
            };
            let at =
                entry["at"].as_u64().ok_or_else(|| format!("an entry without time: {}", short(&entry)))?;
            if at < log.last_at {
                return Err(format!("time goes back from {} to {at}", log.last_at));
            }
            log.last_at = at;
            self.taken = self.taken.max(place);
            return Ok(entry);
        }
    }

    /// Expects messages at consecutive places; with `with_resync`, at least one `resync` before the last of them.
    pub(super) async fn expect_said(
        &mut self,
        log: &str,
        from: u64,
        to: u64,
        with_resync: bool,
    ) -> Result<(), String> {
        for seq in from..=to {
            let entry = self.next_entry(log).await?;
            if entry["seq"] != seq || entry["kind"] != "message" {
                return Err(format!("expected message {seq}, got {}", short(&entry)));
            }
        }
        let others = self.others.len();
        if with_resync {
            self.others.retain(|frame| *frame != json!({ "type": "resync" }));
        }
        if with_resync && self.others.len() == others { Err("no resync arrived".into()) } else { Ok(()) }
    }

    /// Expects a cursor that covers all entries expected so far, and no others.
    pub(super) async fn expect_cursor(&mut self) -> Result<Value, String> {
        loop {
            let entries = self.logs.values().filter_map(|log| log.entries.front());
            let next = entries.min_by_key(|(place, _)| *place);
            let covers = |place: u64| place > self.taken && next.is_none_or(|(next, _)| place < *next);
            match (self.cursors.iter().rev().find(|(place, _)| covers(*place)), next) {
                (Some((_, cursor)), _) => return Ok(cursor.clone()),
                (None, Some((_, entry))) => {
                    return Err(format!("expected a cursor, got an entry: {}", short(entry)));
                }
                (None, None) => self.pull().await?,
            }
        }
    }

    /// The `seq` of the next ack, which must answer the request `id`.
    pub(super) async fn expect_ack(&mut self, id: &str) -> Result<Value, String> {
        let answer = self.next_answer().await?;
        let is_it = answer["type"] == "ack" && answer["id"] == id;
        if is_it {
            Ok(answer["seq"].clone())
        } else {
            Err(format!("expected an ack, got {}", short(&answer)))
        }
    }

    /// Checks that nothing arrived that no statement asked for. It sends a heartbeat, so that frames in flight are
    /// seen.
    pub(super) async fn expect_nothing(&mut self) -> Result<(), String> {
        self.send_json(&json!({ "type": "heartbeat" })).await?;
        let answer = self.next_answer().await?;
        if answer["type"] != "heartbeat" {
            return Err(format!("unexpected: {}", short(&answer)));
        }
        self.check_rest()
    }

    fn check_rest(&self) -> Result<(), String> {
        let presence = self.presence.front().filter(|_| self.minds_presence);
        if let Some(frame) = self.answers.front().or(presence).or(self.others.front()) {
            return Err(format!("unexpected: {}", short(frame)));
        }
        for (name, log) in &self.logs {
            if let Some((_, entry)) = log.entries.front() {
                return Err(format!("unexpected, in the log {name}: {}", short(entry)));
            }
        }
        Ok(())
    }

    pub(super) async fn expect_closed(&mut self, code: u16) -> Result<(), String> {
        while self.ended.is_none() {
            self.pull().await?;
        }
        self.check_rest()?;
        match &self.ended {
            Some(Ended::Closed(found, _)) if *found == code => Ok(()),
            other => Err(format!("it ended differently: {other:?}")),
        }
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(super) async fn close(mut self) {
        if self.writer.send(Message::Close(None)).await.is_ok() {
            while self.ended.is_none() && self.pull().await.is_ok() {}
        }
    }

    /// Waits until an entry was read, without taking it.
    pub(super) async fn see_entry(&mut self, log: &str, seq: u64) -> Result<(), String> {
        loop {
            let entries = self.logs.get(log).map(|log| &log.entries);
            if entries.is_some_and(|entries| entries.iter().rev().any(|(_, entry)| entry["seq"] == seq)) {
                return Ok(());
            }
            self.pull().await?;
        }
    }
}

async fn read(
    mut reader: Reader,
    frames: mpsc::Sender<Result<Value, Ended>>,
    mut is_paused: watch::Receiver<bool>,
) {
    loop {
        if is_paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        let frame = tokio::select! {
            frame = reader.next() => frame,
            _ = is_paused.changed() => continue,
        };
        let is_last = frame.is_err();
        if frames.send(frame).await.is_err() || is_last {
            return;
        }
    }
}

/// The type of the expected frame, if the template names one.
pub(super) fn kind_of(template: &Template) -> Option<&str> {
    let Template::Object(members, _) = template else { return None };
    members.iter().find_map(|(name, kind)| match kind {
        Template::Plain(Value::String(kind)) if name == "type" => Some(kind.as_str()),
        _ => None,
    })
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(600) {
        Some((end, _)) => format!("{} … ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}
