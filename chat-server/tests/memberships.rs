//! The number of channels that one user may be in.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use futures_util::future::join_all;
use madang_testkit::{Config, ManualClock, Rest, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

struct Stage {
    rest: Rest,
    _node: TestNode,
    _clock: ManualClock,
    _storage: Storage,
}

impl Stage {
    /// A node on which a user may be in `per_user` channels.
    async fn new(storage: Storage, per_user: u32) -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.channels.per_user = per_user;
        let (clock, manual) = manual_clock();
        let node = TestNode::start(config, &storage, clock).await.unwrap();
        Self { rest: Rest::new(&node.url()), _node: node, _clock: manual, _storage: storage }
    }

    /// Signs up. Returns the id and the token.
    async fn person(&self, handle: &str) -> (String, String) {
        let signed_in = self.rest.sign_up(handle).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&signed_in["user"]["id"]), text(&signed_in["access_token"]))
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let answer = self.rest.call(method, path, Some(token), None, body.as_ref()).await.unwrap();
        (answer.status, answer.body)
    }

    async fn make(&self, token: &str, wish: Value) -> (u16, Value) {
        self.ask(token, "POST", "/v1/channels", Some(wish)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_concurrent_requests_reach_the_limit_and_do_not_exceed_it() {
    for storage in [Storage::model(), Storage::embedded()] {
        let stage = Stage::new(storage, 5).await;
        let (_, ada) = stage.person("ada").await;
        let (_, eve) = stage.person("eve").await;
        let mut open = Vec::new();
        for _ in 0..5 {
            let (_, made) = stage.make(&eve, json!({ "kind": "open", "name": "Tea" })).await;
            open.push(format!("/v1/channels/{}/membership", made["id"].as_str().unwrap()));
        }
        let groups = (0..15).map(|_| stage.make(&ada, group(&[])));
        let joins = open.iter().map(|path| stage.ask(&ada, "PUT", path, None));
        let (made, joined) = tokio::join!(join_all(groups), join_all(joins));
        let statuses: Vec<u16> = made.into_iter().chain(joined).map(|(status, _)| status).collect();
        let done = statuses.iter().filter(|&&status| status < 300).count();
        assert_eq!((done, statuses.len()), (5, 20), "{statuses:?}");
        let (_, list) = stage.ask(&ada, "GET", "/v1/channels", None).await;
        assert_eq!(list["items"].as_array().unwrap().len(), 5);
    }
}

fn group(members: &[&str]) -> Value {
    json!({ "kind": "group", "name": "Tea", "members": members })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_in_more_channels_than_the_limit_allows() {
    for storage in [Storage::model(), Storage::embedded()] {
        let stage = Stage::new(storage, 2).await;
        let (ada_id, ada) = stage.person("ada").await;
        let (_, eve) = stage.person("eve").await;
        let (_, first) = stage.make(&ada, group(&[])).await;
        let first = first["id"].as_str().unwrap().to_owned();
        assert_eq!(stage.make(&ada, group(&[])).await.0, 201);

        let (status, refusal) = stage.make(&ada, group(&[])).await;
        assert_eq!((status, &refusal["code"]), (409, &json!("full")), "{refusal}");
        assert_eq!(refusal["message"], "you are in 2 channels, the limit; leave one first");
        assert_eq!(stage.make(&ada, json!({ "kind": "open", "name": "Tea" })).await.0, 409);
        let (_, open) = stage.make(&eve, json!({ "kind": "open", "name": "Tea" })).await;
        let open = format!("/v1/channels/{}", open["id"].as_str().unwrap());
        assert_eq!(stage.ask(&ada, "PUT", &format!("{open}/membership"), None).await.0, 409);

        // Others cannot add this user to a channel either.
        for wish in [group(&[&ada_id]), json!({ "kind": "direct", "members": [ada_id] })] {
            let (status, refusal) = stage.make(&eve, wish).await;
            assert_eq!((status, &refusal["field"]), (409, &json!("members")), "{refusal}");
        }
        let (_, own) = stage.make(&eve, group(&[])).await;
        let members = format!("/v1/channels/{}/members", own["id"].as_str().unwrap());
        let add = json!({ "user_ids": [ada_id] });
        assert_eq!(stage.ask(&eve, "PUT", &members, Some(add.clone())).await.0, 409);

        // Adding a member again is not an error, and a user who leaves a channel has room again.
        let members = format!("/v1/channels/{first}/members");
        assert_eq!(stage.ask(&ada, "PUT", &members, Some(add)).await.0, 200);
        let leave = format!("/v1/channels/{first}/members/{ada_id}");
        assert_eq!(stage.ask(&ada, "DELETE", &leave, None).await.0, 204);
        assert_eq!(stage.ask(&ada, "PUT", &format!("{open}/membership"), None).await.0, 200);
        assert_eq!(stage.ask(&ada, "PUT", &format!("{open}/membership"), None).await.0, 200, "once more");
    }
}
