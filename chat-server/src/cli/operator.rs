//! Requests of an operator to a data folder. If its server runs, they go over a socket in the folder, which is private to its
//! owner; otherwise the command opens the folder itself. One JSON object in a line each way.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use madang_proto::ErrorBody;
use madang_proto::rest::{DeviceCard, ExportEnd, Page, SignedIn};
use madang_service::Drain;
use madang_store::embedded::{self, Embedded};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::compose::Node;
use crate::operations::{Account, InvitationCard, Operations, TopPeriod};
use crate::refusal::OperationError;

use super::invitations::InvitationsAsk;
use super::users::UsersAsk;

const SOCKET: &str = "operator.sock";
const REQUEST_BYTES: u64 = 64 * 1024;
/// A page of 500 accounts takes half of it.
const ANSWER_BYTES: u64 = 1024 * 1024;

/// Mint an access token.
#[derive(Debug, Args)]
pub(super) struct TokenCommand {
    /// The user's handle.
    handle: String,
    /// The name of the new device.
    #[arg(long, default_value = "token")]
    device_name: String,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Change the password of a user.
#[derive(Debug, Args)]
pub(super) struct ResetPassword {
    /// The user's handle.
    handle: String,
    /// Leave the devices of the user signed in; without it they are revoked.
    #[arg(long)]
    keep_devices: bool,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Ask {
    Token { handle: String, device_name: String },
    ResetPassword { handle: String, password: String, keep_devices: bool },
    Users(UsersAsk),
    Invitations(InvitationsAsk),
    Backup { to: PathBuf },
    Top { limit: usize },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AdminAnswer {
    SignedIn(Box<SignedIn>),
    Accounts(Page<Account>),
    Account(Box<Account>),
    Devices(Vec<DeviceCard>),
    Exported(Box<ExportEnd>),
    Revoked(usize),
    Invitations(Page<InvitationCard>),
    Invitation(Box<InvitationCard>),
    BackedUp { position: u64, bytes: u64 },
    Top(Vec<TopPeriod>),
    Done,
    Refused(ErrorBody),
}

impl TokenCommand {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let ask = Ask::Token { handle: self.handle, device_name: self.device_name };
        match ask_folder(config, self.data, ask)? {
            AdminAnswer::SignedIn(signed_in) => say!("{}", serde_json::to_string_pretty(&signed_in)?),
            AdminAnswer::Refused(error) => bail!("{error}"),
            _ => {}
        }
        Ok(())
    }
}

impl ResetPassword {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (handle, keep_devices) = (self.handle, self.keep_devices);
        let ask = Ask::ResetPassword { handle: handle.clone(), password: read_password()?, keep_devices };
        match ask_folder(config, self.data, ask)? {
            AdminAnswer::Refused(error) => bail!("{error}"),
            _ if keep_devices => eprintln!("changed the password of {handle}; the devices stay signed in"),
            _ => eprintln!("changed the password of {handle}; every device must log in again"),
        }
        Ok(())
    }
}

/// Reads a password from standard input, so that it appears in no list of processes.
pub(super) fn read_password() -> anyhow::Result<String> {
    let mut password = String::new();
    std::io::stdin().take(1024).read_to_string(&mut password).context(
        "cannot read the password from standard \
         input",
    )?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

pub(super) fn ask_folder(
    config: Option<&Path>,
    data: Option<PathBuf>,
    ask: Ask,
) -> anyhow::Result<AdminAnswer> {
    let mut config = super::load(config)?;
    config.server.data = data.unwrap_or(config.server.data);
    super::runtime()?.block_on(async {
        if let Some(answer) = ask_server(&config.server.data, &ask).await? {
            return Ok(answer);
        }
        if !config.server.data.exists() {
            bail!("the data folder {} does not exist", config.server.data.display());
        }
        embedded::check_is_current(&config.server.data)?;
        let node = Node::open(config, Drain::new(), false).await?;
        let answer = answer_ask(&node.gateway.operations, None, ask).await;
        node.tasks.drain().stop();
        node.background.drain().stop();
        Ok(answer)
    })
}

/// Asks the running server. `None` if none runs on this folder.
pub(super) async fn ask_server(data: &Path, ask: &Ask) -> anyhow::Result<Option<AdminAnswer>> {
    let Ok(mut stream) = UnixStream::connect(data.join(SOCKET)).await else { return Ok(None) };
    stream.write_all(format!("{}\n", serde_json::to_string(ask)?).as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut line).await?;
    serde_json::from_str(&line).map(Some).context("cannot parse the server's answer")
}

/// Answers requests of operators for this data folder until the drain.
pub(super) fn listen(node: &Node, data: &Path) -> anyhow::Result<()> {
    let path = data.join(SOCKET);
    // This process holds the lock of the folder, so an existing socket belongs to a process that has ended.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let (operations, drain) = (Arc::clone(&node.gateway.operations), node.tasks.drain().clone());
    let folder = node.folder.clone();
    node.tasks.spawn("operator", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            // Requests are answered one after the other: there is one operator.
            if let Ok((stream, _)) = accepted
                && let Err(error) = answer(&operations, folder.as_deref(), stream).await
            {
                tracing::warn!(%error, "answering an operator failed");
            }
        }
    });
    Ok(())
}

async fn answer(
    operations: &Arc<Operations>,
    folder: Option<&Embedded>,
    mut stream: UnixStream,
) -> anyhow::Result<()> {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let patience = std::time::Duration::from_secs(5);
    let mut reader = BufReader::new(read.take(REQUEST_BYTES));
    tokio::time::timeout(patience, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => tokio::select! {
            answer = answer_ask(operations, folder, ask) => answer,
            // An operator who has hung up does not need the answer.
            _ = reader.read_u8() => return Ok(()),
        },
        Err(error) => AdminAnswer::Refused(ErrorBody::invalid("ask", error.to_string())),
    };
    write.write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes()).await?;
    Ok(())
}

async fn answer_ask(operations: &Arc<Operations>, folder: Option<&Embedded>, ask: Ask) -> AdminAnswer {
    let answer = match ask {
        Ask::Token { handle, device_name } => operations
            .sign_in_for(&handle, device_name)
            .await
            .map(|signed_in| AdminAnswer::SignedIn(Box::new(signed_in))),
        Ask::ResetPassword { handle, password, keep_devices } => {
            operations.reset_password(&handle, password, keep_devices).await.map(|()| AdminAnswer::Done)
        }
        Ask::Users(ask) => super::users::answer_ask(operations, ask).await,
        Ask::Invitations(ask) => super::invitations::answer_ask(operations, ask).await,
        Ask::Backup { to } => super::backup::make(folder, &to).await.map_err(OperationError::from),
        Ask::Top { limit } => operations.top(limit).await.map(AdminAnswer::Top),
    };
    answer.unwrap_or_else(|error| AdminAnswer::Refused(error.into()))
}
