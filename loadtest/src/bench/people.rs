//! Fills a server with users and channels over REST.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::{ClientError, Rest};
use madang_ids::{ChannelId, ClientMsgId, SealedCursor, UserId};
use madang_proto::rest::{ChannelView, NewChannel, SendMessage, SignUp, SnapshotQuery};
use madang_proto::{Body, ChannelKind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use tokio::sync::Semaphore;

use super::args::Kind;
use super::reader;

/// Concurrent calls.
const CALLS: usize = 48;
/// Users who wait to join a channel.
const VISITORS: usize = 2_000;
/// Concurrent sign-ups: a server with limits refuses more from one address.
const SIGN_UPS: usize = 8;

/// A user with one device.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) token: String,
    /// The device's cursor, once [`take_cursors`] has read it.
    pub(crate) cursor: Option<SealedCursor>,
}

pub(crate) fn rest(url: &str) -> anyhow::Result<Rest> {
    Ok(Rest::new(url, Duration::from_secs(60))?)
}

pub(crate) async fn sign_up(rest: &Rest, count: usize) -> anyhow::Result<Vec<Person>> {
    sign_up_as(rest, "person", count).await
}

/// Signs up users whose handles begin with `prefix`: a server that was used before needs new ones.
pub(crate) async fn sign_up_as(rest: &Rest, prefix: &str, count: usize) -> anyhow::Result<Vec<Person>> {
    stream::iter(0..count)
        .map(|number| async move {
            let sign_up = SignUp {
                handle: format!("{prefix}{number}"),
                display_name: format!("Person {number}"),
                password: "correct horse".to_owned(),
                device_name: "bench".to_owned(),
                invitation: None,
            };
            let signed_in = rest.sign_up(&sign_up, None).await.context("sign-up failed")?;
            Ok(Person { id: signed_in.user.id, token: signed_in.access_token, cursor: None })
        })
        .buffered(SIGN_UPS)
        .try_collect()
        .await
}

/// Puts every user into `rounds` groups of `members`, each with other users.
pub(crate) async fn groups(
    rest: &Rest,
    people: &[Person],
    rounds: usize,
    members: usize,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let mut order: Vec<&Person> = people.iter().collect();
    for _ in 0..rounds {
        order.shuffle(&mut random);
        let chunks = order.chunks(members.max(2)).filter(|chunk| chunk.len() > 1);
        stream::iter(chunks)
            .map(|chunk| group(rest, chunk))
            .buffer_unordered(CALLS)
            .try_collect::<Vec<_>>()
            .await?;
    }
    Ok(())
}

pub(crate) async fn group(rest: &Rest, people: &[&Person]) -> anyhow::Result<ChannelId> {
    let members = people[1..].iter().map(|person| person.id).collect();
    let name = Some("bench".to_owned());
    let channel = NewChannel { kind: ChannelKind::Group, name, topic: None, members };
    let view =
        rest.create_channel(&people[0].token, &channel, None).await.context("creating a group failed")?;
    Ok(view.card.id)
}

/// An open channel that the first user creates and the others join.
pub(crate) async fn open(rest: &Rest, people: &[&Person]) -> anyhow::Result<ChannelId> {
    let [owner, others @ ..] = people else { bail!("there is no owner") };
    let name = Some("bench".to_owned());
    let channel = NewChannel { kind: ChannelKind::Open, name, topic: None, members: Vec::new() };
    let view =
        rest.create_channel(&owner.token, &channel, None).await.context("creating an open channel failed")?;
    let id = view.card.id;
    let calls = Semaphore::new(CALLS);
    stream::iter(others)
        .map(|person| join(rest, person, id, &calls))
        .buffer_unordered(VISITORS)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
        .context("a user could not join the open channel")?;
    Ok(id)
}

/// Joins a channel; comes back later as often as the server says so, because a crowd at the door makes the channel hot.
async fn join(rest: &Rest, person: &Person, channel: ChannelId, calls: &Semaphore) -> anyhow::Result<()> {
    loop {
        let permit = calls.acquire().await?;
        let joined = rest.join(&person.token, channel).await;
        drop(permit);
        let refused = match joined {
            Ok(_) => return Ok(()),
            Err(ClientError::Refused(refused)) => refused,
            Err(error) => return Err(error.into()),
        };
        match refused.retry_after_ms.filter(|_| refused.retryable) {
            Some(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
            None => return Err(ClientError::Refused(refused).into()),
        }
    }
}

/// A channel of any kind between distinct users.
pub(crate) async fn channel(rest: &Rest, kind: Kind, people: &[&Person]) -> anyhow::Result<ChannelId> {
    match (kind, people) {
        (Kind::Open, _) => open(rest, people).await,
        (Kind::Group, _) => group(rest, people).await,
        (Kind::Direct, [one, two]) => {
            let members = vec![two.id];
            let channel = NewChannel { kind: ChannelKind::Direct, name: None, topic: None, members };
            let view = rest.create_channel(&one.token, &channel, None).await;
            Ok(view.context("creating a direct channel failed")?.card.id)
        }
        (Kind::Direct, _) => bail!("a direct channel has two users"),
    }
}

/// Sends several texts of one user over REST.
pub(crate) async fn say(
    rest: &Rest,
    person: &Person,
    channel: ChannelId,
    count: usize,
) -> anyhow::Result<()> {
    for _ in 0..count {
        let body = Body { text: reader::text(0, 100), ..Body::default() };
        let message = SendMessage { client_msg_id: ClientMsgId::from_uuid(rand::random()), body };
        rest.send(&person.token, channel, &message).await.context("a message failed")?;
    }
    Ok(())
}

/// Creates a direct channel for each pair.
pub(crate) async fn directs(rest: &Rest, pairs: &[(Person, Person)]) -> anyhow::Result<Vec<ChannelId>> {
    let views = direct_views(rest, pairs).await?;
    Ok(views.into_iter().map(|view| view.card.id).collect())
}

/// The same. Returns the channels with their heads.
pub(crate) async fn direct_views(
    rest: &Rest,
    pairs: &[(Person, Person)],
) -> anyhow::Result<Vec<ChannelView>> {
    stream::iter(pairs)
        .map(|(from, to)| async move {
            let members = vec![to.id];
            let channel = NewChannel { kind: ChannelKind::Direct, name: None, topic: None, members };
            let view = rest.create_channel(&from.token, &channel, None).await;
            view.context("creating a direct channel failed")
        })
        .buffered(CALLS)
        .try_collect()
        .await
}

/// Moves the cursor of each device to the end of everything so far.
pub(crate) async fn take_cursors(rest: &Rest, people: &mut [Person]) -> anyhow::Result<()> {
    stream::iter(people)
        .map(|person| async move {
            person.cursor = rest.snapshot(&person.token, &SnapshotQuery::default()).await?.cursor;
            Ok(())
        })
        .buffer_unordered(CALLS)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}
