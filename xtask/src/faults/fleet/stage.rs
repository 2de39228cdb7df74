//! A whole fleet in a new folder, for one scenario.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::Tools;
use super::super::stage::{Folder, until};
use super::super::talk::{Ground, Size, Talk};
use crate::fleet::record::{Member, Role};
use crate::fleet::{Place, Shape};

/// Conversation while members fail: groups and open channels, about as much as two cores carry.
pub(super) const SIZE: Size = Size { days: 1, lines: 200, seconds: 60 };
/// How long a fleet may take until a message is acked after a fault is over.
pub(super) const BACK: Duration = Duration::from_secs(60);

/// A fleet.
pub(super) struct Stage<'a> {
    tools: &'a Tools,
    folder: Folder,
    pub(super) place: Place,
}

impl<'a> Stage<'a> {
    /// A folder without members.
    pub(super) fn new(tools: &'a Tools, name: &str) -> Result<Self> {
        let folder = Folder::new(tools, name)?;
        let place = Place::new(folder.path().to_owned(), tools.target.clone());
        Ok(Self { tools, folder, place })
    }

    /// A fleet with three chat nodes, two discovery and two presence processes.
    pub(super) fn up(tools: &'a Tools, name: &str, change: impl FnOnce(&mut Shape)) -> Result<Self> {
        let stage = Self::new(tools, name)?;
        stage.start(change)?;
        Ok(stage)
    }

    /// Starts the members.
    pub(super) fn start(&self, change: impl FnOnce(&mut Shape)) -> Result<()> {
        let mut shape =
            Shape { nodes: 3, discovery: 2, presence: 2, cassandra: 1, is_open: true, ..Shape::default() };
        change(&mut shape);
        self.place.up(&shape).map(drop)
    }

    pub(super) fn member(&self, name: &str) -> Result<Member> {
        self.place.record()?.named(name).cloned()
    }

    /// Where a chat node serves REST.
    pub(super) fn addr(&self, name: &str) -> Result<SocketAddr> {
        let member = self.member(name)?;
        ensure!(member.role == Role::Chat, "{name} is not a chat node");
        Ok(SocketAddr::from(([127, 0, 0, 1], member.port)))
    }

    /// Starts conversations with everything that can happen in them.
    pub(super) fn talk(&self, more: &[&str]) -> Result<Talk> {
        Talk::start(self, SIZE, &[&["--churn"], more].concat())
    }

    /// Waits until every member is ready.
    pub(super) fn wait_until_ready(&self) -> Result<Duration> {
        until("all members are ready", BACK, || self.place.are_ours_ready())
    }
}

impl Ground for Stage<'_> {
    fn loadtest(&self) -> std::path::PathBuf {
        self.tools.program("madang-loadtest")
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn reach(&self) -> [String; 2] {
        ["--fleet".to_owned(), self.folder.path().display().to_string()]
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.place.down(!self.tools.keep) {
            eprintln!("a fleet was not removed: {error:#}");
        }
    }
}

/// One command to a Redis server, in its inline form. The answer as it came.
pub(super) fn redis(addr: SocketAddrV4, command: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(addr).context("Redis is away")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // `QUIT` ends the connection, and with it the answer.
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(!answer.starts_with('-'), "{command}: {}", answer.trim());
    Ok(answer)
}
