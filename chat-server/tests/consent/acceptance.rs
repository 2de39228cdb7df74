//! Presence is shown after acceptance, and each user chooses who may write to them.

use madang_testkit::PATIENCE;
use serde_json::{Value, json};

use crate::stage::{Stage, id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_shown_after_acceptance() {
    let mut stage = Stage::new().await;
    for way in ["writes", "reads", "neither"] {
        let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
        stage.befriend(&ada, &bob).await;
        stage.befriend(&ada, &cy).await;
        // Ada's friends do not know each other, and neither was asked for consent.
        let group = id(&stage.group(&ada, &[&bob, &cy]).await);
        assert_eq!(stage.say(&cy, &group, 1).await, "ok");
        let mut to_cy = stage.socket(&cy).await;
        let _bob_is_here = stage.socket(&bob).await;
        stage.comes_to_see(&ada, &bob).await;
        assert!(!stage.sees(&cy, &bob).await && !stage.sees(&bob, &cy).await, "{way}");
        let people = stage.must(&cy, "GET", "/v1/users/search?prefix=person", Value::Null).await;
        let found = people["items"].as_array().unwrap().iter().any(|card| card["id"] == json!(bob.id));
        assert!(!found, "{way}: who has not accepted is not found by it");
        let counts = stage.must(&cy, "GET", &format!("/v1/channels/{group}/presence"), Value::Null).await;
        assert_eq!(counts["online"], 1, "{way}: {counts}");
        match way {
            "writes" => assert_eq!(stage.say(&bob, &group, 2).await, "ok"),
            "reads" => {
                let head = stage.must(&bob, "GET", &format!("/v1/channels/{group}"), Value::Null).await;
                let body = json!({ "seq": head["head_seq"] });
                stage.must(&bob, "PUT", &format!("/v1/channels/{group}/read"), body).await;
            }
            _ => continue,
        }
        stage.comes_to_see(&cy, &bob).await;
        stage.comes_to_see(&bob, &cy).await;
        // Also as a notice, and not only when asked for.
        let told = async {
            loop {
                let frame = to_cy.next_of("presence").await;
                let users = frame["users"].as_array().unwrap();
                if users.iter().any(|card| card["user_id"] == json!(bob.id) && card["state"] == "online") {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("presence is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_read_at_its_head_is_accepted() {
    let mut stage = Stage::new().await;
    let (ada, bob) = (stage.person().await, stage.person().await);
    stage.befriend(&ada, &bob).await;
    let cy = stage.person().await;
    let group = id(&stage.group(&ada, &[&cy]).await);
    assert_eq!(stage.accept(&cy, &group).await, "ok");
    // Bob is added later: the marker is at the head already, and reading moves nothing.
    stage.add(&ada, &group, &bob).await;
    let _bob_is_here = stage.socket(&bob).await;
    assert!(!stage.sees(&cy, &bob).await);
    let view = stage.must(&bob, "GET", &format!("/v1/channels/{group}"), Value::Null).await;
    assert_eq!(view["read_seq"], view["head_seq"]);
    let body = json!({ "seq": view["head_seq"] });
    stage.must(&bob, "PUT", &format!("/v1/channels/{group}/read"), body).await;
    stage.comes_to_see(&cy, &bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_decides_who_may_write() {
    let mut stage = Stage::new().await;
    for (setting, relation, expected) in [
        (None, "stranger", true),
        (Some("everybody"), "stranger", true),
        (Some("shared_channel"), "stranger", false),
        (Some("shared_channel"), "member", true),
        (Some("shared_channel"), "contact", true),
        (Some("contacts"), "stranger", false),
        (Some("contacts"), "member", false),
        (Some("contacts"), "contact", true),
    ] {
        let (mal, bob) = (stage.person().await, stage.person().await);
        match relation {
            "member" => {
                let group = id(&stage.group(&mal, &[&bob]).await);
                assert_eq!(stage.accept(&bob, &group).await, "ok");
            }
            "contact" => stage.befriend(&mal, &bob).await,
            _ => {}
        }
        if let Some(setting) = setting {
            stage.set(&bob, json!({ "may_write": setting })).await;
        }
        let opened = stage.direct(&mal, &bob).await;
        assert_eq!(opened.is_ok(), expected, "{relation}, may_write {setting:?}: {opened:?}");
        // Bob can still open the channel, which allows Mal to write.
        let direct = stage.direct(&bob, &mal).await.unwrap();
        assert_eq!(stage.say(&mal, &direct, 1).await, "ok", "{relation}, {setting:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_channel_in_which_both_have_written_stays_open() {
    let mut stage = Stage::new().await;
    let (mal, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
    let with_mal = stage.direct(&mal, &bob).await.unwrap();
    let with_cy = stage.direct(&cy, &bob).await.unwrap();
    assert_eq!(stage.say(&mal, &with_mal, 1).await, "ok");
    assert_eq!(stage.say(&cy, &with_cy, 1).await, "ok");
    assert_eq!(stage.say(&bob, &with_cy, 2).await, "ok");
    // Having read what a stranger wrote is not acceptance.
    let view = stage.must(&bob, "GET", &format!("/v1/channels/{with_mal}"), Value::Null).await;
    let body = json!({ "seq": view["head_seq"] });
    stage.must(&bob, "PUT", &format!("/v1/channels/{with_mal}/read"), body).await;
    stage.set(&bob, json!({ "may_write": "contacts" })).await;
    assert_eq!(stage.say(&mal, &with_mal, 3).await, "forbidden");
    let message = format!("/v1/channels/{with_mal}/messages/4");
    let edit = json!({ "body": { "text": "y" } });
    assert_eq!(stage.outcome(&mal, "PATCH", &message, edit).await, "forbidden", "an edit is writing");
    let reaction = format!("{message}/reactions/tea");
    assert_eq!(stage.outcome(&mal, "PUT", &reaction, Value::Null).await, "forbidden");
    assert_eq!(stage.outcome(&mal, "DELETE", &message, Value::Null).await, "ok");
    assert_eq!(stage.say(&cy, &with_cy, 3).await, "ok");
    // Mal's typing is not shown either.
    let mut to_bob = stage.socket(&bob).await;
    let mut from_mal = stage.socket(&mal).await;
    from_mal.send(&json!({ "type": "typing", "id": "t", "channel_id": with_mal })).await.unwrap();
    from_mal.send(&json!({ "type": "heartbeat" })).await.unwrap();
    from_mal.next_of("heartbeat").await;
    assert_eq!(stage.say(&cy, &with_cy, 4).await, "ok");
    loop {
        let frame = to_bob.next().await.unwrap();
        assert_ne!(frame["type"], "typing");
        if frame["type"] == "entries" {
            break;
        }
    }
    // Bob may write, and that allows Mal to write.
    assert_eq!(stage.say(&bob, &with_mal, 5).await, "ok");
    assert_eq!(stage.say(&mal, &with_mal, 6).await, "ok");
}
