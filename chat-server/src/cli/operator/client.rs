//! Asks the server of a data folder, or opens the folder if none runs on it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use madang_service::Drain;
use madang_store::embedded;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::carry_out::carry_out;
use super::request::{AdminAnswer, Ask};
use super::{ANSWER_BYTES, SOCKET};
use crate::cli;
use crate::compose::Node;

/// Asks the running server; without one it opens the folder and carries the request out itself.
pub(in crate::cli) fn ask_folder(
    config: Option<&Path>,
    data: Option<PathBuf>,
    ask: Ask,
) -> anyhow::Result<AdminAnswer> {
    let mut config = cli::load(config)?;
    config.server.data = data.unwrap_or(config.server.data);
    cli::runtime()?.block_on(async {
        if let Some(answer) = ask_server(&config.server.data, &ask).await? {
            return Ok(answer);
        }
        if !config.server.data.exists() {
            bail!("the data folder {} does not exist", config.server.data.display());
        }
        embedded::check_is_current(&config.server.data)?;
        let node = Node::open(config, Drain::new(), false).await?;
        let answer = carry_out(&node.api, None, ask).await;
        node.tasks.drain().stop();
        node.background.drain().stop();
        Ok(answer)
    })
}

/// Asks the running server. `None` if none runs on this folder.
pub(in crate::cli) async fn ask_server(data: &Path, ask: &Ask) -> anyhow::Result<Option<AdminAnswer>> {
    let Ok(mut stream) = UnixStream::connect(data.join(SOCKET)).await else { return Ok(None) };
    stream.write_all(format!("{}\n", serde_json::to_string(ask)?).as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut line).await?;
    serde_json::from_str(&line).map(Some).context("cannot parse the server's answer")
}
