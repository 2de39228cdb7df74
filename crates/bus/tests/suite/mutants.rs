//! The suite finds every fault that is planted between an inbox and its users.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use madang_bus::conformance::{Opened, Subject, cases};
use madang_bus::{Bus, Delivery, Envelope, Event, Inbox, InboxRead, Recipient};
use madang_engine::log::Row;
use madang_engine::sync::Place;
use madang_ids::{ChannelId, Cursor, Epoch, LogId, Position, Seq, UserId};
use madang_proto::{SnapshotReason, UserCard};
use madang_store::{SharedRows, StoreResult};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::subjects::ModelSubject;

const AT_ONCE: usize = 6;

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// No fault: passing everything through must not be found.
    Nothing,
    /// Events are not delivered.
    EventsAreLost,
    /// Every third envelope is lost, and the places do not show it.
    SkipsUnseen,
    /// Every third envelope is delivered twice, the second time with a new place.
    DeliversTwice,
    /// Every other pair of envelopes of a user is swapped.
    SwapsTwo,
    /// An envelope lacks its last row.
    CutsEnvelope,
    /// A page lacks its last item, and its cursor is after that item.
    CutsPage,
    /// The cursor of a page is one position too far.
    CursorRunsAhead,
    /// The cursor of a page does not move.
    CursorStandsStill,
    /// A page contains a channel's log from the first row.
    PagesIgnoreSpans,
    /// Every recipient sees all rows of an envelope.
    EnvelopesIgnoreSpans,
    /// Pages say that nothing follows.
    MoreIsAlwaysFalse,
    /// Pages are longer than requested.
    PagesHaveNoBound,
    /// A cursor is accepted regardless of its epoch.
    AcceptsForeignEpoch,
    /// A cursor beyond the store is accepted.
    AcceptsBeyond,
    /// A restart invalidates cursors.
    ForgetsEpochs,
    /// No device has to take a snapshot for being too far behind.
    NeverTooFarBehind,
    /// The second connection of a user does not count.
    AttachDoesNotCount,
    /// A user who disconnects stays addressed.
    DetachDoesNothing,
    /// Losses are not reported.
    SwallowsLost,
    /// The end is one row too early.
    EndIsEarly,
    /// The cursor of a last page is taken a little after the page was read.
    CursorIsTakenLater,
    /// A user is attached only when the first page is read.
    AttachComesLate,
    /// The second subscription to a channel does not count.
    SubscribeDoesNotCount,
    /// A channel without subscriptions is still delivered.
    UnsubscribeDoesNothing,
    /// Every third envelope of an open channel is lost.
    SkipsOpenRows,
    /// Every third envelope of an open channel is delivered twice.
    RepeatsOpenRows,
    /// A subscription begins some time after it was requested.
    SubscribeComesLate,
}

impl Mutant {
    const ALL: [Self; 27] = [
        Self::EventsAreLost,
        Self::SkipsUnseen,
        Self::DeliversTwice,
        Self::SwapsTwo,
        Self::CutsEnvelope,
        Self::CutsPage,
        Self::CursorRunsAhead,
        Self::CursorStandsStill,
        Self::PagesIgnoreSpans,
        Self::EnvelopesIgnoreSpans,
        Self::MoreIsAlwaysFalse,
        Self::PagesHaveNoBound,
        Self::AcceptsForeignEpoch,
        Self::AcceptsBeyond,
        Self::ForgetsEpochs,
        Self::NeverTooFarBehind,
        Self::AttachDoesNotCount,
        Self::DetachDoesNothing,
        Self::SwallowsLost,
        Self::EndIsEarly,
        Self::CursorIsTakenLater,
        Self::AttachComesLate,
        Self::SubscribeDoesNotCount,
        Self::UnsubscribeDoesNothing,
        Self::SkipsOpenRows,
        Self::RepeatsOpenRows,
        Self::SubscribeComesLate,
    ];
}

/// A subject with a planted fault.
struct Mutated {
    subject: Arc<ModelSubject>,
    mutant: Mutant,
}

#[async_trait]
impl Subject for Mutated {
    async fn open(&self) -> Opened {
        let Opened { store, inbox, bus, mut tasks } = self.subject.open().await;
        let envelopes = bus.take_envelopes().map(|source| {
            let (sender, receiver) = mpsc::channel(64);
            tasks.spawn(forward(self.mutant, source, sender));
            receiver
        });
        let (attached, subscribed, envelopes) = (Mutex::default(), Mutex::default(), Mutex::new(envelopes));
        let mutant = self.mutant;
        let mutant = Arc::new(MutantInbox {
            inbox,
            bus,
            mutant,
            envelopes,
            attached,
            subscribed,
            moves: AtomicU32::new(0),
        });
        Opened { store, inbox: mutant.clone(), bus: mutant, tasks }
    }

    fn break_members(&self, is_broken: bool) -> bool {
        self.subject.break_members(is_broken)
    }
}

