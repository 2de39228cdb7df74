//! The calls below `/v1`: method, path, handler, the refusals of their own, and a summary. Everything else that
//! `/v1/openapi.json` says about a call is read from its handler.

use axum::routing::MethodFilter;
use madang_proto::ErrorCode;

use super::describe::{Route, Routes};
use super::{accounts, channels, contacts, devices, export, invitations, messages, moderation, open};

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
        GET "/server" accounts::server [] "The version, who may sign up, and limits.";
        POST "/accounts" accounts::sign_up [Forbidden Conflict] "Sign up: a new user on a first device.";
        POST "/sessions" accounts::log_in [Unauthorized Forbidden NotFound Conflict] "Log in, on a new device or on one of the user's.";
        DELETE "/sessions" accounts::log_out [] "Log out: revokes this device.";
        POST "/tokens" accounts::refresh [Unauthorized Revoked] "New tokens for a refresh token, which serves once.";
        GET "/me" accounts::me [] "The caller, with the caller's own settings.";
        PATCH "/me" accounts::change_me [TooLarge] "Change the name for people, the picture, or settings of the account.";
        POST "/me/password" accounts::change_password [Conflict] "Change the password; other devices are revoked.";
        POST "/me/deletion" accounts::delete_account [] "Delete the account. Messages stay, by a deleted user.";
        GET "/me/export" export::own [] "What the server keeps about the caller, as lines of JSON.";
        GET "/users" accounts::find_user [NotFound] "Find somebody by handle.";
        GET "/users/lookup" accounts::look_up [] "Several users by id.";
        GET "/users/search" accounts::search [] "People whom the caller knows, by how a handle or a name begins.";
        GET "/users/{user_id}" accounts::user [NotFound] "Somebody.";
        GET "/devices" devices::list [] "The caller's devices.";
        POST "/devices" devices::add [Conflict Full] "A further device, such as a bot's.";
        DELETE "/devices" devices::revoke_all [] "Log out everywhere, or everywhere else.";
        PATCH "/devices/{device_id}" devices::rename [NotFound] "Rename a device.";
        DELETE "/devices/{device_id}" devices::revoke [NotFound] "Revoke a device; its sockets close with 4501.";
        GET "/blocks" accounts::blocks [] "Whom the caller blocks.";
        PUT "/blocks/{user_id}" accounts::block [NotFound] "Block somebody.";
        DELETE "/blocks/{user_id}" accounts::unblock [] "End a block.";
        GET "/contacts" contacts::list [] "Contacts, and requests both ways.";
        PUT "/contacts/{user_id}" contacts::put [Forbidden NotFound Full] "Ask somebody to be a contact, or accept.";
        DELETE "/contacts/{user_id}" contacts::remove [] "End a contact, take a request back, or decline one.";
        GET "/invitations" invitations::list [] "Invitations to groups that wait for the caller.";
        PUT "/invitations/{channel_id}" invitations::accept [Forbidden NotFound Full] "Accept an invitation: join the group.";
        DELETE "/invitations/{channel_id}" invitations::decline [] "Decline an invitation.";
        GET "/presence" contacts::presence [] "How users are.";
        GET "/mentions" messages::mentions [] "Messages that mention the caller by name, the latest first.";
        GET "/channels" channels::list [] "The caller's channels, the most recently active first.";
        POST "/channels" channels::create [Unsupported Forbidden NotFound Conflict Full] "Make a channel.";
        GET "/channels/{channel_id}" channels::view [Forbidden NotFound] "A channel of the caller's, also one that she left.";
        PATCH "/channels/{channel_id}" channels::change [Forbidden NotFound] "Change name, topic, picture or slow mode: owner and admins.";
        DELETE "/channels/{channel_id}" channels::delete [Forbidden NotFound] "Delete a group or an open channel for everybody: owner.";
        PATCH "/channels/{channel_id}/settings" channels::change_settings [Forbidden NotFound] "The caller's own settings of a channel: favourite, muted, unread, hidden.";
        PUT "/channels/{channel_id}/pins/{seq}" channels::pin [Forbidden NotFound Full] "Pin a message: in groups and open channels owner and admins.";
        DELETE "/channels/{channel_id}/pins/{seq}" channels::unpin [Forbidden NotFound] "Unpin a message.";
        GET "/open-channels" open::find [] "Find open channels by name and topic.";
        PUT "/channels/{channel_id}/membership" open::join [Forbidden NotFound Full] "Join an open channel.";
        GET "/channels/{channel_id}/members" channels::members [Forbidden NotFound] "The members of a channel.";
        PUT "/channels/{channel_id}/members" channels::add_members [Forbidden NotFound Full] "Add people to a group, or invite them: owner and admins.";
        DELETE "/channels/{channel_id}/members/{user_id}" channels::remove_member [Forbidden NotFound] "Remove a member, take an invitation back, or leave; 204 also for a user who is no member.";
        PATCH "/channels/{channel_id}/members/{user_id}" moderation::change_member [Forbidden NotFound] "Make somebody admin, member or owner: owner.";
        GET "/channels/{channel_id}/bans" moderation::bans [Forbidden NotFound] "Who is banned: owner and admins.";
        PUT "/channels/{channel_id}/bans/{user_id}" moderation::ban [Forbidden NotFound] "Ban somebody, also who is no member: owner and admins.";
        DELETE "/channels/{channel_id}/bans/{user_id}" moderation::unban [Forbidden NotFound] "Lift a ban.";
        PUT "/channels/{channel_id}/mutes/{user_id}" moderation::mute [Forbidden NotFound] "Mute a member: owner and admins.";
        DELETE "/channels/{channel_id}/mutes/{user_id}" moderation::unmute [Forbidden NotFound] "Lift a mute.";
        GET "/channels/{channel_id}/entries" messages::history [Forbidden NotFound] "A page of a channel's log; as the frame `history`.";
        POST "/channels/{channel_id}/messages" messages::send [Forbidden NotFound Conflict] "Send a message; as the frame `send`.";
        PATCH "/channels/{channel_id}/messages/{seq}" messages::edit [Forbidden NotFound Conflict] "Edit a message; as the frame `edit`.";
        DELETE "/channels/{channel_id}/messages/{seq}" messages::delete [Forbidden NotFound] "Delete a message; as the frame `delete`.";
        PUT "/channels/{channel_id}/messages/{seq}/hidden" messages::hide [Forbidden NotFound Full] "Delete a message for the caller only.";
        GET "/channels/{channel_id}/messages/{seq}/reactions/{emoji}" messages::reactors [Forbidden NotFound] "All who reacted to a message in one way.";
        PUT "/channels/{channel_id}/messages/{seq}/reactions/{emoji}" messages::react [Forbidden NotFound Full] "React to a message; as the frame `react`.";
        DELETE "/channels/{channel_id}/messages/{seq}/reactions/{emoji}" messages::unreact [Forbidden NotFound] "Take a reaction back.";
        GET "/channels/{channel_id}/presence" contacts::of_channel [Forbidden NotFound] "How many members are there.";
        PUT "/channels/{channel_id}/read" messages::mark_read [Forbidden NotFound] "Move the caller's read marker; as the frame `read`.";
        POST "/snapshot" channels::snapshot [] "What a device without a valid cursor starts from.";
    }
}
