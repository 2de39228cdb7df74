//! Logs in the cluster, and everything else in memory, until the other tables are there.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::*;
use madang_proto::*;
use madang_store::model::Model;
use madang_store::scylla::Scylla;
use madang_store::*;

pub struct Hybrid {
    pub model: Arc<Model>,
    pub cql: Arc<Scylla>,
}

#[async_trait]
impl AccountStore for Hybrid {
    async fn create_user(
        &self,
        user: &User,
        password_hash: &str,
        invitation: Option<&[u8; 32]>,
    ) -> StoreResult<Created> {
        self.cql.create_user(user, password_hash, invitation).await
    }
    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>> {
        self.cql.users(ids).await
    }
    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>> {
        self.cql.user_by_handle(handle).await
    }
    async fn users_by_handle(&self, prefix: &str, after: &str, limit: usize) -> StoreResult<Vec<User>> {
        self.cql.users_by_handle(prefix, after, limit).await
    }
    async fn set_profile(&self, user: UserId, profile: &Profile) -> StoreResult<()> {
        self.cql.set_profile(user, profile).await
    }
    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()> {
        self.cql.set_sends_receipts(user, sends_receipts).await
    }
    async fn set_audiences(
        &self,
        user: UserId,
        may_add: Option<Audience>,
        may_write: Option<Audience>,
    ) -> StoreResult<()> {
        self.cql.set_audiences(user, may_add, may_write).await
    }
    async fn credentials(&self, user: UserId) -> StoreResult<Option<Credentials>> {
        self.cql.credentials(user).await
    }
    async fn set_password_hash(&self, user: UserId, hash: &str, expected: Option<&str>) -> StoreResult<bool> {
        self.cql.set_password_hash(user, hash, expected).await
    }
    async fn set_disabled(&self, user: UserId, is_disabled: bool) -> StoreResult<bool> {
        self.cql.set_disabled(user, is_disabled).await
    }
    async fn delete_user(&self, user: UserId, handle_until: Millis) -> StoreResult<()> {
        self.cql.delete_user(user, handle_until).await
    }
    async fn deletions(&self, limit: usize) -> StoreResult<Vec<UserId>> {
        self.cql.deletions(limit).await
    }
    async fn settle_deletion(&self, user: UserId) -> StoreResult<()> {
        self.cql.settle_deletion(user).await
    }
    async fn block(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<bool> {
        self.cql.block(user, other, at).await
    }
    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool> {
        self.cql.unblock(user, other).await
    }
    async fn blocks(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<UserId>> {
        self.cql.blocks(user, after, limit).await
    }
    async fn apart_from(&self, user: UserId, limit: usize) -> StoreResult<Vec<UserId>> {
        self.cql.apart_from(user, limit).await
    }
    async fn who_block(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        self.cql.who_block(user, others).await
    }
    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool> {
        self.cql.is_blocked(one, other).await
    }
    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed> {
        self.cql.claim(scope, key, claim).await
    }
}

#[async_trait]
impl ChannelStore for Hybrid {
    async fn create_channel(&self, channel: &Channel) -> StoreResult<()> {
        self.cql.create_channel(channel).await
    }
    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>> {
        self.cql.channel(id).await
    }
    async fn open_made(&self, user: UserId, most: u32) -> StoreResult<u32> {
        self.cql.open_made(user, most).await
    }
    async fn claim_direct(&self, one: UserId, other: UserId, candidate: ChannelId) -> StoreResult<ChannelId> {
        self.cql.claim_direct(one, other, candidate).await
    }
    async fn direct(&self, one: UserId, other: UserId) -> StoreResult<Option<ChannelId>> {
        self.cql.direct(one, other).await
    }
    async fn seats(&self, channel: ChannelId) -> StoreResult<Seats> {
        self.cql.seats(channel).await
    }
    async fn change_seats(&self, change: SeatChange, memberships: &[Membership]) -> StoreResult<SeatOutcome> {
        self.cql.change_seats(change, memberships).await
    }
    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()> {
        self.cql.accept_stay(user, channel).await
    }
    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()> {
        self.cql.settle_members(channel, members).await
    }
    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>> {
        self.cql.members_of(channel, users).await
    }
    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.cql.members(channel, after, limit).await
    }
    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>> {
        self.cql.successor(channel, owner).await
    }
    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.cql.members_ever(channel, after, limit).await
    }
    async fn seating(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating> {
        self.cql.seating(channel, users).await
    }
    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.cql.banned(channel, after, limit).await
    }
    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()> {
        self.cql.put_memberships(memberships).await
    }
    async fn channels_among(&self, user: UserId, channels: &[ChannelId]) -> StoreResult<Vec<ChannelId>> {
        self.cql.channels_among(user, channels).await
    }
    async fn membership(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Membership>> {
        self.cql.membership(user, channel).await
    }
    async fn memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<Membership>> {
        self.cql.memberships(user, after, limit).await
    }
    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>> {
        self.cql.channel_counts(users, most).await
    }
    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>> {
        self.cql.overview(user, order, limit).await
    }
    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>> {
        self.cql.overview_of(user, channel).await
    }
    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>> {
        self.cql.markers(channel, users).await
    }
    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<()> {
        self.cql.advance_marker(user, channel, marker).await
    }
}

#[async_trait]
impl ContactStore for Hybrid {
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact> {
        self.cql.put_contact(user, other, at, limits).await
    }
    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>> {
        self.cql.remove_contact(user, other, at).await
    }
    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>> {
        self.cql.contact(user, other).await
    }
    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool> {
        self.cql.settle_contact(user, other, rev).await
    }
    async fn contacts(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<Contact>> {
        self.cql.contacts(user, after, limit).await
    }
    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations> {
        self.cql.relations(user, others, scan).await
    }
    async fn circle(&self, user: UserId, group_members: u32, limit: usize) -> StoreResult<Vec<UserId>> {
        self.cql.circle(user, group_members, limit).await
    }
    async fn acquainted(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        self.cql.acquainted(user, others).await
    }
    async fn change_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()> {
        self.cql.change_presence(user, change).await
    }
    async fn presence(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>> {
        self.cql.presence(users).await
    }
    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()> {
        self.cql.set_last_active(marks).await
    }
}

#[async_trait]
impl DeviceStore for Hybrid {
    async fn sign_in_rev(&self, user: UserId) -> StoreResult<u64> {
        self.cql.sign_in_rev(user).await
    }
    async fn put_device(&self, device: &Device, at_most: usize, sign_in_rev: u64) -> StoreResult<PutDevice> {
        self.cql.put_device(device, at_most, sign_in_rev).await
    }
    async fn device(&self, user: UserId, id: DeviceId) -> StoreResult<Option<Device>> {
        self.cql.device(user, id).await
    }
    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        self.cql.devices(user).await
    }
    async fn rename_device(&self, user: UserId, device: DeviceId, name: &str) -> StoreResult<bool> {
        self.cql.rename_device(user, device, name).await
    }
    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool> {
        self.cql.revoke_device(user, device, at).await
    }
    async fn revoke_devices(
        &self,
        user: UserId,
        except: Option<DeviceId>,
        at: Millis,
    ) -> StoreResult<Vec<DeviceId>> {
        self.cql.revoke_devices(user, except, at).await
    }
    async fn put_refresh(&self, refresh: &Refresh) -> StoreResult<()> {
        self.cql.put_refresh(refresh).await
    }
    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>> {
        self.cql.refresh(hash).await
    }
    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated> {
        self.cql.rotate_refresh(new).await
    }
    async fn set_received(&self, marks: &[(UserId, DeviceId, Cursor)]) -> StoreResult<()> {
        self.cql.set_received(marks).await
    }
}

#[async_trait]
impl DirectoryStore for Hybrid {
    async fn find_open(
        &self,
        query: &str,
        after: Option<ChannelId>,
        limit: usize,
        scan: usize,
    ) -> StoreResult<FoundPage> {
        self.cql.find_open(query, after, limit, scan).await
    }
}

#[async_trait]
impl ErasureStore for Hybrid {
    async fn put_erasure(&self, erasure: Erasure) -> StoreResult<()> {
        self.cql.put_erasure(erasure).await
    }
    async fn erasures(&self, limit: usize) -> StoreResult<Vec<Erasure>> {
        self.cql.erasures(limit).await
    }
    async fn end_erasure(&self, channel: ChannelId) -> StoreResult<()> {
        self.cql.end_erasure(channel).await
    }
    async fn replace_rows(&self, channel: ChannelId, changes: &[RowChange]) -> StoreResult<()> {
        self.cql.replace_rows(channel, changes).await
    }
}

#[async_trait]
impl GroupInvitationStore for Hybrid {
    async fn invite(
        &self,
        channel: ChannelId,
        by: UserId,
        users: &[UserId],
        at: Millis,
        limits: GroupInvitationLimits,
    ) -> StoreResult<Vec<GroupInvitation>> {
        self.cql.invite(channel, by, users, at, limits).await
    }
    async fn group_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> StoreResult<Option<GroupInvitation>> {
        self.cql.group_invitation(user, channel).await
    }
    async fn open_invitations(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<OpenInvitation>> {
        self.cql.open_invitations(user, after, limit).await
    }
    async fn decline_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
        declined: u32,
    ) -> StoreResult<Option<GroupInvitation>> {
        self.cql.decline_invitation(user, channel, declined).await
    }
    async fn end_invitations(&self, which: Ending, limit: usize) -> StoreResult<Vec<GroupInvitation>> {
        self.cql.end_invitations(which, limit).await
    }
    async fn forget_group_invitations(&self, user: UserId) -> StoreResult<()> {
        self.cql.forget_group_invitations(user).await
    }
    async fn settle_invitation(&self, user: UserId, channel: ChannelId, rev: u64) -> StoreResult<bool> {
        self.cql.settle_invitation(user, channel, rev).await
    }
    async fn due_invitations(&self, limit: usize) -> StoreResult<Vec<GroupInvitation>> {
        self.cql.due_invitations(limit).await
    }
}

#[async_trait]
impl InvitationStore for Hybrid {
    async fn put_invitation(&self, invitation: &Invitation) -> StoreResult<()> {
        self.cql.put_invitation(invitation).await
    }
    async fn invitations(&self, after: Option<&[u8; 32]>, limit: usize) -> StoreResult<Vec<Invitation>> {
        self.cql.invitations(after, limit).await
    }
    async fn revoke_invitation(&self, hash: &[u8; 32]) -> StoreResult<bool> {
        self.cql.revoke_invitation(hash).await
    }
}

#[async_trait]
impl LogStore for Hybrid {
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome> {
        self.cql.append(append).await
    }
    async fn apply_consequences(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()> {
        self.cql.apply_consequences(channel, consequences).await
    }
    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail> {
        self.cql.tail(log, rows).await
    }
    async fn heads(&self, logs: &[LogId]) -> StoreResult<Vec<Head>> {
        self.cql.heads(logs).await
    }
    async fn rows(&self, log: LogId, range: RangeInclusive<Seq>, max_bytes: usize) -> StoreResult<Vec<Row>> {
        self.cql.rows(log, range, max_bytes).await
    }
    async fn rows_back(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<Vec<Row>> {
        self.cql.rows_back(log, range, max_bytes).await
    }
    async fn rows_by(
        &self,
        channel: ChannelId,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<SentRows> {
        self.cql.rows_by(channel, sender, range, max_bytes).await
    }
    async fn rows_at(&self, log: LogId, seqs: &[Seq], max_bytes: usize) -> StoreResult<Vec<Option<Row>>> {
        self.cql.rows_at(log, seqs, max_bytes).await
    }
    async fn react(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>> {
        self.cql.react(channel, target, changes, named).await
    }
    async fn reactors(
        &self,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>> {
        self.cql.reactors(channel, target, emoji, after, limit).await
    }
    async fn reactions_by(
        &self,
        channel: ChannelId,
        user: UserId,
        after: Option<ReactionPlace>,
        scan: usize,
    ) -> StoreResult<OwnReactions> {
        self.cql.reactions_by(channel, user, after, scan).await
    }
    async fn mentions_of(
        &self,
        user: UserId,
        before: Option<MentionPlace>,
        limit: usize,
    ) -> StoreResult<Vec<Mention>> {
        self.cql.mentions_of(user, before, limit).await
    }
    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq> {
        self.cql.seq_at(log, at).await
    }
    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>> {
        self.cql.find_sends(channel, keys).await
    }
}

#[async_trait]
impl SettingStore for Hybrid {
    async fn put_channel_settings(
        &self,
        user: UserId,
        channel: ChannelId,
        settings: &ChannelSettings,
    ) -> StoreResult<bool> {
        self.cql.put_channel_settings(user, channel, settings).await
    }
    async fn channel_settings(&self, user: UserId, channel: ChannelId) -> StoreResult<ChannelSettings> {
        self.cql.channel_settings(user, channel).await
    }
    async fn hide_message(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        at_most: usize,
    ) -> StoreResult<bool> {
        self.cql.hide_message(user, channel, seq, at_most).await
    }
    async fn hidden_messages(
        &self,
        user: UserId,
        ranges: &[(ChannelId, RangeInclusive<Seq>)],
    ) -> StoreResult<Vec<(ChannelId, Seq)>> {
        self.cql.hidden_messages(user, ranges).await
    }
}

#[async_trait]
impl TrimStore for Hybrid {
    async fn trim(&self, step: TrimStep) -> StoreResult<Trimmed> {
        self.model.trim(step).await
    }
    async fn forget_user(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        self.model.forget_user(user, forgets).await
    }
}
