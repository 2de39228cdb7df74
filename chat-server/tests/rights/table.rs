//! The list of trials: every call and every frame, about the caller's own things and about those of others.

/// One trial in a channel: the operation, what is special about it, the user and the message that it is about, its body.
///
/// Placeholders `$…` are replaced: `$member`, `$owner` and `$outsider` are other users, `$me` is the caller; `$own` and `$other`
/// are messages of the caller and of another user; `$key` is a new key.
pub(crate) struct Trial {
    pub(crate) operation: &'static str,
    pub(crate) about: &'static str,
    pub(crate) user: &'static str,
    pub(crate) message: &'static str,
    pub(crate) body: &'static str,
}

const fn trial(operation: &'static str, about: &'static str, body: &'static str) -> Trial {
    Trial { operation, about, user: "", message: "$other", body }
}

const fn on_user(
    operation: &'static str,
    about: &'static str,
    user: &'static str,
    body: &'static str,
) -> Trial {
    Trial { operation, about, user, message: "", body }
}

const fn on_own(operation: &'static str, body: &'static str) -> Trial {
    Trial { operation, about: "one's own", user: "", message: "$own", body }
}

/// Operations in a channel.
pub(crate) const IN_CHANNEL: &[Trial] = &[
    trial("channels_view", "", ""),
    trial("channels_change", "topic", r#"{"topic":"Green"}"#),
    trial("channels_change", "slow mode", r#"{"slow_mode_seconds":30}"#),
    trial("channels_change", "nothing", "{}"),
    trial("channels_change", "archive", r#"{"archived":true}"#),
    trial("channels_delete", "", ""),
    trial("channels_change_settings", "", r#"{"favourite":true}"#),
    trial("channels_pin", "", ""),
    trial("channels_unpin", "", ""),
    trial("channels_members", "", ""),
    trial("channels_add_members", "", r#"{"user_ids":["$outsider"]}"#),
    on_user("channels_remove_member", "a member", "$member", ""),
    on_user("channels_remove_member", "the owner", "$owner", ""),
    on_user("channels_remove_member", "the caller", "$me", ""),
    on_user("channels_remove_member", "an outsider", "$outsider", ""),
    trial("open_join", "", ""),
    trial("invitations_accept", "", ""),
    trial("invitations_decline", "", ""),
    on_user("moderation_change_member", "a member to admin", "$member", r#"{"role":"admin"}"#),
    on_user("moderation_change_member", "the caller to owner", "$me", r#"{"role":"owner"}"#),
    trial("moderation_bans", "", ""),
    on_user("moderation_ban", "a member", "$member", "{}"),
    on_user("moderation_ban", "the owner", "$owner", "{}"),
    on_user("moderation_ban", "an outsider", "$outsider", "{}"),
    on_user("moderation_unban", "the caller", "$me", ""),
    on_user("moderation_unban", "an outsider", "$outsider", ""),
    on_user("moderation_mute", "a member", "$member", "{}"),
    on_user("moderation_mute", "the owner", "$owner", "{}"),
    on_user("moderation_unmute", "the caller", "$me", ""),
    on_user("moderation_unmute", "a member", "$member", ""),
    trial("messages_history", "", ""),
    trial("messages_send", "", r#"{"client_msg_id":"$key","body":{"text":"hi"}}"#),
    trial("messages_send", "an answer", r#"{"client_msg_id":"$key","body":{"text":"hi","reply_to":$seq}}"#),
    trial(
        "messages_send",
        "to everyone",
        r#"{"client_msg_id":"$key","body":{"text":"hi","mentions_everyone":true}}"#,
    ),
    on_own("messages_edit", r#"{"body":{"text":"hello"}}"#),
    trial("messages_edit", "another's", r#"{"body":{"text":"hello"}}"#),
    on_own("messages_delete", ""),
    trial("messages_delete", "another's", ""),
    trial("messages_hide", "", ""),
    trial("messages_react", "", ""),
    trial("messages_unreact", "", ""),
    trial("messages_reactors", "", ""),
    trial("messages_mark_read", "", r#"{"seq":$seq}"#),
    trial("contacts_of_channel", "", ""),
    trial("frame send", "", r#"{"client_msg_id":"$key","body":{"text":"hi"}}"#),
    on_own("frame edit", r#"{"seq":$seq,"body":{"text":"hello"}}"#),
    trial("frame edit", "another's", r#"{"seq":$seq,"body":{"text":"hello"}}"#),
    on_own("frame delete", r#"{"seq":$seq}"#),
    trial("frame delete", "another's", r#"{"seq":$seq}"#),
    trial("frame react", "", r#"{"seq":$seq,"emoji":"tea"}"#),
    trial("frame typing", "", "{}"),
    trial("frame subscribe", "", "{}"),
    trial("frame unsubscribe", "", "{}"),
    trial("frame read", "", r#"{"seq":$seq}"#),
    trial("frame history", "", "{}"),
];

/// One trial that does not concern a channel. `$user` is the user that it is about, `$handle` that user's handle; `$token` and
/// `$refresh` are tokens of that user.
pub(crate) struct Elsewhere {
    pub(crate) operation: &'static str,
    pub(crate) query: &'static str,
    pub(crate) body: &'static str,
}

const fn elsewhere(operation: &'static str, query: &'static str, body: &'static str) -> Elsewhere {
    Elsewhere { operation, query, body }
}

/// Operations that do not concern a channel.
pub(crate) const ELSEWHERE: &[Elsewhere] = &[
    elsewhere(
        "accounts_sign_up",
        "",
        r#"{"handle":"new$key","display_name":"New","password":"correct horse"}"#,
    ),
    elsewhere("accounts_log_in", "", r#"{"handle":"$handle","password":"correct horse"}"#),
    elsewhere("accounts_log_out", "", ""),
    elsewhere("accounts_refresh", "", r#"{"refresh_token":"$refresh"}"#),
    elsewhere("accounts_server", "", ""),
    elsewhere("accounts_me", "", ""),
    elsewhere(
        "accounts_change_password",
        "",
        r#"{"old_password":"wrong horse","new_password":"battery staple"}"#,
    ),
    elsewhere("accounts_delete_account", "", r#"{"password":"wrong horse"}"#),
    elsewhere("export_own", "", ""),
    elsewhere("accounts_look_up", "?ids=$user", ""),
    elsewhere("accounts_search", "?prefix=$handle", ""),
    elsewhere("connect_assign", "", "{}"),
    elsewhere("accounts_change_me", "", r#"{"display_name":"Ada"}"#),
    elsewhere("accounts_find_user", "?handle=$handle", ""),
    elsewhere("accounts_user", "", ""),
    elsewhere("devices_list", "", ""),
    elsewhere("devices_add", "", r#"{"device_name":"bot"}"#),
    elsewhere("devices_revoke", "", ""),
    elsewhere("devices_revoke_all", "?keep_this=true", ""),
    elsewhere("devices_rename", "", r#"{"name":"tablet"}"#),
    elsewhere("accounts_blocks", "", ""),
    elsewhere("accounts_block", "", ""),
    elsewhere("accounts_unblock", "", ""),
    elsewhere("contacts_list", "", ""),
    elsewhere("contacts_put", "", ""),
    elsewhere("contacts_remove", "", ""),
    elsewhere("invitations_list", "", ""),
    elsewhere("contacts_presence", "?user_ids=$user", ""),
    elsewhere("push_info", "", ""),
    elsewhere("push_subscribe", "", r#"{"provider":"webhook","url":"https://hook.example.net/alerts"}"#),
    elsewhere("push_list", "", ""),
    elsewhere("push_test", "", ""),
    elsewhere("push_remove", "", ""),
    elsewhere("push_settings", "", ""),
    elsewhere("push_put_settings", "", r#"{"level":"mentions"}"#),
    elsewhere("push_why", "?channel_id=1&seq=1", ""),
    elsewhere("messages_mentions", "", ""),
    elsewhere("channels_list", "", ""),
    elsewhere("channels_create", "", r#"{"kind":"direct","members":["$user"]}"#),
    elsewhere("open_find", "", ""),
    elsewhere("channels_snapshot", "", "{}"),
    elsewhere("frame hello", "", r#"{"token":"$token"}"#),
    elsewhere("frame heartbeat", "", "{}"),
    elsewhere("frame received", "", r#"{"cursor":"$cursor"}"#),
    elsewhere("frame presence", "", r#"{"status":"here"}"#),
    elsewhere("frame auth", "", r#"{"token":"$token"}"#),
];
