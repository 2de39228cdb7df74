//! Subscriptions of devices to alerts, settings of alerts, and why there was (no) alert.

use madang_ids::{ChannelId, DeviceId, Seq, UserId};
use madang_proto::rest::{
    AlertHistory, AlertQuery, DeadLetterCard, List, Page, PushInfo, PushRegistered, PushRegistration,
    PushSubscription, PushTest, SendAgain, SentAgain,
};
use madang_proto::{AlertSettings, ErrorBody, ErrorCode, PushTarget, limits};
use madang_push::{QuietHours, Redriven, destination, new_secret};
use madang_store::{DeadLetter, Subscription};
use tokio::sync::MutexGuard;

use crate::operations::{Caller, Operations, pages};
use crate::operators::Who;
use crate::refusal::Result;

/// The longest version of an app, and the longest name of a language (RFC 5646), in bytes.
const VERSION_BYTES: usize = 32;
const LOCALE_BYTES: usize = 35;
/// Dead letters that are put back with one call.
const REDRIVEN: usize = 10_000;

impl Operations {
    /// What an app needs to subscribe.
    #[must_use]
    pub fn push_info(&self) -> PushInfo {
        self.push.info()
    }

    /// Makes the alerts of the caller's device go to a provider. It replaces an earlier subscription of the device, and ends that of
    /// another device with the same token. Repeating it is harmless; apps do so at each start.
    ///
    /// # Errors
    /// `unsupported` for a provider that this server does not use; `invalid` names the field.
    pub async fn subscribe_device(
        &self,
        caller: Caller,
        registration: PushRegistration,
    ) -> Result<PushRegistered> {
        let PushRegistration { mut target, app_version, locale } = registration;
        if let PushTarget::Apns { token, .. } = &mut target {
            token.make_ascii_lowercase();
        }
        check_word("app_version", &app_version, VERSION_BYTES)?;
        check_word("locale", &locale, LOCALE_BYTES)?;
        self.push.check(&target)?;
        let now = self.clock.now_ms();
        let found = self.store.subscriptions(caller.user_id).await?;
        let same = found.into_iter().find(|it| it.device_id == caller.device_id && it.target == target);
        let known_secret = same.and_then(|found| found.signing_secret);
        let is_webhook = matches!(target, PushTarget::Webhook { .. });
        let new_secret = if is_webhook && known_secret.is_none() { Some(made_secret()?) } else { None };
        let subscription = Subscription {
            user_id: caller.user_id,
            device_id: caller.device_id,
            target,
            signing_secret: known_secret.or(new_secret.clone()),
            registered_at: now,
            seen_at: now,
            app_version,
            locale,
            halted: None,
        };
        let put = self.store.put_subscription(&subscription).await?;
        self.push.subscribed(caller.user_id).await?;
        Ok(PushRegistered { subscription: card(put), signing_secret: new_secret })
    }

