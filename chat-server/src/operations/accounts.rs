//! Sign up, log in, refresh, log out; who a token is.

use madang_auth::{PasswordError, RefreshToken, TokenError};
use madang_engine::session::Identity;
use madang_ids::{DeviceId, UserId};
use madang_proto::rest::{Login, ProfileChange, Refresh, SignUp, SignedIn};
use madang_proto::{ErrorBody, ErrorCode, UserCard, limits};
use madang_store::{Claim, Claimed, Created, Device, Replaced, Rotated, User};
use sha2::{Digest, Sha256};

use super::texts::check_text;
use super::{Caller, Operations};
use crate::refusal::refusal;

impl Operations {
    /// Makes an account, its first device and that device's tokens. With an idempotency key it may be repeated: the
    /// same account and device come back, with new tokens.
    ///
    /// # Errors
    /// A field beyond its limit; `conflict` for a handle that is taken, a key used with another request, or a device
    /// that was revoked since; `full` above 50 devices.
    pub async fn sign_up(&self, request: SignUp, key: Option<&str>) -> Result<SignedIn, ErrorBody> {
        let handle = check_handle(&request.handle)?;
        check_display_name(&request.display_name)?;
        check_password(&request.password)?;
        let device_name = check_device_name(&request.device_name)?;
        let (id, device_id) = self.claim_sign_up(&handle, &request.display_name, key).await?;
        let (display_name, created_at) = (request.display_name, self.clock.now_ms());
        let user = User { id, handle, display_name, created_at, sends_receipts: true };
        // A repeated sign-up is a login: only who knows the password gets tokens.
        if !self.create_user(&user, request.password).await? {
            return Err(key_conflict());
        }
        let found = self.store.device(device_id).await.map_err(|error| refusal(&error))?;
        let device = found.unwrap_or_else(|| self.device(device_id, id, device_name));
        if device.revoked_at.is_some() {
            let message = "Idempotency-Key was used for a device that was revoked since; log in";
            return Err(ErrorBody::field(ErrorCode::Conflict, "Idempotency-Key", message));
        }
        self.sign_in(id, device).await
    }

    /// Writes the account unless an earlier try did; says whether its password is this one.
    async fn create_user(&self, user: &User, password: String) -> Result<bool, ErrorBody> {
        if let Some(hash) = self.password_hash(user.id).await? {
            return self.verify(password, hash).await;
        }
        let hash = self.passwords.hash(password.clone()).await.map_err(|error| password_refusal(&error))?;
        let created = self.store.create_user(user, &hash).await.map_err(|error| refusal(&error))?;
        if created == Created::Taken {
            return Err(ErrorBody::field(ErrorCode::Conflict, "handle", "handle is taken"));
        }
        // Another try with the same key may have been quicker, with another password.
        match self.password_hash(user.id).await? {
            Some(stored) if stored != hash => self.verify(password, stored).await,
            _ => Ok(true),
        }
    }

    /// Logs in on a new device, or again on one of the user's.
    ///
    /// # Errors
    /// `unauthorized` for a wrong handle or password alike; `not_found` for a device that is not hers.
    pub async fn log_in(&self, request: Login) -> Result<SignedIn, ErrorBody> {
        let wrong = || ErrorBody::new(ErrorCode::Unauthorized, "handle or password is wrong");
        let device_name = check_device_name(&request.device_name)?;
        check_password(&request.password).map_err(|_| wrong())?;
        let handle = check_handle(&request.handle).map_err(|_| wrong())?;
        let user = self.store.user_by_handle(&handle).await.map_err(|error| refusal(&error))?;
        let Some(user) = user else {
            // As slow as for a handle that exists, so that handles cannot be guessed by time.
            let verified = self.passwords.verify_nothing(request.password).await;
            return Err(verified.map_or_else(|error| password_refusal(&error), |_| wrong()));
        };
        let hash = self.password_hash(user.id).await?.ok_or_else(wrong)?;
        if !self.verify(request.password, hash).await? {
            return Err(wrong());
        }
        let device = match request.device_id {
            Some(id) => self.own_device(user.id, id).await?,
            None => self.new_device(user.id, device_name),
        };
        self.sign_in(user.id, device).await
    }

