//! `cargo xtask push-sandbox`: stand-ins for APNs, FCM, push services of browsers and receivers of webhooks, for a developer.

use std::net::SocketAddr;
use std::path::{self, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::cargo::{Metadata, become_command, cargo};

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct PushSandbox {
    /// The address of APNs. FCM, Web Push and webhooks have the next three ports.
    #[arg(long, default_value = "127.0.0.1:9090")]
    addr: SocketAddr,
    /// The folder of the certificate, the keys and push.toml; by default `push-sandbox` in the target directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Builds the sandbox and runs it in place of this process.
pub(crate) fn run(args: PushSandbox) -> Result<ExitCode> {
    let dir = match args.dir {
        Some(dir) => path::absolute(dir)?,
        None => Metadata::read()?.target_directory.join("push-sandbox"),
    };
    let mut command = cargo(&["run", "-p", "madang-push-sandbox", "--example", "push_sandbox", "--"]);
    command.args(["--addr", &args.addr.to_string(), "--dir"]).arg(dir);
    Err(become_command(&mut command))
}
