//! The record of one user and channel.

use madang_ids::{ChannelId, Cursor, DeviceId, Millis, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::job::{Job, Target};

/// The pause between a read marker and the withdrawal of alerts: a user who reads several channels costs one call.
const WITHDRAW_AFTER_MS: u64 = 3_000;

/// When alerts are withdrawn that a user has read elsewhere at `at`.
#[must_use]
pub const fn withdrawn_at(at: Millis) -> Millis {
    at.plus(WITHDRAW_AFTER_MS)
}

/// Everything outstanding for one user in one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// The user.
    pub user: UserId,
    /// The channel.
    pub channel: ChannelId,
    /// Messages about which nothing was decided yet.
    pub fresh: Option<Job>,
    /// What a worker has written.
    pub held: Held,
}

/// The part of a record that only workers write. Its lists have at most one entry for each device of the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Calls that a worker is about to make or has made, whose answers are not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// Alerts that were certainly not taken by the provider of a device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<Job>,
    /// Alerts that devices show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<Shown>,
    /// When those alerts are withdrawn, because the user has read on elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw_at: Option<Millis>,
}

/// Calls of which a worker awaits the answers. There are no others of the same record meanwhile, so alerts of a channel arrive in
/// order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// The messages.
    pub job: Job,
    /// The devices.
    pub devices: Vec<DeviceId>,
    /// When the worker began.
    pub at: Millis,
    /// When it must have ended. Afterwards it is dead, and what its calls did is unknown.
    pub until: Millis,
    /// The last message that the user has read meanwhile, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<(Seq, Millis)>,
}

/// An alert that a device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The device.
    pub device: DeviceId,
    /// Its last message.
    pub last: Seq,
    /// When it is forgotten.
    pub until: Millis,
    /// The user has read that message on another device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_read: bool,
}

/// Something that happened to a user in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// The user.
    pub user: UserId,
    /// The channel.
    pub channel: ChannelId,
    /// What happened.
    pub what: Folded,
}

/// See [`Fold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// A message that may be worth an alert.
    Message {
        /// The message.
        seq: Seq,
        /// The place of its item in the user's inbox.
        at: Cursor,
        /// When it is to be decided, if nothing of the channel is waiting yet.
        due_at: Millis,
        /// When it is worthless.
        expires_at: Millis,
    },
    /// The user has read the channel up to here.
    Read {
        /// The last message that was read.
        seq: Seq,
        /// The time of that.
        at: Millis,
    },
}

/// The messages that a worker takes out of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// [`Outstanding::fresh`].
    Fresh,
    /// The retry of this device.
    Retry(DeviceId),
}

/// What came of the call for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The device shows the alert.
    Shown {
        /// When that is forgotten.
        until: Millis,
    },
    /// The provider has certainly not taken it: it is decided again at this time.
    Again {
        /// The time.
        at: Millis,
    },
    /// Nothing follows.
    Over,
}

impl Outstanding {
    /// Nothing outstanding.
    #[must_use]
    pub fn new(user: UserId, channel: ChannelId) -> Self {
        Self { user, channel, fresh: None, held: Held::default() }
    }

