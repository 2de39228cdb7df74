//! A node of a fleet admits sockets by ticket or at a rate, and sends its clients elsewhere when it drains.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::Duration;

use madang_auth::{TicketPlace, Tickets};
use madang_bus::registry::{MemoryRegistry, ProcessCard, ProcessRun, ProcessState, Registry, Role};
use madang_discovery::{DiscoveryConfig, DiscoveryMetrics, Local, NodeDiscovery, NodeParts};
use madang_ids::{NodeEpoch, NodeId, UserId};
use madang_proto::rest::{SignUp, SignedIn};
use madang_service::{Health, ManualClock};
use madang_testkit::{Answer, Config, Ended, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

const SECRET: [u8; 32] = [9; 32];
const LEASE: Duration = Duration::from_secs(3_600);

/// Two nodes of a fleet, of which the first is real.
struct Stage {
    node: TestNode,
    clock: ManualClock,
    discovery: Arc<NodeDiscovery>,
}

fn card(id: u16) -> ProcessCard {
    ProcessCard {
        run: ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(5) },
        name: format!("chat-{id}"),
        url: format!("wss://chat-{id}.example"),
        region: "eu".into(),
        capacity: 100,
        version: String::new(),
    }
}

async fn node() -> (TestNode, ManualClock, madang_service::Clock) {
    let (clock, hand) = manual_clock();
    let mut config = Config::default();
    config.limits.enabled = false;
    (TestNode::start(config, &Storage::embedded(), clock.clone()).await.unwrap(), hand, clock)
}

impl Stage {
    /// Admits one socket without a ticket in a second.
    async fn new() -> Self {
        let (node, hand, clock) = node().await;
        let registry: Arc<dyn Registry> = Arc::new(MemoryRegistry::default());
        for id in [1, 2] {
            registry.register(&card(id), ProcessState::default(), LEASE).await.unwrap();
        }
        let config = DiscoveryConfig { admission_per_second: 1, ..DiscoveryConfig::default() };
        let discovery = Arc::new(NodeDiscovery::new(NodeParts {
            card: card(1),
            discovery: Arc::new(Local::new(Arc::clone(&registry), config.lease())),
            config,
            secret: SECRET,
            registry,
            clock,
            metrics: DiscoveryMetrics::default(),
        }));
        let check = Health::new(node.drain.clone()).check("view");
        node.node.background.spawn("view", discovery.keep_view(check));
        let mut view = discovery.view();
        view.wait_for(|view| view.processes().len() == 2).await.unwrap();
        node.node.gateway.join_fleet(Arc::clone(&discovery));
        Self { node, clock: hand, discovery }
    }

    async fn open(&self, ticket: Option<&str>) -> Socket {
        let query = ticket.map_or_else(String::new, |ticket| format!("?ticket={ticket}"));
        Socket::open_path(self.node.addr, &format!("/v1/ws{query}")).await.unwrap()
    }

    /// Uses the token of the rate, so that the next socket without a ticket is refused.
    async fn crowd(&self, token: &str) {
        self.open(None).await.greet(token, None).await.unwrap();
    }

    fn ticket(&self, user: UserId, place: TicketPlace) -> String {
        let now = self.node.node.gateway.operations.clock.raw_ms();
        Tickets::new(&SECRET).mint(user, place, now).0
    }
}

async fn sign_up(node: &TestNode, handle: &str) -> SignedIn {
    let sign_up = SignUp {
        handle: handle.into(),
        display_name: handle.into(),
        password: "correct horse".into(),
        device_name: "phone".into(),
        invitation: None,
    };
    node.node.gateway.operations.sign_up(sign_up, None).await.unwrap()
}

async fn ask(node: &TestNode, of: &SignedIn, body: &Value) -> Answer {
    let rest = Rest::new(&node.url());
    rest.call("POST", "/v1/connect", Some(&of.access_token), None, Some(body)).await.unwrap()
}

/// The answer to `hello` on a socket that is not admitted, and how the socket ends.
async fn refused(mut socket: Socket, token: &str) -> (Value, Ended) {
    socket.send(&json!({"type": "hello", "id": "h", "token": token})).await.unwrap();
    let answer = socket.next().await.unwrap();
    (answer, socket.next().await.unwrap_err())
}

const HERE: TicketPlace = TicketPlace::Node(NodeId(1), NodeEpoch(5));

#[tokio::test]
async fn a_server_of_one_process_answers_its_own_path() {
    let (node, _, _) = node().await;
    let ada = sign_up(&node, "ada").await;
    let answer = ask(&node, &ada, &json!({})).await;
    assert_eq!((answer.status, answer.body), (200, json!({"nodes": [{"url": "/v1/ws"}]})));
    // A ticket means nothing there.
    let socket = Socket::open_path(node.addr, "/v1/ws?ticket=AbYx3k").await.unwrap();
    socket.greet(&ada.access_token, None).await.unwrap();
}

