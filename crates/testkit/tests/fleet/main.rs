//! Nodes of a fleet as processes, over a real CQL server and Redis.
//!
//! `MADANG_TEST_CQL` and `MADANG_TEST_REDIS` have the addresses, `MADANG_TEST_BINARY` and `MADANG_TEST_PUSH` the programs of the server
//! and of push, built with the feature `fleet`.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod hot;
mod push;
mod transcripts;

use std::time::Duration;

use madang_testkit::{FleetNodes, FleetPlace, PATIENCE, Rest};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

fn place() -> FleetPlace {
    FleetPlace {
        binary: variable("MADANG_TEST_BINARY"),
        cql: variable("MADANG_TEST_CQL").split(',').next().unwrap().to_owned(),
        redis: variable("MADANG_TEST_REDIS"),
    }
}

/// Adds an operator who may act, and returns the token.
async fn operator(nodes: &FleetNodes) -> String {
    let secret = nodes.command(0, &["operator", "add", "ada", "--scope", "act"]).await.unwrap();
    let secret = secret.split_whitespace().find(|word| word.starts_with("mop_")).unwrap();
    let sign_in = json!({ "name": "ada", "secret": secret });
    let operator = nodes.rest(0).must("POST", "/v1/operator/token", None, Some(&sign_in)).await;
    operator["token"].as_str().unwrap().to_owned()
}

/// The board as a node shows it. An operator who was added on another one a moment ago may be unknown there.
async fn board(rest: &Rest, operator: &str) -> Value {
    let known = async {
        loop {
            let answer = rest.call("GET", "/v1/operator/board", Some(operator), None, None).await.unwrap();
            if answer.status == 200 {
                return answer.body;
            }
            assert_eq!(answer.status, 401, "{}", answer.body);
            // waits for: the node's next look at what operators did
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, known).await.unwrap()
}
