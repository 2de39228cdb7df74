//! Reads pages of inboxes, and their content, for connections that catch up.
//!
//! After a restart thousands of connections have a page to read. Each waits with one small job in a line, and a few readers
//! serve the line: memory does not grow with the futures of reads that wait for the store, and a connection that carries out
//! a request meanwhile keeps no place in the store's own queue. A connection has one job at most, so the lines are bounded by the
//! sockets.

use std::collections::VecDeque;
use std::sync::Arc;

use madang_bus::InboxItem;
use madang_engine::log::Row;
use madang_ids::{DeviceId, UserId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tracing::{Instrument, Span};

use crate::gateway::Gateway;
use crate::operations::{Operations, Standing, SyncPage};
use crate::refusal::OperationError;

/// Pages that are read at the same time: the readers of the store, and as many more that are on their way.
const PAGES: usize = 8;
/// Contents that are read at the same time. A `hello` needs a few short reads of its own; these must not wait behind the content
/// of all pages, or the last device is never welcomed.
const CONTENTS: usize = 2;

/// What a read of content returns: the rows of the first items, and the items.
pub(in crate::gateway) type Content = (Result<Vec<Vec<Row>>, OperationError>, VecDeque<InboxItem>);

/// The lines of reads of one node.
pub(in crate::gateway) struct PageReads {
    pages: Line<PageJob>,
    contents: Line<ContentJob>,
}

/// Jobs in their order, for several readers.
struct Line<J> {
    jobs: Mutex<VecDeque<J>>,
    ready: Notify,
}

/// A page of the inbox of a connection's user.
struct PageJob {
    user: UserId,
    device: DeviceId,
    standing: Standing,
    span: Span,
    answer: oneshot::Sender<Result<SyncPage, OperationError>>,
}

/// The content of the items of a page. They are given back with it, so a failed read loses none.
struct ContentJob {
    user: UserId,
    items: VecDeque<InboxItem>,
    span: Span,
    answer: oneshot::Sender<Content>,
}

impl<J> Line<J> {
    fn new() -> Self {
        Self { jobs: Mutex::default(), ready: Notify::new() }
    }

    fn push(&self, job: J) {
        self.jobs.lock().push_back(job);
        self.ready.notify_one();
    }

    async fn next(&self) -> J {
        loop {
            let (job, is_more) = {
                let mut jobs = self.jobs.lock();
                (jobs.pop_front(), !jobs.is_empty())
            };
            // A `Notify` keeps one permit for any number of pushes, so each reader wakes the next one.
            if is_more {
                self.ready.notify_one();
            }
            match job {
                Some(job) => return job,
                None => self.ready.notified().await,
            }
        }
    }
}

impl PageReads {
    pub(in crate::gateway) fn new() -> Self {
        Self { pages: Line::new(), contents: Line::new() }
    }

    /// Enqueues the read of a page. A device whose cursor serves no more is checked as well: its revocation may be among what it
    /// has missed.
    pub(in crate::gateway) fn page(
        &self,
        user: UserId,
        device: DeviceId,
        standing: Standing,
    ) -> oneshot::Receiver<Result<SyncPage, OperationError>> {
        let (answer, receiver) = oneshot::channel();
        self.pages.push(PageJob { user, device, standing, span: Span::current(), answer });
        receiver
    }

    /// Enqueues the read of the content of items, about one frame of it.
    pub(in crate::gateway) fn content(
        &self,
        user: UserId,
        items: VecDeque<InboxItem>,
    ) -> oneshot::Receiver<Content> {
        let (answer, receiver) = oneshot::channel();
        self.contents.push(ContentJob { user, items, span: Span::current(), answer });
        receiver
    }
}

impl PageJob {
    async fn run(self, operations: Arc<Operations>) {
        let page = async {
            let page = operations.sync_page(self.user, self.standing).await?;
            if matches!(page, SyncPage::SnapshotRequired { .. }) {
                operations.check_device(self.user, self.device).await?;
            }
            Ok(page)
        };
        // A connection that has ended needs no answer.
        let _ = self.answer.send(page.await);
    }
}

impl ContentJob {
    async fn run(self, operations: Arc<Operations>) {
        let rows = operations.content(self.user, &self.items).await;
        let _ = self.answer.send((rows, self.items));
    }
}

impl Gateway {
    /// The tasks that read pages. They never return.
    pub fn page_readers(self: &Arc<Self>) -> impl Iterator<Item = impl Future<Output = ()> + Send + use<>> {
        let kinds = std::iter::repeat_n(true, PAGES).chain(std::iter::repeat_n(false, CONTENTS));
        let gateway = Arc::clone(self);
        kinds.map(move |reads_pages| Arc::clone(&gateway).read_pages(reads_pages))
    }

    /// Serves one of the lines. Each read is a task, so that one that panics ends no reader.
    async fn read_pages(self: Arc<Self>, reads_pages: bool) {
        loop {
            let operations = Arc::clone(&self.operations);
            let read = if reads_pages {
                let job = self.page_reads.pages.next().await;
                if job.answer.is_closed() {
                    continue;
                }
                let span = job.span.clone();
                self.tasks.spawn("page", job.run(operations).instrument(span))
            } else {
                let job = self.page_reads.contents.next().await;
                if job.answer.is_closed() {
                    continue;
                }
                let span = job.span.clone();
                self.tasks.spawn("content", job.run(operations).instrument(span))
            };
            // The task group has counted a panic; the connection finds its answer gone.
            let _ = read.await;
        }
    }
}
