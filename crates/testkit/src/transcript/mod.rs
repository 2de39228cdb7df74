//! Runs the files of `transcripts/`. Their language is described in `transcripts/README.md`.

mod connection;
mod parse;
mod pushes;
mod schemas;
mod servers;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use madang_chat_server::config::Config;
use madang_service::Clock;
use serde_json::{Value, json};

use crate::node::manual_clock;
use crate::rest::Rest;
use crate::socket::Socket;
use connection::{Connection, kind_of};
use parse::{Expected, Line, RestCall, Step};
use pushes::Pushes;
use schemas::Schemas;
use servers::Servers;
use template::{Template, Variables};

/// How long a `soon` call is repeated.
const SOON: Duration = Duration::from_secs(5);

#[cfg(feature = "fleet")]
use crate::fleet::FleetPlace;

/// The servers on which a transcript runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The model store.
    Model,
    /// The model store with two homes of each log.
    TwoHomes,
    /// The embedded store in a temporary folder.
    Embedded,
    /// Two nodes as processes, with the real clock.
    #[cfg(feature = "fleet")]
    Fleet(FleetPlace),
}

impl Target {
    /// Processes have only the real one.
    const fn has_real_clock(&self) -> bool {
        !matches!(self, Self::Model | Self::TwoHomes | Self::Embedded)
    }
}

/// The first difference between a transcript and the server.
#[derive(Debug)]
pub struct Failure {
    file: PathBuf,
    line: usize,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Runs one file.
///
/// # Errors
/// The first line that the server does not fulfil.
pub async fn run(file: &Path, target: Target) -> Result<(), Failure> {
    let fail = |line: usize, message: String| Failure { file: file.to_owned(), line, message };
    let text = std::fs::read_to_string(file).map_err(|error| fail(0, error.to_string()))?;
    let lines = parse::parse(&text).map_err(|(line, message)| fail(line, message))?;
    let (config, lines) = config_of(&lines).map_err(|message| fail(1, message))?;
    let minds_presence = lines.iter().any(|line| expects_presence(&line.step));
    let has_pushes = lines.iter().any(|line| matches!(line.step, Step::Subscribe { .. }));
    let stage = Stage::new(config, &target, minds_presence, has_pushes).await;
    let mut stage = stage.map_err(|error| fail(0, format!("{error:#}")))?;
    for Line { number, step } in lines {
        let (count, step) = match step {
            Step::Times { count, step } => (*count, step.as_ref()),
            step => (1, step),
        };
        for _ in 0..count {
            stage.step(step).await.map_err(|message| fail(*number, message))?;
        }
    }
    let last = text.lines().count();
    stage.end().await.map_err(|message| fail(last, format!("at the end: {message}")))
}

/// The configuration in the first line, and the remaining lines.
fn config_of(lines: &[Line]) -> Result<(Config, &[Line]), String> {
    let mut config = Config::default();
    // Few transcripts are about consent.
    config.accounts.consent = false;
    let Some(Line { step: Step::Config(template), .. }) = lines.first() else {
        return Ok((config, lines));
    };
    let mut config = serde_json::to_value(config).map_err(|error| error.to_string())?;
    let changes = Variables::default().fill(template)?;
    for (section, changes) in changes.as_object().into_iter().flatten() {
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[section][key] = value.clone();
        }
    }
    Ok((serde_json::from_value(config).map_err(|error| error.to_string())?, &lines[1..]))
}

fn expects_presence(step: &Step) -> bool {
    let Step::Expect { expected: Expected::Frame(template), .. } = step else { return false };
    kind_of(template) == Some("presence")
}

/// The servers, and the connections to them.
struct Stage {
    servers: Servers,
    connections: BTreeMap<String, Connection>,
    /// Whether a statement expects a `presence` frame. Only then are other `presence` frames unexpected.
    minds_presence: bool,
    variables: Variables,
    schemas: Arc<Schemas>,
    /// Push services, if the file has statements about them.
    pushes: Option<Pushes>,
}

