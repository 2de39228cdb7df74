//! A worker that dies at any moment, a provider that lies, and a user with two devices: nobody is alerted twice of a message (G9), and
//! nobody of what was received or read.
//!
//! The record is the real one, and the shell around it as small as it can be. Mutants of the shell must be found.

use std::collections::{BTreeMap, BTreeSet};

use madang_engine::alerts::{CallEnd, Folded, Outstanding, Taking, Target};
use madang_ids::{ChannelId, Cursor, DeviceId, Epoch, Millis, Position, Seq, UserId};
use madang_proto::{AlertLevel, ChannelKind};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const ME: UserId = UserId::from_raw(1);
const ADA: UserId = UserId::from_raw(2);
const CHANNEL: ChannelId = ChannelId::from_raw(3);
const DEVICES: [DeviceId; 2] = [DeviceId::from_raw(10), DeviceId::from_raw(11)];
const EPOCH: Epoch = Epoch::from_raw(1);
const DELAY_MS: u64 = 5_000;

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Action {
    Send,
    Receive {
        device: usize,
    },
    Read,
    /// A worker looks at the record, and begins its calls.
    Work,
    /// The answers to calls arrive at the worker.
    Answer {
        outcomes: [Outcome; 2],
    },
    /// The worker dies with its calls, which the provider may have taken, and another one begins.
    Crash {
        outcomes: [Outcome; 2],
    },
    Wait {
        seconds: u64,
    },
}

/// What the provider does with a call. The first value: whether the alert is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Taken,
    NotTaken,
    TakenAndSilent,
    LostAndSilent,
    Gone,
}

/// What the shell does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    UnknownIsRepeated,
    AbandonedIsRepeated,
    WrittenAfterTheCall,
    ReceivedIsIgnored,
    ReadIsIgnored,
    BadgeIsCountedUp,
}

/// A call that is under way.
struct Call {
    device: DeviceId,
    messages: Vec<Seq>,
}

struct World {
    flaw: Flaw,
    now: Millis,
    head: u64,
    read: Seq,
    received: [Cursor; 2],
    subscribed: BTreeSet<DeviceId>,
    /// Durable.
    record: Outstanding,
    /// What the worker knows: the record as it has written it, and its calls. Lost with the worker.
    begun: Option<(Outstanding, Vec<Call>)>,
    badge: u64,
    /// How often a device was alerted of a message.
    shown: BTreeMap<(DeviceId, Seq), u32>,
}

impl World {
    fn new(flaw: Flaw) -> Self {
        let nothing = Cursor { epoch: EPOCH, position: Position::new(0) };
        Self {
            flaw,
            now: Millis::new(1_000_000),
            head: 0,
            read: Seq::ZERO,
            received: [nothing; 2],
            subscribed: DEVICES.into(),
            record: Outstanding::new(ME, CHANNEL),
            begun: None,
            badge: 0,
            shown: BTreeMap::new(),
        }
    }

    fn step(&mut self, action: Action) -> Result<(), TestCaseError> {
        match action {
            Action::Send => {
                self.head += 1;
                let at = Cursor { epoch: EPOCH, position: Position::new(self.head) };
                let (due_at, expires_at) = (self.now.plus(DELAY_MS), self.now.plus(600_000));
                self.record.fold(Folded::Message { seq: Seq::new(self.head), at, due_at, expires_at });
            }
            Action::Receive { device } => self.received[device].position = Position::new(self.head),
            Action::Read => {
                self.read = Seq::new(self.head);
                self.record.fold(Folded::Read { seq: self.read, at: self.now });
            }
            Action::Work => self.work()?,
            Action::Answer { outcomes } => self.answer(outcomes),
            Action::Crash { outcomes } => self.crash(outcomes),
            Action::Wait { seconds } => self.now = self.now.plus(seconds * 1_000),
        }
        Ok(())
    }

