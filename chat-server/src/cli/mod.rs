//! The command line of `madang`, one command in each file.

/// Prints a line of output. A closed pipe is not an error, as after `… | head`.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

mod answers;
mod backup;
mod check;
mod check_config;
mod doctor;
mod export;
mod invitations;
mod operator;
mod operators;
mod push;
#[cfg(feature = "fleet")]
mod schema;
mod serve;
mod sign_in;
mod top;
mod users;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use madang_auth::PasswordError;
use madang_service::ConfigError;
use madang_service::telemetry::{self, TelemetryError};
use madang_store::embedded::OpenError;

use crate::config::{Config, InvalidConfig};

/// `EX_CONFIG` of sysexits.h.
const WRONG_CONFIG: u8 = 78;
/// `EX_DATAERR`: this program cannot serve the data folder until somebody repairs or replaces it.
const WRONG_DATA: u8 = 65;
/// The exit code of `check`, `doctor` and `schema` if they could not look.
const COULD_NOT_LOOK: u8 = 2;

/// Madang, a real-time chat and presence server.
#[derive(Debug, Parser)]
#[command(name = "madang", version, about)]
struct Cli {
    /// A TOML file; optional.
    #[arg(long, global = true, env = "MADANG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Read the configuration, print the result, and check whether it is valid.
    CheckConfig,
    /// Write a backup of a data folder, which is a data folder itself. Works while a server is running.
    Backup(backup::Backup),
    /// Restore a backup as a data folder.
    Restore(backup::Restore),
    /// Check everything in the data folder of a stopped server, or in a backup. Exit code 0: no damage, 1: damage found,
    /// 2: the check could not run.
    Check(check::Check),
    /// Check what the server depends on: files, disk, clock, limits. Works while a server is running. Exit codes as those
    /// of `check`.
    Doctor(doctor::Doctor),
    /// Show which users and channels write most to the store of a running server.
    Top(top::Top),
    /// Mint an access token for a user on a new device, such as for a bot. Works while a server is running.
    Token(sign_in::TokenCommand),
    /// Change the password of a user; reads it from standard input. Works while a server is running.
    ResetPassword(sign_in::ResetPassword),
    /// List, create, disable and delete accounts, and revoke devices. Works while a server is running.
    #[command(subcommand)]
    Users(users::Users),
    /// Create, list and revoke invitations to sign up. Works while a server is running.
    #[command(subcommand)]
    Invitations(invitations::Invitations),
    /// Manage operators, and show hot channels. Works while a server is running.
    #[command(subcommand)]
    Operator(operators::Operators),
    /// Read and change the configuration that may change while the server runs. Works while a server is running.
    #[command(subcommand)]
    Config(operators::RuntimeSettings),
    /// Look after push notifications of a running server: send a test, say why there was no alert, send again what was given up.
    #[command(subcommand)]
    Push(push::Push),
    /// Make, or check, the tables of the cluster in [store].
    #[cfg(feature = "fleet")]
    #[command(subcommand)]
    Schema(schema::Schema),
}

/// Runs the command of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let config = cli.config.as_deref();
    let ok = |done: anyhow::Result<()>| done.map(|()| ExitCode::SUCCESS);
    let (done, code) = match cli.command {
        Command::Serve(serve) => (serve.run(config), ExitCode::FAILURE),
        Command::CheckConfig => (ok(check_config::run(config)), ExitCode::FAILURE),
        Command::Backup(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Restore(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Check(command) => (command.run(config), ExitCode::from(COULD_NOT_LOOK)),
        Command::Doctor(command) => (command.run(config), ExitCode::from(COULD_NOT_LOOK)),
        Command::Top(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Token(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::ResetPassword(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Users(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Invitations(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Push(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Operator(command) => (ok(command.run(config)), ExitCode::FAILURE),
        Command::Config(command) => (ok(command.run(config)), ExitCode::FAILURE),
        #[cfg(feature = "fleet")]
        Command::Schema(command) => (command.run(config), ExitCode::from(COULD_NOT_LOOK)),
    };
    done.unwrap_or_else(|error| {
        telemetry::tell_failure(format_args!("madang: {error:#}"));
        // `check` and `doctor` keep their own code, which says that they could not look.
        match lasting(&error) {
            Some(lasting) if code != ExitCode::from(COULD_NOT_LOOK) => ExitCode::from(lasting),
            _ => code,
        }
    })
}

/// The exit code if starting the process again cannot help.
fn lasting(error: &anyhow::Error) -> Option<u8> {
    let is_of_passwords = matches!(error.downcast_ref(), Some(PasswordError::Config(_)));
    let is_of_logs = error.is::<TelemetryError>();
    if error.is::<InvalidConfig>() || error.is::<ConfigError>() || is_of_passwords || is_of_logs {
        return Some(WRONG_CONFIG);
    }
    // The cluster, or where it is, must be changed by an operator.
    #[cfg(feature = "fleet")]
    if error.downcast_ref::<madang_store::scylla::ConnectError>().is_some_and(|error| error.is_lasting()) {
        return Some(WRONG_CONFIG);
    }
    error.downcast_ref::<OpenError>().filter(|error| error.is_lasting()).map(|_| WRONG_DATA)
}

fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    Ok(madang_service::config::load(file)?)
}

/// A runtime for a command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
