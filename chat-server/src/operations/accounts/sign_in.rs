//! Login and refresh, and the identity of a token.

use std::net::IpAddr;

use madang_auth::{Lane, RefreshToken, TokenError};
use madang_engine::session::Identity;
use madang_ids::{DeviceId, Millis, UserId};
use madang_proto::rest::{Login, Refresh, SignedIn};
use madang_proto::{ErrorBody, ErrorCode, limits};
use madang_store::{Device, PutDevice, Replaced, Rotated, User, UserState};

use crate::operations::accounts::devices::DeviceState;
use crate::operations::accounts::guesses::Place;
use crate::operations::accounts::handles::check_handle;
use crate::operations::accounts::request_hash;
use crate::operations::messages::texts::check_text;
use crate::operations::{Caller, Operations};
use crate::refusal::{OperationError, Result};

/// Attempts of a sign-in to make room for its device while other sign-ins take the free places.
const ROUNDS: usize = 16;

/// How a sign-in makes room if its user has the maximum number of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::operations) enum Room {
    /// Revokes the device that was unused longest. The password was given, and the user may have no other way in.
    Make,
    /// Revokes only a device whose refresh token has expired. The caller has a token, with which they can revoke another one.
    MakeOfEnded,
}

impl Operations {
    /// Logs in on a new device, or again on one of the user's. With an idempotency key the call may be repeated: it returns the
    /// same device. If the user has the maximum number of devices, the one that was unused longest is revoked.
    ///
    /// # Errors
    /// `unauthorized` for a wrong handle or password, without saying which; `forbidden` for a disabled account; `not_found` for a
    /// device that is not the user's; `limited`.
    pub async fn log_in(&self, request: Login, key: Option<&str>, address: IpAddr) -> Result<SignedIn> {
        let wrong = || ErrorBody::new(ErrorCode::Unauthorized, "handle or password is wrong");
        let (handle, place) = (check_handle(&request.handle), Place::Address(address));
        let known = handle.as_ref().ok().filter(|handle| self.guesses.is_known(handle, place));
        let _seat = self.callers.take_login(address, known.map(String::as_str))?;
        let lane = if known.is_some() { Lane::Known } else { Lane::Guest };
        let device_name = check_device_name("device_name", &request.device_name)?;
        let handle = handle.map_err(|_| wrong())?;
        let guess = self.guesses.take(&handle, place)?;
        let user = self.store.user_by_handle(&handle).await?;
        let verified = match &user {
            Some(user) => self.verify_user(user, request.password, lane).await,
            None => {
                // As slow as for a handle that exists, so that the time does not reveal which handles exist.
                let verified = self.passwords.verify_nothing(request.password, lane).await;
                verified.map(|_| None).map_err(OperationError::from)
            }
        };
        let (Some(user), Some((rev, state))) = (user, verified.as_ref().ok().copied().flatten()) else {
            if let Err(error) = verified {
                guess.give_back();
                return Err(error);
            }
            return Err(wrong().into());
        };
        guess.give_back();
        if state != UserState::Active {
            return Err(
                ErrorBody::forbidden("this account is disabled; ask the operator of this server").into()
            );
        }
        let device = match request.device_id {
            Some(id) => self.own_device(user.id, id).await?,
            None => self.claim_device("login", user.id, device_name, key).await?,
        };
        let signed_in = self.sign_in(device, rev, Room::Make).await?;
        self.guesses.remember(&handle, place);
        Ok(signed_in)
    }

    /// If the password is right: the state of the account, and the revision of the user's sign-ins from before the comparison.
    async fn verify_user(
        &self,
        user: &User,
        password: String,
        lane: Lane,
    ) -> Result<Option<(u64, UserState)>> {
        let rev = self.store.sign_in_rev(user.id).await?;
        let Some(credentials) = self.credentials(user.id).await? else { return Ok(None) };
        let is_right = self.verify(user.id, password, &credentials, lane).await?;
        Ok(is_right.then_some((rev, credentials.state)))
    }

