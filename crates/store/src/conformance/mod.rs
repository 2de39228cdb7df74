//! Cases that every implementation of the store must pass, unchanged. A case receives a [`Subject`], which creates an
//! empty store and can open it again. A case that fails panics.
//!
//! ```ignore
//! madang_store::store_conformance!(Arc::new(MySubject::new()));
//! madang_store::order_conformance!(Arc::new(MySubject::new()));
//! ```

#![expect(clippy::unwrap_used, reason = "a case fails by panicking")]

mod accounts;
mod acts;
mod alerts;
mod build;
mod channels;
mod commit_order;
mod contacts;
mod devices;
mod group_invitations;
mod logs;
mod open_channels;
mod push;
mod queue;
mod searches;
mod seats;
mod sends;
mod settings;
mod trim;
mod unreadable;
mod upkeep;
mod writers;

pub use build::say_many;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::{LogId, Seq};

use crate::alerts::{AlertOutbox, AlertQueue};
use crate::commit_order::CommitOrder;
use crate::error::{StoreError, StoreResult};
use crate::{Store, Upkeep, for_each_order_case, for_each_store_case};

use accounts::*;
use acts::*;
use alerts::*;
use channels::*;
use commit_order::*;
use contacts::*;
use devices::*;
use group_invitations::*;
use logs::*;
use open_channels::*;
use push::*;
use searches::*;
use seats::*;
use sends::*;
use settings::*;
use trim::*;
use unreadable::*;
use upkeep::*;
use writers::*;

/// All durable data, in the order of the commits of a single writer; records do not expire by themselves.
pub trait OrderedStore: Store + CommitOrder + Upkeep + AlertOutbox {}

impl<T: Store + CommitOrder + Upkeep + AlertOutbox> OrderedStore for T {}

/// A store under test.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Opens the store: empty the first time; later, after every handle was dropped, with everything that was acked.
    async fn open(&self) -> Arc<dyn Store>;
    /// Changes the content of a row as a failing disk may do. The store is not open.
    async fn spoil(&self, log: LogId, seq: Seq);
}

/// A store with a commit order under test.
#[async_trait]
pub trait OrderedSubject: Send + Sync + 'static {
    /// Like [`Subject::open`].
    async fn open(&self) -> Arc<dyn OrderedStore>;
}

/// A queue of alerts under test.
#[async_trait]
pub trait QueueSubject: Send + Sync + 'static {
    /// Opens the queue: empty the first time; later with everything that was written.
    async fn open(&self) -> Arc<dyn AlertQueue>;
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One case.
pub struct Case<S: ?Sized> {
    /// The name of the case: what must hold.
    pub name: &'static str,
    /// Runs the case. It panics if the case fails.
    pub run: fn(Arc<S>) -> Running,
}

/// The cases that every store must pass.
#[must_use]
pub fn cases() -> Vec<Case<dyn Subject>> {
    for_each_store_case!(conformance_cases, ())
}

/// The cases that a store with a commit order must pass in addition.
#[must_use]
pub fn order_cases() -> Vec<Case<dyn OrderedSubject>> {
    for_each_order_case!(conformance_cases, ())
}

/// The cases that a queue of alerts must pass. Those of [`order_cases`] contain them.
#[must_use]
pub fn queue_cases() -> Vec<Case<dyn QueueSubject>> {
    use queue::*;
    crate::conformance_cases! { ();
        what_is_due_is_leased_to_one_worker
        an_event_ends_a_lease
        an_empty_record_is_not_due
        a_record_is_changed_only_as_it_was_read
    }
}

/// The cases of [`cases`] that must hold even if operations are unavailable or have unknown outcomes.
#[must_use]
pub fn fault_tolerant_cases() -> Vec<Case<dyn Subject>> {
    let mut cases = cases();
    cases.retain(|case| FAULT_TOLERANT.contains(&case.name));
    assert_eq!(cases.len(), FAULT_TOLERANT.len());
    cases
}

