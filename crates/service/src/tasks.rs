//! The tasks of a process: each has a name, and none outlives the handle.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, thread};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::drain::{Drain, Phase};
use crate::health::Check;

/// Time in which aborted tasks must reach their next `.await`. A task that computes without awaiting is not waited for
/// any longer.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Spawns tasks and waits for them. Cheap to clone; all clones share the tasks.
#[derive(Debug, Clone)]
pub struct Tasks {
    drain: Drain,
    tracker: TaskTracker,
    names: Names,
    panics: Arc<AtomicU64>,
}

/// Number of running tasks by name.
type Names = Arc<Mutex<BTreeMap<&'static str, usize>>>;

/// Tasks that had not ended when their time was over. They were aborted at an `.await`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cut off: {}", Counts(.tasks))]
pub struct Stragglers {
    /// Their names and numbers.
    pub tasks: Vec<(&'static str, usize)>,
}

struct Counts<'a>(&'a [(&'static str, usize)]);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {name}")?;
        }
        Ok(())
    }
}

impl Tasks {
    /// Tasks that run until `drain` is stopped, at the longest.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { drain, tracker: TaskTracker::new(), names: Names::default(), panics: Arc::default() }
    }

    /// The phase of these tasks. They watch its `draining` to end in order.
    #[must_use]
    pub const fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Runs `future` as a task. It ends by itself, or is dropped at its next `.await` when the drain is stopped. A
    /// panic is logged with the name and ends only this task. The returned handle may be dropped.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_living(self.living(name), future)
    }

    /// Runs `future` like [`Self::spawn`], under the name of `check`, which passes now. The process cannot work without
    /// this task: if it ends or panics before the drain, `check` fails for good.
    pub fn spawn_vital<F>(&self, check: Check, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        check.pass();
        let mut living = self.living(check.name());
        living.vital = Some((check, self.drain.clone()));
        self.spawn_living(living, future)
    }

    fn spawn_living<F>(&self, living: Living, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = self.drain.clone();
        // The future is boxed because a task would keep room for it twice: as an argument, and where it is polled.
        let boxed = Box::pin(future);
        self.tracker.spawn(async move {
            let _living = living;
            let mut future = boxed;
            tokio::select! {
                () = &mut future => {}
                () = drain.stopped() => {}
            }
        })
    }

    fn living(&self, name: &'static str) -> Living {
        *self.names.lock().entry(name).or_default() += 1;
        Living { name, names: Arc::clone(&self.names), panics: Arc::clone(&self.panics), vital: None }
    }

    /// Number of tasks that have panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Number of running tasks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Starts the drain, gives the tasks `deadline` to end, then stops the remaining ones. Afterwards the phase is
    /// `Stopped`; a task that is spawned later ends at its first `.await`.
    ///
    /// # Errors
    /// [`Stragglers`] names the tasks that had to be aborted.
    pub async fn close_and_wait(&self, deadline: Duration) -> Result<(), Stragglers> {
        self.drain.begin();
        self.tracker.close();
        if timeout(deadline, self.tracker.wait()).await.is_ok() {
            self.drain.stop();
            return Ok(());
        }
        let tasks = self.names.lock().iter().map(|(name, count)| (*name, *count)).collect();
        self.drain.stop();
        if timeout(CUT_GRACE, self.tracker.wait()).await.is_err() {
            tracing::error!(tasks = self.count(), "tasks still run after they were aborted");
        }
        Err(Stragglers { tasks })
    }
}

/// Counts a task while it exists.
struct Living {
    name: &'static str,
    names: Names,
    panics: Arc<AtomicU64>,
    /// The check that fails if the task ends before the drain.
    vital: Option<(Check, Drain)>,
}

impl Drop for Living {
    fn drop(&mut self) {
        let has_panicked = thread::panicking();
        self.panics.fetch_add(u64::from(has_panicked), Ordering::Relaxed);
        match &self.vital {
            Some((check, drain)) if drain.phase() == Phase::Running => {
                let how = if has_panicked { "has panicked" } else { "has ended" };
                tracing::error!(task = self.name, "a vital task {how}");
                check.give_up(format!("the task {how}; restart the server"));
            }
            _ if has_panicked => tracing::error!(task = self.name, "a task has panicked"),
            _ => {}
        }
        let mut names = self.names.lock();
        if let Some(count) = names.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn tasks_that_end_by_themselves_are_waited_for() {
        let tasks = Tasks::new(Drain::new());
        for _ in 0..3 {
            let drain = tasks.drain().clone();
            tasks.spawn("connection", async move { drain.draining().await });
        }
        assert_eq!(tasks.count(), 3);
        assert_eq!(tasks.close_and_wait(Duration::from_secs(5)).await, Ok(()));
        assert_eq!((tasks.count(), tasks.drain().phase()), (0, Phase::Stopped));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_end_are_aborted_and_named() {
        let tasks = Tasks::new(Drain::new());
        tasks.spawn("sweep", pending());
        tasks.spawn("connection", pending());
        tasks.spawn("connection", pending());
        let stragglers = tasks.close_and_wait(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(stragglers.to_string(), "cut off: 2 connection, 1 sweep");
        assert_eq!(tasks.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_spawned_after_the_end_ends_at_once() {
        let tasks = Tasks::new(Drain::new());
        tasks.close_and_wait(Duration::ZERO).await.unwrap();
        tasks.spawn("late", pending()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let tasks = Tasks::new(Drain::new());
        let other = tasks.spawn("other", pending());
        assert!(tasks.spawn("wrong", async { panic!("planted") }).await.is_err());
        assert!(!other.is_finished());
        assert_eq!(tasks.count(), 1);
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_reported_unless_the_process_drains() {
        let tasks = Tasks::new(Drain::new());
        let health = Health::new(tasks.drain().clone());
        tasks.spawn_vital(health.check("sweep"), pending());
        let drain = tasks.drain().clone();
        let polite = tasks.spawn_vital(health.check("upkeep"), async move { drain.draining().await });
        assert!(health.readiness().ready && !health.is_lost());
        assert!(tasks.spawn_vital(health.check("deliver"), async { panic!("planted") }).await.is_err());
        tasks.spawn_vital(health.check("inbox"), async {}).await.unwrap();
        let expected = BTreeMap::from([
            ("deliver", "the task has panicked; restart the server".to_owned()),
            ("inbox", "the task has ended; restart the server".to_owned()),
        ]);
        assert_eq!(health.readiness().reasons, expected);
        assert!(health.is_lost());
        tasks.drain().begin();
        polite.await.unwrap();
        tasks.drain().stop();
        tasks.tracker.close();
        tasks.tracker.wait().await;
        assert_eq!(health.readiness().reasons.len(), expected.len() + 1);
        assert_eq!(health.readiness().reasons["process"], "stopped");
    }
}