    /// Whether the record says nothing, and need not be kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fresh.is_none() && self.held == Held::default()
    }

    /// When a worker has to look at it. While calls are under way, that is when their worker must be dead.
    #[must_use]
    pub fn due_at(&self) -> Option<Millis> {
        if let Some(calls) = &self.held.calls {
            return Some(calls.until);
        }
        let jobs = self.fresh.iter().chain(&self.held.retries).map(|job| job.due_at);
        let forgotten = self.held.shown.iter().map(|shown| shown.until);
        jobs.chain(forgotten).chain(self.held.withdraw_at).min()
    }

    /// Takes in something that happened. Repeating it changes nothing.
    pub fn fold(&mut self, what: Folded) {
        match what {
            Folded::Message { seq, at, due_at, expires_at } => match &mut self.fresh {
                Some(job) => job.fold(seq, at, expires_at),
                None => self.fresh = Some(Job::new(seq, at, due_at, expires_at)),
            },
            Folded::Read { seq, at } => {
                if let Some(calls) = &mut self.held.calls {
                    calls.read = calls.read.max(Some((seq, at)));
                }
                for shown in self.held.shown.iter_mut().filter(|shown| shown.last <= seq && !shown.is_read) {
                    shown.is_read = true;
                    self.held.withdraw_at.get_or_insert(withdrawn_at(at));
                }
            }
        }
    }

    /// The messages that are due, those that arrived first of all. Nothing while calls are under way.
    #[must_use]
    pub fn due(&self, now: Millis) -> Option<(Taking, &Job)> {
        if self.held.calls.is_some() {
            return None;
        }
        let retry = self.held.retries.iter().find(|job| job.due_at <= now);
        let retry = retry.and_then(|job| match job.target {
            Target::Device(device) => Some((Taking::Retry(device), job)),
            Target::User => None,
        });
        let fresh = self.fresh.as_ref().filter(|job| job.due_at <= now);
        retry.or(fresh.map(|job| (Taking::Fresh, job)))
    }

    /// The record without these messages, which are worth no alert.
    #[must_use]
    pub fn without(&self, taking: Taking) -> Self {
        let mut after = self.clone();
        after.take(taking);
        after
    }

    /// The record once a worker calls the providers of `devices` about these messages. Devices in `later` get them with what they
    /// wait for already, or at this time.
    #[must_use]
    pub fn begin(
        &self,
        taking: Taking,
        devices: &[DeviceId],
        later: &[(DeviceId, Millis)],
        (at, until): (Millis, Millis),
    ) -> Self {
        let mut after = self.clone();
        let Some(job) = after.take(taking) else { return after };
        for (device, due_at) in later {
            after.held.retry(job.later_for(*device, *due_at));
        }
        if !devices.is_empty() {
            after.held.calls = Some(Calls { job, devices: devices.to_vec(), at, until, read: None });
        }
        after
    }

    /// Whether the calls that `begun` has written are still under way.
    #[must_use]
    pub fn has_calls_of(&self, begun: &Self) -> bool {
        let key =
            |it: &Self| it.held.calls.as_ref().map(|calls| (calls.at, calls.until, calls.devices.clone()));
        self.held.calls.is_some() && key(self) == key(begun)
    }

    /// The record once the calls have ended. A device without an end has an unknown one.
    #[must_use]
    pub fn finish(&self, ends: &[(DeviceId, CallEnd)]) -> Self {
        let mut after = self.clone();
        let Some(Calls { job, read, .. }) = after.held.calls.take() else { return after };
        let last = job.range().1;
        let read = read.filter(|(seq, _)| *seq >= last);
        for (device, end) in ends {
            match *end {
                CallEnd::Shown { until } => {
                    after.held.shown.retain(|shown| shown.device != *device);
                    after.held.shown.push(Shown { device: *device, last, until, is_read: read.is_some() });
                    let withdraw = read.map(|(_, at)| withdrawn_at(at));
                    after.held.withdraw_at = after.held.withdraw_at.or(withdraw);
                }
                CallEnd::Again { at } => after.held.retry(job.again_for(*device, at)),
                CallEnd::Over => {}
            }
        }
        after
    }

    /// The record with messages that were given up for a device, to be decided again at `due_at`.
    #[must_use]
    pub fn with_retry(&self, job: &Job, device: DeviceId, due_at: Millis, expires_at: Millis) -> Self {
        let mut after = self.clone();
        let mut job = job.later_for(device, due_at);
        (job.attempt, job.expires_at) = (0, expires_at);
        after.held.retry(job);
        after
    }

    /// Devices whose alert is to be withdrawn now.
    #[must_use]
    pub fn to_withdraw(&self, now: Millis) -> Vec<Shown> {
        let is_due = self.held.withdraw_at.is_some_and(|at| at <= now);
        self.held.shown.iter().filter(|shown| is_due && shown.is_read).copied().collect()
    }

    /// The record while a worker withdraws what is due. If the worker dies, that is repeated at `until`.
    #[must_use]
    pub fn withdrawing(&self, until: Millis) -> Self {
        let mut after = self.clone();
        after.held.withdraw_at = Some(until);
        after
    }

    /// The record once a worker has tried to withdraw the alerts `tried`. Those of the devices `reached` are gone, and so is what is
    /// forgotten. What was shown or read meanwhile stays.
    #[must_use]
    pub fn withdrawn(&self, tried: &[Shown], reached: &[DeviceId], now: Millis) -> Self {
        let mut after = self.clone();
        let was_tried =
            |shown: &Shown| tried.iter().any(|it| (it.device, it.last) == (shown.device, shown.last));
        let is_gone = |shown: &Shown| was_tried(shown) && reached.contains(&shown.device);
        after.held.shown.retain(|shown| !is_gone(shown) && shown.until > now);
        let is_left = after.held.shown.iter().any(|shown| shown.is_read && !was_tried(shown));
        after.held.withdraw_at = after.held.withdraw_at.filter(|_| is_left);
        after
    }

    fn take(&mut self, taking: Taking) -> Option<Job> {
        match taking {
            Taking::Fresh => self.fresh.take(),
            Taking::Retry(device) => {
                let retries = &mut self.held.retries;
                let index = retries.iter().position(|job| job.target == Target::Device(device))?;
                Some(retries.remove(index))
            }
        }
    }
}

