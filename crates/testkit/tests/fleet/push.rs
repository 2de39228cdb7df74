//! Thousands of alerts of three nodes and two processes of push, which are killed in turn.

use madang_push_sandbox::Face;
use madang_service::Clock;
use madang_testkit::alerted::{AlertedGroups, GROUP, MESSAGES};
use madang_testkit::{Config, FleetNodes, PushProcess, PushServices};

use super::{board, operator, place, variable};

const NODES: usize = 3;
const WORKERS: usize = 2;
/// A process is killed after this number of messages.
const BETWEEN: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MADANG_TEST_CQL, MADANG_TEST_REDIS, MADANG_TEST_BINARY and MADANG_TEST_PUSH"]
async fn ten_thousand_alerts_of_a_fleet_reach_every_device_at_most_once() {
    let mut config = Config::default();
    config.limits.enabled = false;
    config.accounts.consent = false;
    config.heat.enabled = false;
    config.push.placement = madang_push::Placement::Remote;
    let services = PushServices::start(&mut config, Clock::system()).await.unwrap();
    let sandbox = &services.sandbox;
    let mut nodes = FleetNodes::start(&place(), config, NODES).await.unwrap();
    let start =
        |number: usize| PushProcess::start(&variable("MADANG_TEST_PUSH"), &nodes.config(), number).unwrap();
    let mut workers: Vec<PushProcess> = (0..WORKERS).map(start).collect();
    let mut groups = AlertedGroups::make(nodes.rest(0), sandbox).await;
    let (mut kills, mut begun) = (0, Vec::new());
    for number in 0..MESSAGES {
        let servers: Vec<_> = (0..NODES).map(|turn| nodes.rest((number + turn) % NODES)).collect();
        groups.say(&servers, sandbox, number).await;
        if number % BETWEEN == BETWEEN / 2 {
            // Two of three times a worker: it dies with its calls.
            match kills % 3 {
                2 => nodes.kill(kills % NODES).await.unwrap(),
                _ => {
                    let worker = kills % WORKERS;
                    workers[worker].kill().await.unwrap();
                    workers[worker] =
                        PushProcess::start(&variable("MADANG_TEST_PUSH"), &nodes.config(), worker).unwrap();
                }
            }
            kills += 1;
        }
        if number % BETWEEN == BETWEEN - 1 {
            begun.extend(nodes.start_killed().await.unwrap());
        }
    }
    let alerts = groups.check(nodes.rest(0), sandbox).await;
    let calls = sandbox.counters(Face::Apns);
    println!(
        "{} pairs of a user and a message, {alerts} alerts, {kills} kills, {calls:?}",
        2 * GROUP * MESSAGES
    );
    assert!(alerts > 30 * GROUP, "{alerts}");
    // An operator sees what the processes of push have sent since they began, from any node.
    let operator = operator(&nodes).await;
    for of in 0..NODES {
        let board = board(nodes.rest(of), &operator).await;
        let processes = board["push_processes"].as_array().unwrap();
        let taken = processes.iter().flat_map(|process| process["push"].as_array().unwrap());
        let taken: u64 = taken.filter_map(|row| row["taken"].as_u64()).sum();
        assert!(processes.len() == WORKERS && taken > 0, "{board}");
    }
    assert!(!begun.is_empty());
}
