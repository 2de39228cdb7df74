//! Signing up, and the profile and settings of a user.

pub(super) mod deletion;
pub(super) mod devices;
pub(super) mod export;
pub(super) mod guesses;
pub(super) mod handles;
pub(super) mod operators;
pub(super) mod passwords;
pub(super) mod sign_in;

use std::collections::HashSet;

use madang_auth::{InvitationCode, Lane};
use madang_ids::{DeviceId, UserId};
use madang_proto::rest::{List, Me, ProfileChange, SignUp, SignedIn, UserIds};
use madang_proto::{AccountSettings, Content, ErrorBody, ErrorCode, UserCard, limits};
use madang_store::{Claim, Claimed, Created, Profile, User, UserState};
use sha2::{Digest, Sha256};

use super::accounts::handles::{check_handle, check_new_handle, check_shape};
use super::accounts::passwords::check_password;
use super::accounts::sign_in::{Room, check_device_name};
use super::channels::details::check_avatar;
use super::costs::Cost;
use super::messages::texts::check_text;
use super::turns::Subject;
use super::{Caller, Operations};
use crate::config::SignUpMode;
use crate::refusal::Result;

/// The display name of a deleted user.
const DELETED_NAME: &str = "deleted user";

impl Operations {
    /// Makes an account, its first device and the tokens of that device. With an idempotency key the call may be repeated: it
    /// returns the same account and device, with new tokens.
    ///
    /// # Errors
    /// A field is beyond its limit; `forbidden` if sign-up is not open, or without a valid invitation; `conflict` for a handle
    /// that is taken or reserved, a key that was used with another request, or a device that was revoked since.
    pub async fn sign_up(&self, request: SignUp, key: Option<&str>) -> Result<SignedIn> {
        let invitation = self.check_may_sign_up(request.invitation.as_deref())?;
        let handle = check_new_handle(&request.handle, &self.config.accounts.reserved_handles)?;
        let display_name = check_display_name(&request.display_name)?;
        check_password("password", &request.password)?;
        let device_name = check_device_name("device_name", &request.device_name)?;
        let (id, device_id) = self.claim_sign_up(&handle, &display_name, key).await?;
        let user = User::new(id, handle, display_name, self.clock.now_ms());
        let rev = self.store.sign_in_rev(id).await?;
        // A repeated sign-up is a login: the password must be the same.
        if !self.create_user(&user, request.password, invitation.as_ref()).await? {
            return Err(key_conflict().into());
        }
        let found = self.store.device(id, device_id).await?;
        let device = found.unwrap_or_else(|| self.device(device_id, id, device_name));
        self.sign_in(device, rev, Room::Make).await
    }

    /// Makes an account for an operator, unless accounts are switched off.
    ///
    /// # Errors
    /// A field is beyond its limit; `conflict` for a handle that is taken; `forbidden` if `accounts.sign_up` is `"off"`.
    pub async fn create_account(
        &self,
        handle: &str,
        display_name: &str,
        password: String,
    ) -> Result<UserCard> {
        if self.config.accounts.sign_up == SignUpMode::Off {
            return Err(ErrorBody::forbidden(
                "sign-up is closed (sign-up is closed (accounts.sign_up is \"off\"))",
            )
            .into());
        }
        let handle = check_shape(handle)?;
        let display_name = check_display_name(display_name)?;
        check_password("password", &password)?;
        let user = User::new(UserId::from_raw(self.mint()?), handle, display_name, self.clock.now_ms());
        self.create_user(&user, password, None).await?;
        Ok(card(user))
    }

    /// The hash of the invitation's code, if sign-up needs one.
    fn check_may_sign_up(&self, code: Option<&str>) -> Result<Option<[u8; 32]>, ErrorBody> {
        match self.config.accounts.sign_up {
            SignUpMode::Open => Ok(None),
            SignUpMode::Invitation => {
                let code = code.and_then(InvitationCode::parse);
                code.map(|code| Some(code.hash())).ok_or_else(not_invited)
            }
            SignUpMode::Operator | SignUpMode::Off => {
                Err(ErrorBody::forbidden("sign-up is closed; ask the operator of this server for an account"))
            }
        }
    }