impl Held {
    /// Adds a retry to what the device waits for.
    fn retry(&mut self, job: Job) {
        match self.retries.iter_mut().find(|other| other.target == job.target) {
            Some(other) => other.absorb(job),
            None => self.retries.push(job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Epoch, Position};

    const PHONE: DeviceId = DeviceId::from_raw(10);
    const LAPTOP: DeviceId = DeviceId::from_raw(11);

    const fn at(ms: u64) -> Millis {
        Millis::new(ms)
    }

    fn message(seq: u64, due: u64) -> Folded {
        let place = Cursor { epoch: Epoch::from_raw(1), position: Position::new(seq) };
        Folded::Message { seq: Seq::new(seq), at: place, due_at: at(due), expires_at: at(1_000_000) }
    }

    fn record(messages: &[u64]) -> Outstanding {
        let mut record = Outstanding::new(UserId::from_raw(1), ChannelId::from_raw(2));
        messages.iter().for_each(|seq| record.fold(message(*seq, 100)));
        record
    }

    fn seqs(job: &Job) -> Vec<u64> {
        job.messages().map(Seq::get).collect()
    }

    #[test]
    fn nothing_else_is_due_while_calls_are_under_way() {
        let record = record(&[5, 6]);
        assert_eq!((record.due_at(), record.due(at(99))), (Some(at(100)), None));
        let (taking, job) = record.due(at(100)).unwrap();
        assert_eq!((taking, seqs(job)), (Taking::Fresh, vec![5, 6]));
        let mut begun = record.begin(taking, &[PHONE], &[], (at(100), at(160)));
        begun.fold(message(7, 200));
        assert_eq!((begun.due_at(), begun.due(at(500))), (Some(at(160)), None));
        let ended = begun.finish(&[(PHONE, CallEnd::Shown { until: at(900_000) })]);
        assert_eq!(ended.due(at(200)).map(|(_, job)| seqs(job)), Some(vec![7]));
        let shown = Shown { device: PHONE, last: Seq::new(6), until: at(900_000), is_read: false };
        assert_eq!(ended.held.shown, [shown]);
    }

    #[test]
    fn what_was_not_taken_waits_for_its_device_and_takes_in_what_follows() {
        let record = record(&[5]).begin(Taking::Fresh, &[PHONE, LAPTOP], &[], (at(100), at(160)));
        let mut record =
            record.finish(&[(PHONE, CallEnd::Again { at: at(10_000) }), (LAPTOP, CallEnd::Over)]);
        record.fold(message(6, 200));
        let record = record.begin(Taking::Fresh, &[LAPTOP], &[(PHONE, at(300))], (at(200), at(260)));
        let record = record.finish(&[(LAPTOP, CallEnd::Over)]);
        let retry = &record.held.retries[..];
        assert_eq!((retry.len(), seqs(&retry[0]), retry[0].due_at), (1, vec![5, 6], at(10_000)));
        assert_eq!(record.due(at(10_000)).map(|(taking, _)| taking), Some(Taking::Retry(PHONE)));
        assert!(record.without(Taking::Retry(PHONE)).is_empty());
    }

    #[test]
    fn calls_of_a_dead_worker_leave_nothing() {
        let record = record(&[5]).begin(Taking::Fresh, &[PHONE], &[], (at(100), at(160)));
        assert!(record.finish(&[]).is_empty());
    }

    #[test]
    fn an_alert_is_withdrawn_once_its_last_message_was_read() {
        let record = record(&[5, 6]).begin(Taking::Fresh, &[PHONE], &[], (at(100), at(160)));
        let mut record = record.finish(&[(PHONE, CallEnd::Shown { until: at(900_000) })]);
        record.fold(Folded::Read { seq: Seq::new(5), at: at(200) });
        assert_eq!(record.held.withdraw_at, None, "the alert is about a later message as well");
        record.fold(Folded::Read { seq: Seq::new(6), at: at(200) });
        record.fold(Folded::Read { seq: Seq::new(6), at: at(900) });
        assert_eq!(record.due_at(), Some(at(200 + WITHDRAW_AFTER_MS)));
        assert_eq!(record.to_withdraw(at(200)), []);
        let due = record.to_withdraw(at(4_000));
        assert_eq!(due.iter().map(|shown| shown.device).collect::<Vec<_>>(), [PHONE]);
        let record = record.withdrawing(at(64_000));
        assert_eq!(record.to_withdraw(at(4_000)), [], "another worker does not do it as well");
        assert!(record.withdrawn(&due, &[PHONE], at(4_000)).is_empty());
        let kept = record.withdrawn(&due, &[], at(4_000));
        assert!(kept.held.shown[0].is_read, "a browser learns it with its next alert");
        assert_eq!(kept.due_at(), Some(at(900_000)));
    }

    #[test]
    fn what_was_read_while_the_call_was_under_way_is_withdrawn() {
        let begun = record(&[5]).begin(Taking::Fresh, &[PHONE], &[], (at(100), at(160)));
        let mut found = begun.clone();
        found.fold(Folded::Read { seq: Seq::new(5), at: at(110) });
        assert!(found != begun && found.has_calls_of(&begun));
        let ended = found.finish(&[(PHONE, CallEnd::Shown { until: at(900_000) })]);
        assert!(ended.held.shown[0].is_read && !ended.has_calls_of(&begun));
        assert_eq!(ended.due_at(), Some(at(110 + WITHDRAW_AFTER_MS)));
    }

    #[test]
    fn what_a_device_shows_is_forgotten() {
        let record = record(&[5]).begin(Taking::Fresh, &[PHONE], &[], (at(100), at(160)));
        let record = record.finish(&[(PHONE, CallEnd::Shown { until: at(900) })]);
        assert_eq!(record.due_at(), Some(at(900)));
        assert!(record.withdrawn(&[], &[], at(900)).is_empty());
    }

    #[test]
    fn what_is_shown_or_read_during_a_withdrawal_is_withdrawn_afterwards() {
        let show = |record: Outstanding, device, until| {
            let begun = record.begin(Taking::Fresh, &[device], &[], (at(100), at(160)));
            begun.finish(&[(device, CallEnd::Shown { until })])
        };
        let mut record = show(record(&[5]), PHONE, at(900_000));
        record.fold(Folded::Read { seq: Seq::new(5), at: at(200) });
        let due = record.to_withdraw(at(4_000));
        let mut record = record.withdrawing(at(64_000));
        record.fold(message(6, 100));
        let mut record = show(record, PHONE, at(900_000));
        record.fold(Folded::Read { seq: Seq::new(6), at: at(4_100) });
        let record = record.withdrawn(&due, &[PHONE], at(4_200));
        assert_eq!(record.held.shown.iter().map(|shown| shown.last).collect::<Vec<_>>(), [Seq::new(6)]);
        assert_eq!(record.held.withdraw_at, Some(at(64_000)));
    }

    #[test]
    fn forgetting_one_alert_does_not_lose_the_withdrawal_of_another() {
        let mut record = record(&[5]).begin(Taking::Fresh, &[PHONE, LAPTOP], &[], (at(100), at(160)));
        let shown = |device, until| (device, CallEnd::Shown { until: at(until) });
        record = record.finish(&[shown(PHONE, 900_000), shown(LAPTOP, 500)]);
        record.fold(Folded::Read { seq: Seq::new(5), at: at(400) });
        let record = record.withdrawn(&[], &[], at(500));
        assert_eq!(record.held.withdraw_at, Some(at(400 + WITHDRAW_AFTER_MS)));
        assert_eq!(record.held.shown.len(), 1);
    }
}