const FAULT_TOLERANT: [&str; 11] = [
    "many_writers_leave_one_dense_log",
    "a_key_has_one_row_beyond_every_window",
    "an_append_prevents_those_of_unknown_outcome_before_it",
    "thirty_joins_for_ten_seats_make_ten_members",
    "a_pair_has_one_channel",
    "a_handle_has_one_holder",
    "thirty_logins_at_once_make_ten_devices",
    "ten_uses_let_ten_of_thirty_in",
    "a_key_is_claimed_once",
    "two_users_who_ask_each_other_at_once_are_contacts",
    "the_lists_of_both_say_what_the_pair_says",
];

/// Runs one case of [`cases`] by its name.
///
/// # Panics
/// If the case fails, or there is no case with this name.
pub async fn run_case(name: &str, subject: Arc<dyn Subject>) {
    let case = cases().into_iter().find(|case| case.name == name).expect("a case of this name");
    (case.run)(subject).await;
}

/// Runs one case of [`order_cases`] by its name.
///
/// # Panics
/// If the case fails, or there is no case with this name.
pub async fn run_order_case(name: &str, subject: Arc<dyn OrderedSubject>) {
    let case = order_cases().into_iter().find(|case| case.name == name).expect("a case of this name");
    (case.run)(subject).await;
}

/// Repeats an idempotent operation until it succeeds.
async fn done<T, F>(mut operation: impl FnMut() -> F) -> T
where
    F: Future<Output = StoreResult<T>>,
{
    for _ in 0..1_000 {
        match operation().await {
            Ok(answer) => return answer,
            Err(StoreError::Corrupt(why)) => panic!("the store is damaged: {why}"),
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => tokio::task::yield_now().await,
        }
    }
    panic!("a thousand attempts failed");
}

/// The list of all cases.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_store_case {
    ($then:ident, $argument:expr) => {
        $crate::$then! { $argument;
            an_empty_log_has_no_rows
            rows_come_back_as_they_were_written
            messages_of_one_sender_are_found
            an_append_compares_the_whole_head
            a_writer_that_paused_is_refused
            one_head_has_one_winner
            many_writers_leave_one_dense_log
            a_key_has_one_row_beyond_every_window
            an_append_prevents_those_of_unknown_outcome_before_it
            rows_of_one_append_appear_together
            a_log_goes_on_beyond_every_bucket
            changes_compare_the_version
            a_change_keeps_the_first_hash
            details_change_with_an_append
            mentions_count_from_the_marker_on
            mentions_of_a_user_are_listed_latest_first
            an_overview_says_when_the_last_message_was_sent
            restrictions_come_back_as_they_were_written
            a_change_is_kept_without_its_message
            single_rows_are_read_up_to_a_bound
            a_row_that_cannot_be_read_keeps_its_place
            a_message_that_cannot_be_read_can_be_deleted
            reactions_are_a_set
            mentions_and_reactions_end_with_their_message
            reads_end_after_their_bytes
            reads_keep_to_their_range
            ranges_of_several_logs_are_read_at_once
            a_time_finds_its_row
            heads_come_in_the_order_asked
            logs_of_channels_and_users_are_apart
            an_append_whose_key_is_recorded_does_nothing
            sends_are_found_by_their_key
            consequences_move_the_markers_of_senders
            acked_data_survives_reopening
            a_channel_stays_as_it_was_made
            a_pair_has_one_channel
            thirty_joins_for_ten_seats_make_ten_members
            seats_of_an_old_revision_are_refused
            memberships_come_with_their_seats
            members_come_by_pages
            members_are_pending_until_settled
            an_overtaken_settlement_does_nothing
            memberships_come_back_as_they_were_written
            a_late_writer_leaves_a_later_membership
            a_marker_goes_forward_only
            a_marker_may_come_before_the_membership
            overviews_by_id_are_complete
            overviews_by_activity_are_complete
            channels_that_were_left_are_left_out
            open_channels_are_found_by_name_and_topic
            open_channels_come_by_pages
            a_search_is_bounded_in_channels_looked_at
            channels_are_known_by_membership
            the_successor_is_an_admin_or_the_longest_member
            a_handle_has_one_holder
            users_come_in_the_order_asked
            names_and_passwords_change
            users_come_by_handle
            a_disabled_user_may_be_enabled_again
            a_deleted_user_leaves_an_id_and_a_handle_that_is_kept
            ten_uses_let_ten_of_thirty_in
            an_invitation_ends
            a_device_keeps_what_it_received
            thirty_logins_at_once_make_ten_devices
            the_first_revocation_stays
            all_devices_but_one_are_revoked_together
            a_device_is_renamed_by_its_user
            few_revoked_devices_are_kept
            received_goes_forward_within_an_epoch
            a_device_has_one_refresh_token
            a_refresh_token_is_rotated_once
            a_rotation_may_be_repeated
            blocks_come_by_pages
            a_key_is_claimed_once
            a_request_becomes_a_contact
            two_users_who_ask_each_other_at_once_are_contacts
            the_lists_of_both_say_what_the_pair_says
            a_change_is_settled_unless_there_was_a_later_one
            contacts_come_by_pages
            contacts_have_limits
            a_block_keeps_people_apart
            a_circle_is_contacts_and_small_groups
            a_member_who_has_not_accepted_is_in_no_circle
            acceptance_lasts_for_the_stay
            a_relation_is_a_contact_or_a_group_that_both_accepted
            audiences_are_kept
            an_invitation_waits_once
            a_declined_invitation_is_not_repeated
            a_blocked_inviter_leaves_no_trace
            a_blocked_inviter_displaces_no_declines_of_others
            the_oldest_invitation_makes_room
            invitations_hold_while_their_inviter_may_add
            invitations_end_together
            a_change_of_an_invitation_is_settled_unless_there_was_a_later_one
            presence_settings_are_kept
            channel_settings_compare_the_revision
            acts_are_in_one_order_without_a_hole
            a_message_is_hidden_from_one_user
            an_erasure_stays_until_it_ends
            data_of_a_deleted_user_is_removed_in_steps
            rows_are_replaced_by_version
            a_subscription_is_replaced_and_keeps_its_first_time
            a_token_belongs_to_its_last_device
            a_subscription_ends_with_its_device
            settings_of_alerts_are_kept
            notes_of_alerts_are_found_by_any_of_their_messages
            dead_letters_stay_until_they_are_removed
            a_badge_counts_unread_messages_of_channels_that_are_not_muted
        }
    };
}

