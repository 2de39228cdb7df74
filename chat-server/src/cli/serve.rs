//! `madang serve`

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use madang_service::{Drain, Hangups, Signals, Systemd, telemetry};
use tokio::net::{TcpListener, TcpSocket};

use super::operator;
use crate::compose::{Accepted, Node};
use crate::config::Config;
use crate::gateway::listener::listen;
use crate::rest;
use crate::tls::Tls;

/// How long appends and answers may take to finish after all connections were closed.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// The exit code when a sync of the disk has failed (`EX_IOERR`), or a node of a fleet has lost its number. The supervisor starts the
/// process again: opening the folder shows what is durable, and the node gets another number.
const DISK_FAILED: u8 = 74;

/// Connections that the kernel keeps until they are accepted. It may keep fewer (`net.core.somaxconn`, 4096 on Linux). After a
/// restart all clients connect at once, and one that finds no place retries a second later.
const BACKLOG: u32 = 4096;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The address to listen on; default 127.0.0.1:8080.
    #[arg(long, value_parser = crate::config::values::listen_address)]
    addr: Option<SocketAddr>,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
    /// `off` disables all rate limits: for load tests only.
    #[arg(long, value_name = "on|off")]
    limits: Option<Switch>,
    /// `off`: users are added to groups without an invitation: for closed teams and load tests.
    #[arg(long, value_name = "on|off")]
    consent: Option<Switch>,
    /// Start although acked messages are lost; devices that received them take a snapshot. Only after a refused start.
    #[arg(long)]
    accept_loss: bool,
    /// Start a node of a fleet although the settings of its CQL cluster cannot hold what is acknowledged. For tests only.
    #[arg(long)]
    accept_weak_store: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Serve {
    pub(super) fn run(self, file: Option<&Path>) -> anyhow::Result<ExitCode> {
        let mut config = super::load(file)?;
        config.server.addr = self.addr.unwrap_or(config.server.addr);
        config.server.data = self.data.unwrap_or(config.server.data);
        if let Some(switch) = self.limits {
            config.limits.enabled = matches!(switch, Switch::On);
        }
        if let Some(switch) = self.consent {
            config.accounts.consent = matches!(switch, Switch::On);
        }
        config.validate()?;
        config.check_files()?;
        telemetry::init(&config.telemetry)?;
        raise_open_files();
        keep_pages_small();
        let runtime = super::runtime()?;
        let accept = Accepted { loss: self.accept_loss, weak_store: self.accept_weak_store };
        runtime.block_on(serve(config, accept))
    }
}

/// As [`TcpListener::bind`], with a longer backlog.
fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn serve(config: Config, accept: Accepted) -> anyhow::Result<ExitCode> {
    let drain = Drain::new();
    let signals = Signals::listen(drain.clone()).context("cannot listen for signals")?;
    let hangups = Hangups::listen().context("cannot listen for signals")?;
    let systemd = Systemd::from_env().context("NOTIFY_SOCKET")?.map(Arc::new);
    let (addr, data, limits) = (config.server.addr, config.server.data.clone(), config.limits.enabled);
    // Bound before anything is started that would have to be stopped again if it fails. Clients that connect meanwhile wait to be
    // accepted.
    let listener = bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
    let for_operators = match config.operator.addr {
        Some(addr) => Some(bind(addr).with_context(|| format!("cannot listen on {addr} (operator.addr)"))?),
        None => None,
    };
    let node = Node::start(config, drain.clone(), accept).await?;
    let addr = listener.local_addr()?;
    if let Err(error) = operator::listen(&node, &data) {
        // For example a path above 107 bytes. Operators can still open the folder when the server is stopped.
        tracing::warn!(
            error = format!("{error:#}"),
            "operator commands cannot reach this server while it runs"
        );
    }
    let has_tls = node.gateway.tls.is_some();
    if telemetry::has_journal() {
        tracing::info!(%addr, data = %data.display(), limits, tls = has_tls, "listening");
    } else {
        print_start(addr, &data, limits, has_tls);
    }
    let listening = listen::run(listener, rest::router(node.api.clone()), Arc::clone(&node.gateway));
    node.background.spawn_vital(node.api.health.check("listen"), listening);
    if let Some(listener) = for_operators {
        tracing::info!(addr = %listener.local_addr()?, "listening for operators");
        let router = rest::router_for_operators(node.api.clone());
        let listening = listen::run(listener, router, Arc::clone(&node.gateway));
        node.background.spawn_vital(node.api.health.check("listen_operators"), listening);
    }
    if let Some(systemd) = &systemd {
        let attend = Arc::clone(systemd).attend(Arc::clone(&node.api.health), drain.clone());
        node.background.spawn("systemd", attend);
    }
    node.background.spawn("reload", reload(hangups, node.gateway.tls.clone(), systemd.clone()));
    let code = tokio::select! {
        () = drain.draining() => ExitCode::SUCCESS,
        () = node.broken() => ExitCode::from(DISK_FAILED),
    };
    if let Some(systemd) = systemd {
        systemd.stopping();
    }
    node.drain(DRAIN_PATIENCE).await;
    tracing::info!("drained");
    drop(signals);
    Ok(code)
}

/// Reads the certificate again at each SIGHUP. Never returns.
async fn reload(mut hangups: Hangups, tls: Option<Arc<Tls>>, systemd: Option<Arc<Systemd>>) {
    loop {
        hangups.next().await;
        if let Some(systemd) = &systemd {
            systemd.reloading();
        }
        match &tls {
            Some(tls) => tls.reload_or_tell(),
            None => {
                tracing::info!("no certificate to reload; all other settings need a restart")
            }
        }
        if let Some(systemd) = &systemd {
            systemd.ready();
        }
    }
}

fn print_start(addr: SocketAddr, data: &Path, limits: bool, has_tls: bool) {
    let (http, ws) = if has_tls { ("https", "wss") } else { ("http", "ws") };
    say!("madang {} listens on {http}://{addr}", env!("CARGO_PKG_VERSION"));
    say!("  socket     {ws}://{addr}/v1/ws (subprotocol {})", madang_proto::SUBPROTOCOL_JSON);
    say!("  data       {}", data.display());
    say!("  health     {http}://{addr}/readyz, {http}://{addr}/metrics");
    if addr.ip().is_loopback() {
        say!("  operators  {http}://{addr}/operator/, after: madang operator add NAME --scope act");
    }
    if !limits {
        say!("  LIMITS ARE OFF: every client may send at any rate. For load tests only.");
    }
    say!(
        "  next       curl -sd '{{\"handle\":\"ada\",\"display_name\":\"Ada\",\"password\":\"correct horse\"}}' {http}://{addr}/v1/accounts"
    );
    say!("             tour: README.md, protocol: docs/protocol.md; Ctrl-C drains and stops the server");
}

/// Turns huge pages off. An idle connection holds a few small pieces of memory; in pages of 2 MiB the gaps between them stay
/// resident, which costs a third more for each connection.
fn keep_pages_small() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages could not be disabled");
    }
}

/// Allows as many open files as the hard limit.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "raising the limit of open files failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_that_connect_at_the_same_time_wait_to_be_accepted() {
        let kept = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        let kept = kept.trim().parse().unwrap_or(128).min(BACKLOG).min(2_000);
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let clients: Result<Vec<_>, _> = (0..kept)
            .map(|_| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(900)))
            .collect();
        assert_eq!(clients.unwrap().len(), kept as usize);
    }
}
