//! Numbers of nodes, leased from the store (docs/decisions/0029-worker-numbers-come-from-the-store.md).
//!
//! All leases are rows of one partition, so that a grant is one conditional batch: it takes the next epoch, and writes the row of a
//! number whose lease is over. Whether it is over is judged by the cluster's clocks alone. The holder counts the time of its lease
//! on a clock of its own, from before the request; [`MARGIN`] covers what the clocks differ by.

use std::time::{Duration, Instant};

use madang_ids::Millis;
use scylla::DeserializeRow;
use scylla::value::{CqlTimestamp, CqlValue, MaybeUnset};
use tokio::time::sleep;

use super::Scylla;
use super::codec::{big, int, ms, number, set};
use super::session::{Class, Statement};
use crate::error::StoreError;

/// How long a lease is valid. Renew it every 10 s: then five renewals may fail.
const LEASE: Duration = Duration::from_secs(60);
/// How long after the end of its lease a number is not granted: more than the clocks of the cluster's nodes may differ.
const MARGIN: Duration = Duration::from_secs(10);
/// How much a node's clock may differ from the cluster's, in ms. Ids of two nodes are in the order of their times only as far as
/// clocks agree.
const CLOCK_OFF_MS: u64 = 500;
/// Nodes that are asked for their time. The median counts, so that one wrong clock among them does no harm.
const CLOCKS: usize = 3;
/// Numbers that a message id has room for.
const NUMBERS: i32 = 1_024;
/// Attempts of a grant while other nodes get theirs.
const TRIES: u32 = 64;

const CLOCK: Statement = Statement { class: Class::Read, cql: "SELECT toTimestamp(now()) FROM system.local" };
const ALL: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT last_epoch, worker, epoch, holder, name, until FROM workers WHERE shard = 0",
};
const TAKE_EPOCH: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE workers SET last_epoch = ? WHERE shard = 0 IF last_epoch = ?",
};
const GRANT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE workers SET epoch = ?, holder = ?, name = ?, until = ? WHERE shard = 0 AND worker = ? IF until = ?",
};
const RENEW: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE workers SET until = ? WHERE shard = 0 AND worker = ? IF holder = ? AND epoch = ?",
};

/// The right of one process to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLease {
    /// The number, 0 to 1023.
    pub worker: u16,
    /// Greater than the epoch of every earlier grant, whatever its number.
    pub epoch: u64,
    /// How long the lease is valid, counted from *before* the call that returned it. The holder must mint no id afterwards.
    pub valid_for: Duration,
    /// Another process with the same name whose lease is not over.
    pub namesake: Option<Namesake>,
    name: String,
    holder: u64,
}

/// A process that has the name of this one. It may be an earlier run of this node that crashed: then it renews no more. One that
/// renews while this process runs is another node with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namesake {
    /// Its number.
    pub worker: u16,
    /// Its epoch.
    pub epoch: u64,
    /// How long ago it was granted its lease or renewed it.
    pub renewed_ago: Duration,
}

/// The reason why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The node's clock is wrong, or most clocks of the cluster are.
    #[error(
        "the clock of this node differs by {off_ms} ms from the clocks of the CQL cluster, and at most {CLOCK_OFF_MS} ms are allowed; \
         correct it, for example with NTP (a positive difference: this clock is ahead)"
    )]
    ClockOff {
        /// This node's time less the cluster's.
        off_ms: i64,
    },
    /// All numbers are in use.
    #[error("all {NUMBERS} numbers of nodes are leased; one is free a minute after its node has stopped")]
    Full,
    /// The lease was over, and the number was granted to another process, or the row was removed.
    #[error("the lease of the node number {worker} is lost: another process has the number now")]
    Lost {
        /// The number.
        worker: u16,
    },
    /// The store did not answer. The lease is valid until its end, and the call can be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, DeserializeRow)]
struct StoredLease {
    last_epoch: Option<i64>,
    /// `None`: the partition has static columns alone.
    worker: Option<i32>,
    epoch: Option<i64>,
    holder: Option<i64>,
    name: Option<String>,
    until: Option<i64>,
}

impl StoredLease {
    fn is_over(&self, now_ms: i64) -> bool {
        self.until.is_none_or(|until| until + ms(MARGIN) <= now_ms)
    }
}

/// The cluster's time, continued on this machine's steady clock.
struct ClusterClock {
    base: Instant,
    base_ms: i64,
    /// Half of the time that the answer took.
    uncertain_ms: u64,
}

impl ClusterClock {
    fn now_ms(&self) -> i64 {
        self.base_ms + ms(self.base.elapsed())
    }
}

