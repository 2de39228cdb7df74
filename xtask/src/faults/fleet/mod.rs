//! Faults of a whole fleet: three chat nodes, two discovery and two presence processes, Redis and Cassandra.
//!
//! A scenario has a [`stage`] (the fleet, in a folder of its own), conversations of the load tool with their judge, and faults
//! that it causes itself: members are killed and paused, and a [`link`] spoils the way to a server.

mod clocks;
mod kills;
mod link;
mod partition;
mod pauses;
mod planted;
mod races;
mod redis;
mod slow_shard;
mod stage;
mod store;
mod user;

use super::Scenario;

/// How the names of these scenarios begin; the word alone names all of them.
pub(super) const NAME: &str = "fleet";

/// The scenarios.
pub(super) const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "fleet-kills",
        about: "ten days of chat, and a kill of any member every few seconds",
        run: kills::of_every_kind,
    },
    Scenario {
        name: "fleet-open-channels",
        about: "open channels, and a kill of a chat node every few seconds",
        run: kills::in_open_channels,
    },
    Scenario { name: "fleet-pause-home", about: "a chat node is paused for 40 s", run: pauses::of_a_home },
    Scenario {
        name: "fleet-pause-services",
        about: "all discovery and presence processes are paused for 40 s",
        run: pauses::of_services,
    },
    Scenario {
        name: "fleet-redis-empty",
        about: "Redis is killed and begins empty, twice",
        run: redis::empty,
    },
    Scenario {
        name: "fleet-redis-stale",
        about: "a replica of Redis that was cut off is promoted",
        run: redis::stale_replica,
    },
    Scenario { name: "fleet-redis-full", about: "Redis has no memory left for a while", run: redis::full },
    Scenario {
        name: "fleet-redis-links",
        about: "the links to Redis are slow, cut, frozen and half-open",
        run: redis::links,
    },
    Scenario {
        name: "fleet-store-links",
        about: "the links to Cassandra are slow, cut, frozen and half-open",
        run: store::links,
    },
    Scenario {
        name: "fleet-replicas",
        about: "one of three replicas of the store is down, then two",
        run: store::replicas,
    },
    Scenario {
        name: "fleet-slow-shard",
        about: "the shard of a hot channel answers half a second late; others wait as before",
        run: slow_shard::of_a_hot_channel,
    },
    Scenario {
        name: "fleet-same-key",
        about: "the same message is sent to two nodes at once, 1,000 times, over links that are cut",
        run: races::same_key,
    },
    Scenario {
        name: "fleet-last-seat",
        about: "five users join through five nodes for the last seat",
        run: races::last_seat,
    },
    Scenario {
        name: "fleet-revoked",
        about: "a device is revoked on another node while Redis is gone",
        run: races::revoked,
    },
    Scenario {
        name: "fleet-clocks",
        about: "the clock of one node is an hour ahead, of another 200 ms behind, and of one steps back",
        run: clocks::apart,
    },
    Scenario {
        name: "fleet-planted",
        about: "faults that are planted in the nodes, each of which must be found",
        run: planted::in_a_fleet,
    },
];
