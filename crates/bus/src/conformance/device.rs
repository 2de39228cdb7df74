//! A device as the gateway serves it: live items and pages with one [`SyncCursor`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::sync::{Live, SyncCursor};
use madang_ids::{Cursor, Epoch, LogId, Position, Seq, UserId};
use tokio::sync::mpsc;

use super::Opened;
use super::workload::{Place, user};
use crate::bus::{Bus, Delivery, Envelope};
use crate::inbox::{Inbox, InboxItem, InboxPage, InboxRead};

/// Only an inbox that does not deliver reaches this timeout.
const TIMEOUT: Duration = Duration::from_secs(3);

/// More pages than any case needs.
const PAGES_MAX: usize = 5_000;

/// One connection of a user.
pub(super) struct Device {
    pub(super) user_id: UserId,
    inbox: Arc<dyn Inbox>,
    bus: Arc<dyn Bus>,
    sync: SyncCursor<Vec<Place>>,
    epoch: Epoch,
    /// The rows that the device received, in order.
    pub(super) got: Vec<Place>,
    /// Whether the outbound queue has room for live items.
    pub(super) has_room: bool,
    pub(super) page_rows: usize,
}

impl Device {
    /// Registers first. The device already has everything up to `cursor`.
    pub(super) async fn connect(opened: &Opened, id: u64, cursor: Cursor) -> Self {
        opened.bus.attach(user(id)).await.unwrap();
        Self {
            user_id: user(id),
            inbox: Arc::clone(&opened.inbox),
            bus: Arc::clone(&opened.bus),
            sync: SyncCursor::reading_from(cursor.position),
            epoch: cursor.epoch,
            got: Vec::new(),
            has_room: true,
            page_rows: 7,
        }
    }

    /// Registers at the end of the inbox.
    pub(super) async fn connect_at_end(opened: &Opened, id: u64) -> Self {
        let cursor = opened.inbox.end(user(id)).await.unwrap();
        let mut device = Self::connect(opened, id, cursor).await;
        device.catch_up().await;
        device
    }

    /// Disconnects; returns how far the device has received.
    pub(super) fn disconnect(&self) -> Cursor {
        self.bus.detach(self.user_id);
        Cursor { epoch: self.epoch, position: self.sync.position() }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.sync.is_reading()
    }

    pub(super) fn handle(&mut self, envelope: &Envelope) {
        match envelope {
            Envelope::Delivery(delivery) => self.handle_delivery(delivery),
            Envelope::Open(_) => {}
            Envelope::Lost(_) => self.sync.read(),
            Envelope::Event(..) | Envelope::Profile(..) => {}
        }
    }

    fn handle_delivery(&mut self, delivery: &Delivery) {
        for recipient in delivery.recipients.iter().filter(|recipient| recipient.user_id == self.user_id) {
            let places = places(delivery);
            let size_bytes = places.len();
            let item = recipient.sees_all.then_some((places, size_bytes));
            if let Live::Deliver(places) = self.sync.handle_item(recipient.place, item, self.has_room, 20) {
                self.got.extend(places);
            }
        }
    }

    /// Reads pages until live items are delivered again.
    pub(super) async fn catch_up(&mut self) {
        for _ in 0..PAGES_MAX {
            if !self.sync.is_reading() {
                return;
            }
            self.read_page().await;
        }
        panic!("the pages have no end");
    }

    /// Reads one page, as the gateway does.
    pub(super) async fn read_page(&mut self) {
        self.sync.begin_page();
        let cursor = Cursor { epoch: self.epoch, position: self.sync.position() };
        match self.inbox.read(self.user_id, cursor, self.page_rows).await.unwrap() {
            InboxRead::Page(page) => {
                assert!(
                    !page.more || page.upto.position > cursor.position,
                    "the page makes no progress: {page:?}"
                );
                self.got.extend(page.items.iter().flat_map(rows_of));
                self.go_on(page.upto, |sync, position| sync.handle_page(position, page.more).released);
            }
            InboxRead::Unavailable => panic!("the inbox does not answer"),
            InboxRead::SnapshotRequired(_) => {
                let end = self.inbox.end(self.user_id).await.unwrap();
                self.go_on(end, |sync, position| sync.jump(position).released);
            }
        }
    }

    fn go_on(
        &mut self,
        cursor: Cursor,
        handle: impl FnOnce(&mut SyncCursor<Vec<Place>>, Position) -> Vec<Vec<Place>>,
    ) {
        self.epoch = cursor.epoch;
        let released = handle(&mut self.sync, cursor.position);
        self.got.extend(released.into_iter().flatten());
    }
}

