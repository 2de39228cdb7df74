//! How soon users see that others come, leave and crash, and whether anybody flaps.
//!
//! All users are in one group, so each is informed about all others. A quarter of the users leave with a close frame, a
//! quarter reset the connection, a quarter fall silent, and a quarter are back within the grace period, which no other
//! user should see.

mod outcome;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use madang_proto::{Availability, PresenceList, UserPresence};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::args::Presence;
use super::figures::{histogram, median, micros, print_conditions, quantile_ms, verdict};
use super::folder::Folder;
use super::people::{self, Person};
use super::process::Process;
use super::socket::{Socket, source};
use outcome::{Cause, Deed, Told, compare};

/// Bytes of one read of a connection.
const READ_BYTES: usize = 16 * 1024;
const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_FRAME: &str = r#"{"type":"heartbeat"}"#;
/// How long a user stays connected.
const STAY: Duration = Duration::from_secs(7);
/// How long a user is away without being noticed: far below the grace period of 10 s.
const BLINK: Duration = Duration::from_secs(2);
/// A crash must be seen within this time (G6).
const LIMIT: Duration = Duration::from_secs(30);
/// The users continue this much later: a change that arrives in between is late, not unseen.
const MARGIN: Duration = Duration::from_secs(5);

/// Results that all tasks record.
struct Stage {
    addr: String,
    begun: Instant,
    causes: Mutex<Vec<Cause>>,
    told: Mutex<Vec<Told>>,
    /// Time from a heartbeat to its answer.
    beats: Mutex<Histogram<u64>>,
}

/// Measures and prints the results. Returns `false` if a change was seen too late or not at all, or if a user flapped.
pub(super) async fn run(args: Presence) -> anyhow::Result<bool> {
    let folder = Folder::new()?;
    let (people, watchers) = (args.people as usize, args.watchers as usize);
    print_conditions(&format!(
        "presence: {people} users and {watchers} watchers in one group; each user connects for {} s and leaves, {} \
         times",
        STAY.as_secs(),
        args.rounds
    ));
    let server = Process::strict(&folder.join("data"), &folder).await?;
    let rest = people::rest(&server.url())?;
    let all = people::sign_up(&rest, people + watchers).await?;
    people::group(&rest, &all.iter().collect::<Vec<_>>()).await?;
    let stage = Arc::new(Stage {
        addr: server.addr.clone(),
        begun: Instant::now(),
        causes: Mutex::default(),
        told: Mutex::default(),
        beats: Mutex::new(histogram()?),
    });
    let (looking, acting) = all.split_at(watchers);
    let mut watching = JoinSet::new();
    for (number, person) in looking.iter().enumerate() {
        let socket = Socket::welcome(&stage.addr, source(number), READ_BYTES, &person.token, None).await?;
        watching.spawn(watch(Arc::clone(&stage), number, socket));
    }
    let cpu = server.usage()?.cpu_seconds;
    let mut playing = JoinSet::new();
    for (number, person) in acting.iter().enumerate() {
        playing.spawn(play(Arc::clone(&stage), number, person.clone(), args.rounds));
    }
    while let Some(done) = playing.join_next().await {
        done??;
    }
    let cpu = server.usage()?.cpu_seconds - cpu;
    watching.abort_all();
    while let Some(done) = watching.join_next().await {
        if let Ok(ended) = done {
            ended.context("a watcher lost its connection")?;
        }
    }
    print(&stage, acting, watchers, cpu)
}

fn print(stage: &Stage, acting: &[Person], watchers: usize, cpu: f64) -> anyhow::Result<bool> {
    let ids: HashSet<u64> = acting.iter().map(|person| person.id.raw()).collect();
    let (causes, mut told) = (locked(&stage.causes).clone(), locked(&stage.told).clone());
    told.retain(|told| ids.contains(&told.person));
    anyhow::ensure!(!told.is_empty(), "no watcher received presence: does this server send it?");
    let outcome = compare(&causes, &told, watchers);
    println!("{:>12} {:>6} {:>9} {:>9}", "deed", "seen", "median s", "worst s");
    let mut is_late = false;
    for (deed, took) in &outcome.seen {
        let worst = took.iter().max().copied().unwrap_or_default();
        is_late |= worst > LIMIT;
        println!(
            "{:>12} {:>6} {:>9.2} {:>9.2}",
            format!("{deed:?}"),
            took.len(),
            median(took.iter().map(Duration::as_secs_f64)),
            worst.as_secs_f64()
        );
    }
    for unseen in outcome.unseen.iter().take(10) {
        println!("  {unseen}");
    }
    let beats = locked(&stage.beats).clone();
    println!(
        "{} changes not received, {} flaps; {cpu:.2} CPU s of the server; bare: a heartbeat is answered within \
         {:.2} ms (p99 {:.2} ms)",
        outcome.unseen.len(),
        outcome.flaps,
        quantile_ms(&beats, 0.5),
        quantile_ms(&beats, 0.99)
    );
    let holds = !is_late && outcome.unseen.is_empty() && outcome.flaps == 0;
    println!("target: every change received within {} s, no flap: {}", LIMIT.as_secs(), verdict(holds));
    Ok(holds)
}

