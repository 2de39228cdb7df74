//! The command line of `madang`, one command a file.

mod check_config;
mod operator;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use madang_service::ConfigError;

use crate::config::{Config, InvalidConfig};

/// Madang, a real-time chat and presence server.
#[derive(Debug, Parser)]
#[command(name = "madang", version, about)]
struct Cli {
    /// A TOML file; none is needed.
    #[arg(long, global = true, env = "MADANG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Read the configuration, say what it comes to, and whether it is valid.
    CheckConfig,
    /// Mint an access token for a user on a new device, such as for a bot. Works beside a running server.
    Token(operator::TokenCommand),
    /// Give a user a new password, read from standard input. Works beside a running server.
    ResetPassword(operator::ResetPassword),
}

/// Runs the command of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(serve) => serve.run(cli.config.as_deref()),
        Command::CheckConfig => check_config::run(cli.config.as_deref()),
        Command::Token(command) => command.run(cli.config.as_deref()),
        Command::ResetPassword(command) => command.run(cli.config.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("madang: {error:#}");
            code(&error)
        }
    }
}

/// 78, `EX_CONFIG` of sysexits.h, if starting again cannot help; else 1.
fn code(error: &anyhow::Error) -> ExitCode {
    if error.is::<InvalidConfig>() || error.is::<ConfigError>() {
        return ExitCode::from(78);
    }
    ExitCode::FAILURE
}

fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    Ok(madang_service::config::load(file)?)
}

/// A runtime for a command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
