//! Nobody becomes a member of a group without consent.

use std::collections::BTreeSet;
use std::time::Duration;

use madang_service::Clock;
use madang_testkit::{Faults, PATIENCE, Rest, Storage, TestNode};
use serde_json::{Value, json};

use crate::stage::{Person, Stage, config, id, noted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_invite_and_the_invited_user_joins() {
    let mut stage = Stage::new().await;
    let (ada, bob) = (stage.person().await, stage.person().await);
    let mut to_bob = stage.socket(&bob).await;
    let _ada_is_here = stage.socket(&ada).await;
    let view = stage.group(&ada, &[&bob]).await;
    assert_eq!(view["invited"], json!([bob.id]));
    let group = id(&view);
    let entry = noted(&mut to_bob).await;
    assert_eq!((&entry["kind"], &entry["channel_id"]), (&json!("invited"), &json!(group)));
    assert_eq!(
        (&entry["name"], &entry["by"], &entry["member_count"]),
        (&json!("Tea"), &json!(ada.id), &json!(1))
    );

    // Bob has no seat and uses no place for a channel; the group has no entry about him, and he can read nothing of it.
    let path = format!("/v1/channels/{group}");
    let members = stage.must(&ada, "GET", &format!("{path}/members"), Value::Null).await;
    assert_eq!(members["items"].as_array().unwrap().len(), 1);
    for read in
        [path.clone(), format!("{path}/members"), format!("{path}/entries"), format!("{path}/presence")]
    {
        assert_eq!(stage.outcome(&bob, "GET", &read, Value::Null).await, "not_found", "{read}");
    }
    assert_eq!(stage.must(&bob, "GET", "/v1/channels", Value::Null).await["items"], json!([]));
    assert_eq!(stage.must(&bob, "POST", "/v1/snapshot", json!({})).await["invitations"], 1);
    let page = stage.must(&bob, "GET", "/v1/invitations", Value::Null).await;
    let card = &page["items"][0];
    assert_eq!((&card["name"], &card["member_count"]), (&json!("Tea"), &json!(1)));
    assert_eq!(card["by"]["handle"], "person1");
    assert!(!stage.sees(&ada, &bob).await && !stage.sees(&bob, &ada).await);

    assert_eq!(stage.accept(&bob, &group).await, "ok");
    assert_eq!(noted(&mut to_bob).await["kind"], "channel_joined");
    assert_eq!(stage.accept(&bob, &group).await, "ok", "an answer may have been lost");
    assert_eq!(stage.waiting(&bob).await, [""; 0]);
    stage.comes_to_see(&ada, &bob).await;
    stage.comes_to_see(&bob, &ada).await;
    let history = stage.must(&bob, "GET", &format!("{path}/entries"), Value::Null).await;
    let first = &history["entries"][0];
    assert_eq!(
        (&first["kind"], &first["user_id"], &first["by"]),
        (&json!("joined"), &json!(bob.id), &json!(bob.id))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_added_at_once_as_the_table_says() {
    let mut stage = Stage::new().await;
    let (ada, helper) = (stage.person().await, stage.person().await);
    let shared = id(&stage.group(&ada, &[]).await);
    for (setting, stranger, member, contact) in [
        (None, false, true, true),
        (Some("everybody"), true, true, true),
        (Some("shared_channel"), false, true, true),
        (Some("contacts"), false, false, true),
    ] {
        for (relation, expected) in [
            ("stranger", stranger),
            ("member", member),
            ("contact", contact),
            ("direct", stranger),
            ("added", stranger),
        ] {
            let bob = stage.person().await;
            match relation {
                "member" => {
                    stage.add(&ada, &shared, &bob).await;
                    assert_eq!(stage.accept(&bob, &shared).await, "ok");
                }
                "contact" => stage.befriend(&ada, &bob).await,
                // One user alone can open a direct channel, and a group that was not accepted does not count as shared.
                "direct" => drop(stage.direct(&ada, &bob).await.unwrap()),
                "added" => {
                    stage.befriend(&helper, &bob).await;
                    let group = id(&stage.group(&helper, &[&bob]).await);
                    stage.befriend(&helper, &ada).await;
                    stage.add(&helper, &group, &ada).await;
                    assert_eq!(stage.say(&ada, &group, 1).await, "ok");
                }
                _ => {}
            }
            if let Some(setting) = setting {
                let me = stage.set(&bob, json!({ "may_add": setting })).await;
                assert_eq!(me["may_add"], setting);
            }
            let view = stage.group(&ada, &[&bob]).await;
            let is_added = view["invited"].is_null();
            assert_eq!(is_added, expected, "{relation}, may_add {setting:?}: {view}");
            let members = format!("/v1/channels/{}/members", id(&view));
            let members = stage.must(&ada, "GET", &members, Value::Null).await;
            assert_eq!(members["items"].as_array().unwrap().len(), 1 + usize::from(expected));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_use_up_only_their_own_invitations() {
    let mut stage = Stage::new().await;
    let (bob, friend) = (stage.person().await, stage.person().await);
    let kept = id(&stage.group(&friend, &[&bob]).await);
    let mal = stage.person().await;
    let mut groups = Vec::new();
    for _ in 0..15 {
        groups.push(id(&stage.group(&mal, &[&bob]).await));
    }
    let waiting: BTreeSet<String> = stage.waiting(&bob).await.into_iter().collect();
    let expected: BTreeSet<String> = groups[5..].iter().cloned().chain([kept.clone()]).collect();
    assert_eq!(waiting, expected, "of one inviter the last ten, and none of others goes for them");
    // A hundred strangers: the oldest invitation is dropped, and Bob can still create and join channels.
    for _ in 0..100 {
        let stranger = stage.person().await;
        stage.group(&stranger, &[&bob]).await;
    }
    assert_eq!(stage.waiting(&bob).await.len(), 100);
    assert_eq!(stage.must(&bob, "GET", "/v1/channels", Value::Null).await["items"], json!([]));
    stage.befriend(&friend, &bob).await;
    assert!(stage.group(&friend, &[&bob]).await["invited"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_invitation_is_not_repeated_and_the_inviter_cannot_tell() {
    let mut stage = Stage::new().await;
    let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
    stage.must(&cy, "PUT", &format!("/v1/blocks/{}", ada.id), Value::Null).await;
    let view = stage.group(&ada, &[&bob, &cy]).await;
    let group = id(&view);
    let both: BTreeSet<_> = view["invited"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(both.len(), 2, "somebody who blocks the inviter is invited like others");
    assert_eq!(stage.waiting(&cy).await, [""; 0]);
    stage.decline(&bob, &group).await;
    stage.decline(&bob, &group).await;
    let mut to_bob = stage.socket(&bob).await;
    let mut to_cy = stage.socket(&cy).await;
    for who in [&bob, &cy] {
        for _ in 0..2 {
            assert_eq!(stage.add(&ada, &group, who).await["invited"], json!([who.id]));
        }
        assert_eq!(stage.waiting(who).await, [""; 0]);
        assert_eq!(stage.accept(who, &group).await, "not_found");
    }
    // A note about the invitation would arrive before the notes of these calls.
    for (who, socket) in [(&bob, &mut to_bob), (&cy, &mut to_cy)] {
        stage.set(who, json!({ "may_write": "contacts" })).await;
        assert_eq!(noted(socket).await["kind"], "account_settings");
    }
    // Taking it back gets the same answer, and deletes nothing.
    for who in [&bob, &cy] {
        let path = format!("/v1/channels/{group}/members/{}", who.id);
        assert_eq!(stage.outcome(&ada, "DELETE", &path, Value::Null).await, "ok");
        assert_eq!(stage.add(&ada, &group, who).await["invited"], json!([who.id]));
        assert_eq!(stage.waiting(who).await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_does_not_reveal_what_became_of_an_invitation() {
    let mut stage = Stage::new().await;
    let (ada, waits, declines) = (stage.person().await, stage.person().await, stage.person().await);
    let (blocks, uninvited, cy) = (stage.person().await, stage.person().await, stage.person().await);
    stage.must(&blocks, "PUT", &format!("/v1/blocks/{}", ada.id), Value::Null).await;
    let group = id(&stage.group(&ada, &[&waits, &declines, &blocks, &cy]).await);
    stage.decline(&declines, &group).await;
    assert_eq!(stage.accept(&cy, &group).await, "ok");
    for who in [&waits, &declines, &blocks, &uninvited] {
        let path = format!("/v1/channels/{group}/members/{}", who.id);
        assert_eq!(stage.outcome(&cy, "DELETE", &path, Value::Null).await, "forbidden");
        for _ in 0..2 {
            assert_eq!(stage.outcome(&ada, "DELETE", &path, Value::Null).await, "ok");
        }
    }
    let unknown = format!("/v1/channels/{group}/members/77");
    assert_eq!(stage.outcome(&ada, "DELETE", &unknown, Value::Null).await, "not_found");
    assert_eq!(stage.outcome(&cy, "DELETE", &unknown, Value::Null).await, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_the_right_to_add_learns_nothing_about_named_users() {
    let mut settings = config();
    settings.channels.per_user = 2;
    let storage = Storage::embedded();
    let node = TestNode::start_asking(settings, &storage, Clock::system()).await.unwrap();
    let mut stage = Stage { rest: Rest::new(&node.url()), node, people: 0 };
    let (ada, bob, cy, full) =
        (stage.person().await, stage.person().await, stage.person().await, stage.person().await);
    let group = id(&stage.group(&ada, &[&bob]).await);
    assert_eq!(stage.accept(&bob, &group).await, "ok");
    stage.must(&ada, "PUT", &format!("/v1/channels/{group}/bans/{}", cy.id), json!({})).await;
    stage.set(&full, json!({ "may_add": "everybody" })).await;
    for _ in 0..2 {
        stage.group(&full, &[]).await;
    }
    let members = format!("/v1/channels/{group}/members");
    let mut refusals = BTreeSet::new();
    for who in [cy.id.as_str(), &full.id, &stage.person().await.id, "77"] {
        let wish = json!({ "user_ids": [who] });
        let refused = stage.rest.call("PUT", &members, Some(&bob.token), None, Some(&wish)).await.unwrap();
        refusals.insert((refused.status, refused.body["message"].to_string()));
    }
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals.first().unwrap().0, 403);
    assert_eq!(stage.add_outcome(&ada, &group, &cy).await, "forbidden");
    assert_eq!(stage.add_outcome(&ada, &group, &full).await, "full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_ends_with_the_group_the_inviter_or_the_user() {
    for way in [
        "withdrawn",
        "banned",
        "blocked by",
        "blocks",
        "deleted",
        "archived",
        "inviter left",
        "inviter deleted",
        "user deleted",
    ] {
        let mut stage = Stage::new().await;
        let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
        stage.befriend(&ada, &cy).await;
        let group = id(&stage.group(&ada, &[&bob, &cy]).await);
        let mut to_bob = stage.socket(&bob).await;
        assert_eq!(stage.waiting(&bob).await, std::slice::from_ref(&group));
        let path = format!("/v1/channels/{group}");
        let deletion = json!({ "password": "correct horse" });
        let (who, method, at, body) = match way {
            "withdrawn" => (&ada, "DELETE", format!("{path}/members/{}", bob.id), Value::Null),
            "banned" => (&ada, "PUT", format!("{path}/bans/{}", bob.id), json!({})),
            "blocked by" => (&bob, "PUT", format!("/v1/blocks/{}", ada.id), Value::Null),
            "blocks" => (&ada, "PUT", format!("/v1/blocks/{}", bob.id), Value::Null),
            "deleted" => (&ada, "DELETE", path.clone(), Value::Null),
            "archived" => (&ada, "PATCH", path.clone(), json!({ "archived": true })),
            "inviter left" => (&ada, "DELETE", format!("{path}/members/{}", ada.id), Value::Null),
            "inviter deleted" => (&ada, "POST", "/v1/me/deletion".into(), deletion),
            _ => (&bob, "POST", "/v1/me/deletion".into(), deletion),
        };
        stage.must(who, method, &at, body).await;
        if way == "user deleted" {
            // The account is cleared in the background.
            continue;
        }
        let is_noted =
            matches!(way, "withdrawn" | "banned" | "blocked by" | "blocks" | "deleted" | "inviter deleted");
        if is_noted {
            let entry = noted(&mut to_bob).await;
            assert_eq!(
                (&entry["kind"], &entry["channel_id"]),
                (&json!("invitation_removed"), &json!(group)),
                "{way}"
            );
        }
        assert_eq!(stage.waiting(&bob).await, [""; 0], "{way}");
        let refused = stage.accept(&bob, &group).await;
        assert!(matches!(refused.as_str(), "not_found" | "forbidden"), "{way}: {refused}");
        if way == "archived" {
            stage.must(&ada, "PATCH", &path, json!({ "archived": false })).await;
            assert_eq!(stage.accept(&bob, &group).await, "ok", "it holds again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_survives_the_death_of_a_node() {
    let storage = Storage::embedded();
    let mut stage = Stage::over(&storage).await;
    let (ada, bob) = (stage.person().await, stage.person().await);
    let wish = json!({ "kind": "group", "name": "Tea", "members": [bob.id] });
    let key = "the-one-group";
    let first =
        stage.rest.call("POST", "/v1/channels", Some(&ada.token), Some(key), Some(&wish)).await.unwrap();
    stage.node.stop().await.unwrap();
    let again = Stage::over(&storage).await;
    assert_eq!(again.waiting(&bob).await, [id(&first.body)]);
    let second =
        again.rest.call("POST", "/v1/channels", Some(&ada.token), Some(key), Some(&wish)).await.unwrap();
    assert_eq!((&second.body["id"], &second.body["invited"]), (&first.body["id"], &json!([bob.id])));
    // A repeated creation does not bring back an invitation that was taken back.
    let group = id(&first.body);
    let path = format!("/v1/channels/{group}/members/{}", bob.id);
    again.must(&ada, "DELETE", &path, Value::Null).await;
    again.rest.call("POST", "/v1/channels", Some(&ada.token), Some(key), Some(&wish)).await.unwrap();
    assert_eq!(again.waiting(&bob).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_failed_half_way_is_repeated_with_its_invitations() {
    let storage = Storage::model();
    let mut stage = Stage::over(&storage).await;
    let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
    stage.befriend(&ada, &cy).await;
    // From the second group on Ada and Bob share a group.
    stage.set(&bob, json!({ "may_add": "contacts" })).await;
    let mut to_bob = stage.socket(&bob).await;
    for round in 0..20 {
        let wish = json!({ "kind": "group", "name": format!("Tea {round}"), "members": [bob.id, cy.id] });
        let key = format!("group-number-{round}");
        storage.set_faults(Faults::ROUGH);
        let made = async {
            loop {
                let call = stage.rest.call("POST", "/v1/channels", Some(&ada.token), Some(&key), Some(&wish));
                match call.await.unwrap() {
                    answer if answer.status == 201 => return answer.body,
                    answer => assert!(answer.status >= 500, "{answer:?}"),
                }
            }
        };
        let view = tokio::time::timeout(PATIENCE, made).await.expect("it is made");
        storage.set_faults(Faults::NONE);
        assert_eq!(view["invited"], json!([bob.id]), "round {round}");
        let group = id(&view);
        // Noted at least once, perhaps by upkeep.
        let told = async {
            loop {
                let entry = noted(&mut to_bob).await;
                if entry["kind"] == "invited" && entry["channel_id"] == json!(group) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told");
        assert_eq!(stage.accept(&bob, &group).await, "ok", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_500_is_decided_in_one_read() {
    let mut config = config();
    config.channels.group_members = 500;
    let storage = Storage::embedded();
    let node = TestNode::start_asking(config, &storage, Clock::system()).await.unwrap();
    let mut stage = Stage { rest: Rest::new(&node.url()), node, people: 0 };
    let ada = stage.person().await;
    let mut people = Vec::new();
    for _ in 0..499 {
        people.push(stage.person().await);
    }
    let all: Vec<&Person> = people.iter().collect();
    let started = std::time::Instant::now();
    let view = stage.group(&ada, &all).await;
    let took = started.elapsed();
    assert_eq!(view["invited"].as_array().unwrap().len(), 499);
    assert_eq!(stage.waiting(&people[498]).await, [id(&view)]);
    assert!(took < Duration::from_secs(20), "{took:?}");
    println!("499 people are invited in {took:?}");
}
