//! The program behind `cargo xtask push-sandbox`: a sandbox on fixed ports, for a developer who wants to see what a server sends.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use madang_push_sandbox::{Event, Sandbox, Settings};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

/// Stands in for APNs, FCM, push services of browsers and receivers of webhooks, until Ctrl-C.
#[derive(Parser)]
#[command(name = "cargo xtask push-sandbox")]
struct Cli {
    /// The address of APNs. FCM, Web Push and webhooks have the next three ports.
    #[arg(long, default_value = "127.0.0.1:9090")]
    addr: SocketAddr,
    /// The folder of the certificate, the keys and push.toml. By default it is in the target directory.
    #[arg(long, default_value = "target/push-sandbox")]
    dir: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Cli { addr, dir } = Cli::parse();
    let sandbox = Sandbox::start(Settings { addr, ..Settings::default() }).await?;
    let events = sandbox.events();
    prepare(&sandbox, &std::path::absolute(dir)?)?;
    tokio::select! {
        () = print(events) => Ok(()),
        ended = tokio::signal::ctrl_c() => Ok(ended?),
    }
}

/// Writes the files, and prints the configuration, a subscription of a browser, and a hook.
fn prepare(sandbox: &Sandbox, dir: &std::path::Path) -> Result<()> {
    let config = sandbox.config_text(dir);
    sandbox.write_files(dir).with_context(|| format!("cannot write to {}", dir.display()))?;
    fs::write(dir.join("push.toml"), &config)?;
    println!("{config}");
    let browser = sandbox.web_push().subscribe(None)?;
    let keys = json!({ "p256dh": browser.p256dh, "auth": browser.auth });
    println!("# A browser has subscribed: {}", json!({ "endpoint": browser.endpoint, "keys": keys }));
    let hook = sandbox.webhook().hook("test")?;
    println!("# A webhook: {}\n", json!({ "url": hook.url, "secret": hook.secret }));
    Ok(())
}

/// Prints one line for each notice and each refusal.
async fn print(mut events: tokio::sync::broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Notice(notice)) => println!("{}", notice.to_json()),
            Ok(Event::Refusal(refusal)) => println!("{}", refusal.to_json()),
            Err(RecvError::Lagged(lines)) => println!("{}", json!({ "not_printed": lines })),
            Err(RecvError::Closed) => return,
        }
    }
}
