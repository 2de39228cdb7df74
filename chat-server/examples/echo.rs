//! An echo server on the gateway's own socket code, for `cargo xtask autobahn`. Prints its address in a line and serves until its
//! input ends.

use std::io::Read;

use anyhow::Result;
use madang_chat_server::config::Config;
use madang_service::Clock;
use madang_testkit::{Storage, TestNode};

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::default();
    config.limits.enabled = false;
    let node = TestNode::start(config, &Storage::model(), Clock::system()).await?;
    println!("{}", node.addr);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    node.stop().await
}