    /// A new access token and the next refresh token for the device's last refresh token; for the one before it as
    /// well for a minute, since its answer may have been lost.
    ///
    /// # Errors
    /// `unauthorized` if it is neither, or has ended.
    pub async fn refresh(&self, request: Refresh) -> Result<SignedIn, ErrorBody> {
        let wrong =
            || ErrorBody::field(ErrorCode::Unauthorized, "refresh_token", "refresh_token is not valid");
        let old = RefreshToken::parse(&request.refresh_token).map_err(|_| wrong())?;
        let (hash, now) = (old.hash(), self.clock.raw_ms());
        let row = self.store.refresh(&hash).await.map_err(|error| refusal(&error))?.ok_or_else(wrong)?;
        let may_repeat = row.replaced.is_some_and(|old| old.hash == hash && now < old.until);
        if row.expires_at <= now || (row.hash != hash && !may_repeat) {
            return Err(wrong());
        }
        // A login that was overtaken by the device's revocation may have left a token behind.
        if !self.is_device_valid(row.user_id, row.device_id).await? {
            return Err(wrong());
        }
        // A repeat comes to the same token: whichever answer arrives, the device holds its last one.
        let token = self.tokens.next_refresh(&old);
        let until = now.plus(limits::REFRESH_REPEAT_SECONDS * 1_000);
        let mut new = self.refresh_row(&token, row.user_id, row.device_id);
        new.replaced = Some(Replaced { hash, until });
        match self.store.rotate_refresh(&new).await.map_err(|error| refusal(&error))? {
            Rotated::Rotated => self.signed_in(row.user_id, row.device_id, &token).await,
            Rotated::Unknown => Err(wrong()),
        }
    }

    /// The operator's way in: a new device of a user, without her password.
    ///
    /// # Errors
    /// `not_found`; `full` above 50 devices.
    pub async fn sign_in_for(&self, handle: &str, device_name: String) -> Result<SignedIn, ErrorBody> {
        let user = self.user_by_handle(handle).await?;
        let device = self.new_device(user.id, check_device_name(&device_name)?);
        self.sign_in(user.id, device).await
    }

    /// The operator gives a user a new password.
    ///
    /// # Errors
    /// `not_found`; a password beyond its limits.
    pub async fn reset_password(&self, handle: &str, password: String) -> Result<(), ErrorBody> {
        check_password(&password)?;
        let user = self.user_by_handle(handle).await?;
        let hash = self.passwords.hash(password).await.map_err(|error| password_refusal(&error))?;
        self.store.set_password_hash(user.id, &hash).await.map_err(|error| refusal(&error))
    }

    /// Who a token is, if it is valid and its device was not revoked.
    ///
    /// # Errors
    /// `unauthorized`.
    pub async fn identify(&self, token: &str) -> Result<Identity, ErrorBody> {
        let claims = self.tokens.verify(token, self.clock.raw_ms()).map_err(|error| {
            self.metrics.unauthorized.inc();
            let message = match error {
                TokenError::Expired => "the token has ended",
                TokenError::Invalid => "the token is not valid",
            };
            ErrorBody::field(ErrorCode::Unauthorized, "token", message)
        })?;
        if !self.is_device_valid(claims.user_id, claims.device_id).await? {
            self.metrics.unauthorized.inc();
            return Err(ErrorBody::field(ErrorCode::Unauthorized, "token", "the token's device was revoked"));
        }
        let (user_id, device_id, expires_at) = (claims.user_id, claims.device_id, claims.expires_at);
        Ok(Identity { user_id, device_id, expires_at })
    }

