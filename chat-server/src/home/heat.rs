//! Exchanges with the other nodes of a fleet what channels cost, and how hot they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_bus::PeerFrame;
use madang_engine::heat::HeatReport;
use madang_ids::{LogId, NodeRun};

use super::Homes;

/// How soon after a decision its outcome is sent.
const LOOK: Duration = Duration::from_millis(100);

impl Homes {
    /// Reports to homes on other nodes, and answers what they have reported, after each decision; until the drain begins. A frame that
    /// is lost is replaced by that of the next second.
    pub async fn run_heat(self) {
        let Some(forwards) = self.0.forwards.clone() else { return };
        let heats = &self.0.heats;
        let mut decided = heats.decided();
        let mut reported: BTreeSet<NodeRun> = BTreeSet::new();
        loop {
            tokio::select! {
                () = self.0.clock.sleep(LOOK) => {}
                () = self.0.tasks.drain().draining() => return,
            }
            heats.set_nodes(forwards.nodes.borrow().len());
            if std::mem::replace(&mut decided, heats.decided()) == heats.decided() {
                continue;
            }
            // An empty report ends the last one: otherwise one second would count as several.
            let last = std::mem::take(&mut reported).into_iter();
            let mut of_home: BTreeMap<NodeRun, Vec<HeatReport>> =
                last.map(|home| (home, Vec::new())).collect();
            for report in heats.own_reports() {
                if let Some(home) = forwards.home(LogId::Channel(report.channel)) {
                    of_home.entry(home).or_default().push(report);
                    reported.insert(home);
                }
            }
            for (home, reports) in of_home {
                forwards.peers.send(home, &PeerFrame::Heat { reports });
            }
            for (node, levels) in heats.answers() {
                forwards.peers.send(node, &PeerFrame::HeatLevels { levels });
            }
        }
    }
}
