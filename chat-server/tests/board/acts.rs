//! Rates at run time, hidden names, the outcome of overrides, and alerts.

use std::time::Duration;

use madang_proto::rest::OperatorScope;
use madang_testkit::PATIENCE;
use serde_json::{Value, json};

use crate::stage::{Stage, refused};

async fn words_of_acts(stage: &Stage, token: &str) -> Vec<(String, String)> {
    let acts = stage.call("GET", "/acts", token, None).await.body;
    let text = |act: &Value, name: &str| act[name].as_str().unwrap().to_owned();
    acts["items"].as_array().unwrap().iter().map(|act| (text(act, "what"), text(act, "change"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_change_while_the_server_runs_and_those_of_the_file_hold_again() {
    let stage = Stage::with(|config| config.limits.enabled = true).await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let user = stage.rest.sign_up("carl").await;
    let user = user["access_token"].as_str().unwrap();
    let requests = async |count| {
        let mut refused = 0;
        for _ in 0..count {
            let answer = stage.rest.call("GET", "/v1/me", Some(user), None, None).await.unwrap();
            refused += u32::from(answer.status == 429);
        }
        refused
    };
    let set = async |limits: Value, why: &str| {
        let known = stage.call("GET", "/config", &token, None).await.body;
        let mut config = known["config"].clone();
        config["limits"] = limits;
        let body = json!({ "config": config, "why": why });
        stage.put_config(&token, &format!("\"{}\"", known["version"]), &body).await
    };
    assert_eq!(requests(30).await, 0, "fifty a second, and ten seconds' worth at once");
    let known = stage.call("GET", "/config", &token, None).await.body;
    assert_eq!(known["file_limits"]["user_requests"], 50);
    assert!(known["config"]["limits"].is_null());
    let (status, done) = set(json!({ "user_requests": 1 }), "somebody asks too much").await;
    assert_eq!((status, &done["config"]["limits"]), (200, &json!({ "user_requests": 1 })), "{done}");
    assert!(requests(30).await >= 19, "at most ten at once");
    let (status, _) = set(json!({}), "it is quiet again now").await;
    assert_eq!(status, 200);
    stage.hand.advance(Duration::from_secs(60));
    assert_eq!(requests(30).await, 0, "the rate of the file");
    let changes: Vec<String> =
        words_of_acts(&stage, &token).await.into_iter().map(|(_, words)| words).collect();
    assert_eq!(changes[0], "limits.user_requests: 1 -> unset");
    assert_eq!(changes[1], "limits.user_requests: unset -> 1");
    let (status, refusal) = set(json!({ "user_sends": 1_000_001 }), "much more than before").await;
    assert_eq!((status, refusal["field"].as_str()), (400, Some("config.limits.user_sends")), "{refusal}");
    let (status, refusal) = set(json!({ "user_send": 1 }), "a word that is not known").await;
    assert_eq!(status, 400, "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_name_is_shown_for_a_reason_that_is_recorded() {
    let stage = Stage::new().await;
    let (act, view) =
        (stage.operator("ada", OperatorScope::Act).await, stage.operator("vera", OperatorScope::View).await);
    let path = format!("/channels/{}/name", stage.channel);
    let why = json!({ "why": "the police asks for it" });
    assert_eq!(stage.call("POST", &path, &view, Some(&why)).await.status, 403);
    let short = stage.call("POST", &path, &act, Some(&json!({ "why": "so" }))).await;
    assert_eq!(refused(&short), (400, "invalid", "why"));
    let before = words_of_acts(&stage, &act).await.len();
    let shown = stage.call("POST", &path, &act, Some(&why)).await;
    assert_eq!(shown.body, json!({ "kind": "open", "name": "Concert" }));
    let acts = words_of_acts(&stage, &act).await;
    assert_eq!(acts.len(), before + 1);
    assert_eq!(acts[0], ("name_shown".to_owned(), "its name was shown".to_owned()));
    let unknown = stage.call("POST", "/channels/7/name", &act, Some(&why)).await;
    assert_eq!(refused(&unknown), (404, "not_found", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_of_an_override_is_recorded_beside_its_forecast() {
    let stage = Stage::new().await;
    let token = stage.operator("ada", OperatorScope::Act).await;
    let wish = json!({ "level": "hot", "minutes": 2, "why": "a concert begins" });
    let set = stage.call("PUT", &stage.override_path(), &token, Some(&wish)).await;
    assert_eq!(set.status, 200);
    // Each second one frame to 600 receivers, until the override has ended.
    for _ in 0..125 {
        stage.second(600).await;
    }
    let recorded = async {
        loop {
            let acts = words_of_acts(&stage, &token).await;
            if let Some((_, words)) = acts.into_iter().find(|(what, _)| what == "override_measured") {
                return words;
            }
            stage.hand.advance(Duration::from_millis(200));
            // waits for: the task that measures, once in 0.8 s of the manual clock
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let words = tokio::time::timeout(PATIENCE, recorded).await.unwrap();
    let figure = |text: &str| text.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
    let frames = figure(words.split(": ").nth(1).unwrap());
    assert!((30_000.0..=37_000.0).contains(&frames), "{words}");
    assert!(words.contains("0 were forecast; 0 joins a minute were refused"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_asks_why_there_was_no_alert() {
    let stage = Stage::new().await;
    let token = stage.operator("vera", OperatorScope::View).await;
    stage.rest.sign_up("carl").await;
    let ask = async |query: &str| stage.call("GET", &format!("/alerts?{query}"), &token, None).await;
    let query = |handle: &str| format!("handle={handle}&channel_id={}&seq=1", stage.channel);
    let history = ask(&query("carl")).await;
    assert_eq!((history.status, &history.body["is_waiting"]), (200, &json!(false)), "{}", history.body);
    assert_eq!(refused(&ask(&query("nobody")).await), (404, "not_found", "handle"));
    assert_eq!(ask("handle=carl&seq=1").await.status, 400);
}