    /// Writes the account unless an earlier try has. Returns whether its password is this one.
    async fn create_user(
        &self,
        user: &User,
        password: String,
        invitation: Option<&[u8; 32]>,
    ) -> Result<bool> {
        if let Some(credentials) = self.credentials(user.id).await? {
            return self.verify(user.id, password, &credentials, Lane::Guest).await;
        }
        let hash = self.hash(password.clone(), Lane::Guest).await?;
        match self.store.create_user(user, &hash, invitation).await? {
            Created::Created => {}
            Created::Taken => {
                return Err(
                    ErrorBody::field(ErrorCode::Conflict, "handle", "handle is already in use").into()
                );
            }
            Created::NotInvited => return Err(not_invited().into()),
        }
        // A concurrent try with the same key, and another password, may have been first.
        match self.credentials(user.id).await? {
            Some(stored) if stored.password_hash != hash => {
                self.verify(user.id, password, &stored, Lane::Guest).await
            }
            _ => Ok(true),
        }
    }

    /// A user as everyone sees them.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user(&self, id: UserId) -> Result<UserCard> {
        let users = self.store.users(&[id]).await?;
        Ok(users.into_iter().next().flatten().map(card).ok_or_else(|| ErrorBody::not_found("user"))?)
    }

    /// A user with whom a channel or a contact can be begun: not a deleted one.
    ///
    /// # Errors
    /// `not_found`.
    pub(super) async fn present_user(&self, id: UserId) -> Result<UserCard> {
        let user = self.user(id).await?;
        if user.deleted { Err(ErrorBody::not_found("user").into()) } else { Ok(user) }
    }

    /// The user with a handle.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user_by_handle(&self, handle: &str) -> Result<UserCard> {
        let handle = check_handle(handle)?;
        let user = self.store.user_by_handle(&handle).await?;
        Ok(user.map(card).ok_or_else(|| ErrorBody::not_found("user"))?)
    }

    /// The users with these ids. Unknown ids are left out.
    ///
    /// # Errors
    /// `invalid` for texts that are not ids, or for too many.
    pub async fn users(&self, query: &UserIds) -> Result<List<UserCard>> {
        let ids = parse_ids("ids", &query.ids)?;
        let users = self.store.users(&ids).await?;
        Ok(List { items: users.into_iter().flatten().map(card).collect() })
    }

    /// The caller, with their own settings.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn me(&self, caller: Caller) -> Result<Me> {
        let users = self.store.users(&[caller.user_id]).await?;
        let user = users.into_iter().next().flatten().ok_or_else(|| ErrorBody::not_found("user"))?;
        let presence = self.store.presence(&[caller.user_id]).await?;
        let presence = presence.into_iter().next().unwrap_or_default();
        let AccountSettings { sends_receipts, may_add, may_write } = self.settings_of(&user);
        let (created_at, invisible, status) = (user.created_at, presence.invisible, presence.status);
        Ok(Me { user: card(user), created_at, sends_receipts, may_add, may_write, invisible, status })
    }

    /// Changes the caller's display name and picture, and settings of the account: whether others are notified of what the caller
    /// has read, who may add the caller to groups, who may write to the caller.
    ///
    /// # Errors
    /// A name or a picture beyond its limit.
    pub async fn change_profile(&self, caller: Caller, change: ProfileChange) -> Result<Me> {
        let display_name = change.display_name.as_deref().map(check_display_name).transpose()?;
        let avatar = change.avatar.as_deref().map(check_avatar).transpose()?;
        let profile = Profile { display_name, avatar };
        if profile != Profile::default() {
            self.store.set_profile(caller.user_id, &profile).await?;
            self.notify_profile(caller.user_id).await;
        }
        if change.sends_receipts.is_some() || change.may_add.is_some() || change.may_write.is_some() {
            self.change_settings(caller.user_id, &change).await?;
        }
        self.me(caller).await
    }

    /// Notifies the user's devices, and the users who watch this user, of the card as it is now. Nobody waits for it. It says
    /// nothing about whether the user is online: it is sent for an invisible user as for an offline one, and, as everything about
    /// users, not across a block.
    pub(super) async fn notify_profile(&self, user: UserId) {
        if let Err(error) = self.publish_profile(user).await {
            tracing::debug!(user.id = %user, %error, "publishing a changed profile failed");
        }
    }

    async fn publish_profile(&self, user: UserId) -> Result<()> {
        let card = self.user(user).await?;
        let (members, most) = (limits::WATCHED_GROUP_MEMBERS, limits::CONTACTS as usize);
        let mut users = self.store.circle(user, members, most).await?;
        self.callers.charge(user, Cost::rows(users.len()));
        users.push(user);
        self.bus.publish_profile(card, users);
        // From now on the presence of the user carries the new revision of the card.
        self.presence.settings_changed(user);
        Ok(())
    }

    /// Writes settings and notifies the user's devices. If another device changes them at the same moment, one device writes and
    /// notes before the other one begins.
    async fn change_settings(&self, user: UserId, change: &ProfileChange) -> Result<()> {
        let _turn = self.turns.take(Subject::Account(user)).await;
        if let Some(sends_receipts) = change.sends_receipts {
            self.store.set_sends_receipts(user, sends_receipts).await?;
        }
        if change.may_add.is_some() || change.may_write.is_some() {
            self.store.set_audiences(user, change.may_add, change.may_write).await?;
            self.homes.forget_direct_channels_of(user);
        }
        let users = self.store.users(&[user]).await?;
        let Some(settings) = users.iter().flatten().next().map(|user| self.settings_of(user)) else {
            return Err(ErrorBody::not_found("user").into());
        };
        let pick = |content: &Content| match content {
            Content::AccountSettings(settings) => Some(*settings),
            _ => None,
        };
        // An earlier call may have ended between its write and its note, so the note is compared and not only the row.
        let noted = self.homes.last_noted(user, pick).await?;
        if noted == Some(settings) {
            return Ok(());
        }
        self.homes.note(user, Content::AccountSettings(settings)).await?;
        Ok(())
    }

    fn settings_of(&self, user: &User) -> AccountSettings {
        let (may_add, may_write) = (self.consent().may_add(user), self.consent().may_write(user));
        AccountSettings { sends_receipts: user.sends_receipts, may_add, may_write }
    }

    /// The ids of the user and the first device of this sign-up, the same for all tries with its key. One claim holds both,
    /// because they are minted in a row.
    async fn claim_sign_up(&self, handle: &str, name: &str, key: Option<&str>) -> Result<(UserId, DeviceId)> {
        let mut id = self.mint_row(2)?;
        if let Some(key) = key {
            let request_hash = request_hash(&[handle.as_bytes(), name.as_bytes()]);
            id = self.claim("sign-up", key, id, request_hash).await?;
        }
        Ok((UserId::from_raw(id), DeviceId::from_raw(id + 1)))
    }

    /// Claims an idempotency key. Returns the id to use: that of the first try with the key.
    pub(super) async fn claim(&self, scope: &str, key: &str, id: u64, request_hash: [u8; 16]) -> Result<u64> {
        let claim = Claim { id, request_hash, at: self.clock.now_ms() };
        match self.store.claim(scope, key, claim).await? {
            Claimed::First => Ok(id),
            Claimed::Before(first) if first.request_hash == request_hash => Ok(first.id),
            Claimed::Before(_) => Err(key_conflict().into()),
        }
    }
}

