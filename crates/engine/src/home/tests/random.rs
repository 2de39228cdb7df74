//! Random runs of two homes on one log, with faults from a seed.

use madang_ids::Seq;
use madang_proto::ChannelKind;
use proptest::prelude::*;

use super::invariants::{check, check_at_rest};
use super::stage::{Stage, delete, edit, react, reply_text, restrict, seats, send, user};
use crate::home::{Command, Reply, RestrictionKind, Ticket, WINDOW_ROWS};
use crate::seats::Member;

/// The next event of a run.
#[derive(Debug, Clone)]
enum Happening {
    /// On one of the sender's connections to a home; the connections of two homes are different ones.
    Send {
        home: usize,
        connection: u64,
        sender: u64,
        key: u64,
        text: u64,
    },
    /// New messages, more than the window holds if it happens twice.
    Many {
        home: usize,
        sender: u64,
        count: u64,
    },
    /// Changes of a random row, which may be no message; most are refused.
    Edit {
        home: usize,
        by: u64,
        target: u64,
        text: u64,
    },
    Delete {
        home: usize,
        by: u64,
        target: u64,
    },
    React {
        home: usize,
        by: u64,
        target: u64,
        on: bool,
    },
    Restrict {
        home: usize,
        user: u64,
        is_ban: bool,
        is_on: bool,
    },
    Join {
        home: usize,
        joins: Vec<u64>,
    },
    Leave {
        home: usize,
        by: u64,
        leaves: Vec<u64>,
    },
    /// Users join or leave by themselves, all at once.
    Own {
        home: usize,
        changes: Vec<(u64, bool)>,
    },
    /// The home works; the other one does not.
    Work {
        home: usize,
        stages: u64,
    },
    /// The user's own partitions become unavailable, or available again.
    Gone {
        user: u64,
        is_gone: bool,
    },
    /// Its process dies; the effect that was out happened, or not.
    Crash {
        home: usize,
        is_done: bool,
    },
    Forget {
        home: usize,
    },
    /// The clock of the node steps, also back.
    Clock {
        ms: i64,
    },
}

const CAPACITY: u32 = 5;

fn happening() -> impl Strategy<Value = Happening> {
    let home = || 0..2_usize;
    let text = prop_oneof![5 => Just(0_u64), 1 => Just(1)];
    prop_oneof![
        12 => (home(), 0..2_u64, 1..=6_u64, 0..12_u64, text).prop_map(|(home, connection, sender, key, text)| {
            Happening::Send { home, connection, sender, key, text }
        }),
        1 => (home(), 1..=3_u64, 100..300_u64)
            .prop_map(|(home, sender, count)| Happening::Many { home, sender, count }),
        4 => (home(), 1..=6_u64, 3..14_u64, 0..3_u64)
            .prop_map(|(home, by, target, text)| Happening::Edit { home, by, target, text }),
        1 => (home(), 1..=4_u64, 3..14_u64)
            .prop_map(|(home, by, target)| Happening::Delete { home, by, target }),
        4 => (home(), 1..=6_u64, 3..14_u64, any::<bool>())
            .prop_map(|(home, by, target, on)| Happening::React { home, by, target, on }),
        2 => (home(), 2..=9_u64, any::<bool>(), any::<bool>())
            .prop_map(|(home, user, is_ban, is_on)| Happening::Restrict { home, user, is_ban, is_on }),
        2 => (home(), prop::collection::vec(2..=9_u64, 1..4))
            .prop_map(|(home, joins)| Happening::Join { home, joins }),
        2 => (home(), any::<bool>(), prop::collection::vec(2..=9_u64, 1..3)).prop_map(|(home, is_own, leaves)| {
            Happening::Leave { home, by: if is_own { leaves[0] } else { 1 }, leaves }
        }),
        3 => (home(), prop::collection::vec((1..=9_u64, any::<bool>()), 1..7))
            .prop_map(|(home, changes)| Happening::Own { home, changes }),
        20 => (home(), 1..12_u64).prop_map(|(home, stages)| Happening::Work { home, stages }),
        1 => (home(), any::<bool>()).prop_map(|(home, is_done)| Happening::Crash { home, is_done }),
        1 => (1..=9_u64, any::<bool>()).prop_map(|(user, is_gone)| Happening::Gone { user, is_gone }),
        1 => home().prop_map(|home| Happening::Forget { home }),
        1 => (-5_000..5_000_i64).prop_map(|ms| Happening::Clock { ms }),
    ]
}

