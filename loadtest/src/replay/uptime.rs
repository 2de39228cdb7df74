//! Time during which every server runs. Patience is measured on it: nobody must answer while a server is being started
//! again.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::world::lock;

/// A clock that stands still while a server is down.
#[derive(Debug)]
pub(crate) struct Uptime(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Time before the last stop.
    before: Duration,
    /// The last start; `None` while the clock stands still.
    since: Option<Instant>,
}

impl Uptime {
    /// A running clock at zero.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { before: Duration::ZERO, since: Some(Instant::now()) }))
    }

    pub(crate) fn now(&self) -> Duration {
        let state = lock(&self.0);
        state.before + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A server is down.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.0);
        if let Some(since) = state.since.take() {
            state.before += since.elapsed();
        }
    }

    /// All servers run again.
    pub(crate) fn start(&self) {
        lock(&self.0).since.get_or_insert_with(Instant::now);
    }

    /// Awaits `work`; `None` if it is not done within `limit` of this clock.
    pub(crate) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        /// Least time between two looks at the clock while it stands still.
        const LOOK: Duration = Duration::from_millis(50);
        let end = self.now() + limit;
        tokio::pin!(work);
        loop {
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                return None;
            }
            if let Ok(done) = tokio::time::timeout(left.max(LOOK), &mut work).await {
                return Some(done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_stands_still_while_a_server_is_down() {
        let uptime = Uptime::new();
        tokio::time::advance(SECOND).await;
        uptime.stop();
        uptime.stop();
        tokio::time::advance(SECOND * 5).await;
        assert_eq!(uptime.now(), SECOND);
        uptime.start();
        uptime.start();
        tokio::time::advance(SECOND * 2).await;
        assert_eq!(uptime.now(), SECOND * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn work_has_its_time_besides_the_time_of_a_restart() {
        let uptime = Uptime::new();
        let started = Instant::now();
        uptime.stop();
        let (done, ()) = tokio::join!(uptime.within(SECOND, std::future::pending::<()>()), async {
            // waits for: time in which nothing may expire
            tokio::time::sleep(SECOND * 10).await;
            uptime.start();
        });
        assert_eq!(done, None);
        assert!(started.elapsed() >= SECOND * 11, "{:?}", started.elapsed());
        assert_eq!(uptime.within(SECOND, async { 7 }).await, Some(7));
    }
}
