//! What operators do to accounts and invitations. Each change is logged.

use std::sync::Arc;

use madang_auth::InvitationCode;
use madang_ids::{DeviceId, Millis};
use madang_proto::rest::{DeviceCard, Page};
use madang_proto::{ErrorBody, ErrorCode, UserCard, limits};
use madang_store::{Invitation, User, UserState};
use serde::{Deserialize, Serialize};

use crate::operations::accounts::card;
use crate::operations::accounts::deletion::as_caller;
use crate::operations::accounts::export::Export;
use crate::operations::accounts::handles::check_handle;
use crate::operations::messages::texts::check_text;
use crate::operations::{Operations, pages};
use crate::refusal::Result;

/// What stands before the id of a user in the place of a handle, which has no colon.
const OF_ID: &str = "id:";
const DAY_MS: u64 = 86_400_000;
/// The longest note of an invitation, in characters.
const LABEL_CHARS: usize = 100;
/// How many users may sign up with one invitation, and how many days it may last.
const USES: std::ops::RangeInclusive<u32> = 1..=100_000;
const DAYS: std::ops::RangeInclusive<u32> = 1..=3_650;

/// An account as its operator sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// The user as everybody sees them.
    #[serde(flatten)]
    pub user: UserCard,
    /// When it was made.
    pub created_at: Millis,
    /// Whether an operator has disabled it.
    pub disabled: bool,
    /// The devices, if they were requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceCard>,
}

/// An invitation as its operator sees it. The code itself is shown once, when it is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitationCard {
    /// Names the invitation. It cannot be used to sign up.
    pub id: String,
    /// The code to give to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The operator's note.
    pub label: String,
    /// When it was made.
    pub created_at: Millis,
    /// When it expires.
    pub ends_at: Millis,
    /// How many users may sign up with it.
    pub uses: u32,
    /// How many users have.
    pub used: u32,
}

impl Operations {
    /// Accounts that are not deleted, by handle.
    ///
    /// # Errors
    /// `limit` out of bounds.
    pub async fn accounts(&self, prefix: &str, after: &str, limit: u32) -> Result<Page<Account>> {
        let max = limits::LIST_PAGE;
        if !(1..=max).contains(&limit) {
            return Err(
                ErrorBody::invalid("limit", format!("limit is {limit}, it must be 1 to {max}")).into()
            );
        }
        let found = self.store.users_by_handle(prefix, after, limit as usize).await?;
        let next = pages::next(&found, limit as usize, |user| user.handle.clone());
        Ok(Page { items: found.into_iter().map(|user| account(user, Vec::new())).collect(), next })
    }

