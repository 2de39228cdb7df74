//! The discovery process over real sockets: the internal API with its bad callers, and what clients ask.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::Duration;

use madang_auth::{InternalCall, InternalCalls, Stamp, TicketPlace, Tickets, Tokens};
use madang_bus::registry::{
    MemoryRegistry, ProcessCard, ProcessRun, ProcessState, Registry, RegistryError, Renewal, Role,
};
use madang_discovery::http::{Parts, Server};
use madang_discovery::{Discovery, DiscoveryConfig, Remote, View, ViewRevision};
use madang_ids::{DeviceId, Millis, NodeEpoch, NodeId, UserId};
use madang_service::{Clock, Drain, Tasks};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const SECRET: [u8; 32] = [7; 32];
const LONG: Duration = Duration::from_secs(60);

/// A discovery process. It ends with the runtime of its test.
struct Process {
    server: Server,
    public: String,
    internal: String,
}

async fn start(registry: &Arc<MemoryRegistry>) -> Process {
    let parts = Parts {
        config: DiscoveryConfig::default(),
        allowed_origins: Vec::new(),
        secret: SECRET,
        registry: Arc::clone(registry) as _,
        clock: Clock::system(),
    };
    let server = Server::start(parts, Drain::new());
    let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (public, internal) = (bind().await, bind().await);
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let (public_url, internal_url) = (url(&public), url(&internal));
    server.serve(public, internal);
    Process { server, public: public_url, internal: internal_url }
}

fn remote(urls: &[&str]) -> Remote {
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    Remote::new(&urls, &SECRET, Clock::system()).unwrap()
}

fn run(id: u16, epoch: u64) -> ProcessRun {
    ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(epoch) }
}

fn card(name: &str, id: u16, epoch: u64) -> ProcessCard {
    ProcessCard {
        run: run(id, epoch),
        name: name.into(),
        url: format!("wss://{name}.example"),
        region: "eu".into(),
        capacity: 10,
        version: "1".into(),
    }
}

/// Reads the view until it has this number of processes: a discovery process reads the registry once a second.
async fn until_seen(remote: &Remote, count: usize) {
    let mut known = ViewRevision::default();
    for _ in 0..200 {
        if let Ok(view) = remote.view(known).await {
            if view.processes.len() == count {
                return;
            }
            known = View::new(view.processes).revision;
        }
        tokio::task::yield_now().await;
    }
    panic!("{count} processes do not appear");
}

fn now() -> Millis {
    Clock::system().raw_ms()
}