fn happen(stage: &mut Stage, happening: Happening, fresh: &mut u64) {
    match happening {
        Happening::Send { home, connection, sender, key, text } => {
            let origin = (home as u64) * 100 + sender * 10 + connection;
            stage.ask(home, send(Some(origin), sender, sender * 100 + key, &format!("{key} {text}")));
        }
        Happening::Many { home, sender, count } => {
            for _ in 0..count {
                *fresh += 1;
                stage.ask(
                    home,
                    send(Some(home as u64 * 100 + sender * 10), sender, 10_000 + *fresh, "one of many"),
                );
            }
        }
        Happening::Edit { home, by, target, text } => {
            stage.ask(home, edit(by, target, &format!("edited {text}"), None));
        }
        Happening::Delete { home, by, target } => drop(stage.ask(home, delete(by, target))),
        Happening::React { home, by, target, on } => drop(stage.ask(home, react(by, target, "+1", on))),
        Happening::Restrict { home, user, is_ban, is_on } => {
            let kind = if is_ban { RestrictionKind::Ban } else { RestrictionKind::Mute };
            stage.ask(home, restrict(1, user, kind, is_on));
        }
        Happening::Join { home, joins } => drop(stage.ask(home, seats(1, &joins, &[]))),
        Happening::Leave { home, by, leaves } => drop(stage.ask(home, seats(by, &[], &leaves))),
        Happening::Own { home, changes } => {
            for (user, comes) in changes {
                let (joins, leaves) = if comes { (vec![user], vec![]) } else { (vec![], vec![user]) };
                stage.ask(home, seats(user, &joins, &leaves));
            }
        }
        Happening::Work { home, stages } => {
            stage.now = stage.now.plus(std::time::Duration::from_millis(stages * 50));
            for _ in 0..stages {
                if !stage.step(home) {
                    break;
                }
            }
        }
        Happening::Gone { user: who, is_gone: true } => _ = stage.world.gone.insert(user(who)),
        Happening::Gone { user: who, is_gone: false } => _ = stage.world.gone.remove(&user(who)),
        Happening::Crash { home, is_done } => stage.crash(home, is_done),
        Happening::Forget { home } => stage.drivers[home].home.forget_members(),
        Happening::Clock { ms } => {
            stage.now.at = madang_ids::Millis::new(stage.now.at.get().saturating_add_signed(ms));
        }
    }
}

/// No more faults: the homes finish their commands, and a home without any state takes over.
fn come_to_rest(stage: &mut Stage) {
    stage.world.percent = 0;
    stage.world.gone.clear();
    stage.run();
    for home in 0..stage.drivers.len() {
        stage.crash(home, true);
        stage.ask(home, seats(1, &[], &[]));
    }
    stage.run();
    let reacted: Vec<u64> = stage.world.reactions.keys().map(|(target, _)| target.get()).collect();
    // The next reaction brings a row up to date that is behind its set; if nobody may react any more, it stays behind.
    for target in reacted {
        let may_react = |member: &&Member| {
            let is_readable = stage.is_open() || member.spans.contains(Seq::new(target));
            member.spans.is_open() && member.muted.is_none() && is_readable
        };
        match stage.world.members.values().find(may_react).map(|member| member.user_id.raw()) {
            Some(healer) => drop(stage.ask(0, react(healer, target, "+1", true))),
            None => drop(stage.world.behind.insert(Seq::new(target))),
        }
    }
    stage.run();
    check_at_rest(stage);
}

/// Every message that was acked is sent again, through each home: the ack is the same, and no row comes.
fn send_again(stage: &mut Stage) {
    let acked: Vec<(Command, String)> = stage
        .asked
        .values()
        .filter_map(|asked| match &asked.answer {
            Some((_, Reply::Sent(sent))) => {
                Some((asked.command.clone(), format!("sent {} before", sent.seq)))
            }
            _ => None,
        })
        .collect();
    let rows = stage.world.rows.len();
    // A user who has left gets no ack for a new message.
    let speaks = |command: &Command| {
        let sender = command.key().map(|key| key.sender);
        sender
            .and_then(|sender| stage.world.members.get(&sender))
            .is_some_and(|member| member.spans.is_open() && member.muted.is_none())
    };
    let acked: Vec<_> = acked.into_iter().filter(|(command, _)| speaks(command)).collect();
    let mut tickets: Vec<(Ticket, String)> = Vec::new();
    for (index, (command, expected)) in acked.into_iter().enumerate() {
        tickets.push((stage.ask(index % stage.drivers.len(), command), expected));
        if index % WINDOW_ROWS == 0 {
            stage.run();
        }
    }
    stage.run();
    for (ticket, expected) in tickets {
        assert_eq!(stage.answer(ticket).map(reply_text), Some(expected));
    }
    assert_eq!(stage.world.rows.len(), rows);
}

fn run(kind: ChannelKind, seed: u64, percent: u64, happenings: Vec<Happening>) {
    let mut stage = Stage::of(kind, 2, CAPACITY, seed);
    stage.create(&[1, 2, 3]);
    stage.world.percent = percent;
    let mut fresh = 0;
    for happening in happenings {
        happen(&mut stage, happening, &mut fresh);
    }
    check(&stage);
    come_to_rest(&mut stage);
    send_again(&mut stage);
    check_at_rest(&stage);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn two_homes_leave_one_true_log(
        kind in prop_oneof![Just(ChannelKind::Group), Just(ChannelKind::Open)],
        seed in any::<u64>(),
        percent in prop_oneof![Just(0_u64), Just(5), Just(30)],
        happenings in prop::collection::vec(happening(), 1..160),
    ) {
        run(kind, seed, percent, happenings);
    }
}