    fn work(&mut self) -> Result<(), TestCaseError> {
        if self.begun.is_some() || self.record.due_at().is_none_or(|at| at > self.now) {
            return Ok(());
        }
        if let Some(calls) = &self.record.held.calls {
            // Its worker is dead.
            let end = CallEnd::Again { at: self.now };
            let ends: Vec<_> = match self.flaw {
                Flaw::AbandonedIsRepeated => calls.devices.iter().map(|device| (*device, end)).collect(),
                _ => Vec::new(),
            };
            self.record = self.record.finish(&ends);
            return Ok(());
        }
        let Some((taking, job)) = self.record.due(self.now) else {
            let due = self.record.to_withdraw(self.now);
            let devices: Vec<_> = due.iter().map(|shown| shown.device).collect();
            self.record = self.record.withdrawn(&due, &devices, self.now);
            return Ok(());
        };
        let received = if self.flaw == Flaw::ReceivedIsIgnored { &[][..] } else { &self.received };
        let messages: Vec<Seq> = job.not_received(received).collect();
        match self.decide(&messages) {
            Decision::Drop(_) => self.record = self.record.without(taking),
            Decision::Alert(alert) => self.begin(taking, &messages, alert)?,
        }
        Ok(())
    }

    fn decide(&self, messages: &[Seq]) -> Decision {
        let candidate = |seq: &Seq| Candidate {
            seq: *seq,
            sender: ADA,
            names_user: false,
            is_deleted: false,
            is_blocked: false,
        };
        let candidates: Vec<Candidate> = messages.iter().map(candidate).collect();
        decide(&Situation {
            now: self.now,
            user: ME,
            is_active: true,
            member_from: Some(Seq::new(1)),
            kind: ChannelKind::Direct,
            level: AlertLevel::All,
            muted_until: None,
            quiet: None,
            read: if self.flaw == Flaw::ReadIsIgnored { Seq::ZERO } else { self.read },
            candidates: &candidates,
        })
    }

    fn begin(&mut self, taking: Taking, messages: &[Seq], alert: Alert) -> Result<(), TestCaseError> {
        let seen = if self.flaw == Flaw::ReadIsIgnored { Seq::ZERO } else { self.read };
        let messages: Vec<Seq> = messages.iter().copied().filter(|seq| *seq > seen).collect();
        prop_assert_eq!((alert.count, Some(&alert.about)), (messages.len(), messages.last()));
        for seq in &messages {
            prop_assert!(*seq > self.read, "{seq} was read");
            let is_received = self.received.iter().any(|cursor| cursor.position.get() >= seq.get());
            prop_assert!(!is_received, "{seq} was received");
        }
        let unread = self.head - self.read.get();
        self.badge = match self.flaw {
            Flaw::BadgeIsCountedUp => self.badge + messages.len() as u64,
            _ => unread,
        };
        prop_assert_eq!(self.badge, unread, "the badge is the true count");
        let waits = |device: &DeviceId| {
            self.record.held.retries.iter().any(|retry| retry.target == Target::Device(*device))
        };
        let subscribed = self.subscribed.iter().copied();
        let (later, devices): (Vec<DeviceId>, Vec<DeviceId>) = match taking {
            Taking::Fresh => subscribed.partition(waits),
            Taking::Retry(target) => (vec![], subscribed.filter(|device| *device == target).collect()),
        };
        let later: Vec<_> = later.into_iter().map(|device| (device, self.now)).collect();
        let begun = self.record.begin(taking, &devices, &later, (self.now, self.now.plus(60_000)));
        let calls = devices.iter().map(|device| Call { device: *device, messages: messages.clone() });
        if !devices.is_empty() {
            self.begun = Some((begun.clone(), calls.collect()));
        }
        if self.flaw != Flaw::WrittenAfterTheCall || devices.is_empty() {
            self.record = begun;
        }
        Ok(())
    }

    fn show(&mut self, call: &Call, outcome: Outcome) {
        if matches!(outcome, Outcome::Taken | Outcome::TakenAndSilent) {
            for seq in &call.messages {
                *self.shown.entry((call.device, *seq)).or_default() += 1;
            }
        }
    }

