//! The calls below `/v1`: method, path, handler, the refusals of their own, and a summary. Everything else that
//! `/v1/openapi.json` says about a call is read from its handler.

use axum::routing::MethodFilter;
use madang_proto::ErrorCode;

use super::describe::{Route, Routes};
use super::{
    accounts, channels, connect, contacts, devices, export, invitations, messages, moderation, open,
    operator, push,
};

macro_rules! routes {
    ($($method:ident $path:literal $tag:ident::$name:ident [$($refusal:ident)*] $summary:literal;)*) => {{
        let mut routes = Routes::default();
        $(routes.add(
            Route {
                method: stringify!($method),
                filter: MethodFilter::$method,
                path: $path,
                tag: stringify!($tag),
                id: concat!(stringify!($tag), "_", stringify!($name)),
                summary: $summary,
                refusals: &[$(ErrorCode::$refusal),*],
            },
            $tag::$name,
        );)*
        routes
    }};
}

/// All calls.
pub(super) fn routes() -> Routes {
    routes! {
        GET "/server" accounts::server [] "The version, the rule for sign-ups, and limits.";
        POST "/accounts" accounts::sign_up [Forbidden Conflict] "Sign up: create a user with a first device.";
        POST "/sessions" accounts::log_in [Unauthorized Forbidden NotFound Conflict] "Log in, on a new device or on one of the user's.";
        DELETE "/sessions" accounts::log_out [] "Log out: revokes this device.";
        POST "/tokens" accounts::refresh [Unauthorized Revoked] "Exchange a refresh token, which can be used once, \
             for new tokens.";
        POST "/connect" connect::assign [TooLarge] "The node to open the socket on, or a place in the waiting line.";
        GET "/me" accounts::me [] "The caller, with the caller's own settings.";
        PATCH "/me" accounts::change_me [TooLarge] "Change the display name, the picture, or settings of the \
             account.";
        POST "/me/password" accounts::change_password [Conflict] "Change the password; other devices are revoked.";
        POST "/me/deletion" accounts::delete_account [] "Delete the account. Its messages stay, as messages of a \
             deleted user.";
        GET "/me/export" export::own [] "The data that the server stores about the caller, as lines of JSON.";
        GET "/users" accounts::find_user [NotFound] "Find a user by handle.";
        GET "/users/lookup" accounts::look_up [] "Several users by id.";
        GET "/users/search" accounts::search [] "Users whom the caller knows, by a prefix of handle or name.";
        GET "/users/{user_id}" accounts::user [NotFound] "Somebody.";
        GET "/devices" devices::list [] "The caller's devices.";
        POST "/devices" devices::add [Conflict Full] "Add a device, such as a bot's.";
        DELETE "/devices" devices::revoke_all [] "Log out on all devices, or on all other devices.";
        PATCH "/devices/{device_id}" devices::rename [NotFound] "Rename a device.";
        DELETE "/devices/{device_id}" devices::revoke [NotFound] "Revoke a device; its sockets close with 4501.";
        GET "/blocks" accounts::blocks [] "The users whom the caller blocks.";
        PUT "/blocks/{user_id}" accounts::block [NotFound] "Block a user.";
        DELETE "/blocks/{user_id}" accounts::unblock [] "Unblock a user.";
        GET "/contacts" contacts::list [] "Contacts, and contact requests in both directions.";
        PUT "/contacts/{user_id}" contacts::put [Forbidden NotFound Full] "Send a contact request, or accept one.";
        DELETE "/contacts/{user_id}" contacts::remove [] "End a contact, withdraw a request, or decline one.";
        GET "/push" push::info [] "What an app needs to subscribe to alerts: the providers, and the public key for \
             browsers.";
        PUT "/push/subscription" push::subscribe [Unsupported] "Make the alerts of this device go to a provider.";
        GET "/push/subscriptions" push::list [] "Where the alerts of the caller's devices go.";
        DELETE "/push/subscriptions/{device_id}" push::remove [] "End the alerts of a device.";
        POST "/push/subscriptions/{device_id}/test" push::test [NotFound] "Send a test notification to a device; \
             answers with what the provider said.";
        GET "/push/settings" push::settings [] "The caller's settings of alerts.";
        PUT "/push/settings" push::put_settings [] "Replace the caller's settings of alerts.";
        GET "/push/why" push::why [] "Why there was an alert of a message, or why not.";
        GET "/invitations" invitations::list [] "The waiting invitations of the caller to groups.";
        PUT "/invitations/{channel_id}" invitations::accept [Forbidden NotFound Full] "Accept an invitation: join the group.";
        DELETE "/invitations/{channel_id}" invitations::decline [] "Decline an invitation.";
        GET "/presence" contacts::presence [] "The presence of users.";
        GET "/mentions" messages::mentions [] "Messages that mention the caller by name, the latest first.";
        GET "/channels" channels::list [] "The caller's channels, the most recently active first.";
        POST "/channels" channels::create [Unsupported Forbidden NotFound Conflict Full] "Create a channel.";
        GET "/channels/{channel_id}" channels::view [Forbidden NotFound] "A channel of the caller, also one that \
             the caller has left.";
        PATCH "/channels/{channel_id}" channels::change [Forbidden NotFound] "Change name, topic, picture or slow mode: owner and admins.";
        DELETE "/channels/{channel_id}" channels::delete [Forbidden NotFound] "Delete a group or an open channel \
             for all members: owner.";
        PATCH "/channels/{channel_id}/settings" channels::change_settings [Forbidden NotFound] "The caller's own settings of a channel: favourite, muted, unread, hidden.";
        PUT "/channels/{channel_id}/pins/{seq}" channels::pin [Forbidden NotFound Full] "Pin a message: in groups and open channels owner and admins.";
        DELETE "/channels/{channel_id}/pins/{seq}" channels::unpin [Forbidden NotFound] "Unpin a message.";
        GET "/open-channels" open::find [] "Find open channels by name and topic.";
        PUT "/channels/{channel_id}/membership" open::join [Forbidden NotFound Full] "Join an open channel.";
        GET "/channels/{channel_id}/members" channels::members [Forbidden NotFound] "The members of a channel.";
        PUT "/channels/{channel_id}/members" channels::add_members [Forbidden NotFound Full] "Add users to a \
             group, or invite them: owner and admins.";
        DELETE "/channels/{channel_id}/members/{user_id}" channels::remove_member [Forbidden NotFound] "Remove a \
             member, withdraw an invitation, or leave; 204 also for a user who is not a member.";
        PATCH "/channels/{channel_id}/members/{user_id}" moderation::change_member [Forbidden NotFound] "Make a \
             user admin, member or owner: owner.";
        GET "/channels/{channel_id}/bans" moderation::bans [Forbidden NotFound] "The banned users: owner and admins.";
        PUT "/channels/{channel_id}/bans/{user_id}" moderation::ban [Forbidden NotFound] "Ban a user, who need not \
             be a member: owner and admins.";
        DELETE "/channels/{channel_id}/bans/{user_id}" moderation::unban [Forbidden NotFound] "Lift a ban.";
        PUT "/channels/{channel_id}/mutes/{user_id}" moderation::mute [Forbidden NotFound] "Mute a member: owner and admins.";
        DELETE "/channels/{channel_id}/mutes/{user_id}" moderation::unmute [Forbidden NotFound] "Lift a mute.";
        GET "/channels/{channel_id}/entries" messages::history [Forbidden NotFound] "A page of a channel's log; as the frame `history`.";
        POST "/channels/{channel_id}/messages" messages::send [Forbidden NotFound Conflict] "Send a message; as the frame `send`.";
        PATCH "/channels/{channel_id}/messages/{seq}" messages::edit [Forbidden NotFound Conflict] "Edit a message; as the frame `edit`.";
        DELETE "/channels/{channel_id}/messages/{seq}" messages::delete [Forbidden NotFound] "Delete a message; as the frame `delete`.";
        PUT "/channels/{channel_id}/messages/{seq}/hidden" messages::hide [Forbidden NotFound Full] "Delete a message for the caller only.";
        GET "/channels/{channel_id}/messages/{seq}/reactions/{emoji}" messages::reactors [Forbidden NotFound] "The \
             users who gave one reaction to a message.";
        PUT "/channels/{channel_id}/messages/{seq}/reactions/{emoji}" messages::react [Forbidden NotFound Full] "React to a message; as the frame `react`.";
        DELETE "/channels/{channel_id}/messages/{seq}/reactions/{emoji}" messages::unreact [Forbidden NotFound] "Remove a reaction.";
        GET "/channels/{channel_id}/presence" contacts::of_channel [Forbidden NotFound] "The number of members who \
             are online or away.";
        PUT "/channels/{channel_id}/read" messages::mark_read [Forbidden NotFound] "Move the caller's read marker; as the frame `read`.";
        POST "/operator/token" operator::token [Unauthorized] "Exchange the secret of an operator for a token.";
        GET "/operator/board" operator::board [] "The present state of hot channels, nodes and guarantees.";
        GET "/operator/channels/{channel_id}" operator::channel [NotFound] "One channel in detail.";
        PUT "/operator/channels/{channel_id}/override" operator::set_override [Forbidden NotFound Full] "Set how \
             one channel is paced, for a time; or say what would follow.";
        DELETE "/operator/channels/{channel_id}/override" operator::end_override [Forbidden NotFound] "End an \
             override before its time.";
        POST "/operator/channels/{channel_id}/name" operator::show_name [Forbidden NotFound] "The name of a channel \
             that is not open; that it was shown is recorded.";
        GET "/operator/alerts" operator::alerts [NotFound] "Why there was an alert of a message, or why not.";
        GET "/operator/dead-letters" operator::dead_letters [] "Alerts that were given up, the oldest first.";
        POST "/operator/dead-letters" operator::send_again [Forbidden NotFound] "Send alerts again that were given \
             up, or say how many; that it was done is recorded.";
        GET "/operator/config" operator::config [] "The configuration that may change while the server runs.";
        PUT "/operator/config" operator::put_config [Forbidden Conflict] "Replace that configuration.";
        GET "/operator/acts" operator::acts [] "What operators did, the newest first.";
        POST "/snapshot" channels::snapshot [] "The state from which a device without a valid cursor starts.";
    }
}