    /// A user as everyone sees her.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user(&self, id: UserId) -> Result<UserCard, ErrorBody> {
        let users = self.store.users(&[id]).await.map_err(|error| refusal(&error))?;
        users.into_iter().next().flatten().map(card).ok_or_else(|| ErrorBody::not_found("user"))
    }

    /// The user with a handle.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user_by_handle(&self, handle: &str) -> Result<UserCard, ErrorBody> {
        let handle = check_handle(handle)?;
        let user = self.store.user_by_handle(&handle).await.map_err(|error| refusal(&error))?;
        user.map(card).ok_or_else(|| ErrorBody::not_found("user"))
    }

    /// Changes the caller's name for people, and whether others are told how far she has read.
    ///
    /// # Errors
    /// A name beyond its limit.
    pub async fn change_profile(&self, caller: Caller, change: ProfileChange) -> Result<UserCard, ErrorBody> {
        if let Some(display_name) = change.display_name {
            check_display_name(&display_name)?;
            let written = self.store.set_display_name(caller.user_id, &display_name).await;
            written.map_err(|error| refusal(&error))?;
        }
        if let Some(sends_receipts) = change.sends_receipts {
            let written = self.store.set_sends_receipts(caller.user_id, sends_receipts).await;
            written.map_err(|error| refusal(&error))?;
        }
        self.user(caller.user_id).await
    }

    /// Signs in on a device: writes it, if there is room for it, and gives it its tokens.
    pub(super) async fn sign_in(&self, user: UserId, device: Device) -> Result<SignedIn, ErrorBody> {
        let max = limits::DEVICES_PER_USER;
        if !self.store.put_device(&device, max).await.map_err(|error| refusal(&error))? {
            let message = format!("this user has {max} devices already; revoke one");
            return Err(ErrorBody::new(ErrorCode::Full, message));
        }
        let token = RefreshToken::random();
        let row = self.refresh_row(&token, user, device.id);
        self.store.put_refresh(&row).await.map_err(|error| refusal(&error))?;
        self.signed_in(user, device.id, &token).await
    }

    async fn signed_in(
        &self,
        user: UserId,
        device_id: DeviceId,
        token: &RefreshToken,
    ) -> Result<SignedIn, ErrorBody> {
        let minted = self.tokens.mint(user, device_id, self.clock.raw_ms());
        let (access_token, access_expires_at) = minted.map_err(|error| {
            tracing::error!(%error, "a token could not be minted");
            ErrorBody::new(ErrorCode::Internal, "the server failed")
        })?;
        let user = self.user(user).await?;
        Ok(SignedIn { user, device_id, access_token, access_expires_at, refresh_token: token.to_string() })
    }

    pub(super) fn new_device(&self, user_id: UserId, name: String) -> Device {
        self.device(DeviceId::from_raw(self.mint()), user_id, name)
    }

    fn device(&self, id: DeviceId, user_id: UserId, name: String) -> Device {
        Device { id, user_id, name, created_at: self.clock.now_ms(), revoked_at: None, received: None }
    }

    fn refresh_row(
        &self,
        token: &RefreshToken,
        user_id: UserId,
        device_id: DeviceId,
    ) -> madang_store::Refresh {
        let days_ms = self.config.tokens.refresh_days * 86_400_000;
        madang_store::Refresh {
            hash: token.hash(),
            user_id,
            device_id,
            expires_at: self.clock.raw_ms().plus(days_ms),
            replaced: None,
        }
    }

    /// The ids of this sign-up's user and first device, the same for all tries with its key: one claim holds both,
    /// since they are minted in a row.
    async fn claim_sign_up(
        &self,
        handle: &str,
        name: &str,
        key: Option<&str>,
    ) -> Result<(UserId, DeviceId), ErrorBody> {
        let mut id = self.mint_row(2);
        if let Some(key) = key {
            let request_hash = request_hash(&[handle.as_bytes(), name.as_bytes()]);
            id = self.claim("sign-up", key, id, request_hash).await?;
        }
        Ok((UserId::from_raw(id), DeviceId::from_raw(id + 1)))
    }

    /// Claims an idempotency key: the id to use, which is that of the first try.
    pub(super) async fn claim(
        &self,
        scope: &str,
        key: &str,
        id: u64,
        request_hash: [u8; 16],
    ) -> Result<u64, ErrorBody> {
        let claim = Claim { id, request_hash, at: self.clock.now_ms() };
        match self.store.claim(scope, key, claim).await.map_err(|error| refusal(&error))? {
            Claimed::First => Ok(id),
            Claimed::Before(first) if first.request_hash == request_hash => Ok(first.id),
            Claimed::Before(_) => Err(key_conflict()),
        }
    }

    async fn password_hash(&self, user: UserId) -> Result<Option<String>, ErrorBody> {
        self.store.password_hash(user).await.map_err(|error| refusal(&error))
    }

    async fn verify(&self, password: String, hash: String) -> Result<bool, ErrorBody> {
        self.passwords.verify(password, hash).await.map_err(|error| password_refusal(&error))
    }
}

pub(super) fn card(user: User) -> UserCard {
    UserCard { id: user.id, handle: user.handle, display_name: user.display_name }
}

/// The hash of a request's parts, each preceded by its length.
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
    let message = "Idempotency-Key was used before with another request";
    ErrorBody::field(ErrorCode::Conflict, "Idempotency-Key", message)
}

fn password_refusal(error: &PasswordError) -> ErrorBody {
    match error {
        PasswordError::Overloaded => ErrorBody::unavailable("too many logins at once", 1000),
        PasswordError::Stopping => ErrorBody::unavailable("the server is stopping", 1000),
        PasswordError::TooLong | PasswordError::Config(_) | PasswordError::Failed(_) => {
            tracing::error!(%error, "a password could not be hashed or compared");
            ErrorBody::new(ErrorCode::Internal, "the server failed")
        }
    }
}

fn check_handle(handle: &str) -> Result<String, ErrorBody> {
    let max = limits::HANDLE_CHARS;
    let handle = handle.to_ascii_lowercase();
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    if (2..=max).contains(&handle.len()) && handle.bytes().all(is_allowed) {
        return Ok(handle);
    }
    let message = format!("handle must be 2 to {max} of the characters a-z, 0-9, '_', '.', '-'");
    Err(ErrorBody::invalid("handle", message))
}

fn check_display_name(name: &str) -> Result<(), ErrorBody> {
    let name = if name.trim().is_empty() { "" } else { name };
    check_text("display_name", name, 1..=limits::DISPLAY_NAME_CHARS)
}

pub(super) fn check_device_name(name: &str) -> Result<String, ErrorBody> {
    check_text("device_name", name, 0..=limits::DEVICE_NAME_CHARS)?;
    Ok(name.to_owned())
}

fn check_password(password: &str) -> Result<(), ErrorBody> {
    let (min, max) = (limits::PASSWORD_CHARS_MIN, limits::PASSWORD_BYTES_MAX);
    if password.chars().count() >= min && password.len() <= max {
        return Ok(());
    }
    Err(ErrorBody::invalid("password", format!("password must have {min} characters to {max} bytes")))
}
