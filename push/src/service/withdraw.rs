//! Withdraws alerts of what was read on another device.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use madang_engine::alerts::{Outstanding, Shown};
use madang_ids::DeviceId;
use madang_proto::rest::{AlertData, AlertKind};
use madang_proto::{AlertOutcome, PushProvider};
use madang_store::{StoreResult, Subscription};

use super::Inner;
use super::worker::LEASE_MS;
use crate::core::Verdict;
use crate::notice::Notice;

impl Inner {
    /// Withdraws what is due, and forgets what was shown long ago.
    ///
    /// If the process dies in between, the calls are made again when its lease ends, which shows nothing to anybody. A device that was
    /// not reached keeps its alert in the record, and the next alert brings the news.
    pub(super) async fn withdraw(&self, record: &Outstanding) -> StoreResult<()> {
        let now = self.clock.now_ms();
        let due = record.to_withdraw(now);
        let subscriptions = match due.is_empty() {
            true => Vec::new(),
            false => self.store.subscriptions(record.user).await?,
        };
        let shown_by = |device| due.iter().find(|shown| shown.device == device).copied();
        let targets: Vec<(&Subscription, Shown)> = subscriptions
            .iter()
            .filter(|found| can_be_silent(found.target.provider()) && found.halted.is_none())
            .filter_map(|found| Some((found, shown_by(found.device_id)?)))
            .collect();
        if targets.is_empty() {
            return self.end_withdrawal(record.clone(), &due, &[]).await;
        }
        let begun = record.withdrawing(now.plus(LEASE_MS));
        if !self.change(record, &begun).await? {
            return Ok(());
        }
        let badge = self.badge(record).await?;
        let calls = targets.into_iter().map(|(to, shown)| async move {
            self.withdraw_from(record, to, shown, badge).await.then_some(to.device_id)
        });
        let reached: Vec<DeviceId> = join_all(calls).await.into_iter().flatten().collect();
        self.end_withdrawal(begun, &due, &reached).await
    }

    async fn end_withdrawal(
        &self,
        mut found: Outstanding,
        tried: &[Shown],
        reached: &[DeviceId],
    ) -> StoreResult<()> {
        for _ in 0..TRIES {
            if self.change(&found, &found.withdrawn(tried, reached, self.clock.now_ms())).await? {
                return Ok(());
            }
            found = self.queue.outstanding(found.user, found.channel).await?;
        }
        Ok(())
    }

    /// Whether the provider has taken it.
    async fn withdraw_from(&self, record: &Outstanding, to: &Subscription, shown: Shown, badge: u32) -> bool {
        let notice = Notice {
            data: AlertData {
                kind: AlertKind::Read,
                channel_id: None,
                seq: None,
                count: 0,
                badge,
                read: BTreeMap::from([(record.channel, shown.last)]),
            },
            words: None,
            tag: self.tags.of_channel(record.channel),
            link: self.link(None),
            expires_at: self.expiry(self.clock.now_ms()),
        };
        let Ok(place) = self.lanes.enter(&to.target).await else { return false };
        let answer = self.call(to, &notice).await;
        self.lanes.count(place, to.target.provider(), &answer);
        let outcome = match answer.verdict {
            Verdict::Delivered => AlertOutcome::Withdrawn,
            verdict => super::calls::outcome_of(verdict, crate::core::Next::Done),
        };
        self.metrics.count_call(to.target.provider(), outcome);
        let detail = format!("read elsewhere: {}", answer.detail());
        let about = ((record.user, record.channel), (shown.last, shown.last));
        self.put_notes(vec![self.note_about(about.0, about.1, Some(to.device_id), outcome, &detail)]).await;
        answer.verdict == Verdict::Delivered
    }
}

/// Attempts on a record that changes meanwhile.
const TRIES: usize = 8;

/// A browser must show something for each push. Its service worker closes notifications with the next alert.
const fn can_be_silent(provider: PushProvider) -> bool {
    match provider {
        PushProvider::WebPush => false,
        PushProvider::Apns | PushProvider::Fcm | PushProvider::UnifiedPush | PushProvider::Webhook => true,
    }
}