    /// A new access token and the next refresh token, for the device's last refresh token. The one before it is accepted for
    /// another minute, because its answer may have been lost.
    ///
    /// # Errors
    /// `revoked` if the device was revoked; `unauthorized` for any other token, or an expired one.
    pub async fn refresh(&self, request: Refresh, address: IpAddr) -> Result<SignedIn> {
        let wrong =
            || ErrorBody::field(ErrorCode::Unauthorized, "refresh_token", "refresh_token is not valid");
        let old = RefreshToken::parse(&request.refresh_token).map_err(|_| wrong())?;
        let (hash, now) = (old.hash(), self.clock.raw_ms());
        let row = self.store.refresh(&hash).await?.ok_or_else(wrong)?;
        match self.device_state(row.user_id, row.device_id).await? {
            DeviceState::Valid => {}
            DeviceState::Revoked => return Err(revoked("refresh_token").into()),
            DeviceState::Unknown => return Err(wrong().into()),
        }
        let may_repeat = row.replaced.is_some_and(|old| old.hash == hash && now < old.until);
        if row.expires_at <= now || (row.hash != hash && !may_repeat) {
            return Err(wrong().into());
        }
        // A repeat computes the same token: whichever answer arrives, the device holds its last token.
        let token = self.tokens.next_refresh(&old);
        let until = now.plus(limits::REFRESH_REPEAT_SECONDS * 1_000);
        let mut new = self.refresh_row(&token, row.user_id, row.device_id);
        new.replaced = Some(Replaced { hash, until });
        match self.store.rotate_refresh(&new).await? {
            Rotated::Rotated => {
                let signed_in = self.signed_in(row.user_id, row.device_id, &token).await?;
                self.guesses.remember(&signed_in.user.handle, Place::Address(address));
                Ok(signed_in)
            }
            Rotated::Unknown => Err(wrong().into()),
        }
    }

    /// Signs in a new device of a user without the password, for an operator.
    ///
    /// # Errors
    /// `not_found`; `forbidden` for a disabled account; `full` above 50 devices whose tokens have not expired.
    pub async fn sign_in_for(&self, handle: &str, device_name: String) -> Result<SignedIn> {
        let user = self.user_by_handle(handle).await?;
        let rev = self.store.sign_in_rev(user.id).await?;
        if self.credentials(user.id).await?.is_none_or(|found| found.state != UserState::Active) {
            return Err(ErrorBody::forbidden("this account is disabled").into());
        }
        let device = self.new_device(user.id, check_device_name("device_name", &device_name)?)?;
        tracing::info!(user.id = %user.id, user.handle = handle, device.id = %device.id, "operator signed in a \
             device");
        self.sign_in(device, rev, Room::MakeOfEnded).await
    }

    /// The identity of a valid token whose device was not revoked.
    ///
    /// # Errors
    /// `unauthorized`; `revoked`.
    pub async fn identify(&self, token: &str) -> Result<Identity> {
        let identity = self.verify_token(token)?;
        self.check_signed_in(identity.user_id, identity.device_id).await?;
        Ok(identity)
    }

    /// The identity of a valid token. Its device may have been revoked since.
    ///
    /// # Errors
    /// `unauthorized`
    pub fn verify_token(&self, token: &str) -> Result<Identity> {
        let claims = self.tokens.verify(token, self.clock.raw_ms()).map_err(|error| {
            self.metrics.unauthorized.inc();
            let message = match error {
                TokenError::Expired => "the token has expired",
                TokenError::Invalid => "the token is not valid",
            };
            ErrorBody::field(ErrorCode::Unauthorized, "token", message)
        })?;
        let (user_id, device_id, expires_at) = (claims.user_id, claims.device_id, claims.expires_at);
        Ok(Identity { user_id, device_id, expires_at })
    }

    /// Signs in on a device: writes the device, makes room for it if `room` allows, and gives it tokens. `rev` must have been
    /// read before the proof of the sign-in was checked: if all sessions were ended in between, `put_device` refuses the older
    /// `rev`.
    ///
    /// # Errors
    /// `full`; `unavailable` if all sessions of the user were ended meanwhile; `conflict` if the device was revoked.
    pub(in crate::operations) async fn sign_in(
        &self,
        device: Device,
        rev: u64,
        room: Room,
    ) -> Result<SignedIn> {
        for _ in 0..ROUNDS {
            match self.store.put_device(&device, limits::DEVICES_PER_USER, rev).await? {
                PutDevice::Written => {
                    let token = RefreshToken::random();
                    let row = self.refresh_row(&token, device.user_id, device.id);
                    self.store.put_refresh(&row).await?;
                    return self.signed_in(device.user_id, device.id, &token).await;
                }
                PutDevice::Full => self.make_room(&device, room).await?,
                PutDevice::Overtaken => {
                    return Err(ErrorBody::unavailable(
                        "all sessions of this account have just been ended",
                        100,
                    )
                    .into());
                }
                PutDevice::Revoked => {
                    let message = "the device of this request has been revoked; log in without device_id and with \
                         a new key";
                    return Err(ErrorBody::new(ErrorCode::Conflict, message).into());
                }
            }
        }
        Err(ErrorBody::unavailable("too many sign-ins of this account at once", 1000).into())
    }

