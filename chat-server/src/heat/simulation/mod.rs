//! Simulates nodes and the traffic of their channels, with seeds, for what no example shows: that levels do not flap, that memory is
//! bounded, that nothing stays when its cause is gone.

mod world;

use std::f64::consts::TAU;

use madang_proto::rest::{OverrideCard, OverrideSettings};

use super::shared::{REPORTED, SENT, SUMMED};
use super::*;
use world::{Node, Room, START, World, zipf};

/// Subscribers are on these nodes. The last one has few of each channel.
const THREE: [f64; 3] = [0.7, 0.28, 0.02];

const BARS: [f64; 3] = [500.0, 2_000.0, 6_250.0];

fn shares(nodes: usize) -> &'static [f64] {
    if nodes == 1 { &[1.0] } else { &THREE }
}

/// The bars of a node that has learnt nothing, and that stay there whatever it does.
fn fixed_bars() -> HeatSettings {
    let mut settings = HeatSettings::default();
    settings.config.capacity.cap = BARS;
    settings.config.capacity.assumed = 1e9;
    settings
}

#[test]
fn a_rate_that_swings_around_a_bar_changes_the_level_no_more_than_it_must() {
    for nodes in [1, 3] {
        let mut world = World::new(1, &fixed_bars(), &vec![0; nodes]);
        let background = zipf(10, 8_000.0, nodes);
        let mut swings = Vec::new();
        for bar in BARS {
            for amplitude in [0.1, 0.35, 0.9] {
                for period in [40.0, 600.0] {
                    let room = Room::costing(bar, swings.len() as u64, 400, shares(nodes));
                    swings.push((room, bar, amplitude, period));
                }
            }
        }
        for second in 0..3_600 {
            let day = world.daytime();
            background.iter().for_each(|room| world.talk(room, day));
            for (room, _, amplitude, period) in &swings {
                world.talk(room, 1.0 + amplitude * (f64::from(second) * TAU / period).sin());
            }
            world.step();
        }
        for (room, bar, amplitude, period) in &swings {
            let (found, most) = (world.changes(room.id), most_changes(*bar, *amplitude, *period));
            let seed = world.seed;
            assert!(
                found <= most,
                "seed {seed}, {nodes} nodes: {found} changes around {bar}, {amplitude}, {period} s"
            );
        }
    }
}

/// The changes of the level in an hour: three, and up and down again over each bar below three fifths of which the rate stays for half a
/// minute (25 s, because of the noise).
fn most_changes(around: f64, amplitude: f64, period: f64) -> usize {
    let is_crossed = |bar: &f64| {
        let below = ((0.6 * bar / around - 1.0) / amplitude).clamp(-1.0, 1.0);
        let seconds_below = period * (0.5 + below.asin() * 2.0 / TAU);
        around * (1.0 + amplitude) > *bar && seconds_below >= 25.0
    };
    let crossed = BARS.into_iter().filter(is_crossed).count();
    3 + 2 * crossed * (3_600.0 / period) as usize
}

/// An entry that costs more than the bar, but is rare: the mean is far below. A pause is no reason to forget a level early, and one second
/// counts once.
#[test]
fn rare_entries_to_many_readers_change_the_level_less_than_once_in_two_minutes() {
    for nodes in [1, 3] {
        let mut world = World::new(3, &fixed_bars(), &vec![0; nodes]);
        let mut room = Room::costing(1.0, 7, 30_000, shares(nodes));
        room.entries = 0.05;
        for _ in 0..3_600 {
            world.talk(&room, 1.0);
            world.step();
        }
        let changes = world.changes(room.id);
        assert!(changes <= 30, "seed {}, {nodes} nodes: {changes}", world.seed);
    }
}

