//! One user who makes the most expensive calls that the limits admit, as fast as they are admitted: how long the acks
//! of other users take meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use madang_client::Rest;
use madang_ids::{ChannelId, ClientMsgId, Seq, UserId};
use madang_proto::Body;
use madang_proto::rest::{HistoryQuery, OpenChannelQuery, PageQuery, SendMessage, Since, SnapshotQuery};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::Greedy;
use super::beside::{self, Beside, SENDERS};
use super::figures::print_conditions;
use super::folder::Folder;
use super::people::{self, Person};
use super::process::Process;
use super::reader;

/// Members of the open channel, all mentioned by one message. Together with the users who talk they stay below the 60
/// sign-ups that one address may make at once.
const MEMBERS: usize = 30;
/// Messages for the pages of history; within the number that a user may send at once.
const MESSAGES: usize = 50;
const MESSAGE_BYTES: usize = 60_000;
const LARGE_BYTES: usize = 390_000;
const UNKNOWN_IDS: u64 = 10_000;
/// Concurrent calls of each kind.
const AT_ONCE: usize = 4;
/// Pause after a refused call.
const PAUSE: Duration = Duration::from_millis(50);

/// The kinds of expensive calls.
#[derive(Debug, Clone, Copy)]
enum Wish {
    History,
    Snapshot,
    Search,
    Channels,
    Members,
    Large,
    Mentions,
    React,
}

const WISHES: [Wish; 8] = [
    Wish::History,
    Wish::Snapshot,
    Wish::Search,
    Wish::Channels,
    Wish::Members,
    Wish::Large,
    Wish::Mentions,
    Wish::React,
];

/// Measures and prints the results.
pub(super) async fn run(args: Greedy) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    print_conditions(&format!(
        "greedy: one user makes the most expensive requests, {AT_ONCE} at a time of each of {} kinds, for {} s; \
         limits on",
        WISHES.len(),
        args.seconds
    ));
    let server = Process::limited(&folder.join("data"), &folder).await?;
    let rest = people::rest(&server.url())?;
    let mut people = people::sign_up(&rest, MEMBERS + 2 * SENDERS).await?;
    let talkers = people.split_off(MEMBERS);
    let greedy = Arc::new(User::prepare(rest, people).await?);
    let talkers = Beside::meet(&server.url(), talkers).await?;
    let quiet = talkers.quiet(&server.addr).await?;
    let cpu = server.usage()?.cpu_seconds;
    let talk = talkers.begin(&server.addr).await?;
    let mut tasks = JoinSet::new();
    for wish in WISHES.into_iter().flat_map(|wish| [wish; AT_ONCE]) {
        tasks.spawn(Arc::clone(&greedy).ask_on(wish));
    }
    sleep(Duration::from_secs(args.seconds)).await;
    tasks.shutdown().await;
    let beside = talk.end().await?;
    let cpu = server.usage()?.cpu_seconds - cpu;
    println!(
        "{} calls admitted, {} refused; {cpu:.1} CPU s of the server",
        greedy.admitted.load(Ordering::Relaxed),
        greedy.refused.load(Ordering::Relaxed)
    );
    beside::print(&quiet, &beside);
    server.kill().await
}

/// The user who makes the calls.
struct User {
    rest: Rest,
    token: String,
    /// An open channel that contains all members and large messages.
    channel: ChannelId,
    members: Vec<UserId>,
    admitted: AtomicU64,
    refused: AtomicU64,
}

impl User {
    async fn prepare(rest: Rest, people: Vec<Person>) -> anyhow::Result<Self> {
        let channel = people::open(&rest, &people.iter().collect::<Vec<_>>()).await?;
        let owner = people.first().context("there is no user")?;
        let (token, members) = (owner.token.clone(), people.iter().skip(1).map(|person| person.id).collect());
        let user = Self {
            rest,
            token,
            channel,
            members,
            admitted: AtomicU64::default(),
            refused: AtomicU64::default(),
        };
        for _ in 0..MESSAGES {
            user.say(MESSAGE_BYTES, Vec::new()).await?;
        }
        Ok(user)
    }

    /// Repeats calls of one kind until the task is aborted.
    async fn ask_on(self: Arc<Self>, wish: Wish) {
        loop {
            let counter = match self.ask(wish).await {
                Ok(()) => &self.admitted,
                Err(_) => {
                    sleep(PAUSE).await;
                    &self.refused
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn ask(&self, wish: Wish) -> anyhow::Result<()> {
        let (rest, token, channel) = (&self.rest, &self.token, self.channel);
        let page = PageQuery { after: None, limit: Some(500) };
        match wish {
            Wish::History => {
                let query = HistoryQuery { limit: Some(200), ..HistoryQuery::default() };
                drop(rest.history(token, channel, &query).await?);
            }
            Wish::Snapshot => {
                let since = Since { head_seq: Seq::new(1), read_seq: Seq::new(1), settings_rev: 0 };
                let since: BTreeMap<ChannelId, Since> =
                    (1..=UNKNOWN_IDS).map(|id| (ChannelId::from_raw(id), since)).collect();
                let query = SnapshotQuery { since, recent: true, ..SnapshotQuery::default() };
                drop(rest.snapshot(token, &query).await?);
            }
            Wish::Search => {
                let query =
                    OpenChannelQuery { query: Some("nothing".to_owned()), ..OpenChannelQuery::default() };
                drop(rest.open_channels(token, &query).await?);
            }
            Wish::Channels => drop(rest.channels(token, &page).await?),
            Wish::Members => drop(rest.members(token, channel, &page).await?),
            Wish::Large => self.say(LARGE_BYTES, Vec::new()).await?,
            Wish::Mentions => self.say(10, self.members.clone()).await?,
            Wish::React => {
                let emoji = if rand::random() { "tea" } else { "milk" };
                drop(rest.react(token, channel, Seq::new(40), emoji, rand::random()).await?);
            }
        }
        Ok(())
    }

    async fn say(&self, bytes: usize, mentions: Vec<UserId>) -> anyhow::Result<()> {
        let body = Body { text: reader::text(0, bytes), mentions, ..Body::default() };
        let message = SendMessage { client_msg_id: ClientMsgId::from_uuid(rand::random()), body };
        self.rest.send(&self.token, self.channel, &message).await.map(drop).context("a message")
    }
}
