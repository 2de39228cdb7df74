//! Withdraws alerts of what was read on another device.

use std::collections::BTreeMap;

use madang_engine::alerts::{Outstanding, Shown};
use madang_ids::DeviceId;
use madang_proto::rest::{AlertData, AlertKind};
use madang_proto::{AlertOutcome, PushProvider};
use madang_store::{StoreResult, Subscription};

use super::Inner;
use crate::core::Verdict;
use crate::notice::Notice;

impl Inner {
    /// Withdraws what is due, and forgets what was shown long ago. `false` if the record has changed since it was read.
    ///
    /// The record is changed first, so a device gets at most one such push. If the provider does not take it, the next alert brings the
    /// news.
    pub(super) async fn withdraw(&self, record: &Outstanding) -> StoreResult<bool> {
        let now = self.clock.now_ms();
        let due = record.to_withdraw(now);
        let subscriptions = match due.is_empty() {
            true => Vec::new(),
            false => self.store.subscriptions(record.user).await?,
        };
        let targets: Vec<(Subscription, Shown)> = subscriptions
            .into_iter()
            .filter(|found| can_be_silent(found.target.provider()) && found.halted.is_none())
            .filter_map(|found| {
                Some((due.iter().find(|shown| shown.device == found.device_id).copied()?, found))
            })
            .map(|(shown, found)| (found, shown))
            .collect();
        let badge = if targets.is_empty() { 0 } else { self.badge(record).await? };
        let devices: Vec<DeviceId> = targets.iter().map(|(found, _)| found.device_id).collect();
        if !self.change(record, &record.withdrawn(&devices, now)).await? {
            return Ok(false);
        }
        for (subscription, shown) in targets {
            self.withdraw_from(record, &subscription, shown, badge).await;
        }
        Ok(true)
    }

    async fn withdraw_from(&self, record: &Outstanding, to: &Subscription, shown: Shown, badge: u32) {
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
        let Some(place) = self.lanes.enter(&to.target).await else { return };
        let answer = self.call(to, &notice).await;
        self.lanes.count(&place, to.target.provider(), &answer);
        let outcome = match answer.verdict {
            Verdict::Delivered => AlertOutcome::Withdrawn,
            verdict => super::calls::outcome_of(verdict, crate::core::Next::Done),
        };
        self.metrics.count_call(to.target.provider(), outcome);
        let detail = format!("read elsewhere: {}", answer.detail());
        let about = ((record.user, record.channel), (shown.last, shown.last));
        self.put_notes(vec![self.note_about(about.0, about.1, Some(to.device_id), outcome, &detail)]).await;
    }
}

/// A browser must show something for each push. Its service worker closes notifications with the next alert.
const fn can_be_silent(provider: PushProvider) -> bool {
    match provider {
        PushProvider::WebPush => false,
        PushProvider::Apns | PushProvider::Fcm | PushProvider::UnifiedPush | PushProvider::Webhook => true,
    }
}
