//! The programs of Madang in a fleet: how each is started, and whether it is ready.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::record::{Member, Role};
use crate::services::process::detached;

/// How long a member may take to answer whether it is ready.
const PATIENCE: Duration = Duration::from_secs(2);

impl Member {
    /// The address at which it says whether it is ready.
    pub(super) const fn addr(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)
    }

    /// The address of a discovery process for the other members.
    pub(super) fn internal_addr(&self) -> Option<SocketAddrV4> {
        self.internal_port.map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    /// The command that runs it with the configuration of the fleet.
    pub(super) fn command(&self, programs: &Path, config: &Path, data: &Path) -> Command {
        let addr = self.addr().to_string();
        let run = |program: &str| {
            let mut command = detached(&programs.join(program));
            command.arg("--config").arg(config);
            command
        };
        match self.role {
            Role::Discovery => {
                let mut command = run("madang-discovery");
                command.env("MADANG_DISCOVERY__ADDR", addr);
                if let Some(internal) = self.internal_addr() {
                    command.env("MADANG_DISCOVERY__INTERNAL_ADDR", internal.to_string());
                }
                command
            }
            Role::Presence => {
                let mut command = run("madang-presence");
                command.args(["--name", &self.name, "--addr", &addr, "--accept-weak-store"]);
                command
            }
            Role::Push => {
                let mut command = run("madang-push");
                command.args(["--name", &self.name, "--addr", &addr, "--accept-weak-store"]);
                command
            }
            // The servers of the store and of the bus are started by `services`, and never here.
            Role::Chat | Role::Redis | Role::Cql => {
                let mut command = run("madang");
                // A cluster on one machine cannot hold what a real one must.
                command.args(["serve", "--addr", &addr, "--accept-weak-store", "--data"]).arg(data);
                command.env("MADANG_NODE__NAME", &self.name);
                command.env("MADANG_NODE__URL", self.url.replacen("http", "ws", 1));
                command
            }
        }
    }

    /// Whether it says that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.addr().into(), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}
