//! A worker that dies at any moment, a provider that lies, and a user with two devices: nobody is alerted twice of a message (G9), and
//! nobody of what was received or read.
//!
//! The store and the worker are those of a shell, as small as they can be. Mutants of it must be found.

use std::collections::{BTreeMap, BTreeSet};

use madang_ids::{ChannelId, Cursor, DeviceId, Epoch, Millis, Position, Seq, UserId};
use madang_proto::ChannelKind;
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
    /// A worker takes a job that is due, and makes its calls.
    Work {
        target: usize,
    },
    /// The answers to calls arrive at the worker.
    Answer {
        outcomes: [Outcome; 2],
    },
    /// The worker dies, and another one begins.
    Crash,
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
    ClaimedAfterTheCall,
    ReceivedIsIgnored,
    ReadIsIgnored,
}

struct Call {
    device: DeviceId,
    job: Job,
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
    jobs: BTreeMap<Target, Job>,
    /// Lost with the worker.
    calls: Vec<Call>,
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
            jobs: BTreeMap::new(),
            calls: Vec::new(),
            shown: BTreeMap::new(),
        }
    }

    fn put(&mut self, job: Job) {
        match self.jobs.get_mut(&job.target) {
            Some(known) => known.absorb(job),
            None => drop(self.jobs.insert(job.target, job)),
        }
    }

    fn step(&mut self, action: Action) -> Result<(), TestCaseError> {
        match action {
            Action::Send => {
                self.head += 1;
                let at = Cursor { epoch: EPOCH, position: Position::new(self.head) };
                let (due_at, expires_at) = (self.now.plus(DELAY_MS), self.now.plus(600_000));
                match self.jobs.get_mut(&Target::User) {
                    Some(job) => job.fold(Seq::new(self.head), at, expires_at),
                    None => self.put(Job::new(ME, CHANNEL, Seq::new(self.head), at, due_at, expires_at)),
                }
            }
            Action::Receive { device } => self.received[device].position = Position::new(self.head),
            Action::Read => self.read = Seq::new(self.head),
            Action::Work { target } => self.work(target)?,
            Action::Answer { outcomes } => self.answer(outcomes),
            Action::Crash => self.calls.clear(),
            Action::Wait { seconds } => self.now = self.now.plus(seconds * 1_000),
        }
        Ok(())
    }

    fn work(&mut self, target: usize) -> Result<(), TestCaseError> {
        let due: Vec<Target> =
            self.jobs.values().filter(|job| job.due_at <= self.now).map(|job| job.target).collect();
        let Some(target) = due.get(target % due.len().max(1)) else { return Ok(()) };
        let job = self.jobs[target].clone();
        let received = if self.flaw == Flaw::ReceivedIsIgnored { &[][..] } else { &self.received };
        let candidates: Vec<Candidate> = job
            .not_received(received)
            .map(|seq| Candidate {
                seq,
                sender: ADA,
                names_user: false,
                is_deleted: false,
                is_blocked: false,
            })
            .collect();
        let read = if self.flaw == Flaw::ReadIsIgnored { Seq::ZERO } else { self.read };
        let decision = decide(&Situation {
            now: self.now,
            user: ME,
            is_active: true,
            member_from: Some(Seq::new(1)),
            kind: ChannelKind::Direct,
            level: Level::All,
            muted_until: None,
            quiet: None,
            read,
            candidates: &candidates,
        });
        if self.flaw != Flaw::ClaimedAfterTheCall {
            self.jobs.remove(target);
        }
        let Decision::Alert(alert) = decision else {
            self.jobs.remove(target);
            return Ok(());
        };
        let messages: Vec<Seq> = candidates.iter().map(|it| it.seq).filter(|seq| *seq > read).collect();
        prop_assert_eq!((alert.count, Some(&alert.about)), (messages.len(), messages.last()));
        for seq in &messages {
            prop_assert!(*seq > self.read, "{seq} was read");
            let is_received = self.received.iter().any(|cursor| cursor.position.get() >= seq.get());
            prop_assert!(!is_received, "{seq} was received");
        }
        let devices = match target {
            Target::User => self.subscribed.iter().copied().collect(),
            Target::Device(device) => vec![*device],
        };
        for device in devices {
            self.calls.push(Call { device, job: job.clone(), messages: messages.clone() });
        }
        Ok(())
    }

    fn answer(&mut self, outcomes: [Outcome; 2]) {
        for (call, outcome) in std::mem::take(&mut self.calls).into_iter().zip(outcomes.into_iter().cycle()) {
            if matches!(outcome, Outcome::Taken | Outcome::TakenAndSilent) {
                for seq in &call.messages {
                    *self.shown.entry((call.device, *seq)).or_default() += 1;
                }
            }
            let verdict = match outcome {
                Outcome::Taken => Verdict::Delivered,
                Outcome::NotTaken => Verdict::NotTaken { after: None },
                Outcome::TakenAndSilent | Outcome::LostAndSilent if self.flaw == Flaw::UnknownIsRepeated => {
                    Verdict::NotTaken { after: None }
                }
                Outcome::TakenAndSilent | Outcome::LostAndSilent => Verdict::Unknown,
                Outcome::Gone => Verdict::Gone { at: None },
            };
            let next = after(&Answered {
                verdict,
                now: self.now,
                attempt: call.job.attempt,
                expires_at: call.job.expires_at,
                registered_at: Millis::ZERO,
                seed: call.device.raw(),
            });
            if self.flaw == Flaw::ClaimedAfterTheCall {
                self.jobs.remove(&call.job.target);
            }
            match next {
                Next::Again { at } | Next::Pause { at } => self.put(call.job.again_for(call.device, at)),
                Next::Remove => drop(self.subscribed.remove(&call.device)),
                Next::Done | Next::Mark | Next::Dead(_) => {}
            }
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
        4 => (0..3_usize).prop_map(|target| Action::Work { target }),
        4 => [outcome(), outcome()].prop_map(|outcomes| Action::Answer { outcomes }),
        1 => Just(Action::Crash),
        3 => (1..20_u64).prop_map(|seconds| Action::Wait { seconds }),
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
    let flaws =
        [Flaw::UnknownIsRepeated, Flaw::ClaimedAfterTheCall, Flaw::ReceivedIsIgnored, Flaw::ReadIsIgnored];
    for flaw in flaws {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(2_000) });
        let found = runner.run(&prop::collection::vec(action(), 1..120), |actions| holds(flaw, &actions));
        assert!(found.is_err(), "{flaw:?} was not found");
    }
}
