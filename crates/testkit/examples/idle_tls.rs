//! Memory of idle connections of one binary, plain and through TLS: `idle_tls BINARY CONNECTIONS`. `cargo xtask bench
//! idle` measures how many connections the machine can hold; this measures what TLS adds.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use madang_testkit::{Certificate, Server, Socket, Stream};
use tokio::net::{TcpSocket, TcpStream};

/// Connections from one source address. Below the number of its ports.
const PER_ADDRESS: usize = 4_000;
/// Time after which freed memory has been returned to the system.
const SETTLE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let binary = args.next().context("idle_tls BINARY CONNECTIONS")?;
    let count: usize = args.next().context("how many connections?")?.parse()?;
    for (name, versions) in [
        ("plain", &[][..]),
        ("TLS 1.3", &[&rustls::version::TLS13][..]),
        ("TLS 1.2", &[&rustls::version::TLS12][..]),
    ] {
        println!("{name}: {:.0} B a connection by RSS", weigh(&binary, count, versions).await?);
    }
    Ok(())
}

async fn weigh(
    binary: &str,
    count: usize,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let (data, certificate) = (folder.path().join("data"), Certificate::new());
    let server = start(binary, &data, &[]).await?;
    let signed_in = server.rest.sign_up("ada").await;
    let token = signed_in["access_token"].as_str().context("a token")?;
    server.kill().await?;
    // The server starts again, so that the memory used for sign-up is not counted.
    let tls = certificate.write(folder.path());
    let files = [("MADANG_TLS__CERT", utf8(&tls.cert)?), ("MADANG_TLS__KEY", utf8(&tls.key)?)];
    let variables = if versions.is_empty() { &[] } else { &files[..] };
    let server = start(binary, &data, variables).await?;
    // The first connections allocate what all connections share.
    let mut sockets = Vec::new();
    let mut before = 0;
    for number in 0..count + 100 {
        if number == 100 {
            tokio::time::sleep(SETTLE).await;
            before = server.resident_bytes()?;
        }
        let tcp = connect(&server, number).await?;
        let stream: Stream = if versions.is_empty() {
            Box::new(tcp)
        } else {
            Box::new(certificate.connect(tcp, versions, &["http/1.1"]).await?)
        };
        sockets.push(Socket::over(stream, server.addr).await?.greet(token, None).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = server.resident_bytes()?.saturating_sub(before);
    server.kill().await?;
    Ok(grown as f64 / count as f64)
}

async fn start(binary: &str, data: &Path, variables: &[(&str, &str)]) -> anyhow::Result<Server> {
    let mut all = vec![
        ("MADANG_GATEWAY__CONNECTIONS_PER_DEVICE", "1000000"),
        ("MADANG_GATEWAY__CONNECTIONS", "1000000"),
        ("MADANG_GATEWAY__SILENCE_MS", "3600000"),
    ];
    all.extend(variables);
    Server::start_with(binary, data, &["--limits", "off"], &all).await
}

async fn connect(server: &Server, number: usize) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("127.0.0.{}:0", 2 + number / PER_ADDRESS).parse()?)?;
    Ok(socket.connect(server.addr).await?)
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