/// The rows of a delivery.
pub(super) fn places(delivery: &Delivery) -> Vec<Place> {
    delivery.rows.iter().map(|row| (delivery.log, row.entry.seq)).collect()
}

fn rows_of(item: &InboxItem) -> impl Iterator<Item = Place> {
    let log = item.log;
    (item.from.get()..=item.to.get()).map(move |seq| (log, Seq::new(seq)))
}

/// The stream of envelopes of the node.
pub(super) struct Envelopes(mpsc::Receiver<Envelope>);

impl Envelopes {
    pub(super) fn of(opened: &Opened) -> Self {
        Self(opened.bus.take_envelopes().expect("the first taker gets the envelopes"))
    }

    /// Waits for the next envelope.
    pub(super) async fn next(&mut self) -> Envelope {
        let envelope = tokio::time::timeout(TIMEOUT, self.0.recv()).await;
        envelope.expect("an envelope arrives").expect("the stream is open")
    }

    /// The next envelope, if there is one already.
    pub(super) fn try_next(&mut self) -> Option<Envelope> {
        self.0.try_recv().ok()
    }

    /// Passes envelopes to the devices until each has `expected` rows and reads no pages.
    pub(super) async fn deliver(&mut self, devices: &mut [(Device, usize)]) {
        loop {
            for (device, _) in devices.iter_mut() {
                device.catch_up().await;
            }
            if devices.iter().all(|(device, expected)| device.got.len() >= *expected) {
                break;
            }
            // A missing envelope is noticed by the rows of the devices.
            let Ok(Some(envelope)) = tokio::time::timeout(TIMEOUT, self.0.recv()).await else { break };
            devices.iter_mut().for_each(|(device, _)| device.handle(&envelope));
        }
        // No row may arrive twice.
        while let Some(envelope) = self.try_next() {
            devices.iter_mut().for_each(|(device, _)| device.handle(&envelope));
        }
        for (device, _) in devices.iter_mut() {
            device.catch_up().await;
        }
    }

    /// Passes envelopes to one device until it has the expected rows.
    pub(super) async fn deliver_to(&mut self, device: &mut Device, expected: &[Place]) {
        let owned = std::mem::replace(
            device,
            Device {
                sync: SyncCursor::live_at(Position::ZERO),
                got: Vec::new(),
                inbox: Arc::clone(&device.inbox),
                bus: Arc::clone(&device.bus),
                ..*device
            },
        );
        let mut devices = [(owned, expected.len())];
        self.deliver(&mut devices).await;
        let [(owned, _)] = devices;
        *device = owned;
        assert_same(&device.got, expected);
    }
}

/// All rows after a cursor, by pages of `page_rows`, and the last cursor.
pub(super) async fn read_all(
    inbox: &Arc<dyn Inbox>,
    id: u64,
    mut cursor: Cursor,
    page_rows: usize,
) -> (Vec<Place>, Vec<(Cursor, usize)>) {
    let (mut got, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let page = page(inbox, id, cursor, page_rows).await;
        let rows: Vec<Place> = page.items.iter().flat_map(rows_of).collect();
        assert!(rows.len() <= page_rows, "{} rows instead of {page_rows}", rows.len());
        got.extend(rows);
        assert!(page.upto.position >= cursor.position, "the cursor moved back");
        assert!(!page.more || page.upto.position > cursor.position, "the page makes no progress");
        cursor = page.upto;
        cursors.push((cursor, got.len()));
        if !page.more {
            return (got, cursors);
        }
    }
}

pub(super) async fn page(inbox: &Arc<dyn Inbox>, id: u64, cursor: Cursor, page_rows: usize) -> InboxPage {
    match inbox.read(user(id), cursor, page_rows).await.unwrap() {
        InboxRead::Page(page) => page,
        verdict => panic!("{cursor:?} is refused: {verdict:?}"),
    }
}

/// Both have the same rows, each once, and those of each log in their order. The order of rows of different logs is not
/// defined.
#[track_caller]
pub(super) fn assert_same(got: &[Place], expected: &[Place]) {
    assert_eq!(by_log(got), by_log(expected));
}

fn by_log(places: &[Place]) -> BTreeMap<LogId, Vec<Seq>> {
    let mut logs = BTreeMap::<LogId, Vec<Seq>>::new();
    for (log, seq) in places {
        logs.entry(*log).or_default().push(*seq);
    }
    logs
}