/// The list of all cases about the commit order.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_order_case {
    ($then:ident, $argument:expr) => {
        $crate::$then! { $argument;
            there_is_one_feed
            commits_enter_the_feed_in_order_and_once
            positions_continue_after_reopening
            process_starts_are_kept_in_order
            a_scan_shows_what_a_member_may_read
            a_scan_is_the_merge_of_the_logs_of_a_user
            a_scan_gives_up_above_its_bound
            a_scan_leaves_open_channels_out
            a_scan_from_before_what_was_trimmed_gives_up
            a_scan_from_before_a_forgotten_stay_ended_gives_up
            own_logs_keep_their_last_rows
            channels_left_long_ago_are_forgotten
            groups_that_were_not_accepted_are_forgotten_first
            old_sends_are_forgotten
            old_claims_are_forgotten
            devices_whose_tokens_have_ended_are_found
            devices_that_were_revoked_long_ago_are_forgotten
            invitations_that_ended_are_forgotten
            old_notes_of_alerts_are_forgotten
            what_is_due_is_leased_to_one_worker
            an_event_ends_a_lease
            an_empty_record_is_not_due
            a_record_is_changed_only_as_it_was_read
            rows_wait_until_alerts_are_made_of_them
            own_logs_say_what_was_mentioned_and_read
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($argument:expr; $($name:ident)*) => {
        vec![$(Case { name: stringify!($name), run: |subject| Box::pin($name(subject)) }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::conformance::run_case(stringify!($name), $subject).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! order_conformance_tests {
    ($subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::conformance::run_order_case(stringify!($name), $subject).await;
            }
        )*
    };
}

/// Defines a test for each case. The expression creates a new `Arc` of a [`Subject`](conformance::Subject) for each.
#[macro_export]
macro_rules! store_conformance {
    ($subject:expr) => {
        $crate::for_each_store_case!(conformance_tests, $subject);
    };
}

/// Defines a test for each case about the commit order. The expression creates a new `Arc` of an
/// [`OrderedSubject`](conformance::OrderedSubject) for each.
#[macro_export]
macro_rules! order_conformance {
    ($subject:expr) => {
        $crate::for_each_order_case!(order_conformance_tests, $subject);
    };
}
