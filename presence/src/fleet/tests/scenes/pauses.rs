//! Scenes of a process that was paused, or leaves.

use super::*;

#[test]
fn a_process_that_was_paused_waits_for_the_frames_that_waited() {
    let mut stage = Stage::new(&[1, 2]);
    stage.live.processes = vec![A];
    stage.follow();
    let mut half = Half::new();
    half.take(stage.sent());
    pass_both(&mut stage, &mut half, 16);
    let (one, connection) = (user(1), ConnectionId::from_raw(1));
    stage.node.handle_report(NodeReport::Down { user: one, connection, how: Departure::Seen }, stage.now);
    stage.connections.remove(0);
    half.take(stage.sent());
    half.told();
    // The user comes back while the process is paused.
    let back = Up { connection: ConnectionId::from_raw(3), ..up(1) };
    stage.connections.push(back);
    stage.node.handle_report(NodeReport::Up(back), stage.now);
    let waiting = stage.sent();
    stage.pass(12_000);
    half.now.elapsed += Duration::from_secs(12);
    half.process.begin(half.now);
    assert!(!has_offline(&half.told(), one));
    half.take(waiting);
    assert!(!has_offline(&pass_both(&mut stage, &mut half, 30), one));
    assert_eq!(half.state(1), Some(Availability::Online));
}

#[test]
fn a_view_without_this_process_is_taken_only_in_a_drain() {
    let mut half = Half::new();
    let live = LiveProcesses { me: A, processes: vec![B], nodes: vec![NODE] };
    half.process.handle_live(&live, half.now);
    assert!(half.process.core.owns(user(1)) && !half.process.has_left());
    half.process.handle_drain();
    half.process.handle_live(&live, half.now);
    assert!(!half.process.core.owns(user(1)) && half.process.has_left());
}