#[test]
fn a_flood_of_small_channels_is_no_hot_one_and_hides_none() {
    let mut world = World::new(2, &HeatSettings::default(), &[0]);
    world.lag = Duration::from_millis(50);
    let hot = Room::costing(3_000.0, 7, 400, &[1.0]);
    let mut next = 1_000;
    for second in 0..3 {
        // Fifty times a second, so that the hot channel is in the middle of the flood.
        for _ in 0..50 {
            (next..next + 4_000).for_each(|id| world.count(0, ChannelId::from_raw(id), entries(1 + id % 2)));
            next += 4_000;
            if second > 0 {
                world.talk(&hot, 0.02);
            }
        }
        world.step();
        let all = world.nodes[0].heats.all();
        assert!(all.keys().all(|channel| *channel == hot.id), "seed {}: {:?}", world.seed, all.keys());
        let expected = if second < 2 { Level::Normal } else { Level::Hot };
        assert_eq!(world.levels(hot.id), [expected], "seed {}, second {second}", world.seed);
        let watched = world.nodes[0].heats.state.lock().channels.watched();
        assert!(watched <= 1, "seed {}, second {second}: {watched}", world.seed);
        // It is full, and does more than was assumed: neither says how much it can do.
        assert_eq!(world.nodes[0].heats.node().capacity, 25_000.0);
    }
}

#[test]
fn memory_is_bounded_with_a_million_channels() {
    let mut world = World::new(3, &HeatSettings::default(), &[0; 3]);
    // Full, so that the bars stay where they are.
    world.lag = Duration::from_millis(50);
    let (mut next, mut most) = (1_000_000, [0; 6]);
    for second in 0..63 {
        for node in 0..3 {
            // A million within ten seconds; and on one node channels of note, others each second.
            let small = if second < 10 { 33_334 } else { 0 };
            (next..next + small).for_each(|id| world.count(node, ChannelId::from_raw(id), entries(1)));
            next += small;
        }
        (next..next + 600).for_each(|id| world.count(0, ChannelId::from_raw(id), entries(150)));
        next += 600;
        assert!(world.nodes[0].heats.sketch.lock().above(f64::MIN).len() <= COUNTERS);
        world.step();
        for node in &world.nodes {
            let found = sizes(node);
            for (most, (found, bound)) in most.iter_mut().zip(found) {
                *most = found.max(*most);
                assert!(found <= bound, "seed {}, second {second}: {found} > {bound}", world.seed);
            }
        }
    }
    // The bound of the first is reached: what is asserted is not far from what happens.
    assert_eq!(most[0], COUNTERS * 61, "{most:?}");
}

/// What a node keeps, and the bounds: watched, summed, sent, reported, records, hot.
fn sizes(node: &Node) -> [(usize, usize); 6] {
    let (state, hot) = (node.heats.state.lock(), node.heats.all().len());
    let [summed, sent, reported] = state.shared.sizes();
    [
        // The counters of the last minute, of which none came back.
        (state.channels.watched(), COUNTERS * 61),
        (summed, SUMMED),
        (sent, SENT),
        (reported, 2 * REPORTED),
        (state.records.iter().count(), COUNTERS),
        (hot, COUNTERS + SUMMED + SENT),
    ]
}

#[test]
fn overrides_end_by_themselves_and_the_measured_level_holds_afterwards() {
    overrides_end([0]);
    overrides_end([0, 2_000, 4_000]);
}

/// On nodes whose clocks are ahead by these milliseconds.
fn overrides_end<const NODES: usize>(ahead_ms: [u64; NODES]) {
    use Level::{Blazing, Hot, Normal, Warm};
    let mut world = World::new(4, &fixed_bars(), &ahead_ms);
    // What is measured, what is set, and for how many seconds. The home must not take what is set for what it has measured.
    let cases = [
        (100.0, Normal, Blazing, 30),
        (700.0, Warm, Hot, 45),
        (3_000.0, Hot, Normal, 61),
        (9_000.0, Blazing, Warm, 20),
    ];
    let rooms: Vec<Room> = (7..)
        .zip(&cases)
        .map(|(id, case)| Room::costing(case.0, id, 400, &[1.0 / NODES as f64; NODES]))
        .collect();
    let mut settings = fixed_bars();
    for (room, (_, _, level, seconds)) in rooms.iter().zip(&cases) {
        let set = OverrideSettings { level: Some(*level), ..OverrideSettings::default() };
        let (by, why, ends_at) = ("ada".to_owned(), "a test".to_owned(), START.plus(seconds * 1_000));
        settings
            .overrides
            .insert(room.id, OverrideCard { settings: set, away_from: None, by, why, since: START, ends_at });
    }
    world.nodes.iter().for_each(|node| node.heats.configure(settings.clone()));
    let background = zipf(40, 8_000.0, NODES);
    for second in 1..100 {
        background.iter().chain(&rooms).for_each(|room| world.talk(room, 1.0));
        world.step();
        for (room, (_, measured, set, seconds)) in rooms.iter().zip(&cases) {
            let level = |ahead: u64| if second * 1_000 + ahead < seconds * 1_000 { *set } else { *measured };
            let expected = ahead_ms.map(level);
            assert_eq!(world.levels(room.id), expected, "seed {}, second {second}, {room:?}", world.seed);
        }
    }
}