impl Scylla {
    /// Leases a number that no other process has. `name` is the name of the node in its configuration; `now` reads the clock that
    /// the node mints ids with, without correction. See [`WorkerLease`] for what the caller owes.
    ///
    /// # Errors
    /// [`LeaseError::ClockOff`], [`LeaseError::Full`], or an error of the store.
    pub async fn lease_worker(
        &self,
        name: &str,
        now: &(dyn Fn() -> Millis + Send + Sync),
    ) -> Result<WorkerLease, LeaseError> {
        let clock = self.cluster_clock().await?;
        let off_ms = int(now().get()) - clock.now_ms();
        if off_ms.unsigned_abs() > CLOCK_OFF_MS + clock.uncertain_ms {
            return Err(LeaseError::ClockOff { off_ms });
        }
        let holder = rand::random::<u64>() >> 1;
        for attempt in 0..TRIES {
            let leases = self.leases().await?;
            let last_epoch = leases.first().and_then(|lease| lease.last_epoch);
            let now_ms = clock.now_ms();
            let (worker, until) = free(&leases, name, now_ms).ok_or(LeaseError::Full)?;
            let epoch = last_epoch.map_or(0, number) + 1;
            let take = vec![big(epoch), MaybeUnset::Set(last_epoch.map(CqlValue::BigInt))];
            let grant = vec![
                big(epoch),
                big(holder),
                set(CqlValue::Text(name.to_owned())),
                set(CqlValue::BigInt(now_ms + ms(LEASE))),
                set(CqlValue::Int(worker)),
                MaybeUnset::Set(until.map(CqlValue::BigInt)),
            ];
            let is_granted =
                match self.cql.conditional_batch(vec![(&TAKE_EPOCH, take), (&GRANT, grant)]).await {
                    // It may have been applied: the row shows it.
                    Err(StoreError::Unknown(_)) => {
                        self.leases().await?.iter().any(|lease| lease.holder == Some(int(holder)))
                    }
                    outcome => outcome?,
                };
            if is_granted {
                let worker = u16::try_from(worker).unwrap_or(u16::MAX);
                let namesake = namesake(&leases, name, holder, now_ms);
                return Ok(WorkerLease {
                    worker,
                    epoch,
                    valid_for: LEASE,
                    namesake,
                    name: name.to_owned(),
                    holder,
                });
            }
            // Others lease at the same time, for example because all nodes start.
            sleep(Duration::from_millis(rand::random_range(5..50) * u64::from(attempt.min(9) + 1))).await;
        }
        Err(StoreError::Unavailable("too many nodes lease a number at once".into()).into())
    }

    /// Extends a lease. Its number and epoch stay.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if another process has the number: the caller must stop minting at once. An error of the store says
    /// nothing: the lease is valid until its end.
    pub async fn renew_worker(&self, lease: &WorkerLease) -> Result<WorkerLease, LeaseError> {
        let now_ms = self.cluster_clock().await?.now_ms();
        self.move_end(lease, now_ms + ms(LEASE)).await?;
        let namesake = namesake(&self.leases().await?, &lease.name, lease.holder, now_ms);
        Ok(WorkerLease { valid_for: LEASE, namesake, ..lease.clone() })
    }

    /// Ends a lease, so that its number is free 10 s later. The caller mints no more ids.
    ///
    /// # Errors
    /// As [`Self::renew_worker`]. The lease ends by itself in any case.
    pub async fn release_worker(&self, lease: &WorkerLease) -> Result<(), LeaseError> {
        let now_ms = self.cluster_clock().await?.now_ms();
        self.move_end(lease, now_ms).await
    }

    async fn move_end(&self, lease: &WorkerLease, until: i64) -> Result<(), LeaseError> {
        let values = (until, i32::from(lease.worker), int(lease.holder), int(lease.epoch));
        if self.cql.conditional(&RENEW, values).await? {
            return Ok(());
        }
        Err(LeaseError::Lost { worker: lease.worker })
    }

    async fn leases(&self) -> Result<Vec<StoredLease>, StoreError> {
        self.cql.read(&ALL, ()).await
    }

    /// The time of one node of the cluster, in milliseconds.
    pub(super) async fn now_ms(&self) -> Result<i64, StoreError> {
        let time: Option<(CqlTimestamp,)> = self.cql.read_one(&CLOCK, ()).await?;
        let time = time.ok_or_else(|| StoreError::Corrupt("a CQL node does not know its time".into()))?;
        Ok(time.0.0)
    }