/// Forwards envelopes, with the fault.
async fn forward(mutant: Mutant, mut source: mpsc::Receiver<Envelope>, to: mpsc::Sender<Envelope>) {
    let mut places = Places::default();
    let mut held = None;
    let mut number = 0;
    while let Some(envelope) = source.recv().await {
        number += 1;
        let times = match (&envelope, mutant) {
            (Envelope::Open(_), Mutant::SkipsOpenRows) if number % 3 == 0 => 0,
            (Envelope::Open(_), Mutant::RepeatsOpenRows) if number % 3 == 0 => 2,
            (Envelope::Lost(_), Mutant::SwallowsLost) => 0,
            _ => 1,
        };
        let Envelope::Delivery(delivery) = envelope else {
            for _ in 0..times {
                if to.send(envelope.clone()).await.is_err() {
                    return;
                }
            }
            continue;
        };
        let mut deliveries = vec![delivery];
        match mutant {
            Mutant::SkipsUnseen if number % 3 == 0 => deliveries.clear(),
            Mutant::DeliversTwice if number % 3 == 0 => deliveries.push(deliveries[0].clone()),
            Mutant::CutsEnvelope => deliveries.iter_mut().for_each(cut),
            Mutant::EnvelopesIgnoreSpans => deliveries.iter_mut().for_each(|delivery| {
                delivery.recipients.iter_mut().for_each(|recipient| recipient.sees_all = true);
            }),
            Mutant::SwapsTwo => match held.take() {
                Some(before) => deliveries.push(before),
                None if number % 4 == 1 => held = deliveries.pop(),
                None => {}
            },
            _ => {}
        }
        for mut delivery in deliveries {
            if matches!(mutant, Mutant::SkipsUnseen | Mutant::DeliversTwice | Mutant::SwapsTwo) {
                places.mend(&mut delivery);
            }
            if to.send(Envelope::Delivery(delivery)).await.is_err() {
                return;
            }
        }
    }
}

fn cut(delivery: &mut Delivery) {
    if delivery.rows.len() > 1 {
        delivery.rows = SharedRows::from(&delivery.rows[..delivery.rows.len() - 1]);
    }
}

/// Gives the items of each user new places without gaps.
#[derive(Default)]
struct Places(HashMap<UserId, Position>);

impl Places {
    fn mend(&mut self, delivery: &mut Delivery) {
        for Recipient { user_id, place, .. } in &mut delivery.recipients {
            let last = self.0.entry(*user_id).or_insert(place.previous);
            let first = place.first.max(Position::new(last.get() + 1));
            *place = Place { previous: *last, first, last: place.last.max(first) };
            *last = place.last;
        }
    }
}

struct MutantInbox {
    inbox: Arc<dyn Inbox>,
    bus: Arc<dyn Bus>,
    mutant: Mutant,
    envelopes: Mutex<Option<mpsc::Receiver<Envelope>>>,
    attached: Mutex<HashMap<UserId, u32>>,
    subscribed: Mutex<HashMap<ChannelId, u32>>,
    moves: AtomicU32,
}

#[async_trait]
impl Inbox for MutantInbox {
    async fn moved(&self, log: LogId, rows: &Arc<[Row]>) -> StoreResult<()> {
        let moves = self.moves.fetch_add(1, Ordering::SeqCst);
        if self.mutant == Mutant::SubscribeComesLate && moves % 8 == 7 {
            let late = std::mem::take(&mut *self.subscribed.lock());
            for (channel, count) in late {
                for _ in 0..count {
                    self.bus.subscribe(channel).await?;
                }
            }
        }
        self.inbox.moved(log, rows).await
    }

    async fn moved_again(&self, log: LogId, range: RangeInclusive<Seq>) -> StoreResult<()> {
        self.inbox.moved_again(log, range).await
    }

    async fn end(&self, user: UserId) -> StoreResult<Cursor> {
        let end = self.inbox.end(user).await?;
        let early = u64::from(self.mutant == Mutant::EndIsEarly);
        Ok(Cursor { position: Position::new(end.position.get().saturating_sub(early)), ..end })
    }

