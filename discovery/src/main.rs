//! The binary `madang-discovery`: assigns clients to chat nodes, and keeps the list of live processes of a fleet.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use madang_auth::load_secret;
use madang_bus::registry::RedisRegistry;
use madang_bus::{BusConfig, BusKind};
use madang_discovery::DiscoveryConfig;
use madang_discovery::http::{Parts, Server};
use madang_service::{Clock, Drain, Signals, Systemd, TelemetryConfig, config, telemetry};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// How long requests may take to finish after SIGTERM.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Assigns clients to chat nodes, and keeps the list of live processes of a fleet.
#[derive(Debug, Parser)]
#[command(name = "madang-discovery", version)]
struct Arguments {
    /// The configuration file of the fleet. Sections of other processes are ignored.
    #[arg(long, env = "MADANG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The sections that this process reads. The file has those of other processes too.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct FleetConfig {
    server: ServerSection,
    tokens: TokenSection,
    bus: BusConfig,
    discovery: DiscoveryConfig,
    telemetry: TelemetryConfig,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ServerSection {
    allowed_origins: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct TokenSection {
    secret_file: PathBuf,
}

/// `EX_CONFIG` of sysexits.h: starting the process again cannot help.
const WRONG_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let fail = |error: anyhow::Error, code: ExitCode| {
        telemetry::tell_failure(format_args!("madang-discovery: {error:#}"));
        code
    };
    match configure(&arguments) {
        Err(error) => fail(error, WRONG_CONFIG.into()),
        Ok(config) => run(config).map_or_else(|error| fail(error, ExitCode::FAILURE), |()| ExitCode::SUCCESS),
    }
}

fn configure(arguments: &Arguments) -> anyhow::Result<FleetConfig> {
    let config: FleetConfig = config::load(arguments.config.as_deref())?;
    config.discovery.check()?;
    if config.bus.kind != BusKind::Redis {
        bail!(
            "bus.kind is \"local\": a discovery process serves a fleet, whose processes share Redis; set \"redis\""
        );
    }
    if config.tokens.secret_file.as_os_str().is_empty() {
        bail!("tokens.secret_file is empty: it must name the secret that all processes of the fleet have");
    }
    telemetry::init(&config.telemetry)?;
    Ok(config)
}

fn run(config: FleetConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(serve(config))
}

async fn serve(config: FleetConfig) -> anyhow::Result<()> {
    let file = &config.tokens.secret_file;
    let secret = load_secret(file).with_context(|| format!("tokens.secret_file {}", file.display()))?;
    let (addr, internal_addr) = (config.discovery.addr, config.discovery.internal_addr);
    let bind = async |addr| TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"));
    let (public, internal) = (bind(addr).await?, bind(internal_addr).await?);
    let drain = Drain::new();
    let signals = Signals::listen(drain.clone()).context("cannot listen for signals")?;
    let server = Server::start(
        Parts {
            registry: Arc::new(RedisRegistry::of_bus(&config.bus)?),
            config: config.discovery,
            allowed_origins: config.server.allowed_origins,
            secret,
            clock: Clock::system(),
        },
        drain.clone(),
    );
    tracing::info!(addr = %public.local_addr()?, internal = %internal.local_addr()?, "listening");
    server.serve(public, internal);
    let systemd = Systemd::from_env().context("NOTIFY_SOCKET")?.map(Arc::new);
    tokio::select! {
        () = drain.draining() => {}
        () = attend(systemd.clone(), &server, drain.clone()) => {}
    }
    if let Some(systemd) = systemd {
        systemd.stopping();
    }
    server.drain(DRAIN_PATIENCE).await;
    tracing::info!("drained");
    drop(signals);
    Ok(())
}

async fn attend(systemd: Option<Arc<Systemd>>, server: &Server, drain: Drain) {
    match systemd {
        Some(systemd) => systemd.attend(server.health(), drain).await,
        None => std::future::pending().await,
    }
}