    /// The subscriptions of the caller's devices.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn push_subscriptions(&self, caller: Caller) -> Result<List<PushSubscription>> {
        self.push_subscriptions_of(caller.user_id).await
    }

    /// The subscriptions of a user's devices.
    pub(in crate::operations) async fn push_subscriptions_of(
        &self,
        user: UserId,
    ) -> Result<List<PushSubscription>> {
        let found = self.store.subscriptions(user).await?;
        Ok(List { items: found.into_iter().map(card).collect() })
    }

    /// Ends the subscription of a device of the caller. Repeating it is harmless.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unsubscribe_device(&self, caller: Caller, device: DeviceId) -> Result<()> {
        self.store.remove_subscription(caller.user_id, device, None).await?;
        Ok(())
    }

    /// Sends a test to a device of the caller, and returns the answer of the provider.
    ///
    /// # Errors
    /// `not_found` for a device without a subscription.
    pub async fn test_push(&self, caller: Caller, device: DeviceId) -> Result<PushTest> {
        let done = self.push.test(caller.user_id, Some(device)).await?;
        Ok(done.into_iter().next().ok_or_else(|| ErrorBody::not_found("device_id"))?)
    }

    /// The caller's settings of alerts.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn alert_settings(&self, caller: Caller) -> Result<AlertSettings> {
        Ok(self.store.alert_settings(caller.user_id).await?)
    }

    /// Replaces the caller's settings of alerts. Of two devices that do so at once the last one wins.
    ///
    /// # Errors
    /// `invalid` names the field.
    pub async fn put_alert_settings(&self, caller: Caller, settings: AlertSettings) -> Result<AlertSettings> {
        if let Some(quiet) = &settings.quiet_hours {
            QuietHours::parse(&quiet.from, &quiet.until, &quiet.zone)
                .map_err(|error| ErrorBody::invalid("quiet_hours", format!("quiet_hours: {error}")))?;
        }
        self.store.put_alert_settings(caller.user_id, &settings).await?;
        Ok(settings)
    }

    /// What happened about alerts of a message for the caller.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn why_alerted(&self, caller: Caller, query: AlertQuery) -> Result<AlertHistory> {
        Ok(self.push.why(caller.user_id, query.channel_id, query.seq).await?)
    }

    /// The same for an operator.
    ///
    /// # Errors
    /// `not_found` for an unknown handle.
    pub async fn why_alerted_of(&self, handle: &str, channel: ChannelId, seq: Seq) -> Result<AlertHistory> {
        let user = self.account_row(handle).await?;
        Ok(self.push.why(user.id, channel, seq).await?)
    }

    /// Sends a test to all devices of a user, and returns the answers of the providers.
    ///
    /// # Errors
    /// `not_found` for an unknown handle, and if no device of the user has a subscription.
    pub async fn test_push_of(&self, handle: &str) -> Result<Vec<PushTest>> {
        let user = self.account_row(handle).await?;
        let done = self.push.test(user.id, None).await?;
        if done.is_empty() {
            let message = format!("no device of {handle} has a subscription to alerts");
            return Err(ErrorBody::field(ErrorCode::NotFound, "handle", message).into());
        }
        Ok(done)
    }

    /// Alerts that were given up, by id, after `after`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn dead_letters(&self, after: u64) -> Result<Page<DeadLetterCard>> {
        let limit = limits::LIST_PAGE as usize;
        let found = self.push.dead_letters(after, limit).await?;
        let next = pages::next(&found, limit, |letter| letter.id.to_string());
        Ok(Page { items: found.into_iter().map(letter_card).collect(), next })
    }

    /// Puts dead letters back into the queue: one, or all. Returns how many.
    ///
    /// # Errors
    /// `not_found` if there is none with this id.
    pub async fn redrive_dead_letters(&self, id: Option<u64>) -> Result<usize> {
        let _only = self.begin_redrive()?;
        self.redrive(&self.letters_to_redrive(id).await?).await
    }

    /// The same for an operator, whose act is recorded first.
    ///
    /// # Errors
    /// Also `invalid` for a reason out of bounds.
    pub async fn send_again(&self, who: &Who, ask: &SendAgain) -> Result<SentAgain> {
        let id = ask.id.as_ref().map(|id| id.parse().map_err(|_| ErrorBody::not_found("id"))).transpose()?;
        let found = self.letters_to_redrive(id).await?;
        if ask.dry_run || found.is_empty() {
            return Ok(SentAgain { count: found.len() });
        }
        let (channel, change) = match (id, &found[..]) {
            (Some(id), [letter]) => (Some(letter.channel_id), format!("alert {id}")),
            _ => (None, format!("alerts: {}", found.len())),
        };
        let _only = self.begin_redrive()?;
        self.operators.note_sent_again(who, &ask.why, channel, change).await?;
        Ok(SentAgain { count: self.redrive(&found).await? })
    }

    /// Until the result is dropped no other call sends alerts again: it may take longer than its caller waits, and a second one beside
    /// it would do nothing.
    fn begin_redrive(&self) -> Result<MutexGuard<'_, ()>> {
        let message = "alerts that were given up are being sent again at present";
        Ok(self.sending_again.try_lock().map_err(|_| ErrorBody::unavailable(message, 1_000))?)
    }

    async fn letters_to_redrive(&self, id: Option<u64>) -> Result<Vec<DeadLetter>> {
        let (after, limit) = id.map_or((0, REDRIVEN), |id| (id.saturating_sub(1), 1));
        let mut found = self.push.dead_letters(after, limit).await?;
        found.retain(|letter| id.is_none_or(|id| id == letter.id));
        if id.is_some() && found.is_empty() {
            return Err(ErrorBody::not_found("id").into());
        }
        Ok(found)
    }

    async fn redrive(&self, letters: &[DeadLetter]) -> Result<usize> {
        let (mut count, mut failure) = (0, None);
        for letter in letters {
            match self.push.redrive(letter).await {
                Ok(done) => count += usize::from(done == Redriven::Queued),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        tracing::info!(count, "operator sent dead letters again");
        failure.map_or(Ok(count), |error| Err(error.into()))
    }
}

fn made_secret() -> Result<String, ErrorBody> {
    new_secret().ok_or_else(|| ErrorBody::new(ErrorCode::Internal, "internal server error"))
}

fn check_word(field: &'static str, text: &str, most: usize) -> Result<(), ErrorBody> {
    if text.len() > most || !text.chars().all(|char| char.is_ascii_graphic()) {
        let message = format!("{field} must have at most {most} printable ASCII characters without spaces");
        return Err(ErrorBody::invalid(field, message));
    }
    Ok(())
}

fn card(subscription: Subscription) -> PushSubscription {
    let Subscription { device_id, ref target, registered_at, seen_at, halted, .. } = subscription;
    PushSubscription {
        device_id,
        provider: target.provider(),
        destination: destination(target),
        registered_at,
        seen_at,
        app_version: subscription.app_version,
        locale: subscription.locale,
        halted,
    }
}

fn letter_card(letter: DeadLetter) -> DeadLetterCard {
    let DeadLetter { id, user_id, channel_id, note, .. } = letter;
    DeadLetterCard { id: id.to_string(), user_id, channel_id, note }
}