#[test]
fn the_next_home_goes_on_with_a_blazing_channel_and_lets_it_cool() {
    let mut world = World::new(5, &fixed_bars(), &[0; 4]);
    let mut room = Room::costing(10_000.0, 7, 400, &[0.25; 4]);
    let (background, home) = (zipf(40, 8_000.0, 4), world.home(room.id));
    for second in 0..400 {
        match second {
            20 => world.nodes[home].is_alive = false,
            // The fleet has found it; the subscribers have connected again. Below the bar, but not by much: only what is remembered
            // keeps the level.
            32 => {
                world.known.retain(|node| usize::from(*node) != home);
                room.entries *= 0.45;
                room.subscribers = (0..4).map(|node| if node == home { 0 } else { 133 }).collect();
            }
            120 => room.entries = 0.0,
            _ => {}
        }
        background.iter().chain([&room]).for_each(|room| world.talk(room, 1.0));
        world.step();
        let levels = world.levels(room.id);
        let is_blazing = levels.iter().all(|level| *level == Level::Blazing);
        assert!(
            is_blazing || !(3..120).contains(&second),
            "seed {}, second {second}: {levels:?}",
            world.seed
        );
        let is_normal = levels.iter().all(|level| *level == Level::Normal);
        assert!(is_normal || second < 250, "seed {}, second {second}: {levels:?}", world.seed);
    }
}

#[test]
fn nonsense_slows_a_bounded_number_of_channels_and_is_forgotten() {
    let mut world = World::new(6, &fixed_bars(), &[0; 2]);
    let (from, background) = (world.nodes[1].run, zipf(40, 8_000.0, 2));
    world.nodes[1].is_alive = false;
    let most = u64::MAX;
    let work = Work { entries: most, deliveries: most, bytes: most, joins: most, reads: most };
    for second in 0..230 {
        if second < 70 {
            // Ten thousand channels that do not exist, others each second.
            let channels = (second * 10_000 + 5_000_000..).map(ChannelId::from_raw).take(10_000);
            let report = |channel| HeatReport { channel, work, level: Level::Blazing };
            world.nodes[0].heats.handle_report(from, channels.clone().map(report).collect());
            world.nodes[0].heats.handle_levels(channels.map(|channel| (channel, Level::Hot)).collect());
        }
        background.iter().for_each(|room| world.talk(room, 1.0));
        world.step();
        for (found, bound) in sizes(&world.nodes[0]) {
            assert!(found <= bound, "seed {}, second {second}: {found} > {bound}", world.seed);
        }
        // What is reported, and what is sent and holds for 20 s.
        let most = (REPORTED * (second as usize + 1)).min(SUMMED) + 20 * REPORTED;
        let hot = world.nodes[0].heats.all().len();
        assert!(hot <= most, "seed {}, second {second}: {hot} > {most}", world.seed);
    }
    let nonsense = |hot: &HotChannels| hot.keys().filter(|channel| channel.raw() >= 5_000_000).count();
    assert_eq!(nonsense(&world.nodes[0].heats.all()), 0, "seed {}", world.seed);
}

const fn entries(entries: u64) -> Work {
    Work { entries, deliveries: 0, bytes: 0, joins: 0, reads: 0 }
}