impl Stage {
    async fn new(
        mut config: Config,
        target: &Target,
        minds_presence: bool,
        has_pushes: bool,
    ) -> anyhow::Result<Self> {
        let (clock, hand) = manual_clock();
        let pushes = match has_pushes {
            true => {
                let clock = if target.has_real_clock() { Clock::system() } else { clock.clone() };
                Some(Pushes::start(&mut config, clock).await?)
            }
            false => None,
        };
        let mut servers = Servers::start(config, target, (clock, hand)).await?;
        let url = servers.url().map_err(anyhow::Error::msg)?;
        let schemas = Schemas::of(&url).await.map_err(anyhow::Error::msg)?;
        let (connections, variables) = (BTreeMap::new(), Variables::default());
        Ok(Self { servers, connections, minds_presence, variables, schemas, pushes })
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Config(_) => Err("config must be the first line".into()),
            Step::Times { .. } => Err("times may occur once".into()),
            Step::Users(handles) => self.sign_up(handles).await,
            Step::Device { user, device } => self.add_device(user, device).await,
            Step::Direct { name, users } => self.create(name, "direct", None, users).await,
            Step::Group { name, title, users } => {
                let title = self.variables.fill(title)?;
                self.create(name, "group", Some(title), users).await
            }
            Step::Open { connection } => self.open(connection).await,
            Step::Connect { connection, user, device, cursor } => {
                self.connect(connection, user, device, cursor.as_deref()).await
            }
            Step::Send { connection, outgoing } => {
                let (connection, variables) = self.on(connection)?;
                connection.send(outgoing, variables).await
            }
            Step::Expect { connection, expected } => self.expect(connection, expected).await,
            Step::Say { connection, channel, from, to, text } => {
                self.say(connection, channel, *from..=*to, text).await
            }
            Step::Closed { connection, code } => {
                self.on(connection)?.0.expect_closed(*code).await?;
                self.connections.remove(connection);
                Ok(())
            }
            Step::Close { connection } => {
                self.on(connection)?.0.expect_nothing().await?;
                if let Some(connection) = self.connections.remove(connection) {
                    connection.close().await;
                }
                Ok(())
            }
            Step::Drop { connection } => {
                self.on(connection)?;
                self.connections.remove(connection);
                Ok(())
            }
            Step::Pause { connection, is_paused } => {
                self.on(connection)?.0.pause(*is_paused);
                Ok(())
            }
            Step::Nothing { connection } => self.on(connection)?.0.expect_nothing().await,
            Step::Time(by) => {
                self.servers.pass(*by).await;
                Ok(())
            }
            Step::Rest(call) => self.rest(call).await,
            Step::Drain => self.servers.drain(),
            Step::Subscribe { user, device, provider } => self.subscribe(user, device, provider).await,
            Step::Push { user, device, expected } => {
                let pushes = self.pushes.as_mut().ok_or("no device has subscribed")?;
                let next = pushes.next(&format!("{user}.{device}")).await?;
                let compared = self.variables.compare(expected, &next, "push");
                compared.map_err(|why| format!("{why}; the push was {next}"))
            }
            Step::Restart => {
                self.connections.clear();
                self.servers.restart().await
            }
        }
    }

    fn on(&mut self, name: &str) -> Result<(&mut Connection, &mut Variables), String> {
        let connection = self.connections.get_mut(name).ok_or_else(|| format!("{name} is not connected"))?;
        Ok((connection, &mut self.variables))
    }

    /// Sends a REST request that must succeed.
    async fn call(&mut self, who: Option<&str>, path: &str, body: &Value) -> Result<Value, String> {
        let token = who.map(|who| self.token(who)).transpose()?;
        let rest = Rest::new(&self.servers.url()?);
        let answer = rest.call("POST", path, token.as_deref(), None, Some(body)).await;
        match answer.map_err(|error| format!("{error:#}"))? {
            answer if answer.status < 300 => Ok(answer.body),
            answer => Err(format!("{path} answers {} {}", answer.status, answer.body)),
        }
    }

    fn token(&self, who: &str) -> Result<String, String> {
        match who.strip_prefix('$') {
            Some(variable) => self.variables.text(variable),
            None if who.contains('.') => self.variables.text(&format!("{who}.token")),
            None => self.variables.text(&format!("{who}.phone.token")),
        }
    }

    async fn sign_up(&mut self, handles: &[String]) -> Result<(), String> {
        for handle in handles {
            let body = json!({
                "handle": handle, "display_name": handle, "password": "correct horse", "device_name": "phone",
            });
            let signed_in = self.call(None, "/v1/accounts", &body).await?;
            self.variables.set(handle, signed_in["user"]["id"].clone());
            self.know_device(handle, "phone", &signed_in);
        }
        Ok(())
    }

    async fn add_device(&mut self, user: &str, device: &str) -> Result<(), String> {
        let signed_in = self.call(Some(user), "/v1/devices", &json!({ "device_name": device })).await?;
        self.know_device(user, device, &signed_in);
        Ok(())
    }

    fn know_device(&mut self, user: &str, device: &str, signed_in: &Value) {
        let name = format!("{user}.{device}");
        self.variables.set(&name, signed_in["device_id"].clone());
        self.variables.set(&format!("{name}.token"), signed_in["access_token"].clone());
        self.variables.set(&format!("{name}.refresh"), signed_in["refresh_token"].clone());
    }

    async fn create(
        &mut self,
        name: &str,
        kind: &str,
        title: Option<Value>,
        users: &[String],
    ) -> Result<(), String> {
        let (first, others) = users.split_first().ok_or("a channel needs its users")?;
        let others: Result<Vec<Value>, String> =
            others.iter().map(|user| self.variables.get(user).cloned()).collect();
        let mut body = json!({ "kind": kind, "members": others? });
        if let Some(title) = title {
            body["name"] = title;
        }
        let view = self.call(Some(first), "/v1/channels", &body).await?;
        self.variables.set(name, view["id"].clone());
        Ok(())
    }

    async fn subscribe(&mut self, user: &str, device: &str, provider: &str) -> Result<(), String> {
        let device = format!("{user}.{device}");
        let token = self.variables.text(&format!("{device}.token"))?;
        let pushes = self.pushes.as_mut().ok_or("push is off")?;
        let body = pushes.subscription(&device, provider)?;
        let rest = Rest::new(&self.servers.url()?);
        let answer = rest.call("PUT", "/v1/push/subscription", Some(&token), None, Some(&body)).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        if answer.status != 200 {
            return Err(format!("the subscription was answered {} {}", answer.status, answer.body));
        }
        pushes.registered(&device, &answer.body)
    }

    async fn open(&mut self, name: &str) -> Result<(), String> {
        if self.connections.contains_key(name) {
            return Err(format!("{name} is connected"));
        }
        let socket = Socket::open(self.servers.addr()?).await.map_err(|error| format!("{error:#}"))?;
        self.connections
            .insert(name.to_owned(), Connection::new(socket, self.minds_presence, Arc::clone(&self.schemas)));
        Ok(())
    }

    async fn connect(
        &mut self,
        name: &str,
        user: &str,
        device: &str,
        cursor: Option<&str>,
    ) -> Result<(), String> {
        self.open(name).await?;
        let token = self.variables.text(&format!("{user}.{device}.token"))?;
        let mut hello = json!({ "type": "hello", "id": "hello", "token": token });
        let mut resume = json!({ "resume": "snapshot_required", "reason": "no_cursor" });
        if let Some(cursor) = cursor {
            hello["cursor"] = self.variables.get(cursor)?.clone();
            resume = json!({ "resume": "resumed" });
        }
        let mut members = vec![("type".to_owned(), Template::Plain(json!("welcome")))];
        let verdict = resume.as_object().into_iter().flatten();
        members.extend(verdict.map(|(name, value)| (name.clone(), Template::Plain(value.clone()))));
        let (connection, variables) = self.on(name)?;
        connection.send_json(&hello).await?;
        connection.expect_frame(&Template::Object(members, true), variables).await
    }

    async fn expect(&mut self, name: &str, expected: &Expected) -> Result<(), String> {
        match expected {
            Expected::Frame(template) => {
                let (connection, variables) = self.on(name)?;
                connection.expect_frame(template, variables).await
            }
            Expected::Entry { log, seq, content } => {
                let log = self.log(log)?;
                let (connection, variables) = self.on(name)?;
                connection.expect_entry(&log, seq, content, variables).await
            }
            Expected::Said { channel, from, to, with_resync } => {
                let log = self.log(channel)?;
                self.on(name)?.0.expect_said(&log, *from, *to, *with_resync).await
            }
            Expected::Cursor(variable) => {
                let (connection, variables) = self.on(name)?;
                let cursor = connection.expect_cursor().await?;
                variables.set(variable, cursor);
                Ok(())
            }
        }
    }

    fn log(&self, name: &str) -> Result<String, String> {
        if name == "me" { Ok(name.to_owned()) } else { self.variables.text(name) }
    }

    /// Sends messages one after another. Each must be acked and delivered to its sender before the next one is sent.
    async fn say(
        &mut self,
        name: &str,
        channel: &str,
        seqs: std::ops::RangeInclusive<u64>,
        text: &Template,
    ) -> Result<(), String> {
        let channel = self.variables.text(channel)?;
        let text = self.variables.fill(text)?;
        for seq in seqs {
            let (connection, variables) = self.on(name)?;
            let id = format!("say-{seq}");
            let frame = json!({
                "type": "send", "id": id, "channel_id": channel, "client_msg_id": variables.fresh_key(),
                "body": { "text": text },
            });
            connection.send_json(&frame).await?;
            let found = connection.expect_ack(&id).await?;
            if found != seq {
                return Err(format!("the ack says {found} instead of {seq}"));
            }
            connection.see_entry(&channel, seq).await?;
        }
        Ok(())
    }

    async fn rest(&mut self, call: &RestCall) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            match self.call_once(call).await {
                Err(_) if call.is_soon && tokio::time::Instant::now() < deadline => {
                    // waits for: what follows an ack in other partitions
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn call_once(&mut self, call: &RestCall) -> Result<(), String> {
        let token = call.who.as_deref().map(|who| self.token(who)).transpose()?;
        let path = self.variables.fill_text(&call.path)?;
        let key = call.key.as_ref().map(|key| self.variables.fill(key)).transpose()?;
        let body = call.body.as_ref().map(|body| self.variables.fill(body)).transpose()?;
        let rest = Rest::new(&self.servers.url()?);
        let key = key.as_ref().and_then(Value::as_str);
        let answer = rest.call(&call.method, &path, token.as_deref(), key, body.as_ref()).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let told = || format!("the answer was {} {}", answer.status, answer.body);
        self.schemas
            .check_answer(&call.method, &path, answer.status, &answer.body)
            .map_err(|why| format!("{why}; {}", told()))?;
        if answer.status != call.status {
            return Err(told());
        }
        let expected = call.answer.as_ref().unwrap_or(&Template::Plain(Value::Null));
        self.variables.compare(expected, &answer.body, "body").map_err(|why| format!("{why}; {}", told()))
    }

    async fn end(mut self) -> Result<(), String> {
        for (name, connection) in &mut self.connections {
            if connection.has_ended() {
                return Err(format!("{name} was closed, but no statement expects it"));
            }
            connection.expect_nothing().await.map_err(|why| format!("{name}: {why}"))?;
        }
        self.connections.clear();
        self.servers.stop().await?;
        self.pushes.as_ref().map_or(Ok(()), Pushes::end)
    }
}
