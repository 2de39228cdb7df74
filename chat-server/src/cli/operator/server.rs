//! The server's side: listens on a socket in the data folder.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use madang_proto::ErrorBody;
use madang_store::embedded::Embedded;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::carry_out::carry_out;
use super::request::AdminAnswer;
use super::{REQUEST_BYTES, SOCKET};
use crate::compose::Node;
use crate::rest::Api;

/// Answers requests of operators for this data folder until the drain.
pub(in crate::cli) fn listen(node: &Node, data: &Path) -> anyhow::Result<()> {
    // In a fleet the folder has nothing else, and no lock.
    DirBuilder::new().recursive(true).mode(0o700).create(data).context("cannot make the data folder")?;
    let path = data.join(SOCKET);
    if StdUnixStream::connect(&path).is_ok() {
        bail!("another process answers at {}: give each node a data folder of its own", path.display());
    }
    // The socket of a process that has ended.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let (api, drain) = (node.api.clone(), node.tasks.drain().clone());
    let folder = node.folder.clone();
    node.tasks.spawn("operator", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            // Requests are answered one after the other: there is one operator.
            if let Ok((stream, _)) = accepted
                && let Err(error) = answer(&api, folder.as_deref(), stream).await
            {
                tracing::warn!(%error, "answering an operator failed");
            }
        }
    });
    Ok(())
}

async fn answer(api: &Api, folder: Option<&Embedded>, mut stream: UnixStream) -> anyhow::Result<()> {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let patience = std::time::Duration::from_secs(5);
    let mut reader = BufReader::new(read.take(REQUEST_BYTES));
    tokio::time::timeout(patience, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => tokio::select! {
            answer = carry_out(api, folder, ask) => answer,
            // An operator who has hung up does not need the answer.
            _ = reader.read_u8() => return Ok(()),
        },
        Err(error) => AdminAnswer::Refused(ErrorBody::invalid("ask", error.to_string())),
    };
    write.write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes()).await?;
    Ok(())
}
