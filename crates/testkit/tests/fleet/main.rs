//! Nodes of a fleet as processes, over a real CQL server and Redis.
//!
//! `MADANG_TEST_CQL` and `MADANG_TEST_REDIS` have the addresses, `MADANG_TEST_BINARY` and `MADANG_TEST_PUSH` the programs of the server
//! and of push, built with the feature `fleet`.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod hot;
mod push;
mod transcripts;

use madang_testkit::FleetPlace;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

fn place() -> FleetPlace {
    FleetPlace {
        binary: variable("MADANG_TEST_BINARY"),
        cql: variable("MADANG_TEST_CQL").split(',').next().unwrap().to_owned(),
        redis: variable("MADANG_TEST_REDIS"),
    }
}