/// Records the presence that a watcher receives, until the task is aborted.
async fn watch(stage: Arc<Stage>, watcher: usize, mut socket: Socket) -> anyhow::Result<()> {
    let mut next = Instant::now() + HEARTBEAT;
    let mut asked = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                next += HEARTBEAT;
                asked = Instant::now();
                socket.send(HEARTBEAT_FRAME).await?;
            }
            filled = socket.fill() => { filled?; }
        }
        let at = stage.begun.elapsed();
        socket.frames(|payload| {
            if payload.starts_with(br#"{"type":"heartbeat""#) {
                locked(&stage.beats).saturating_record(micros(asked.elapsed()));
            }
            let told = changes(payload).into_iter();
            locked(&stage.told).extend(told.map(|(person, is_here)| Told { watcher, person, is_here, at }));
        })?;
    }
}

/// Connects and disconnects one user, `rounds` times.
async fn play(stage: Arc<Stage>, number: usize, person: Person, rounds: u32) -> anyhow::Result<()> {
    // The users start at different times.
    sleep(Duration::from_millis(137 * number as u64 % 5_000)).await;
    for _ in 0..rounds {
        stage.note(&person, Deed::Comes);
        let mut socket = stage.come(number, &person).await?;
        hold(&mut socket, STAY).await?;
        let gone = match number % 4 {
            0 => {
                stage.note(&person, Deed::Leaves);
                socket.close().await?;
                None
            }
            1 => {
                stage.note(&person, Deed::Crashes);
                socket.reset()?;
                None
            }
            2 => {
                // The last sign of life is sent just before. This case takes longest to detect.
                socket.send(HEARTBEAT_FRAME).await?;
                stage.note(&person, Deed::FallsSilent);
                Some(socket)
            }
            _ => {
                socket.reset()?;
                sleep(BLINK).await;
                let mut socket = stage.come(number, &person).await?;
                hold(&mut socket, STAY * 2).await?;
                stage.note(&person, Deed::Leaves);
                socket.close().await?;
                None
            }
        };
        sleep(LIMIT + MARGIN).await;
        drop(gone);
    }
    Ok(())
}

/// Reads, and sends heartbeats.
async fn hold(socket: &mut Socket, lasts: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + lasts;
    let mut next = Instant::now();
    while Instant::now() < until {
        tokio::select! {
            () = sleep_until(next.min(until)) => {
                next += HEARTBEAT;
                socket.send(HEARTBEAT_FRAME).await?;
            }
            filled = socket.fill() => {
                filled?;
                socket.frames(|_| {})?;
            }
        }
    }
    Ok(())
}

impl Stage {
    async fn come(&self, number: usize, person: &Person) -> anyhow::Result<Socket> {
        Socket::welcome(&self.addr, source(number), READ_BYTES, &person.token, None).await
    }

    fn note(&self, person: &Person, deed: Deed) {
        let at = self.begun.elapsed();
        locked(&self.causes).push(Cause { person: person.id.raw(), deed, at });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Users in a presence frame, and whether each is connected: one user or a list of them. A user who is away counts as
/// connected.
fn changes(payload: &[u8]) -> Vec<(u64, bool)> {
    if !payload.starts_with(br#"{"type":"presence""#) {
        return Vec::new();
    }
    let Ok(list) = serde_json::from_slice::<PresenceList>(payload) else { return Vec::new() };
    let is_there = |user: UserPresence| (user.user_id.raw(), user.state != Availability::Offline);
    list.users.into_iter().map(is_there).collect()
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn a_list_of_users_is_parsed() {
        let list = br#"{"type":"presence","users":[{"user_id":"7","state":"away"},{"user_id":"8","state":"offline"}]}"#;
        assert_eq!(changes(list), [(7, true), (8, false)]);
        assert_eq!(changes(br#"{"type":"heartbeat","at":1}"#), []);
    }
}