    fn crash(&mut self, outcomes: [Outcome; 2]) {
        let calls = self.begun.take().map(|(_, calls)| calls).unwrap_or_default();
        for (call, outcome) in calls.into_iter().zip(outcomes.into_iter().cycle()) {
            self.show(&call, outcome);
        }
    }

    fn answer(&mut self, outcomes: [Outcome; 2]) {
        let Some((begun, calls)) = self.begun.take() else { return };
        let mut ends = Vec::new();
        for (call, outcome) in calls.into_iter().zip(outcomes.into_iter().cycle()) {
            self.show(&call, outcome);
            ends.push((call.device, self.end(&begun, call.device, outcome)));
        }
        if self.flaw == Flaw::WrittenAfterTheCall {
            self.record = Outstanding { fresh: None, ..begun.clone() };
        }
        // A record whose lease has passed was ended by another worker.
        if self.record.held == begun.held {
            let ended = begun.finish(&ends);
            self.record = Outstanding { fresh: self.record.fresh.clone(), ..ended };
        }
    }

    fn end(&mut self, begun: &Outstanding, device: DeviceId, outcome: Outcome) -> CallEnd {
        let verdict = match outcome {
            Outcome::Taken => Verdict::Delivered,
            Outcome::NotTaken => Verdict::NotTaken { after: None },
            Outcome::TakenAndSilent | Outcome::LostAndSilent if self.flaw == Flaw::UnknownIsRepeated => {
                Verdict::NotTaken { after: None }
            }
            Outcome::TakenAndSilent | Outcome::LostAndSilent => Verdict::Unknown,
            Outcome::Gone => Verdict::Gone { at: None },
        };
        let job = begun.held.calls.as_ref().map(|calls| &calls.job);
        let next = after(&Answered {
            verdict,
            now: self.now,
            attempt: job.map_or(0, |job| job.attempt),
            expires_at: job.map_or(self.now, |job| job.expires_at),
            registered_at: Millis::ZERO,
            seed: device.raw(),
        });
        match next {
            Next::Again { at } | Next::Pause { at } => CallEnd::Again { at },
            Next::Remove => {
                self.subscribed.remove(&device);
                CallEnd::Over
            }
            Next::Done => CallEnd::Shown { until: self.now.plus(600_000) },
            Next::Mark | Next::Dead(_) => CallEnd::Over,
        }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Taken),
        3 => Just(Outcome::NotTaken),
        1 => Just(Outcome::TakenAndSilent),
        1 => Just(Outcome::LostAndSilent),
        1 => Just(Outcome::Gone),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Send),
        1 => (0..2_usize).prop_map(|device| Action::Receive { device }),
        1 => Just(Action::Read),
        4 => Just(Action::Work),
        4 => [outcome(), outcome()].prop_map(|outcomes| Action::Answer { outcomes }),
        1 => [outcome(), outcome()].prop_map(|outcomes| Action::Crash { outcomes }),
        3 => (1..40_u64).prop_map(|seconds| Action::Wait { seconds }),
    ]
}

fn holds(flaw: Flaw, actions: &[Action]) -> Result<(), TestCaseError> {
    let mut world = World::new(flaw);
    for action in actions {
        world.step(*action)?;
        let twice = world.shown.iter().find(|(_, count)| **count > 1);
        prop_assert!(twice.is_none(), "alerted twice: {twice:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config::with_cases(2_000))]

    #[test]
    fn nobody_is_alerted_twice_or_of_what_was_received_or_read(
        actions in prop::collection::vec(action(), 1..120)
    ) {
        holds(Flaw::None, &actions)?;
    }
}

#[test]
fn mutants_are_found() {
    let flaws = [
        Flaw::UnknownIsRepeated,
        Flaw::AbandonedIsRepeated,
        Flaw::WrittenAfterTheCall,
        Flaw::ReceivedIsIgnored,
        Flaw::ReadIsIgnored,
        Flaw::BadgeIsCountedUp,
    ];
    for flaw in flaws {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(2_000) });
        let found = runner.run(&prop::collection::vec(action(), 1..120), |actions| holds(flaw, &actions));
        assert!(found.is_err(), "{flaw:?} was not found");
    }
}