    /// Revokes the device that was unused longest. Each use extends the refresh token, so devices with expired tokens come first.
    async fn make_room(&self, new: &Device, room: Room) -> Result<()> {
        let devices = self.store.devices(new.user_id).await?;
        // A device without a token is just signing in, or never finished its sign-in.
        let end = |device: &Device| {
            device.signed_in_until.unwrap_or_else(|| device.created_at.plus(self.refresh_ms()))
        };
        let others = devices.iter().filter(|device| device.id != new.id);
        let Some(unused) = others.min_by_key(|device| (end(device), device.id)) else { return Ok(()) };
        if room == Room::MakeOfEnded && end(unused) > self.clock.raw_ms() {
            let max = limits::DEVICES_PER_USER;
            let message = format!("this user already has {max} devices; revoke one");
            return Err(ErrorBody::new(ErrorCode::Full, message).into());
        }
        tracing::info!(user.id = %new.user_id, device.id = %unused.id, "revoking a device to make room for a new \
             one");
        self.begin_revocation(new.user_id, unused.id).await
    }

    async fn signed_in(&self, user: UserId, device_id: DeviceId, token: &RefreshToken) -> Result<SignedIn> {
        let minted = self.tokens.mint(user, device_id, self.clock.raw_ms());
        let (access_token, access_expires_at) = minted.map_err(|error| {
            tracing::error!(%error, "minting a token failed");
            ErrorBody::new(ErrorCode::Internal, "internal server error")
        })?;
        let user = self.user(user).await?;
        Ok(SignedIn { user, device_id, access_token, access_expires_at, refresh_token: token.to_string() })
    }

    /// A new device, or the one of an earlier try with the same key.
    pub(in crate::operations) async fn claim_device(
        &self,
        what: &str,
        user: UserId,
        name: String,
        key: Option<&str>,
    ) -> Result<Device> {
        let mut id = self.mint()?;
        if let Some(key) = key {
            id = self.claim(&format!("{what} of {user}"), key, id, request_hash(&[name.as_bytes()])).await?;
        }
        Ok(self.device(DeviceId::from_raw(id), user, name))
    }

    /// The caller's revision of sign-ins. It is read before the device is checked in the store, so that a later end of all
    /// sessions is noticed.
    pub(in crate::operations) async fn sign_in_rev_of(&self, caller: Caller) -> Result<u64> {
        let rev = self.store.sign_in_rev(caller.user_id).await?;
        self.check_device(caller.user_id, caller.device_id).await?;
        Ok(rev)
    }

    pub(in crate::operations) fn new_device(&self, user_id: UserId, name: String) -> Result<Device> {
        Ok(self.device(DeviceId::from_raw(self.mint()?), user_id, name))
    }

    pub(in crate::operations) fn device(&self, id: DeviceId, user_id: UserId, name: String) -> Device {
        let created_at = self.clock.now_ms();
        Device { id, user_id, name, created_at, revoked_at: None, received: None, signed_in_until: None }
    }

    fn refresh_row(
        &self,
        token: &RefreshToken,
        user_id: UserId,
        device_id: DeviceId,
    ) -> madang_store::Refresh {
        madang_store::Refresh {
            hash: token.hash(),
            user_id,
            device_id,
            expires_at: self.end_of_refresh(),
            replaced: None,
        }
    }

    fn end_of_refresh(&self) -> Millis {
        self.clock.raw_ms().plus(self.refresh_ms())
    }

    fn refresh_ms(&self) -> u64 {
        self.config.tokens.refresh_days * 86_400_000
    }
}

pub(in crate::operations) fn revoked(field: &str) -> ErrorBody {
    ErrorBody::field(ErrorCode::Revoked, field, format!("the device of this {field} was revoked"))
}

pub(in crate::operations) fn check_device_name(field: &str, name: &str) -> Result<String, ErrorBody> {
    check_text(field, name, 0..=limits::DEVICE_NAME_CHARS)
}
