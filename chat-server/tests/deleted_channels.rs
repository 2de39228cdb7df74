//! What remains of a channel that its owner has deleted.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_ids::{ChannelId, LogId, Seq};
use madang_store::embedded::check;
use madang_testkit::{Config, Rest, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

/// More messages than one page of the erasure has.
const MESSAGES: u64 = 300;

async fn signed_up(rest: &Rest, handle: &str) -> (String, String) {
    let signed_in = rest.sign_up(handle).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&signed_in["user"]["id"]), text(&signed_in["access_token"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_channel_is_in_no_list_and_its_messages_are_erased() {
    for storage in [Storage::model(), Storage::embedded()] {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.channels.per_user = 2;
        let (clock, _manual) = manual_clock();
        let node = TestNode::start(config, &storage, clock).await.unwrap();
        let rest = Rest::new(&node.url());
        let (_, ada) = signed_up(&rest, "ada").await;
        let (bob_id, bob) = signed_up(&rest, "bob").await;
        let call = async |token: &str, method: &str, path: &str, body: Value| {
            let body = Some(&body).filter(|body| !body.is_null());
            let answer = rest.call(method, path, Some(token), None, body).await.unwrap();
            (answer.status, answer.body)
        };
        let wish = json!({ "kind": "group", "name": "Tea", "members": [bob_id] });
        let (_, view) = call(&ada, "POST", "/v1/channels", wish.clone()).await;
        let id = view["id"].as_str().unwrap().to_owned();
        assert_eq!(call(&ada, "POST", "/v1/channels", wish.clone()).await.0, 201);
        assert_eq!(call(&ada, "POST", "/v1/channels", wish.clone()).await.0, 409, "both are in two channels");
        for number in 0..MESSAGES {
            let body = json!({ "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"),
                "body": { "text": format!("secret {number}"), "mentions": [bob_id] } });
            assert_eq!(call(&ada, "POST", &format!("/v1/channels/{id}/messages"), body).await.0, 200);
        }
        assert_eq!(call(&ada, "DELETE", &format!("/v1/channels/{id}"), Value::Null).await.0, 204);
        for path in ["", "/members", "/entries", "/presence", "/bans"] {
            let (status, refusal) = call(&ada, "GET", &format!("/v1/channels/{id}{path}"), Value::Null).await;
            assert_eq!((status, &refusal["code"]), (404, &json!("not_found")), "{path}: {refusal}");
        }

        let operations = &node.node.gateway.operations;
        while !operations.store.erasures(1).await.unwrap().is_empty() {
            operations.finish_erasures().await;
        }
        let log = LogId::Channel(id.parse::<ChannelId>().unwrap());
        let rows = operations.store.rows(log, Seq::new(1)..=Seq::new(1_000), usize::MAX).await.unwrap();
        assert_eq!(rows.len() as u64, MESSAGES + 4, "the places stay");
        let messages: Vec<_> = rows.iter().filter_map(|row| row.entry.content.message()).collect();
        assert_eq!(messages.len() as u64, MESSAGES);
        assert!(messages.iter().all(|message| message.body.text.is_empty() && message.deleted.is_some()));

        // It is in no list and is not counted, and a device that had it learns that it is gone.
        let (_, list) = call(&bob, "GET", "/v1/channels", Value::Null).await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
        let since = json!({ "since": { id.clone(): { "head_seq": 4, "read_seq": 4 } } });
        let (_, snapshot) = call(&bob, "POST", "/v1/snapshot", since).await;
        let gone = snapshot["channels"].as_array().unwrap().iter().find(|view| view["id"] == json!(id));
        assert_eq!(gone.unwrap()["until_seq"], json!(MESSAGES + 4), "{snapshot}");
        assert_eq!(
            call(&bob, "POST", "/v1/channels", json!({ "kind": "open", "name": "Milk" })).await.0,
            201
        );
        node.stop().await.unwrap();
        if let Storage::Embedded(folder) = &storage {
            let report = check(folder.path(), &mut |_| {}).unwrap();
            assert!(report.findings.is_empty(), "{:?}", report.findings);
        }
    }
}
