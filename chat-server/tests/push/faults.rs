//! What push services do wrong: what was certainly not taken is sent again, and nothing else (G9).

use std::sync::Arc;
use std::time::Duration;

use madang_chat_server::operators::Who;
use madang_proto::PushProvider;
use madang_proto::rest::{ActKind, ActQuery, SendAgain};
use madang_push_sandbox::{ApnsToken, Delivery, Face, Fault, FcmToken, Notice};
use madang_testkit::PATIENCE;

use super::{Stage, apns, fcm};

/// Time after which what was not taken has been sent again.
const LATER: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_certainly_not_taken_is_sent_again_once() {
    for fault in [
        Fault::RefusedStream,
        Fault::GoAway,
        Fault::status(503, r#"{"reason":"Shutdown"}"#),
        Fault::status(429, r#"{"reason":"TooManyRequests"}"#),
    ] {
        let stage = Stage::new().await;
        stage.subscribe_bob().await;
        stage.sandbox().fail_next(Face::Apns, fault.clone(), 1);
        let seq = stage.say("hi").await;
        let first = stage.why(seq, |items| !items.is_empty()).await;
        assert_eq!(first[0]["outcome"], "not_taken", "{fault:?}: {first:?}");
        // If only the connection was at fault, it is sent again at once.
        stage.skip(Duration::from_secs(70)).await;
        assert_eq!(stage.outcomes(seq, 2).await, ["not_taken", "taken"], "{fault:?}");
        assert_eq!(stage.alerts(1).await, ["hi"]);
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_taken_is_never_sent_again() {
    for (fault, shown) in [
        (Fault::ResetAfterBody(Delivery::Delivered), 1),
        (Fault::ResetAfterBody(Delivery::Lost), 0),
        (Fault::CloseBeforeAnswer(Delivery::Delivered), 1),
        (Fault::status(500, r#"{"reason":"InternalServerError"}"#), 0),
    ] {
        let stage = Stage::new().await;
        stage.subscribe_bob().await;
        stage.sandbox().fail_next(Face::Apns, fault.clone(), 1);
        let seq = stage.say("hi").await;
        assert_eq!(stage.outcomes(seq, 1).await, ["unknown"], "{fault:?}");
        stage.skip(LATER).await;
        stage.skip(Duration::from_secs(3_600)).await;
        // The next message is another alert, and says how many are unread.
        let next = stage.say("there?").await;
        assert_eq!(stage.outcomes(next, 1).await, ["taken"], "{fault:?}");
        assert_eq!(stage.outcomes(seq, 1).await, ["unknown"], "{fault:?}");
        let texts = stage.alerts(shown + 1).await;
        assert_eq!(texts.last().unwrap(), "there? (+1)");
        assert_eq!(texts.len(), shown + 1, "{fault:?}");
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_a_call_leaves_an_unknown_outcome_and_nothing_stuck() {
    let mut stage = Stage::new().await;
    stage.subscribe_bob().await;
    stage.sandbox().fail_next(Face::Apns, Fault::Silence(Delivery::Delivered), 1);
    let seq = stage.say("hi").await;
    assert_eq!(stage.alerts(1).await, ["hi"], "the service has it, and the worker has no answer");
    stage.restart().await;
    stage.pass(70).await;
    assert_eq!(stage.outcomes(seq, 1).await, ["unknown"]);
    let next = stage.say("more").await;
    assert_eq!(stage.outcomes(next, 1).await, ["taken"]);
    assert_eq!(stage.alerts(2).await, ["hi", "more (+1)"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_written_before_a_crash_is_alerted_after_it() {
    let mut stage = Stage::new().await;
    stage.subscribe_bob().await;
    // The services are gone: every call fails before it begins, and is repeated later.
    stage.sandbox().set_all(Face::Apns, Fault::RefusedStream);
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 2).await, ["not_taken", "not_taken"], "the second one is sent at once");
    stage.restart().await;
    stage.sandbox().clear(Face::Apns);
    stage.pass(70).await;
    assert_eq!(stage.outcomes(seq, 3).await, ["not_taken", "not_taken", "taken"]);
    assert_eq!(stage.alerts(1).await, ["hi"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_gone_is_removed_unless_it_was_registered_again() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    let registered = stage.clock.now_ms().get();
    stage.sandbox().apns().set_token("b0b0", ApnsToken::Unregistered { at_ms: registered - 1 });
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["gone"]);
    let count = async || {
        let found = stage.rest().must("GET", "/v1/push/subscriptions", Some(&stage.bob.token), None).await;
        found["items"].as_array().unwrap().len()
    };
    assert_eq!(count().await, 1, "the app has registered the token since");
    stage.sandbox().apns().set_token("b0b0", ApnsToken::Unregistered { at_ms: registered });
    let seq = stage.say("two").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["gone"]);
    assert_eq!(count().await, 0);
    let seq = stage.say("three").await;
    assert_eq!(stage.clock.now_ms().get(), registered);
    // No alert is made for a user without a subscription.
    stage.subscribe(&stage.bob, fcm("token-b", stage.sandbox())).await;
    let next = stage.say("four").await;
    assert_eq!(stage.outcomes(next, 1).await, ["taken"]);
    assert_eq!(stage.why(seq, |_| true).await.len(), 0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_environment_is_left_alone_until_it_is_registered_again() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    stage.sandbox().apns().set_token("b0b0", ApnsToken::OtherEnvironment);
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["wrong_environment"]);
    let found = stage.rest().must("GET", "/v1/push/subscriptions", Some(&stage.bob.token), None).await;
    assert_eq!(found["items"][0]["halted"], "wrong_environment");
    let seq = stage.say("two").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["dropped"], "nothing is sent to it");
    stage.sandbox().apns().set_token("b0b0", ApnsToken::Ok);
    stage.subscribe(&stage.bob, apns("b0b0", stage.sandbox())).await;
    let seq = stage.say("three").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_token_of_firebase_that_was_refused_is_renewed_at_once() {
    let stage = Stage::new().await;
    stage.subscribe(&stage.bob, fcm("token-b", stage.sandbox())).await;
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    stage.sandbox().fcm().expire_access_tokens();
    let seq = stage.say("two").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    assert_eq!(stage.sandbox().counters(Face::FcmGrant).requests, 2);
    stage.sandbox().fcm().set_token("token-b", FcmToken::Unregistered);
    let seq = stage.say("three").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["gone"]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_provider_token_costs_one_more_call_on_another_connection() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    // A younger token that is called expired says that the clock is wrong: then nothing is sent for a while.
    stage.skip(Duration::from_secs(1_500)).await;
    let before = stage.sandbox().counters(Face::Apns).connections;
    stage.sandbox().fail_next(Face::Apns, Fault::status(403, r#"{"reason":"ExpiredProviderToken"}"#), 1);
    let seq = stage.say("two").await;
    assert_eq!(stage.outcomes(seq, 2).await, ["not_taken", "taken"]);
    assert_eq!(stage.sandbox().counters(Face::Apns).connections, before + 1);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_a_service_refuses_is_a_dead_letter_and_can_be_sent_again() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    stage.sandbox().fail_next(Face::Apns, Fault::status(413, r#"{"reason":"PayloadTooLarge"}"#), 1);
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["refused"]);
    let operations = &stage.node().node.gateway.operations;
    let dead = operations.dead_letters(0).await.unwrap().items;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].note.last_seq.get(), dead[0].note.detail.contains("PayloadTooLarge")), (seq, true));
    let send_again = async |id: Option<&str>, why: &str, dry_run| {
        let ask = SendAgain { id: id.map(str::to_owned), why: why.to_owned(), dry_run };
        operations
            .send_again(&Who::local(), &ask)
            .await
            .map(|sent| sent.count)
            .map_err(|error| error.to_string())
    };
    for unknown in ["7", "seven"] {
        assert_eq!(send_again(Some(unknown), "", true).await, Err("id was not found".to_owned()));
    }
    assert_eq!(send_again(Some(&dead[0].id), "", true).await, Ok(1), "a dry run");
    assert!(send_again(None, "short", false).await.unwrap_err().starts_with("why has 5 characters"));
    assert_eq!(operations.dead_letters(0).await.unwrap().items.len(), 1);
    // While another call sends them, one is refused, and not recorded.
    let other = operations.sending_again.lock().await;
    assert!(send_again(None, "the message is shorter now", false).await.unwrap_err().contains("at present"));
    drop(other);
    assert_eq!(send_again(None, "the message is shorter now", false).await, Ok(1));
    let acts = operations.operators.acts(ActQuery::default()).await.unwrap().items;
    let [act] = &acts[..] else { panic!("one act is recorded: {acts:?}") };
    assert_eq!((act.what, &*act.change), (ActKind::AlertsSentAgain, "alerts: 1"));
    assert_eq!(stage.outcomes(seq, 2).await, ["refused", "taken"]);
    assert_eq!(stage.alerts(1).await, ["hi"]);
    let figures = operations.push.figures();
    let [apns] = &figures[..] else { panic!("one provider was called: {figures:?}") };
    assert_eq!((apns.provider, apns.taken, apns.dead, apns.halted), (PushProvider::Apns, 1, 1, 0));
    assert_eq!(operations.dead_letters(0).await.unwrap().items.len(), 0);
    assert_eq!(operations.redrive_dead_letters(None).await.unwrap(), 0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_that_is_called_expired_halts_the_provider() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    stage.sandbox().fail_next(Face::Apns, Fault::status(403, r#"{"reason":"ExpiredProviderToken"}"#), 1);
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["credential"]);
    stage.skip(Duration::from_secs(1_000)).await;
    assert_eq!(stage.outcomes(seq, 2).await, ["credential", "taken"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_user_reads_during_a_call_is_withdrawn_and_its_end_is_not_lost() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    stage.sandbox().fail_next(Face::Apns, Fault::Delay(Duration::from_millis(800)), 1);
    let seq = stage.say("hi").await;
    assert_eq!(stage.alerts(1).await, ["hi"]);
    let path = format!("/v1/channels/{}/read", stage.channel);
    let body = serde_json::json!({ "seq": seq });
    stage.rest().must("PUT", &path, Some(&stage.bob.token), Some(&body)).await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"], "its end was written");
    stage.skip(Duration::from_secs(4)).await;
    assert_eq!(stage.outcomes(seq, 2).await, ["taken", "withdrawn"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_withdrawn_once_although_the_record_changes_meanwhile() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    let path = format!("/v1/channels/{}/read", stage.channel);
    let body = serde_json::json!({ "seq": seq });
    stage.rest().must("PUT", &path, Some(&stage.bob.token), Some(&body)).await;
    stage.sandbox().fail_next(Face::Apns, Fault::Delay(Duration::from_millis(800)), 1);
    stage.skip(Duration::from_secs(4)).await;
    let silent = |notices: &[Arc<Notice>]| notices.iter().filter(|it| !it.is_visible).count();
    stage.sandbox().wait_for(|all| silent(all) == 1, PATIENCE).await.unwrap();
    // A message that comes during the call ends the lease of the queue.
    let later = stage.say("more").await;
    assert_eq!(stage.outcomes(later, 1).await, ["taken"]);
    assert_eq!(stage.outcomes(seq, 2).await, ["taken", "withdrawn"]);
    assert_eq!(silent(&stage.sandbox().notices()), 1);
    stage.end().await;
}