async fn send(url: &str, call: InternalCall<'_>, stamp: Option<&Stamp>) -> (StatusCode, Vec<u8>) {
    let method: Method = call.method.parse().unwrap();
    let mut request = Client::new().request(method, format!("{url}{}", call.target)).body(call.body.to_vec());
    if let Some(stamp) = stamp {
        request = request
            .header("x-madang-time", stamp.time.get())
            .header("x-madang-nonce", &stamp.nonce)
            .header("x-madang-mac", &stamp.mac);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn processes_register_renew_and_leave_over_the_internal_api() {
    let registry = Arc::new(MemoryRegistry::default());
    let process = start(&registry).await;
    let remote = remote(&[&process.internal]);
    let state = ProcessState { load: 3, is_draining: false };
    assert_eq!(remote.renew(run(1, 1), state).await, Ok(Renewal::Unknown));
    remote.register(&card("a", 1, 5), state).await.unwrap();
    assert_eq!(remote.renew(run(1, 5), state).await, Ok(Renewal::Kept));
    let taken = Err(RegistryError::NameTaken { id: NodeId(1) });
    assert_eq!(remote.register(&card("a", 2, 5), state).await, taken);
    let older = Err(RegistryError::OlderEpoch { known: NodeEpoch(5) });
    assert_eq!(remote.register(&card("a", 1, 4), state).await, older);
    let invalid = remote.register(&card("", 3, 4), state).await;
    assert!(matches!(invalid, Err(RegistryError::Invalid(_))), "{invalid:?}");
    until_seen(&remote, 1).await;
    let view = remote.view(ViewRevision::default()).await.unwrap();
    assert_eq!((&view.processes[0].card, view.processes[0].state), (&card("a", 1, 5), state));
    remote.leave(run(1, 5)).await.unwrap();
    until_seen(&remote, 0).await;
}

#[tokio::test]
async fn a_call_goes_to_another_process_if_one_is_away() {
    let registry = Arc::new(MemoryRegistry::default());
    let process = start(&registry).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let remote = remote(&[&format!("http://{gone}"), &process.internal]);
    remote.register(&card("a", 1, 1), ProcessState::default()).await.unwrap();
    assert_eq!(registry.view().await.unwrap().processes.len(), 1);
}

#[tokio::test]
async fn a_call_without_credentials_or_with_wrong_ones_is_refused() {
    let registry = Arc::new(MemoryRegistry::default());
    let process = start(&registry).await;
    let body = json!({"card": card("evil", 1, 1), "state": ProcessState::default()}).to_string();
    let call = InternalCall { method: "POST", target: "/internal/v1/register", body: body.as_bytes() };
    let ours = InternalCalls::new(&SECRET);
    let good = ours.sign(call, now());
    let cases = [
        ("no credentials", None),
        ("another secret", Some(InternalCalls::new(&[8; 32]).sign(call, now()))),
        ("another body", Some(ours.sign(InternalCall { body: b"{}", ..call }, now()))),
        ("another path", Some(ours.sign(InternalCall { target: "/internal/v1/leave", ..call }, now()))),
        ("another method", Some(ours.sign(InternalCall { method: "PUT", ..call }, now()))),
        ("a clock ahead", Some(ours.sign(call, now().plus(35_000)))),
        ("a clock behind", Some(ours.sign(call, now().minus(31_000)))),
        ("another time", Some(Stamp { time: good.time.plus(1), ..good.clone() })),
        ("another nonce", Some(Stamp { nonce: "0".repeat(32), ..good.clone() })),
    ];
    for (name, stamp) in &cases {
        let (status, _) = send(&process.internal, call, stamp.as_ref()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
    }
    assert_eq!(registry.view().await.unwrap().processes, []);
    let metrics = Client::new().get(format!("{}/metrics", process.internal)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains(&format!("discovery_calls_refused_total {}\n", cases.len())), "{metrics}");
    let (status, answer) = send(&process.internal, call, Some(&good)).await;
    assert_eq!(status, StatusCode::OK, "the same call with good credentials: {answer:?}");
}

#[tokio::test]
async fn a_repeated_call_is_refused_also_by_another_process() {
    let registry = Arc::new(MemoryRegistry::default());
    let (one, other) = (start(&registry).await, start(&registry).await);
    registry.register(&card("a", 1, 1), ProcessState::default(), LONG).await.unwrap();
    let body = json!({"run": run(1, 1)}).to_string();
    let leave = InternalCall { method: "POST", target: "/internal/v1/leave", body: body.as_bytes() };
    let stamp = InternalCalls::new(&SECRET).sign(leave, now());
    assert_eq!(send(&one.internal, leave, Some(&stamp)).await.0, StatusCode::OK);
    registry.register(&card("a", 1, 1), ProcessState::default(), LONG).await.unwrap();
    assert_eq!(send(&one.internal, leave, Some(&stamp)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&other.internal, leave, Some(&stamp)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(registry.view().await.unwrap().processes.len(), 1, "the process is still registered");
}

#[tokio::test]
async fn an_answer_that_is_not_signed_is_not_believed() {
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", stranger.local_addr().unwrap());
    let answer = async || axum::Json(json!({"incarnation": 0, "processes": []}));
    let router = axum::Router::new().fallback(answer);
    let tasks = Tasks::new(Drain::new());
    tasks.spawn("stranger", async move { axum::serve(stranger, router).await.unwrap() });
    let view = remote(&[&url]).view(ViewRevision::default()).await;
    assert!(matches!(&view, Err(RegistryError::Unavailable(why)) if why.contains("signature")), "{view:?}");
    let process = start(&Arc::default()).await;
    let other_fleet = Remote::new(&[process.internal], &[9; 32], Clock::system()).unwrap();
    let view = other_fleet.view(ViewRevision::default()).await;
    assert!(matches!(&view, Err(RegistryError::Unavailable(why)) if why.contains("secret_file")), "{view:?}");
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let process = start(&Arc::default()).await;
    let body = vec![b' '; 17 * 1024];
    let call = InternalCall { method: "POST", target: "/internal/v1/leave", body: &body };
    let stamp = InternalCalls::new(&SECRET).sign(call, now());
    assert_eq!(send(&process.internal, call, Some(&stamp)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

async fn connect(process: &Process, token: Option<&str>, body: Value) -> (StatusCode, Value) {
    let mut request = Client::new().post(format!("{}/v1/connect", process.public)).json(&body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn token(secret: [u8; 32], user: u64, at: Millis) -> String {
    let tokens = Tokens::new(&secret, Duration::from_secs(900));
    tokens.mint(UserId::from_raw(user), DeviceId::from_raw(1), at).unwrap().0
}

#[tokio::test]
async fn clients_get_nodes_with_tickets_for_a_valid_token_only() {
    let registry = Arc::new(MemoryRegistry::default());
    registry.register(&card("a", 1, 5), ProcessState::default(), LONG).await.unwrap();
    let process = start(&registry).await;
    until_seen(&remote(&[&process.internal]), 1).await;
    let good = token(SECRET, 42, now());
    let (status, answer) = connect(&process, Some(&good), json!({"region": "eu"})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let url = answer["nodes"][0]["url"].as_str().unwrap();
    let ticket = url.strip_prefix("wss://a.example/v1/ws?ticket=").unwrap();
    let ticket = Tickets::new(&SECRET).verify(ticket, UserId::from_raw(42), now()).unwrap();
    assert_eq!(ticket.place, TicketPlace::Node(NodeId(1), NodeEpoch(5)));
    let (forged, expired) = (token([8; 32], 42, now()), token(SECRET, 42, now().minus(1_000_000)));
    for bad in [None, Some("x"), Some(&*forged), Some(&*expired)] {
        let (status, answer) = connect(&process, bad, json!({})).await;
        assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")), "{bad:?}");
    }
    let (status, answer) = connect(&process, Some(&good), json!({"region": "x".repeat(65)})).await;
    assert_eq!((status, &answer["field"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("region")));
    let (status, _) = connect(&process, Some(&good), json!({"regon": "eu"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let view = InternalCall { method: "GET", target: "/internal/v1/view", body: b"" };
    let (status, _) = send(&process.public, view, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "internal calls are not served to clients");
}

#[tokio::test]
async fn a_full_fleet_makes_clients_wait_and_bounds_how_often_they_ask() {
    let registry = Arc::new(MemoryRegistry::default());
    let full = ProcessState { load: 10, is_draining: false };
    registry.register(&card("a", 1, 5), full, LONG).await.unwrap();
    let process = start(&registry).await;
    until_seen(&remote(&[&process.internal]), 1).await;
    for user in 1..=2 {
        let (_, answer) = connect(&process, Some(&token(SECRET, user, now())), json!({})).await;
        assert_eq!((&answer["nodes"], &answer["wait"]["place"]), (&json!([]), &json!(user)), "{answer}");
        assert!(answer["wait"]["retry_after_ms"].as_u64().unwrap() >= 1_000);
    }
    let (mut limited, token) = (0, token(SECRET, 1, now()));
    for _ in 0..60 {
        let (status, _) = connect(&process, Some(&token), json!({})).await;
        limited += u32::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(limited > 0);
}

#[tokio::test]
async fn a_drain_finishes_the_calls_under_way_and_then_ends() {
    let registry = Arc::new(MemoryRegistry::default());
    let process = start(&registry).await;
    let remote = remote(&[&process.internal]);
    until_seen(&remote, 0).await;
    let known = View::new(Vec::new()).revision;
    // This call waits for a second, because the view does not change.
    let mut call = std::pin::pin!(remote.view(known));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut call).await;
    assert!(early.is_err(), "{early:?}");
    let began = std::time::Instant::now();
    let ((), view) = tokio::join!(process.server.drain(LONG), call);
    assert_eq!(view.unwrap().processes, []);
    assert!(began.elapsed() < Duration::from_secs(30), "the drain does not wait for its patience");
    assert!(remote.view(known).await.is_err());
}

#[tokio::test]
async fn a_process_is_ready_once_it_has_read_the_view() {
    let registry = Arc::new(MemoryRegistry::default());
    let process = start(&registry).await;
    until_seen(&remote(&[&process.internal]), 0).await;
    for url in [&process.public, &process.internal] {
        for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/nothing", 404)] {
            let response = Client::new().get(format!("{url}{path}")).send().await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{url}{path}");
        }
    }
}