    /// An account with its devices.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn account(&self, handle: &str) -> Result<Account> {
        let user = self.account_row(handle).await?;
        let devices = self.devices_of(user.id, None).await?.items;
        Ok(account(user, devices))
    }

    /// Disables an account and revokes its devices, or enables it again.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn disable_account(&self, handle: &str, is_disabled: bool) -> Result<()> {
        let user = self.account_row(handle).await?;
        let changed = self.store.set_disabled(user.id, is_disabled).await?;
        if !changed {
            return Err(ErrorBody::not_found("user").into());
        }
        tracing::info!(user.id = %user.id, user.handle = handle, is_disabled, "operator disabled or enabled an \
             account");
        if is_disabled {
            self.revoke_all(user.id, None).await?;
        }
        Ok(())
    }

    /// Makes an account, whether sign-up is open or not.
    ///
    /// # Errors
    /// A field is beyond its limit; `conflict`; `forbidden`.
    pub async fn make_account(&self, handle: &str, display_name: &str, password: String) -> Result<Account> {
        let made = self.create_account(handle, display_name, password).await?;
        tracing::info!(user.id = %made.id, user.handle = made.handle, "operator created an account");
        self.account(&made.handle).await
    }

    /// Deletes an account, as its user can.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn remove_account(&self, handle: &str) -> Result<()> {
        let user = self.account_row(handle).await?;
        tracing::info!(user.id = %user.id, user.handle = handle, "operator is deleting an account");
        self.delete_user(user.id).await
    }

    /// Revokes one device of a user, or all of them. Returns how many were revoked.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn revoke_for(&self, handle: &str, device: Option<DeviceId>) -> Result<usize> {
        let user = self.account_row(handle).await?;
        let count = match device {
            Some(device) => self.revoke_of(user.id, device).await.map(|()| 1)?,
            None => self.revoke_all(user.id, None).await?,
        };
        tracing::info!(user.id = %user.id, user.handle = handle, count, "operator revoked devices");
        Ok(count)
    }

    /// Begins an export of what the server keeps about a user, as the user can.
    ///
    /// # Errors
    /// `not_found`; `limited` while another export of the user is in progress.
    pub async fn export_of(self: &Arc<Self>, handle: &str) -> Result<Export> {
        let user = self.account_row(handle).await?.id;
        let export = self.export_for(as_caller(user), None)?;
        tracing::info!(user.id = %user, user.handle = handle, "operator is exporting the data of a user");
        Ok(export)
    }

    /// Makes an invitation. Only the answer contains its code.
    ///
    /// # Errors
    /// A field is out of bounds.
    pub async fn invite(&self, label: &str, uses: u32, days: u32) -> Result<InvitationCard> {
        let label = check_text("label", label, 0..=LABEL_CHARS)?;
        for (field, value, allowed) in [("uses", uses, USES), ("days", days, DAYS)] {
            if !allowed.contains(&value) {
                let (min, max) = allowed.into_inner();
                return Err(ErrorBody::invalid(
                    field,
                    format!("{field} is {value}, it must be {min} to {max}"),
                )
                .into());
            }
        }
        let (code, created_at) = (InvitationCode::random(), self.clock.now_ms());
        let ends_at = created_at.plus(u64::from(days) * DAY_MS);
        let invitation = Invitation { hash: code.hash(), label, created_at, ends_at, uses, used: 0 };
        self.store.put_invitation(&invitation).await?;
        let card = invitation_card(invitation);
        tracing::info!(invitation.id = card.id, uses, days, "operator created an invitation");
        Ok(InvitationCard { code: Some(code.to_string()), ..card })
    }

    /// Invitations, by id.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn invitations(&self, after: Option<&str>) -> Result<Page<InvitationCard>> {
        let limit = limits::LIST_PAGE as usize;
        let after = after.map(parse_id).transpose()?;
        let found = self.store.invitations(after.as_ref(), limit).await?;
        let next = pages::next(&found, limit, |one| id_of(&one.hash));
        Ok(Page { items: found.into_iter().map(invitation_card).collect(), next })
    }

    /// Takes an invitation back. Accounts that were made with it stay.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn take_invitation_back(&self, id: &str) -> Result<()> {
        let hash = parse_id(id)?;
        if !self.store.revoke_invitation(&hash).await? {
            return Err(ErrorBody::not_found("invitation").into());
        }
        tracing::info!(invitation.id = id, "operator revoked an invitation");
        Ok(())
    }

    /// The account with this handle, or with the id behind [`OF_ID`].
    pub(in crate::operations) async fn account_row(&self, handle: &str) -> Result<User> {
        let user = match handle.strip_prefix(OF_ID).map(str::parse) {
            Some(Ok(id)) => self.store.users(&[id]).await?.pop().flatten(),
            Some(Err(_)) => None,
            None => self.store.user_by_handle(&check_handle(handle)?).await?,
        };
        let absent = || ErrorBody::field(ErrorCode::NotFound, "handle", "user was not found");
        Ok(user.filter(|user| user.state != UserState::Deleted).ok_or_else(absent)?)
    }
}

fn account(user: User, devices: Vec<DeviceCard>) -> Account {
    let (created_at, disabled) = (user.created_at, user.state == UserState::Disabled);
    Account { user: card(user), created_at, disabled, devices }
}

fn invitation_card(invitation: Invitation) -> InvitationCard {
    let Invitation { hash, label, created_at, ends_at, uses, used } = invitation;
    InvitationCard { id: id_of(&hash), code: None, label, created_at, ends_at, uses, used }
}

fn id_of(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_id(id: &str) -> Result<[u8; 32], ErrorBody> {
    let digits = id.is_ascii() && id.len() == 64;
    let byte = |at: usize| u8::from_str_radix(id.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    let hash = bytes.filter(|_| digits).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    hash.ok_or_else(|| ErrorBody::invalid("id", "id must be the id of an invitation, 64 hexadecimal digits"))
}