pub(super) fn card(user: User) -> UserCard {
    let User { id, handle, display_name, avatar, rev, state, .. } = user;
    if state == UserState::Deleted {
        let display_name = DELETED_NAME.to_owned();
        return UserCard { id, handle, display_name, avatar, rev, deleted: true };
    }
    UserCard { id, handle, display_name, avatar, rev, deleted: false }
}

/// Parses ids with commas between them. Each is returned once.
pub(super) fn parse_ids(field: &str, text: &str) -> Result<Vec<UserId>, ErrorBody> {
    let most = limits::PRESENCE_QUERY;
    let parsed: Result<Vec<UserId>, _> = text.split(',').take(most + 1).map(str::parse).collect();
    let mut ids =
        parsed.map_err(|_| ErrorBody::invalid(field, format!("{field} must be ids, separated by commas")))?;
    if ids.len() > most {
        return Err(ErrorBody::invalid(field, format!("{field} has more than {most} ids, the limit")));
    }
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// The hash of the parts of a request. The length of each part is hashed too, so that moving a character between parts changes
/// the hash.
pub(super) fn request_hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize()[..16]);
    first
}

fn key_conflict() -> ErrorBody {
    let message = "Idempotency-Key was already used with another request";
    ErrorBody::field(ErrorCode::Conflict, "Idempotency-Key", message)
}

fn not_invited() -> ErrorBody {
    let message = "invitation is unknown, expired or used up";
    ErrorBody::field(ErrorCode::Forbidden, "invitation", message)
}

fn check_display_name(name: &str) -> Result<String, ErrorBody> {
    check_text("display_name", name, 1..=limits::DISPLAY_NAME_CHARS)
}