    async fn read(&self, user: UserId, mut after: Cursor, max_rows: usize) -> StoreResult<InboxRead> {
        let end = self.inbox.end(user).await?;
        let begun = after;
        match self.mutant {
            Mutant::AcceptsForeignEpoch => after.epoch = end.epoch,
            Mutant::AcceptsBeyond => {
                after = Cursor { epoch: end.epoch, position: after.position.min(end.position) };
            }
            Mutant::ForgetsEpochs if after.epoch != end.epoch => after.epoch = Epoch::from_raw(0),
            _ => {}
        }
        let max_rows = if self.mutant == Mutant::PagesHaveNoBound { max_rows * 2 } else { max_rows };
        let page = match self.inbox.read(user, after, max_rows).await? {
            InboxRead::Page(page) => page,
            verdict if self.mutant == Mutant::NeverTooFarBehind => {
                return self.read_late(user, end, verdict).await;
            }
            verdict => return Ok(verdict),
        };
        let mut page = page;
        if matches!(self.mutant, Mutant::CursorIsTakenLater | Mutant::AttachComesLate) {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        match self.mutant {
            Mutant::CursorIsTakenLater if !page.more => page.upto = self.inbox.end(user).await?,
            Mutant::AttachComesLate => self.attach_late(user).await?,
            Mutant::CutsPage if page.items.len() > 2 => drop(page.items.pop()),
            Mutant::CursorRunsAhead if page.more => {
                page.upto.position = Position::new(page.upto.position.get() + 1);
            }
            Mutant::CursorStandsStill => page.upto = begun,
            Mutant::PagesIgnoreSpans => page.items.iter_mut().for_each(|item| {
                if matches!(item.log, LogId::Channel(_)) {
                    item.from = Seq::new(1);
                }
            }),
            Mutant::MoreIsAlwaysFalse => page.more = false,
            _ => {}
        }
        Ok(InboxRead::Page(page))
    }
}

#[async_trait]
impl Bus for MutantInbox {
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>> {
        self.envelopes.lock().take()
    }

    async fn attach(&self, user: UserId) -> StoreResult<()> {
        *self.attached.lock().entry(user).or_default() += 1;
        if self.mutant != Mutant::AttachComesLate {
            self.bus.attach(user).await?;
        }
        Ok(())
    }

    fn detach(&self, user: UserId) {
        let connections = self.attached.lock().remove(&user).unwrap_or(0);
        match self.mutant {
            Mutant::AttachDoesNotCount => (0..connections).for_each(|_| self.bus.detach(user)),
            Mutant::DetachDoesNothing => {}
            _ => self.bus.detach(user),
        }
    }

    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()> {
        if self.mutant == Mutant::EventsAreLost {
            return Ok(());
        }
        self.bus.publish(event, at_most).await
    }

    fn publish_profile(&self, card: UserCard, users: Vec<UserId>) {
        self.bus.publish_profile(card, users);
    }

    async fn subscribe(&self, channel: ChannelId) -> StoreResult<()> {
        *self.subscribed.lock().entry(channel).or_default() += 1;
        if self.mutant != Mutant::SubscribeComesLate {
            self.bus.subscribe(channel).await?;
        }
        Ok(())
    }

    fn unsubscribe(&self, channel: ChannelId) {
        let count = self.subscribed.lock().remove(&channel).unwrap_or(0);
        match self.mutant {
            Mutant::SubscribeDoesNotCount => (0..count).for_each(|_| self.bus.unsubscribe(channel)),
            Mutant::UnsubscribeDoesNothing => {}
            _ => self.bus.unsubscribe(channel),
        }
    }
}

impl MutantInbox {
    /// Makes the attachments that were requested so far.
    async fn attach_late(&self, user: UserId) -> StoreResult<()> {
        let count = self.attached.lock().get_mut(&user).map(std::mem::take).unwrap_or_default();
        for _ in 0..count {
            self.bus.attach(user).await?;
        }
        Ok(())
    }

    /// Returns an empty page at the end in place of the verdict.
    async fn read_late(&self, user: UserId, end: Cursor, verdict: InboxRead) -> StoreResult<InboxRead> {
        if verdict == InboxRead::SnapshotRequired(SnapshotReason::TooFarBehind) {
            return self.inbox.read(user, end, 1).await;
        }
        Ok(verdict)
    }
}

async fn failing_cases(mutant: Mutant) -> Vec<&'static str> {
    let mut running = JoinSet::new();
    let mut names = BTreeMap::new();
    for case in cases() {
        let subject = Arc::new(Mutated { subject: ModelSubject::calm(), mutant });
        names.insert(running.spawn((case.run)(subject)).id(), case.name);
    }
    let mut failing = Vec::new();
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            failing.push(names[&error.id()]);
        }
    }
    failing.sort_unstable();
    failing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_finds_every_mutant() {
    let mut survivors = Vec::new();
    // Several run at the same time, because most of the time is spent waiting for envelopes that do not arrive. One
    // without a fault is among them, and must not be found.
    for mutants in Mutant::ALL.chunks(AT_ONCE) {
        let mutants = mutants
            .iter()
            .chain([&Mutant::Nothing])
            .map(|&mutant| async move { (mutant, failing_cases(mutant).await) });
        for (mutant, found_by) in mutants.collect::<JoinSet<_>>().join_all().await {
            println!("{mutant:?} is found by {found_by:?}");
            if mutant == Mutant::Nothing {
                assert_eq!(found_by, [""; 0], "without a fault");
            } else if found_by.is_empty() {
                survivors.push(mutant);
            }
        }
    }
    assert!(survivors.is_empty(), "the suite does not find {survivors:?}");
}
