//! Faults in a whole fleet: nobody who is there is shown as offline, and 30 s later every connection knows who is there.

use super::world::{Placement, Plant, World};

/// G6.
const RIGHT_AFTER: u64 = 30;
const PLACEMENTS: [Placement; 2] = [Placement::Apart, Placement::Inside];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillCore,
    RestartCore,
    PauseCore(u64),
    KillNode,
    RestartNode,
    PauseNode(u64),
    DrainCore,
    JoinAgain,
    Loss,
}

const FAULTS: [Fault; 13] = [
    Fault::KillCore,
    Fault::RestartCore,
    Fault::PauseCore(40),
    Fault::PauseCore(12),
    Fault::PauseCore(5),
    Fault::KillNode,
    Fault::RestartNode,
    Fault::PauseNode(40),
    Fault::PauseNode(12),
    Fault::PauseNode(5),
    Fault::DrainCore,
    Fault::JoinAgain,
    Fault::Loss,
];

fn pick(world: &mut World, all: &[u16]) -> u16 {
    all[world.roll(all.len() as u64) as usize]
}

/// Puts a fault into the world. Returns the seconds after which it is over.
fn strike(world: &mut World, fault: Fault) -> u64 {
    let (nodes, cores) = (world.nodes(), world.cores());
    match fault {
        Fault::KillCore | Fault::RestartCore | Fault::JoinAgain => {
            // Those who leave now are known to be offline by the core that dies, or by nobody.
            world.leave();
            world.leave();
            let core = pick(world, &cores);
            world.kill(core);
            match fault {
                Fault::RestartCore => {
                    let after = 1 + world.roll(8);
                    churn(world, after);
                    world.start(core);
                }
                Fault::JoinAgain => {
                    churn(world, 30);
                    world.start(core);
                }
                _ => {}
            }
            0
        }
        Fault::PauseCore(seconds) | Fault::PauseNode(seconds) => {
            let all = if matches!(fault, Fault::PauseCore(_)) { &cores } else { &nodes };
            let one = pick(world, all);
            world.pause(one, seconds);
            seconds
        }
        Fault::KillNode => {
            let node = pick(world, &nodes);
            world.kill(node);
            0
        }
        Fault::RestartNode => {
            let node = pick(world, &nodes);
            world.kill(node);
            let after = 1 + world.roll(8);
            churn(world, after);
            world.start(node);
            0
        }
        Fault::DrainCore => {
            let core = pick(world, &cores);
            world.drain(core, (250, 6_000));
            // The grace period of a drain is 30 s.
            5
        }
        Fault::Loss => {
            world.loss = 40;
            churn(world, 8);
            world.loss = 0;
            0
        }
    }
}

/// What users do meanwhile.
fn churn(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        match world.roll(10) {
            0 => world.leave(),
            1..=3 => world.set_text(),
            4..=6 => world.flicker(),
            _ => {}
        }
        world.pass(1);
    }
}

fn run(placement: Placement, fault: Fault, loss: u64, seed: u64, plant: Option<Plant>) {
    let mut world = World::new(placement, seed, plant);
    world.flickers = loss == 0 && fault != Fault::Loss;
    let before = 3 + world.roll(5);
    churn(&mut world, before);
    world.loss = loss;
    let lasts = strike(&mut world, fault);
    let more = if seed.is_multiple_of(2) { 0 } else { 4 };
    churn(&mut world, more);
    world.loss = 0;
    if lasts > RIGHT_AFTER {
        // The others are right while the process is still paused.
        world.pass(RIGHT_AFTER);
        world.check_right();
        world.pass(lasts - RIGHT_AFTER - more);
    } else {
        world.pass(lasts.saturating_sub(more));
    }
    world.pass(RIGHT_AFTER);
    world.check_right();
    world.pass(60);
    world.check_right();
}

/// The seeds are fixed; `PRESENCE_SEEDS` asks for more.
fn seeds(few: u64) -> u64 {
    std::env::var("PRESENCE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

fn run_all(seeds: u64, faults: &[Fault], loss: u64, plant: Option<Plant>) {
    for seed in 0..seeds {
        for placement in PLACEMENTS {
            for fault in faults {
                let run = || run(placement, *fault, loss, seed, plant);
                if let Err(panic) = std::panic::catch_unwind(run) {
                    let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    panic!("{placement:?} {fault:?}, {loss} % lost, seed {seed}: {said}");
                }
            }
        }
    }
}

#[test]
fn after_any_fault_presence_is_right_and_nobody_was_offline_meanwhile() {
    run_all(seeds(3), &FAULTS, 0, None);
}

#[test]
fn after_any_fault_with_losses_too() {
    run_all(seeds(3), &FAULTS, 25, None);
}

#[test]
fn each_mechanism_is_needed() {
    let plants = [
        (Plant::Asking, Fault::Loss),
        (Plant::Missed, Fault::Loss),
        (Plant::LiveNodes, Fault::KillCore),
        (Plant::Pause, Fault::PauseCore(12)),
    ];
    for (plant, fault) in plants {
        let found = std::panic::catch_unwind(|| run_all(40, &[fault], 0, Some(plant)));
        assert!(found.is_err(), "{plant:?} is not noticed");
    }
}

/// A rolling restart with clients that take longer than an ordinary grace period to come back.
fn roll_through(placement: Placement, seed: u64, plant: Option<Plant>) {
    let mut world = World::new(placement, seed, plant);
    for number in [1, 2, 3, 11, 12, 13] {
        if world.nodes().contains(&number) || world.cores().contains(&number) {
            world.drain(number, (11_000, 16_000));
            world.pass(20);
            world.start(number);
            world.pass(20);
        }
    }
    world.pass(30);
    world.check_right();
}

#[test]
fn nobody_is_offline_during_a_rolling_restart() {
    for seed in 0..seeds(6) {
        PLACEMENTS.into_iter().for_each(|placement| roll_through(placement, seed, None));
    }
}

#[test]
fn a_rolling_restart_needs_the_handing_over() {
    let all = || {
        for seed in 0..12 {
            roll_through(Placement::Inside, seed, Some(Plant::HandOver));
        }
    };
    assert!(std::panic::catch_unwind(all).is_err());
}