    /// Asks some nodes for their time.
    async fn cluster_clock(&self) -> Result<ClusterClock, StoreError> {
        let mut clocks = Vec::with_capacity(CLOCKS);
        for _ in 0..CLOCKS {
            let base = Instant::now();
            let at_half = self.now_ms().await?;
            let half = base.elapsed() / 2;
            let uncertain_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
            clocks.push(ClusterClock { base, base_ms: at_half - ms(half), uncertain_ms });
        }
        clocks.sort_by_key(ClusterClock::now_ms);
        Ok(clocks.swap_remove(CLOCKS / 2))
    }

    /// Ends the lease of a number long ago. For tests.
    ///
    /// # Errors
    /// Those of the cluster.
    #[cfg(feature = "conformance")]
    pub async fn expire_worker(&self, worker: u16) -> Result<(), StoreError> {
        const EXPIRE: Statement = Statement {
            class: Class::Conditional,
            cql: "UPDATE workers SET until = 1 WHERE shard = 0 AND worker = ? IF EXISTS",
        };
        self.cql.conditional(&EXPIRE, (i32::from(worker),)).await.map(drop)
    }
}

/// A number whose lease is over, and the present end of that lease: the one that this name had before, the lowest that nobody had,
/// or the one whose lease ended first.
fn free(leases: &[StoredLease], name: &str, now_ms: i64) -> Option<(i32, Option<i64>)> {
    let over = || leases.iter().filter(|lease| lease.worker.is_some() && lease.is_over(now_ms));
    let own = over().find(|lease| lease.name.as_deref() == Some(name));
    let oldest = || over().min_by_key(|lease| lease.until);
    let place = |lease: &StoredLease| Some((lease.worker?, lease.until));
    let unused = || (0..NUMBERS).find(|number| leases.iter().all(|lease| lease.worker != Some(*number)));
    own.and_then(place).or_else(|| Some((unused()?, None))).or_else(|| oldest().and_then(place))
}

/// The process of the same name that renewed last.
fn namesake(leases: &[StoredLease], name: &str, holder: u64, now_ms: i64) -> Option<Namesake> {
    let others = leases.iter().filter(|lease| {
        lease.name.as_deref() == Some(name)
            && lease.holder != Some(int(holder))
            && lease.until.is_some_and(|until| until > now_ms)
    });
    let latest = others.max_by_key(|lease| lease.until)?;
    let renewed_ago = (now_ms - (latest.until? - ms(LEASE))).max(0);
    Some(Namesake {
        worker: u16::try_from(latest.worker?).ok()?,
        epoch: number(latest.epoch?),
        renewed_ago: Duration::from_millis(number(renewed_ago)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(worker: i32, name: &str, until: i64) -> StoredLease {
        StoredLease {
            last_epoch: Some(9),
            worker: Some(worker),
            epoch: Some(i64::from(worker) + 1),
            holder: Some(i64::from(worker) + 100),
            name: Some(name.to_owned()),
            until: Some(until),
        }
    }

    #[test]
    fn a_number_is_free_ten_seconds_after_its_lease() {
        let leases = [lease(0, "a", 100_000)];
        assert_eq!(free(&leases, "a", 109_999), Some((1, None)));
        assert_eq!(free(&leases, "a", 110_000), Some((0, Some(100_000))));
        assert_eq!(free(&leases, "b", 110_000), Some((1, None)));
    }

    #[test]
    fn the_number_whose_lease_ended_first_is_granted_when_all_were_used() {
        let mut leases: Vec<_> = (0..NUMBERS).map(|worker| lease(worker, "a", 1_000_000)).collect();
        assert_eq!(free(&leases, "b", 1_000_000), None);
        leases[7].until = Some(100);
        leases[9].until = Some(99);
        assert_eq!(free(&leases, "b", 1_000_000), Some((9, Some(99))));
    }

    #[test]
    fn a_released_partition_has_static_columns_alone() {
        let mut only = lease(0, "a", 1);
        (only.worker, only.epoch, only.holder, only.name, only.until) = (None, None, None, None, None);
        assert_eq!(free(&[only], "a", 5), Some((0, None)));
    }

    #[test]
    fn a_namesake_is_another_holder_whose_lease_is_not_over() {
        let leases = [lease(0, "a", 100_000), lease(1, "a", 90_000), lease(2, "b", 100_000)];
        let other =
            |holder, now_ms| namesake(&leases, "a", holder, now_ms).map(|it| (it.worker, it.renewed_ago));
        assert_eq!(other(7, 50_000), Some((0, Duration::from_secs(10))));
        assert_eq!(other(100, 50_000), Some((1, Duration::from_secs(20))));
        assert_eq!(other(7, 100_000), None);
        assert_eq!(namesake(&leases, "c", 7, 0), None);
    }
}
