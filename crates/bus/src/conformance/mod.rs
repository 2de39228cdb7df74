//! Cases that every inbox must pass, unchanged. A case receives a [`Subject`], which opens the inbox over an empty
//! store and can start it again over the same store. A case that fails panics.
//!
//! ```ignore
//! madang_bus::inbox_conformance!(Arc::new(MySubject::new()));
//! ```

#![expect(clippy::unwrap_used, reason = "a case fails by panicking")]

mod device;
mod events;
mod live_items;
mod open_channels;
mod pages;
mod races;
mod spans;
mod verdicts;
mod workload;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use madang_proto::{SnapshotReason, limits};
use madang_store::Store;
use tokio::task::JoinSet;

use crate::bus::Bus;
use crate::for_each_inbox_case;
use crate::inbox::Inbox;

use events::*;
use live_items::*;
use open_channels::*;
use pages::*;
use races::*;
use spans::*;
use verdicts::*;

/// An inbox under test.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Opens the inbox: over an empty store the first time; later, after the last one was closed, over the same store.
    async fn open(&self) -> Opened;

    /// Makes reads of members fail or succeed from now on. Returns `false` if the subject cannot do that.
    fn break_members(&self, _is_broken: bool) -> bool {
        false
    }

    /// The most rows by which a cursor may be behind.
    fn rows_behind_max(&self) -> u64 {
        limits::SYNC_ITEMS
    }

    /// Rows of one append in the case about that bound: an inbox that keeps an entry for each append counts entries.
    fn rows_an_append(&self) -> usize {
        250
    }

    /// Whether each start has an epoch of its own, which bounds the positions of that start. Where the epoch is that of a
    /// server that outlives this process, a restart keeps it.
    fn has_epoch_of_start(&self) -> bool {
        true
    }

    /// Why a cursor of an epoch that the inbox does not know is refused.
    fn reason_of_another_epoch(&self) -> SnapshotReason {
        SnapshotReason::ForeignCursor
    }
}

/// One start of an inbox.
pub struct Opened {
    /// The store below the inbox. Cases append here.
    pub store: Arc<dyn Store>,
    /// The inbox under test.
    pub inbox: Arc<dyn Inbox>,
    /// The bus under test, over the same start.
    pub bus: Arc<dyn Bus>,
    /// The tasks of the inbox.
    pub tasks: JoinSet<()>,
}

impl Opened {
    /// Ends the inbox abruptly, as a killed process would: nothing of it remains.
    pub async fn close(self) {
        let Self { store, inbox, bus, mut tasks } = self;
        drop((inbox, bus));
        tasks.shutdown().await;
        drop(store);
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One case.
pub struct Case {
    /// The name of the case: what must hold.
    pub name: &'static str,
    /// Runs the case. It panics if the case fails.
    pub run: fn(Arc<dyn Subject>) -> Running,
}

/// The cases that every inbox must pass.
#[must_use]
pub fn cases() -> Vec<Case> {
    for_each_inbox_case!(inbox_cases, ())
}

/// Runs one case of [`cases`] by its name.
///
/// # Panics
/// If the case fails, or there is no case with this name.
pub async fn run_case(name: &str, subject: Arc<dyn Subject>) {
    let case = cases().into_iter().find(|case| case.name == name).expect("a case of this name");
    (case.run)(subject).await;
}

/// The list of all cases.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_inbox_case {
    ($then:ident, $argument:expr) => {
        $crate::$then! { $argument;
            pages_of_any_size_hold_the_same
            a_page_continues_from_any_cursor
            the_end_is_after_everything
            users_read_only_their_own_rows
            there_is_one_stream_of_envelopes
            an_event_reaches_the_other_connected_members
            places_follow_each_other
            a_live_device_gets_every_row_once
            repeated_fan_out_changes_nothing
            rows_whose_fan_out_was_lost_arrive_with_the_next
            only_attached_users_are_addressed
            every_connection_counts
            the_own_log_is_delivered
            a_joining_user_sees_entries_from_the_join_on
            a_leaving_user_sees_the_departure_and_nothing_after
            connected_strangers_change_nothing
            a_returning_member_does_not_see_entries_of_the_absence
            members_that_cannot_be_read_are_no_loss
            a_member_who_returns_while_nothing_is_read_is_served
            devices_that_connect_during_appends_miss_nothing
            slow_devices_miss_nothing
            subscribers_get_every_row_in_order
            every_subscription_counts
            an_open_channel_is_in_nobodys_inbox
            history_after_subscribing_and_live_rows_have_no_gap
            a_foreign_cursor_is_refused
            a_cursor_beyond_the_store_is_refused
            a_cursor_too_far_behind_is_refused
            a_restart_keeps_cursors
            a_cursor_beyond_its_start_is_refused
            a_device_continues_after_a_verdict
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! inbox_cases {
    ($argument:expr; $($name:ident)*) => {
        vec![$(Case { name: stringify!($name), run: |subject| Box::pin($name(subject)) }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! inbox_tests {
    ($subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::conformance::run_case(stringify!($name), $subject).await;
            }
        )*
    };
}

/// Defines a test for each case. The expression creates a new `Arc` of a [`Subject`](conformance::Subject) for each.
#[macro_export]
macro_rules! inbox_conformance {
    ($subject:expr) => {
        $crate::for_each_inbox_case!(inbox_tests, $subject);
    };
}
