//! Operators: signing in, the board, configuration at run time, overrides, and what is recorded of it.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod acts;
mod stage;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use madang_engine::heat::Level;
use madang_proto::rest::OperatorScope;
use madang_testkit::{PATIENCE, Rest, TestNode};
use serde_json::{Value, json};
use stage::{Stage, refused};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_signs_in_with_a_secret_and_only_with_it() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::View).await;
    assert_eq!(stage.call("GET", "/board", &token, None).await.status, 200);
    for (name, secret) in [("ada", "mop_00000000000000000000000000000000"), ("bob", "x"), ("", "")] {
        let body = json!({ "name": name, "secret": secret });
        let answer = stage.rest.call("POST", "/v1/operator/token", None, None, Some(&body)).await.unwrap();
        assert_eq!(refused(&answer), (401, "unauthorized", "secret"));
    }
    // A user is no operator, and an operator no user.
    let user = stage.rest.sign_up("carl").await;
    let answer = stage.call("GET", "/board", user["access_token"].as_str().unwrap(), None).await;
    assert_eq!(answer.status, 401);
    assert_eq!(stage.rest.call("GET", "/v1/me", Some(&token), None, None).await.unwrap().status, 401);
    // A new secret ends the tokens of the one before; so does the removal; and so do fifteen minutes.
    let newer = stage.operator("ada", OperatorScope::View).await;
    assert_eq!(stage.call("GET", "/board", &token, None).await.status, 401);
    assert_eq!(stage.call("GET", "/board", &newer, None).await.status, 200);
    stage.node.node.gateway.operations.operators.remove("ada").await.unwrap();
    assert_eq!(stage.call("GET", "/board", &newer, None).await.status, 401);
    let last = stage.operator("ada", OperatorScope::Act).await;
    stage.hand.advance(Duration::from_secs(899));
    assert_eq!(stage.call("GET", "/board", &last, None).await.status, 200);
    stage.hand.advance(Duration::from_secs(1));
    assert_eq!(stage.call("GET", "/board", &last, None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scope_view_sees_everything_and_may_not_act() {
    let stage = Stage::new().await;
    let token = stage.operator("vera", OperatorScope::View).await;
    let detail = format!("/channels/{}", stage.channel);
    for path in ["/board", "/config", "/acts", "/dead-letters", &detail] {
        assert_eq!(stage.call("GET", path, &token, None).await.status, 200, "{path}");
    }
    let wish = json!({ "level": "hot", "minutes": 10, "why": "a concert begins", "dry_run": true });
    let answer = stage.call("PUT", &stage.override_path(), &token, Some(&wish)).await;
    assert_eq!(answer.status, 403, "also a dry run");
    let end = json!({ "why": "the concert is over" });
    assert_eq!(stage.call("DELETE", &stage.override_path(), &token, Some(&end)).await.status, 403);
    let config = stage.call("GET", "/config", &token, None).await.body["config"].clone();
    let change = json!({ "config": config, "why": "just because I can" });
    assert_eq!(stage.put_config(&token, "\"0\"", &change).await.0, 403);
    let again = json!({ "why": "just because I can", "dry_run": true });
    assert_eq!(stage.call("POST", "/dead-letters", &token, Some(&again)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_that_were_given_up_are_sent_again_by_their_ids() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    assert_eq!(stage.call("GET", "/dead-letters", &token, None).await.body, json!({ "items": [] }));
    let all = json!({ "why": "the keys are right now" });
    assert_eq!(stage.call("POST", "/dead-letters", &token, Some(&all)).await.body, json!({ "count": 0 }));
    let one = json!({ "id": "7", "why": "the keys are right now" });
    let answer = stage.call("POST", "/dead-letters", &token, Some(&one)).await;
    assert_eq!((answer.status, answer.body["message"].as_str()), (404, Some("id was not found")));
    let acts = stage.call("GET", "/acts", &token, None).await.body;
    assert_eq!(acts["items"].as_array().unwrap().len(), 1, "nothing was sent: {acts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_does_not_move_in_one_process() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let wish = json!({ "away_from": "chat-1", "minutes": 10, "why": "a concert begins" });
    let answer = stage.call("PUT", &stage.override_path(), &token, Some(&wish)).await;
    assert_eq!((answer.status, answer.body["field"].as_str()), (400, Some("away_from")), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_replaced_by_its_version_and_holds_at_once_and_after_a_restart() {
    let mut stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let config = stage.call("GET", "/config", &token, None).await.body;
    let mut wanted = config["config"].clone();
    assert_eq!(config["version"], 0, "never changed");
    wanted["heat"]["pacing"]["blazing"]["batch_ms"] = json!(400);
    let change = json!({ "config": wanted, "why": "four hundred is enough" });
    // The first act has added the operator; an override is the second one. Both leave the version as it is.
    let wish = json!({ "joins_per_second": 7, "minutes": 10, "why": "a concert begins" });
    assert_eq!(stage.call("PUT", &stage.override_path(), &token, Some(&wish)).await.status, 200);
    let (status, done) = stage.put_config(&token, "\"0\"", &change).await;
    assert_eq!((status, done["version"].as_u64()), (200, Some(3)), "{done}");
    let (status, stale) = stage.put_config(&token, "\"0\"", &change).await;
    assert_eq!((status, stale["code"].as_str()), (409, Some("conflict")), "{stale}");
    let (status, same) = stage.put_config(&token, "\"3\"", &change).await;
    assert_eq!((status, same["field"].as_str()), (400, Some("config")), "it changes nothing: {same}");
    stage.second(2_000_000).await;
    let pacing = |board: &Value| board["channels"][0]["pacing"]["batch_ms"].clone();
    assert_eq!(pacing(&stage.call("GET", "/board", &token, None).await.body), 400);
    let acts = stage.call("GET", "/acts", &token, None).await.body;
    let act = &acts["items"][0];
    assert_eq!(
        (act["what"].as_str(), act["by"].as_str(), act["from"].as_str(), act["change"].as_str()),
        (
            Some("config_changed"),
            Some("ada"),
            Some("127.0.0.1"),
            Some("heat.pacing.blazing.batch_ms: 500 -> 400")
        )
    );
    assert_eq!(acts["items"][2]["what"], "operator_added");
    stage.node.stop().await.unwrap();
    stage.node = TestNode::start(stage.config.clone(), &stage.storage, stage.clock.clone()).await.unwrap();
    let operators = &stage.node.node.gateway.operations.operators;
    operators.refresh().await.unwrap();
    let config = operators.config();
    assert_eq!((config.version, config.config.heat.pacing.blazing.batch_ms), (3, 400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_is_refused_by_name_and_the_old_one_stays() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let before = stage.call("GET", "/config", &token, None).await.body;
    let why = "to see what happens";
    let with = |pointer: &str, value: Value| {
        let mut config = before["config"].clone();
        let (inner, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(inner).unwrap()[name] = value;
        json!({ "config": config, "why": why })
    };
    let wrong = [
        ("\"1\"", with("/heat/pacing/hot/batch_ms", json!(5_000)), "config.heat.pacing.hot.batch_ms"),
        ("\"1\"", with("/heat/capacity/shares", json!([0.5, 0.1, 0.2])), "config.heat.capacity.shares"),
        ("\"1\"", with("/heat/costs/entry", json!(-1)), "config.heat.costs.entry"),
        ("\"1\"", json!({ "config": {}, "why": why }), "config.heat"),
        ("\"1\"", json!({ "config": before["config"], "why": "short" }), "why"),
        ("1", json!({ "config": before["config"], "why": why }), "If-Match"),
        ("*", json!({ "config": before["config"], "why": why }), "If-Match"),
    ];
    for (tag, change, field) in wrong {
        let (status, refusal) = stage.put_config(&token, tag, &change).await;
        assert_eq!((status, refusal["field"].as_str()), (400, Some(field)), "{refusal}");
    }
    assert_eq!(stage.call("GET", "/config", &token, None).await.body, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_is_tried_set_recorded_and_ends_by_itself() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let path = stage.override_path();
    let put = async |body: &Value| stage.call("PUT", &path, &token, Some(body)).await;
    let wish = |dry_run| json!({ "level": "hot", "joins_per_second": 0, "minutes": 10, "why": "the doors are closed", "dry_run": dry_run });
    let tried = put(&wish(true)).await;
    assert_eq!((tried.status, &tried.body["set"], stage.level()), (200, &Value::Null, Level::Normal));
    let set = put(&wish(false)).await.body;
    assert_eq!((set["set"]["by"].as_str(), stage.level()), (Some("ada"), Level::Hot), "{set}");
    let fan = stage.rest.sign_up("fan").await;
    let door = format!("/v1/channels/{}/membership", stage.channel);
    let join =
        async || stage.rest.call("PUT", &door, fan["access_token"].as_str(), None, None).await.unwrap();
    assert_eq!(join().await.body["code"], "limited");
    let row = &stage.call("GET", "/board", &token, None).await.body["channels"][0];
    assert_eq!((&row["name"], &row["override"]["joins_per_second"]), (&json!("Concert"), &json!(0)), "{row}");
    // Ten minutes later the meter decides again.
    stage.hand.advance(Duration::from_secs(600));
    stage.second(0).await;
    assert_eq!(stage.level(), Level::Normal);
    assert_eq!(join().await.status, 200);
    // Ended before its time.
    put(&wish(false)).await;
    let end = json!({ "why": "the doors are open again" });
    assert_eq!(stage.call("DELETE", &path, &token, Some(&end)).await.status, 204);
    assert_eq!(stage.level(), Level::Normal);
    assert_eq!(stage.call("DELETE", &path, &token, Some(&end)).await.status, 404);
    let acts = stage.call("GET", "/acts?limit=2", &token, None).await.body;
    let told = |act: &Value| (act["what"].clone(), act["channel_id"].clone(), act["why"].clone());
    assert_eq!(told(&acts["items"][0]).0, "override_ended");
    assert_eq!(
        told(&acts["items"][1]),
        (json!("override_set"), json!(stage.channel), json!("the doors are closed"))
    );
    let more = format!("/acts?before={}", acts["next"].as_str().unwrap());
    // The first override, its outcome, and the act that added the operator.
    assert_eq!(stage.call("GET", &more, &token, None).await.body["items"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_without_a_reason_an_end_or_anything_to_set_is_refused() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let wrong = [
        (json!({ "level": "hot", "minutes": 10, "why": "too short" }), "why"),
        (json!({ "level": "hot", "minutes": 10 }), "why"),
        (json!({ "level": "hot", "minutes": 0, "why": "for no time at all" }), "minutes"),
        (json!({ "level": "hot", "minutes": 1_441, "why": "for more than a day" }), "minutes"),
        (json!({ "level": "hot", "why": "without an end" }), "minutes"),
        (json!({ "minutes": 10, "why": "nothing to set" }), "level"),
        (json!({ "batch_ms": 1_001, "minutes": 10, "why": "too slow for people" }), "batch_ms"),
        (json!({ "slow_mode_seconds": 21_601, "minutes": 10, "why": "much too slow" }), "slow_mode_seconds"),
    ];
    for (wish, field) in wrong {
        let answer = stage.call("PUT", &stage.override_path(), &token, Some(&wish)).await;
        assert_eq!(refused(&answer), (400, "invalid", field), "{:?}", answer.body);
    }
    let wish = json!({ "level": "hot", "minutes": 10, "why": "a channel of nobody" });
    assert_eq!(stage.call("PUT", "/channels/77/override", &token, Some(&wish)).await.status, 404);
    assert_eq!(stage.level(), Level::Normal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_and_clients_from_elsewhere_are_refused() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let url = format!("{}/v1/operator/board", stage.node.url());
    let status = async |origin: &str| {
        let request = reqwest::Client::new().get(&url).bearer_auth(&token).header("Origin", origin);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(&stage.node.url()).await, 200);
    for origin in ["http://localhost:5173", "https://evil.example", "null"] {
        assert_eq!(status(origin).await, 403, "{origin}");
    }
    // A listener for everybody does not serve operators, unless it is configured to.
    stage.node.stop().await.unwrap();
    let mut config = stage.config.clone();
    config.server.addr = "0.0.0.0:8080".parse().unwrap();
    for (public, expected) in [(false, 404), (true, 401)] {
        config.operator.public = public;
        let node = TestNode::start(config.clone(), &stage.storage, stage.clock.clone()).await.unwrap();
        let rest = Rest::new(&node.url());
        let answer = rest.call("GET", "/v1/operator/board", None, None, None).await.unwrap();
        assert_eq!(answer.status, expected);
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_board_comes_each_second_until_the_token_ends() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::View).await;
    let url = format!("ws://{}/v1/operator/live", stage.node.addr);
    let connect = async |token: &str| {
        let mut request = url.as_str().into_client_request().unwrap();
        let protocol = http::HeaderValue::from_static("madang.operator.v1.json");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "madang.operator.v1.json");
        socket.send(Message::text(json!({ "token": token }).to_string())).await.unwrap();
        socket
    };
    let mut wrong = connect("nonsense").await;
    let Some(Ok(Message::Close(Some(frame)))) = wrong.next().await else { panic!("it must be closed") };
    assert_eq!(u16::from(frame.code), 4401);
    let mut socket = connect(&token).await;
    let next = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| {
        let waited = async {
            loop {
                tokio::select! {
                    frame = socket.next() => return frame.unwrap().unwrap(),
                    // waits for: the task that makes the board, once a second of the manual clock
                    () = tokio::time::sleep(Duration::from_millis(2)) => stage.hand.advance(Duration::from_millis(250)),
                }
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap()
    };
    let Message::Text(text) = next(&mut socket).await else { panic!("a board must come") };
    let board: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (board["nodes"][0]["is_ready"].as_bool(), board["channels"].as_array().unwrap().len()),
        (Some(true), 0)
    );
    // It appears within two seconds.
    stage.second(2_000_000).await;
    let mut seconds = 0;
    loop {
        let Message::Text(text) = next(&mut socket).await else { panic!("a board must come") };
        let board: Value = serde_json::from_str(&text).unwrap();
        if board["channels"][0]["level"] == "blazing" {
            break;
        }
        seconds += 1;
        assert!(seconds < 2, "{board}");
    }
    let closed = async |socket: &mut _| {
        loop {
            if let Message::Close(Some(frame)) = next(socket).await {
                return u16::from(frame.code);
            }
        }
    };
    let other = stage.operator("bob", OperatorScope::View).await;
    let mut stays = connect(&other).await;
    stage.node.node.gateway.operations.operators.remove("ada").await.unwrap();
    assert_eq!(closed(&mut socket).await, 4401);
    // A page must not ask for the secret because of a deploy.
    let (code, stopped) = tokio::join!(closed(&mut stays), stage.node.stop());
    stopped.unwrap();
    assert_eq!(code, 1001);
}
