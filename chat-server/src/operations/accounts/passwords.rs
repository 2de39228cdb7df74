//! Passwords of users: compared in every spelling in which they may be stored, changed, reset.

use madang_auth::{Lane, PasswordError, spellings};
use madang_ids::UserId;
use madang_proto::rest::PasswordChange;
use madang_proto::{ErrorBody, ErrorCode, limits};
use madang_store::Credentials;

use crate::operations::accounts::guesses::Place;
use crate::operations::{Caller, Operations};
use crate::refusal::{OperationError, Result};

impl Operations {
    /// Changes the caller's password. Other devices are revoked, unless the caller keeps them.
    ///
    /// # Errors
    /// `unauthorized` for a wrong old password; a new password beyond its limits; `conflict` if it was changed meanwhile;
    /// `limited`.
    pub async fn change_password(&self, caller: Caller, change: PasswordChange) -> Result<()> {
        let PasswordChange { old_password, new_password, keep_devices } = change;
        check_password("new_password", &new_password)?;
        let old = self.prove(caller, "old_password", old_password).await?;
        let hash = self.hash(new_password, Lane::Known).await?;
        if !self.store.set_password_hash(caller.user_id, &hash, Some(&old.password_hash)).await? {
            return Err(ErrorBody::new(ErrorCode::Conflict, "the password has been changed meanwhile").into());
        }
        if keep_devices {
            return Ok(());
        }
        self.revoke_all(caller.user_id, Some(caller.device_id)).await.map(drop)
    }

    /// Gives a user a new password, for an operator. All devices are revoked, unless the operator keeps them.
    ///
    /// # Errors
    /// `not_found`; a password beyond its limits.
    pub async fn reset_password(&self, handle: &str, password: String, keep_devices: bool) -> Result<()> {
        check_password("password", &password)?;
        let user = self.user_by_handle(handle).await?;
        let hash = self.hash(password, Lane::Known).await?;
        if !self.store.set_password_hash(user.id, &hash, None).await? {
            return Err(ErrorBody::not_found("user").into());
        }
        tracing::info!(user.id = %user.id, user.handle = handle, keep_devices, "operator changed a password");
        if keep_devices {
            return Ok(());
        }
        self.revoke_all(user.id, None).await.map(drop)
    }

    /// Checks the caller's password again, for actions that an unattended device must not allow.
    pub(in crate::operations) async fn prove(
        &self,
        caller: Caller,
        field: &str,
        password: String,
    ) -> Result<Credentials> {
        let wrong = || ErrorBody::field(ErrorCode::Unauthorized, field, format!("{field} is wrong"));
        let handle = self.user(caller.user_id).await?.handle;
        let credentials = self.credentials(caller.user_id).await?.ok_or_else(wrong)?;
        let guess = self.guesses.take(&handle, Place::Device(caller.device_id))?;
        match self.verify(caller.user_id, password, &credentials, Lane::Known).await {
            Ok(false) => Err(wrong().into()),
            Ok(true) => {
                guess.give_back();
                // Read again, because `verify` may have replaced the hash.
                Ok(self.credentials(caller.user_id).await?.ok_or_else(wrong)?)
            }
            Err(error) => {
                guess.give_back();
                Err(error)
            }
        }
    }

    /// Whether the password is the one of these credentials, in any spelling. A password that is stored in an older spelling is
    /// stored in the present one from then on.
    pub(in crate::operations) async fn verify(
        &self,
        user: UserId,
        password: String,
        credentials: &Credentials,
        lane: Lane,
    ) -> Result<bool> {
        let hash = &credentials.password_hash;
        if hash.is_empty() || password.len() > limits::PASSWORD_BYTES_MAX {
            return Ok(self.passwords.verify_nothing(String::new(), lane).await?);
        }
        let mut spellings = spellings(&password).into_iter();
        let present = spellings.next().unwrap_or_default();
        if self.verify_one(present.clone(), hash, lane).await? {
            return Ok(true);
        }
        for old in spellings {
            if self.verify_one(old, hash, lane).await? {
                let renewed = self.hash(present, lane).await?;
                self.store.set_password_hash(user, &renewed, Some(hash)).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn verify_one(&self, password: String, hash: &str, lane: Lane) -> Result<bool> {
        Ok(self.passwords.verify(password, hash.to_owned(), lane).await?)
    }

    /// The hash of a new password, in the present spelling.
    pub(in crate::operations) async fn hash(&self, password: String, lane: Lane) -> Result<String> {
        let present = spellings(&password).into_iter().next().unwrap_or_default();
        Ok(self.passwords.hash(present, lane).await?)
    }

    pub(in crate::operations) async fn credentials(&self, user: UserId) -> Result<Option<Credentials>> {
        Ok(self.store.credentials(user).await?)
    }
}

impl From<PasswordError> for OperationError {
    fn from(error: PasswordError) -> Self {
        Self::Refused(match error {
            PasswordError::Overloaded => ErrorBody::unavailable("too many logins at once", 1000),
            PasswordError::Stopping => ErrorBody::unavailable("the server is stopping", 1000),
            PasswordError::TooLong | PasswordError::Config(_) | PasswordError::Failed(_) => {
                tracing::error!(%error, "hashing a password failed");
                ErrorBody::new(ErrorCode::Internal, "internal server error")
            }
        })
    }
}

/// Checks that a new password is acceptable. Control characters are not (RFC 8265): no keyboard types them.
pub(in crate::operations) fn check_password(field: &str, password: &str) -> Result<(), ErrorBody> {
    let (min, max) = (limits::PASSWORD_CHARS_MIN, limits::PASSWORD_BYTES_MAX);
    let present = spellings(password).into_iter().next().unwrap_or_default();
    if present.chars().count() < min || password.len() > max || present.len() > max {
        let message = format!("{field} must have at least {min} characters and at most {max} bytes");
        return Err(ErrorBody::invalid(field, message));
    }
    if present.chars().any(char::is_control) {
        return Err(ErrorBody::invalid(field, format!("{field} must not contain control characters")));
    }
    Ok(())
}