#[tokio::test]
async fn a_client_of_a_fleet_gets_nodes_and_its_ticket_admits_it_once_above_the_rate() {
    let stage = Stage::new().await;
    let ada = sign_up(&stage.node, "ada").await;
    stage.crowd(&ada.access_token).await;
    let answer = ask(&stage.node, &ada, &json!({"region": "eu"})).await;
    let nodes = answer.body["nodes"].as_array().unwrap();
    let prefix = "wss://chat-1.example/v1/ws?ticket=";
    let ticket = nodes.iter().find_map(|node| node["url"].as_str().unwrap().strip_prefix(prefix)).unwrap();
    assert_eq!(nodes.len(), 2, "{answer:?}");
    stage.open(Some(ticket)).await.greet(&ada.access_token, None).await.unwrap();
    let (answer, ended) = refused(stage.open(Some(ticket)).await, &ada.access_token).await;
    assert_eq!(answer["code"], "unavailable", "{answer}");
    assert!(answer["retry_after_ms"].as_u64().unwrap() > 0 && answer["id"] == "h", "{answer}");
    assert!(matches!(ended, Ended::Closed(4005, _)), "the client comes back: {ended:?}");
    let answer = ask(&stage.node, &ada, &json!({"region": "x".repeat(65)})).await;
    assert_eq!((answer.status, &answer.body["field"]), (413, &json!("region")));
}

#[tokio::test]
async fn a_bad_ticket_is_as_none() {
    let stage = Stage::new().await;
    let (ada, bob) = (sign_up(&stage.node, "ada").await, sign_up(&stage.node, "bob").await);
    stage.crowd(&ada.access_token).await;
    let other_node = stage.ticket(ada.user.id, TicketPlace::Node(NodeId(2), NodeEpoch(5)));
    let former_life = stage.ticket(ada.user.id, TicketPlace::Node(NodeId(1), NodeEpoch(4)));
    let other_user = stage.ticket(bob.user.id, HERE);
    let now = stage.node.node.gateway.operations.clock.raw_ms();
    let forged = Tickets::new(&[8; 32]).mint(ada.user.id, HERE, now).0;
    for ticket in [&*other_node, &former_life, &other_user, &forged, "AbYx3k", ""] {
        let (answer, _) = refused(stage.open(Some(ticket)).await, &ada.access_token).await;
        assert_eq!(answer["code"], "unavailable", "{ticket}: {answer}");
    }
    for good in [HERE, TicketPlace::Fleet] {
        let ticket = stage.ticket(ada.user.id, good);
        stage.open(Some(&ticket)).await.greet(&ada.access_token, None).await.unwrap();
        let (answer, _) = refused(stage.open(Some(&ticket)).await, &ada.access_token).await;
        assert_eq!(answer["code"], "unavailable", "used twice: {answer}");
    }
    let late = stage.ticket(ada.user.id, HERE);
    stage.clock.advance(Duration::from_secs(30));
    // The rate admits one of the two again, so the ticket has not admitted the other one.
    stage.open(Some(&late)).await.greet(&ada.access_token, None).await.unwrap();
    let (answer, _) = refused(stage.open(None).await, &ada.access_token).await;
    assert_eq!(answer["code"], "unavailable", "expired: {answer}");
}

#[tokio::test]
async fn a_token_that_is_refused_uses_no_ticket() {
    let stage = Stage::new().await;
    let ada = sign_up(&stage.node, "ada").await;
    stage.crowd(&ada.access_token).await;
    let ticket = stage.ticket(ada.user.id, HERE);
    let (answer, _) = refused(stage.open(Some(&ticket)).await, "not a token").await;
    assert_eq!(answer["code"], "unauthorized");
    stage.open(Some(&ticket)).await.greet(&ada.access_token, None).await.unwrap();
}

#[tokio::test]
async fn a_drain_sends_each_client_elsewhere_with_a_ticket_of_its_own() {
    let stage = Stage::new().await;
    let (ada, bob) = (sign_up(&stage.node, "ada").await, sign_up(&stage.node, "bob").await);
    let mut sockets = Vec::new();
    for user in [&ada, &bob] {
        let ticket = stage.ticket(user.user.id, HERE);
        let (socket, _) = stage.open(Some(&ticket)).await.greet(&user.access_token, None).await.unwrap();
        sockets.push((user.user.id, socket));
    }
    stage.node.drain.begin();
    for (user, mut socket) in sockets {
        let reconnect = socket.next_of("reconnect").await;
        let [url] = &**reconnect["nodes"].as_array().unwrap() else { panic!("{reconnect}") };
        let ticket = url.as_str().unwrap().strip_prefix("wss://chat-2.example/v1/ws?ticket=").unwrap();
        let now = stage.node.node.gateway.operations.clock.raw_ms();
        let ticket = Tickets::new(&SECRET).verify(ticket, user, now).unwrap();
        assert_eq!(ticket.place, TicketPlace::Node(NodeId(2), NodeEpoch(5)));
    }
    assert_eq!(stage.discovery.lease().run(), card(1).run);
}
