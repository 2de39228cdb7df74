//! Bounds that both sides of the wire know. Every refusal names one of them.

/// Longest text of a message, in Unicode scalars.
pub const TEXT_CHARS: usize = 100_000;
/// Longest text of a message, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 400_000;
/// Largest custom data of a message, in bytes of JSON.
pub const DATA_BYTES: usize = 16 * 1024;
/// Levels of arrays and objects in custom data.
pub const DATA_DEPTH: usize = 32;
/// Levels of arrays and objects in a frame or a body as a whole.
pub const JSON_DEPTH: usize = 64;
/// Largest client frame. A text of 400,000 bytes may stretch threefold in JSON escapes, hence the size.
pub const FRAME_BYTES_IN: usize = 1_310_720;
/// Largest message that the socket reads; above it the socket is closed with 1009.
pub const FRAME_BYTES_LIBRARY: usize = 2 * 1024 * 1024;
/// Largest frame before `welcome`, with its fragments: a `hello` with token and cursor. Above it the socket is closed
/// with 1009.
pub const HELLO_BYTES: usize = 8 * 1024;
/// Largest REST body of a caller without a valid token.
pub const GUEST_BODY_BYTES: usize = 16 * 1024;
/// A batch of entries is cut here, unless one entry alone is larger.
pub const BATCH_BYTES_OUT: usize = 256 * 1024;
/// Longest `id` of a request, in characters.
pub const REQUEST_ID_CHARS: usize = 64;
/// Longest handle, in characters; handles are `[a-z0-9_.-]`, at least two characters long.
pub const HANDLE_CHARS: usize = 32;
/// Handles that nobody takes, unless the operator says otherwise: those that speak for the server.
pub const RESERVED_HANDLES: [&str; 24] = [
    "abuse",
    "admin",
    "admins",
    "administrator",
    "all",
    "anonymous",
    "channel",
    "deleted",
    "everyone",
    "here",
    "help",
    "info",
    "madang",
    "me",
    "moderator",
    "noreply",
    "nobody",
    "operator",
    "root",
    "security",
    "server",
    "staff",
    "support",
    "system",
];
/// Days for which nobody gets the handle of a deleted user.
pub const HANDLE_KEPT_DAYS: u64 = 90;
/// Days for which a revoked device is remembered, so that it learns of its revocation when it comes back.
pub const REVOKED_KEPT_DAYS: u64 = 90;
/// Longest display name, in characters.
pub const DISPLAY_NAME_CHARS: usize = 64;
/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Longest name of a device, in characters.
pub const DEVICE_NAME_CHARS: usize = 64;
/// Devices of one user.
pub const DEVICES_PER_USER: usize = 50;
/// Longest name of a channel, in characters.
pub const CHANNEL_NAME_CHARS: usize = 100;
/// Members of a group, whatever the configuration says.
pub const GROUP_MEMBERS_MAX: u32 = 500;
/// Longest topic of a channel, in characters.
pub const TOPIC_CHARS: usize = 500;
/// Longest address of a picture, in bytes.
pub const AVATAR_BYTES: usize = 512;
/// Members of an open channel, whatever the configuration says.
pub const OPEN_MEMBERS_MAX: u32 = 100_000;
/// Longest wait of the slow mode, in seconds: six hours.
pub const SLOW_MODE_SECONDS: u32 = 21_600;
/// Pinned messages of a channel.
pub const PINS: usize = 50;
/// Messages of one channel that a user may delete for themselves. The store looks them up for each page that they read.
pub const HIDDEN_MESSAGES: usize = 10_000;
/// People whom one message mentions by name.
pub const MENTIONS: usize = 50;
/// Longest reaction, in bytes.
pub const EMOJI_BYTES: usize = 64;
/// Different reactions to one message.
pub const REACTIONS: usize = 20;
/// Those who reacted whom a message names, for each reaction; more are counted.
pub const REACTION_USERS: usize = 50;
/// Entries that `subscribe` brings before it says that there is a gap.
pub const SUBSCRIBE_ENTRIES: u64 = 200;
/// Open channels to which one connection is subscribed.
pub const SUBSCRIPTIONS: usize = 200;
/// Milliseconds in which a user's `typing` in a channel is told once.
pub const TYPING_MS: u64 = 3_000;
/// Subscriptions of a node to an open channel above which it is not told who is writing there.
pub const TYPING_SUBSCRIBERS: usize = 100;
/// Members of a channel in which receipts are told; in larger ones the list of members says who has read what.
pub const RECEIPT_MEMBERS: usize = 32;
/// Entries of one page of history.
pub const HISTORY_PAGE: u32 = 200;
/// Rows of one page of members, channels or snapshot.
pub const LIST_PAGE: u32 = 500;
/// Unread mentions of a channel that are counted.
pub const MENTIONS_COUNTED: u64 = 1_000;
/// Contacts of one user, of any state; also the most users that she watches.
pub const CONTACTS: u32 = 1_000;
/// Contacts that a user asked and that have not answered.
pub const CONTACT_REQUESTS: u32 = 100;
/// Requests of others that wait for a user; of more the oldest goes.
pub const CONTACT_ASKED: u32 = 200;
/// Invitations to groups that wait for a user; of more the oldest goes.
pub const INVITATIONS: u32 = 100;
/// Of these, by one inviter.
pub const INVITATIONS_BY_ONE: u32 = 10;
/// Invitations that a user declined and that are remembered, so that the same person does not repeat them.
pub const INVITATIONS_DECLINED: u32 = 100;
/// Members of the largest group whose members watch each other.
pub const WATCHED_GROUP_MEMBERS: u32 = 100;
/// Longest status text, in characters.
pub const STATUS_CHARS: usize = 128;
/// Users of one `presence` frame.
pub const PRESENCE_USERS: usize = 500;
/// Users that may be asked for at once.
pub const PRESENCE_QUERY: usize = 100;
/// Items that a device may be behind before it is told to take a snapshot (one process).
pub const SYNC_ITEMS: u64 = 10_000;
/// Channels that a user has left and that stay known to the server. Of more, open ones go first, then those that were left
/// longest ago.
pub const LEFT_CHANNELS: usize = 1_000;
/// Seconds in which `hello` must come.
pub const HELLO_SECONDS: u64 = 10;
/// Longest idempotency key of REST, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 64;
/// Hours after which an idempotency key of REST may be forgotten. A client that repeats a call does so within minutes; a
/// phone that was off for the night is within a day.
pub const IDEMPOTENCY_KEY_HOURS: u64 = 24;
/// Seconds in which a refresh token that was used may be presented again, for who has not heard the answer: long enough
/// for a timeout and a few tries over a bad network, short enough that a stolen old token is worth little.
pub const REFRESH_REPEAT_SECONDS: u64 = 60;
