//! A Redis or Valkey server on loopback.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::fetch::Redis;
use super::probe::exchange;
use super::process::detached;

/// The settings that the server of a fleet has. `stream-node-max-bytes`: Redis allocates the first node of a stream at this
/// size, and most streams of an inbox are short. `repl-diskless-sync-delay`: a replica need not wait for others.
/// `set-proc-title`: a title would overwrite the environment, which marks the process with its folder.
fn config(addr: SocketAddrV4) -> String {
    format!(
        "bind {}\n\
         port {}\n\
         daemonize no\n\
         set-proc-title no\n\
         save \"\"\n\
         appendonly yes\n\
         appendfsync everysec\n\
         maxmemory-policy noeviction\n\
         stream-node-max-bytes 512\n\
         repl-diskless-sync-delay 0\n",
        addr.ip(),
        addr.port()
    )
}

/// Writes the configuration to `folder`, and returns the command that starts the server there.
pub(super) fn command(redis: &Redis, folder: &Path, addr: SocketAddrV4) -> Result<Command> {
    let path = folder.join("redis.conf");
    fs::write(&path, config(addr))?;
    let mut command = detached(&redis.program);
    command.arg(path).envs(redis.environment());
    Ok(command)
}

/// Whether the server answers `PING`. It does not while it still loads its data.
pub(super) fn answers(addr: SocketAddrV4) -> bool {
    exchange(addr, b"PING\r\n").is_ok_and(|answer| &answer == b"+PONG\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_listens_on_loopback_and_persists() {
        let config = config("127.0.0.1:20001".parse().unwrap());
        for line in
            ["bind 127.0.0.1", "port 20001", "appendonly yes", "save \"\"", "stream-node-max-bytes 512"]
        {
            assert!(config.lines().any(|other| other == line), "{line}");
        }
    }
}
