//! `fleet.json`: the members of a fleet, for this program and for the load tool, which kills them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::services::process::{Process, State};

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Chat,
    Discovery,
    Presence,
    Push,
    Redis,
    Cql,
}

impl Role {
    /// Whether its members are programs of Madang. The others are started by `services`.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::Chat | Self::Discovery | Self::Presence | Self::Push)
    }

    /// The word that begins the names of its members.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Discovery => "discovery",
            Self::Presence => "presence",
            Self::Push => "push",
            Self::Redis => "redis",
            Self::Cql => "cassandra",
        }
    }
}

/// A process of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Where it is: for clients, or, of a process of presence or push, for operators.
    pub(crate) url: String,
    pub(crate) port: u16,
    /// The port of a discovery process for the other members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) internal_port: Option<u16>,
    /// 0 while it does not run.
    pub(crate) pid: u32,
    pub(crate) started: u64,
}

impl Member {
    pub(super) const fn process(&self) -> Process {
        Process { pid: self.pid, started: self.started }
    }

    pub(super) fn state(&self) -> State {
        if self.pid == 0 { State::Gone } else { self.process().state() }
    }

    pub(super) fn set(&mut self, process: Option<Process>) {
        (self.pid, self.started) = process.map_or((0, 0), |process| (process.pid, process.started));
    }
}

/// All members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where clients ask which node serves them.
    pub(crate) connect: Vec<String>,
    pub(crate) nodes: Vec<Member>,
}

impl Record {
    pub(super) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Replaces the file at once, so that a reader never sees a part of it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The members of one role.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(move |member| member.role == role)
    }

    /// The members that are programs of Madang.
    pub(super) fn ours(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(|member| member.role.is_ours())
    }

    pub(crate) fn named(&mut self, name: &str) -> Result<&mut Member> {
        let known = self.nodes.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.nodes.iter_mut().find(|member| member.name == name);
        found.with_context(|| format!("there is no member `{name}`; there are: {known}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_what_the_load_tool_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.json");
        assert_eq!(Record::read(&path).unwrap(), Record::default());
        let mut record = Record { connect: vec!["http://127.0.0.1:1".to_owned()], nodes: Vec::new() };
        let (name, url) = ("chat-1".to_owned(), "http://127.0.0.1:1".to_owned());
        let internal_port = None;
        record.nodes.push(Member { name, role: Role::Chat, url, port: 1, internal_port, pid: 7, started: 8 });
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((&json["nodes"][0]["role"], &json["nodes"][0]["pid"]), (&"chat".into(), &7.into()));
        assert!(record.named("chat-2").unwrap_err().to_string().contains("there are: chat-1"));
    }
}
