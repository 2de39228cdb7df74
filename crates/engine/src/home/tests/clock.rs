//! A wall clock that steps or stands still: no wait becomes longer.

use std::time::Duration;

use madang_ids::Millis;

use super::stage::{Stage, detail, react, send};
use super::transcripts::{ANNA, BERT, CARL, script, text};
use super::world::{Fate, Kind};
use crate::home::DetailChange;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Back, far back, and forward by more than a refresh token lasts.
const STEPS_MS: [i64; 4] = [-HOUR_MS, -100 * DAY_MS, HOUR_MS, 100 * DAY_MS];

/// A group of three in which Bert has said something at place 5.
fn stage() -> Stage {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT, CARL]);
    stage.ask(0, send(None, BERT, 1, "tea"));
    stage.run();
    stage
}

fn step(stage: &mut Stage, by_ms: i64) {
    stage.now.at = Millis::new(stage.now.at.get().saturating_add_signed(by_ms));
}

#[test]
fn reactions_are_answered_within_a_second_of_the_steady_clock() {
    for by_ms in STEPS_MS {
        let mut stage = stage();
        stage.ask(0, react(ANNA, 5, "+1", true));
        stage.run();
        step(&mut stage, by_ms);
        let before = stage.now.elapsed;
        let second = stage.ask(0, react(BERT, 5, "+1", true));
        stage.run();
        assert_eq!(text(&stage, second), "changed 5 to 3 at 7", "after a step of {by_ms} ms");
        assert!(stage.now.elapsed - before <= Duration::from_secs(1), "after a step of {by_ms} ms");
    }
}

#[test]
fn slow_mode_ends_by_the_steady_clock() {
    for by_ms in STEPS_MS {
        // The home that saw the message, and one that found it at the end of the log.
        for home in [0, 1] {
            let mut stage = stage();
            stage.ask(0, detail(ANNA, DetailChange::SlowMode(10)));
            stage.ask(0, send(None, CARL, 1, "one"));
            stage.run();
            step(&mut stage, by_ms);
            stage.ask(home, send(None, CARL, 2, "two"));
            stage.run();
            stage.now = stage.now.plus(Duration::from_secs(10));
            let later = stage.ask(home, send(None, CARL, 3, "three"));
            stage.run();
            assert!(text(&stage, later).starts_with("sent"), "home {home} after a step of {by_ms} ms");
        }
    }
}

/// A step forward must not let a member speak early at the home that saw the message.
#[test]
fn slow_mode_does_not_end_with_a_step() {
    for by_ms in STEPS_MS {
        let mut stage = stage();
        stage.ask(0, detail(ANNA, DetailChange::SlowMode(10)));
        stage.ask(0, send(None, CARL, 1, "one"));
        stage.run();
        step(&mut stage, by_ms);
        let second = stage.ask(0, send(None, CARL, 2, "two"));
        stage.run();
        assert_eq!(text(&stage, second), "limited", "after a step of {by_ms} ms");
    }
}

#[test]
fn what_waits_for_a_slow_store_is_not_late_by_a_step() {
    for by_ms in STEPS_MS {
        let mut stage = stage();
        let first = stage.ask(0, send(None, ANNA, 1, "one"));
        stage.step(0);
        let second = stage.ask(0, send(None, CARL, 1, "two"));
        step(&mut stage, by_ms);
        stage.run();
        assert_eq!([first, second].map(|ticket| text(&stage, ticket)), ["sent 6", "sent 7"]);
    }
}

#[test]
fn a_gate_opens_by_the_steady_clock() {
    for by_ms in STEPS_MS {
        let mut stage = stage();
        script(&mut stage, Kind::Append, Fate::Unavailable);
        stage.ask(0, send(Some(7), ANNA, 1, "one"));
        stage.run();
        step(&mut stage, by_ms);
        let behind = stage.ask(0, send(Some(7), ANNA, 2, "two"));
        stage.run();
        assert_eq!(text(&stage, behind), "unavailable", "after a step of {by_ms} ms");
        stage.now = stage.now.plus(Duration::from_secs(2));
        let later = stage.ask(0, send(Some(7), ANNA, 3, "three"));
        stage.run();
        assert_eq!(text(&stage, later), "sent 6", "after a step of {by_ms} ms");
    }
}
