//! Upkeep in memory: removes old records.

use async_trait::async_trait;
use madang_ids::{DeviceId, Millis, UserId};

use super::{Model, Mutant};
use crate::devices::{Device, Refresh};
use crate::error::StoreResult;
use crate::trim::{TrimStep, Trimmed};
use crate::upkeep::Upkeep;

#[async_trait]
impl Upkeep for Model {
    async fn trim(&self, step: TrimStep) -> StoreResult<Trimmed> {
        self.trim_users(step).await
    }

    async fn forget_sends(&self, before: Millis, limit: usize) -> StoreResult<usize> {
        let _call = self.journal.begin("forget_sends");
        self.write(|state| {
            let old = state.sends.extract_if(.., |_, record| record.at < before);
            old.take(limit).count()
        })
        .await
    }

    async fn forget_claims(&self, before: Millis, limit: usize) -> StoreResult<usize> {
        let _call = self.journal.begin("forget_claims");
        let is_blind = self.is_mutant(Mutant::ForgetsYoungClaims);
        self.write(|state| {
            let old = state.claims.extract_if(.., |_, claim| claim.at < before || is_blind);
            old.take(limit).count()
        })
        .await
    }

    async fn forget_devices(&self, before: Millis, limit: usize) -> StoreResult<usize> {
        let _call = self.journal.begin("forget_devices");
        let is_blind = self.is_mutant(Mutant::ForgetsYoungDevices);
        self.write(|state| {
            let is_old = |device: &&Device| device.revoked_at.is_some_and(|at| at < before || is_blind);
            let old: Vec<DeviceId> =
                state.devices.values().filter(is_old).map(|device| device.id).take(limit).collect();
            old.iter().for_each(|device| state.forget_device(*device));
            old.len()
        })
        .await
    }

    async fn forget_invitations(&self, before: Millis, limit: usize) -> StoreResult<usize> {
        let _call = self.journal.begin("forget_invitations");
        self.write(|state| {
            let old = state.invitations.extract_if(.., |_, (invitation, _)| invitation.ends_at < before);
            old.take(limit).count()
        })
        .await
    }

    async fn forget_alert_notes(&self, before: Millis, limit: usize) -> StoreResult<usize> {
        let _call = self.journal.begin("forget_alert_notes");
        let is_blind = self.is_mutant(Mutant::ForgetsYoungNotes);
        self.write(|state| {
            state.push.dead.retain(|_, letter| letter.note.at >= before);
            let is_old = |at: Millis| at < before || is_blind;
            let old = state.push.notes.iter().take_while(|it| is_old(it.note.at)).take(limit).count();
            state.push.notes.drain(..old);
            old
        })
        .await
    }

    async fn ended_devices(&self, before: Millis, limit: usize) -> StoreResult<Vec<(UserId, DeviceId)>> {
        let _call = self.journal.begin("ended_devices");
        self.read(|state| {
            let mut ended: Vec<&Refresh> = state.refresh.values().collect();
            ended.retain(|refresh| {
                let device = state.devices.get(&refresh.device_id);
                refresh.expires_at < before && device.is_some_and(|device| device.revoked_at.is_none())
            });
            ended.sort_by_key(|refresh| refresh.expires_at);
            ended.iter().map(|refresh| (refresh.user_id, refresh.device_id)).take(limit).collect()
        })
        .await
    }

    async fn probe(&self) -> StoreResult<()> {
        let _call = self.journal.begin("probe");
        self.write(|_| ()).await
    }
}
