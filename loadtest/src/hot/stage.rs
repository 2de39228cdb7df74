//! Fills the server before a storm: users, the channel, the pairs, and all of their connections.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::Rest;
use madang_ids::{ChannelId, Seq};

use super::args::Hot;
use super::check::Outcome;
use super::level::Levels;
use super::senders::Speaker;
use crate::bench::folder::Folder;
use crate::bench::people::{self, Person};
use crate::bench::readers::{Kind, Read, Readers};
use crate::bench::socket::source;

/// Senders that connect at the same time.
const AT_ONCE: usize = 48;

/// Everything that takes part in a storm.
#[derive(Debug)]
pub(super) struct Stage {
    /// `host:port` of each node.
    pub(super) addrs: Vec<String>,
    pub(super) rest: Rest,
    pub(super) channel: ChannelId,
    /// A member who stays: the owner.
    pub(super) owner: Person,
    pub(super) members: Vec<Person>,
    pub(super) senders: Vec<Speaker>,
    /// Read the channel.
    pub(super) readers: Readers,
    pub(super) levels: Arc<Levels>,
    /// Each sends into the direct channel of its pair.
    pub(super) talkers: Vec<(Speaker, ChannelId)>,
    /// Read the direct channels, in the order of `talkers`.
    pub(super) listeners: Readers,
    /// Users who join and leave.
    pub(super) visitors: Vec<Person>,
    _folder: Folder,
}

impl Stage {
    pub(super) async fn build(args: &Hot) -> anyhow::Result<Self> {
        let urls = args.urls();
        let addrs = urls.iter().map(|url| addr(url)).collect::<anyhow::Result<Vec<String>>>()?;
        let (rest, folder) = (people::rest(&urls[0])?, Folder::new()?);
        let senders = args.senders() as usize;
        let count = senders + args.members + 2 * args.bystanders + args.visitors();
        println!("set-up: {count} users sign up");
        let mut people = people::sign_up_as(&rest, &format!("hot{}-", args.seed), count).await?;
        let visitors = people.split_off(count - args.visitors());
        let talking = people.split_off(senders + args.members);
        println!("set-up: {} users join the channel", people.len());
        let channel = people::open(&rest, &people.iter().collect::<Vec<&Person>>()).await?;
        let members = people.split_off(senders);
        let owner = people.first().context("there is no sender")?.clone();
        let pairs: Vec<(Person, Person)> =
            talking.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let directs = people::direct_views(&rest, &pairs).await?;
        let heads: Vec<(ChannelId, Seq)> = directs.iter().map(|view| (view.card.id, view.head_seq)).collect();
        println!("set-up: {} sockets connect", members.len() + senders + 2 * pairs.len());
        let (mut readers, listeners) = readers(&addrs, channel, &members, &pairs, &heads, &folder).await?;
        let levels = wait_for_normal(&addrs, &mut readers).await?;
        // Last, because they are silent until they send.
        let talkers: Vec<Person> = pairs.into_iter().map(|(from, _)| from).collect();
        let talkers = connect(&addrs, &talkers).await?;
        let talkers = talkers.into_iter().zip(heads.into_iter().map(|(channel, _)| channel)).collect();
        let senders = connect(&addrs, &people).await?;
        Ok(Self {
            addrs,
            rest,
            channel,
            owner,
            members,
            senders,
            readers,
            levels,
            talkers,
            listeners,
            visitors,
            _folder: folder,
        })
    }
}

/// Connects the readers of the channel, spread over the nodes, and those of the direct channels, at the first node in
/// their order. They are in processes of their own, because a bystander should not wait for the storm in the generator.
async fn readers(
    addrs: &[String],
    channel: ChannelId,
    members: &[Person],
    pairs: &[(Person, Person)],
    heads: &[(ChannelId, Seq)],
    folder: &Folder,
) -> anyhow::Result<(Readers, Readers)> {
    let mut readers = Readers::default();
    for (number, addr) in addrs.iter().enumerate() {
        let here = members.iter().skip(number).step_by(addrs.len());
        let reads: Vec<Read<'_>> =
            here.map(|person| Read::Welcome { token: &person.token, subscribe: Some(channel) }).collect();
        readers.add(Kind::Watch, addr, &reads, folder, &format!("readers-{number}")).await?;
    }
    let listening = pairs.iter().map(|(_, to)| to).zip(heads);
    let reads: Vec<Read<'_>> = listening
        .map(|(to, (channel, head))| Read::Direct { token: &to.token, channel: *channel, head: *head })
        .collect();
    let mut listeners = Readers::default();
    listeners.add(Kind::Watch, &addrs[0], &reads, folder, "listeners").await?;
    Ok((readers, listeners))
}

/// Waits until the channel is no longer hot from all the users who joined it, while its readers stay connected.
async fn wait_for_normal(addrs: &[String], readers: &mut Readers) -> anyhow::Result<Arc<Levels>> {
    println!("set-up: the level falls; joins made the channel hot");
    let levels = Arc::new(Levels::watch(addrs));
    ensure!(levels.wait_until_normal().await, "the level does not fall after the set-up");
    let outcomes: Vec<Vec<Outcome>> = readers.ask("outcomes").await?;
    if let Some(reason) = outcomes.concat().into_iter().find_map(|outcome| outcome.closed) {
        bail!("a reader was closed in the set-up: {reason}");
    }
    Ok(levels)
}

/// Connects users who send, spread over the nodes.
async fn connect(addrs: &[String], people: &[Person]) -> anyhow::Result<Vec<Speaker>> {
    let open = |(number, person): (usize, Person)| {
        let addr = addrs[number % addrs.len()].clone();
        Speaker::connect(addr, source(number), person.token)
    };
    stream::iter(people.iter().cloned().enumerate()).map(open).buffered(AT_ONCE).try_collect().await
}

/// The address in a URL such as `http://127.0.0.1:8080`.
fn addr(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not an http:// URL"))?;
    Ok(rest.trim_end_matches('/').replace("localhost", "127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::addr;

    #[test]
    fn addresses_are_taken_from_urls() {
        assert_eq!(addr("http://127.0.0.1:8080/").unwrap(), "127.0.0.1:8080");
        assert_eq!(addr("http://localhost:80").unwrap(), "127.0.0.1:80");
        assert!(addr("https://127.0.0.1").is_err());
    }
}
