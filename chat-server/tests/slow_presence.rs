//! Presence is right within 30 s after a crash and does not flicker (G6): the real binary, in real time.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use madang_testkit::{Server, Socket};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout, timeout_at};

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
const BEAT: Duration = Duration::from_secs(5);
/// The bound of G6.
const TRUTH: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(10);
/// Environment variables with the address and the user of the process of [`client_process`].
const ADDR: &str = "MADANG_TEST_ADDR";
const TOKEN: &str = "MADANG_TEST_TOKEN";

async fn start(data: &Path) -> Server {
    Server::start(BINARY, data, &["--limits", "off"]).await.unwrap()
}

struct Person {
    id: String,
    token: String,
}

impl Person {
    async fn sign_up(server: &Server, handle: &str) -> Self {
        let signed_in = server.rest.sign_up(handle).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self { id: text(&signed_in["user"]["id"]), token: text(&signed_in["access_token"]) }
    }

    async fn befriend(&self, server: &Server, other: &Self) {
        for (one, other) in [(self, other), (other, self)] {
            let path = format!("/v1/contacts/{}", other.id);
            server.rest.must("PUT", &path, Some(&one.token), None).await;
        }
    }

    /// Connects and stays connected.
    async fn connect(&self, server: &Server) -> Client {
        let (socket, _) = Socket::connect(server.addr, &self.token, None).await.unwrap();
        let (sender, frames) = mpsc::channel(1_000);
        let mut staying = JoinSet::new();
        staying.spawn(stay(socket, sender));
        Client { frames, staying }
    }
}

/// A client that sends heartbeats, and the presence frames that it gets.
struct Client {
    frames: mpsc::Receiver<Value>,
    staying: JoinSet<()>,
}

async fn stay(mut socket: Socket, presence: mpsc::Sender<Value>) {
    let mut beat = interval(BEAT);
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Ok(frame) if frame["type"] == "presence" => presence.send(frame).await.unwrap(),
                Ok(_) => {}
                Err(_) => return,
            },
            _ = beat.tick() => socket.send(&json!({ "type": "heartbeat" })).await.unwrap(),
        }
    }
}

impl Client {
    /// Closes the socket without a close frame.
    async fn cut(mut self) {
        self.staying.shutdown().await;
    }

    /// The next state of a user that arrives before `until`.
    async fn next_state(&mut self, of: &Person, until: Instant) -> Option<String> {
        loop {
            let frame = timeout_at(until, self.frames.recv()).await.ok()?.unwrap();
            let mut users = frame["users"].as_array().unwrap().iter();
            if let Some(card) = users.find(|card| card["user_id"] == of.id.as_str()) {
                return Some(card["state"].as_str().unwrap().to_owned());
            }
        }
    }

    async fn expect(&mut self, of: &Person, state: &str) -> Instant {
        assert_eq!(self.next_state(of, Instant::now() + TRUTH).await.as_deref(), Some(state));
        Instant::now()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run as a process of its own by the test below"]
async fn client_process() {
    let (Ok(addr), Ok(token)) = (std::env::var(ADDR), std::env::var(TOKEN)) else { return };
    let (socket, _) = Socket::connect(addr.parse().unwrap(), &token, None).await.unwrap();
    let (sender, mut frames) = mpsc::channel(1_000);
    tokio::join!(stay(socket, sender), async { while frames.recv().await.is_some() {} });
}

fn spawn_client(server: &Server, person: &Person) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "client_process", "--ignored"]);
    command.env(ADDR, server.addr.to_string()).env(TOKEN, &person.token);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_is_offline_within_30_seconds_and_not_before_the_grace_period() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let (ada, bob) = (Person::sign_up(&server, "ada").await, Person::sign_up(&server, "bob").await);
    ada.befriend(&server, &bob).await;
    let mut client = ada.connect(&server).await;
    let mut process = spawn_client(&server, &bob);
    client.expect(&bob, "online").await;
    let killed = Instant::now();
    process.kill().await.unwrap();
    let took = client.expect(&bob, "offline").await - killed;
    println!("kill -9 of a client: offline after {took:?}");
    assert!(took >= GRACE && took < TRUTH, "{took:?}");
    // Cut and connected again within the grace period: no change is visible.
    let socket = bob.connect(&server).await;
    client.expect(&bob, "online").await;
    socket.cut().await;
    let again = Instant::now() + Duration::from_secs(4);
    assert_eq!(client.next_state(&bob, again).await, None);
    let _again = bob.connect(&server).await;
    assert_eq!(client.next_state(&bob, again + GRACE + GRACE).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_network_dies_is_offline_within_30_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let (ada, bob) = (Person::sign_up(&server, "ada").await, Person::sign_up(&server, "bob").await);
    ada.befriend(&server, &bob).await;
    let mut client = ada.connect(&server).await;
    // The socket neither closes nor sends anything from here on.
    let silent = Socket::connect(server.addr, &bob.token, None).await.unwrap();
    client.expect(&bob, "online").await;
    let fell_silent = Instant::now();
    let took = client.expect(&bob, "offline").await - fell_silent;
    println!("a silent client: offline after {took:?}");
    assert!(took < TRUTH, "{took:?}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_come_back_after_a_server_crash_do_not_flicker() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let (ada, bob) = (Person::sign_up(&server, "ada").await, Person::sign_up(&server, "bob").await);
    let cy = Person::sign_up(&server, "cy").await;
    ada.befriend(&server, &bob).await;
    ada.befriend(&server, &cy).await;
    let mut client = ada.connect(&server).await;
    let _clients = (bob.connect(&server).await, cy.connect(&server).await);
    client.expect(&bob, "online").await;
    client.expect(&cy, "online").await;
    let killed = Instant::now();
    server.kill().await.unwrap();
    let server = start(folder.path()).await;
    let mut client = ada.connect(&server).await;
    // Bob comes back later, Cy does not come back.
    assert_eq!(client.next_state(&bob, killed + Duration::from_secs(8)).await, None);
    let _bob = bob.connect(&server).await;
    client.expect(&bob, "online").await;
    let complete = timeout(TRUTH, client.frames.recv()).await.unwrap().unwrap();
    let took = Instant::now() - killed;
    println!("kill -9 of the server: who is not back is offline after {took:?}");
    // It names nobody, so no online user was reported as offline.
    assert_eq!(complete, json!({ "type": "presence", "users": [], "complete": true }));
    assert!(took < TRUTH, "{took:?}");
    let path = format!("/v1/presence?user_ids={},{}", bob.id, cy.id);
    let list = server.rest.must("GET", &path, Some(&ada.token), None).await;
    let states: Vec<&Value> = list["users"].as_array().unwrap().iter().map(|card| &card["state"]).collect();
    assert_eq!(states, ["online", "offline"]);
    assert_eq!(client.next_state(&bob, Instant::now() + GRACE).await, None);
}
