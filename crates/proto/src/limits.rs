//! Limits that both sides of the wire know. Every refusal because of a limit names the limit.

/// Longest text of a message, in Unicode scalars.
pub const TEXT_CHARS: usize = 100_000;
/// Longest text of a message, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 400_000;
/// Largest custom data of a message, in bytes of JSON.
pub const DATA_BYTES: usize = 16 * 1024;
/// Deepest nesting of arrays and objects in custom data.
pub const DATA_DEPTH: usize = 32;
/// Deepest nesting of arrays and objects in a whole frame or body.
pub const JSON_DEPTH: usize = 64;
/// Largest client frame, in bytes. A text of 400,000 bytes may grow to three times its size by JSON escapes.
pub const FRAME_BYTES_IN: usize = 1_310_720;
/// Largest message that the socket reads, in bytes. A larger one closes the socket with 1009.
pub const FRAME_BYTES_LIBRARY: usize = 2 * 1024 * 1024;
/// Largest frame before `welcome`, in bytes, all fragments counted: a `hello` with token and cursor. A larger one
/// closes the socket with 1009.
pub const HELLO_BYTES: usize = 8 * 1024;
/// Largest REST body of a caller without a valid token, in bytes.
pub const GUEST_BODY_BYTES: usize = 16 * 1024;
/// Size in bytes at which a batch of entries ends. A single larger entry is a batch of its own.
pub const BATCH_BYTES_OUT: usize = 256 * 1024;
/// Longest `id` of a request, in characters.
pub const REQUEST_ID_CHARS: usize = 64;
/// Longest handle, in characters. Handles are `[a-z0-9_.-]` and have at least two characters.
pub const HANDLE_CHARS: usize = 32;
/// Handles that no user can take unless the operator changes the list: they look as if they spoke for the server.
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
/// Days for which the handle of a deleted user stays reserved.
pub const HANDLE_KEPT_DAYS: u64 = 90;
/// Days for which the server remembers a revoked device, so that the device learns of the revocation when it comes
/// back.
pub const REVOKED_KEPT_DAYS: u64 = 90;
/// Longest display name, in characters.
pub const DISPLAY_NAME_CHARS: usize = 64;
/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Longest name of a device, in characters.
pub const DEVICE_NAME_CHARS: usize = 64;
/// Most devices of one user.
pub const DEVICES_PER_USER: usize = 50;
/// Longest name of a channel, in characters.
pub const CHANNEL_NAME_CHARS: usize = 100;
/// Most members of a group. The configuration cannot raise it.
pub const GROUP_MEMBERS_MAX: u32 = 500;
/// Longest topic of a channel, in characters.
pub const TOPIC_CHARS: usize = 500;
/// Longest address of a picture, in bytes.
pub const AVATAR_BYTES: usize = 512;
/// Most members of an open channel. The configuration cannot raise it.
pub const OPEN_MEMBERS_MAX: u32 = 100_000;
/// Longest interval of slow mode, in seconds: six hours.
pub const SLOW_MODE_SECONDS: u32 = 21_600;
/// Most pinned messages of a channel.
pub const PINS: usize = 50;
/// Most messages of one channel that a user may delete for themselves. The store looks them up for each page that the
/// user reads.
pub const HIDDEN_MESSAGES: usize = 10_000;
/// Most users whom one message mentions by name.
pub const MENTIONS: usize = 50;
/// Longest reaction, in bytes.
pub const EMOJI_BYTES: usize = 64;
/// Most different reactions to one message.
pub const REACTIONS: usize = 20;
/// Most users that a message names for each reaction. Further users are counted, but not named.
pub const REACTION_USERS: usize = 50;
/// Most entries that `subscribe` sends. If more are missing, it reports a gap.
pub const SUBSCRIBE_ENTRIES: u64 = 200;
/// Most open channels to which one connection is subscribed.
pub const SUBSCRIPTIONS: usize = 200;
/// Milliseconds in which a user's `typing` in a channel is delivered at most once.
pub const TYPING_MS: u64 = 3_000;
/// Most subscriptions of a node to an open channel with which `typing` is delivered there.
pub const TYPING_SUBSCRIBERS: usize = 100;
/// Most members of a channel in which receipts are sent. In larger channels the list of members says how far each one
/// has read.
pub const RECEIPT_MEMBERS: usize = 32;
/// Most entries of one page of history.
pub const HISTORY_PAGE: u32 = 200;
/// Most rows of one page of members, channels or snapshot.
pub const LIST_PAGE: u32 = 500;
/// Unread mentions of a channel are counted up to this number.
pub const MENTIONS_COUNTED: u64 = 1_000;
/// Most contacts of one user, in any state; also the most users that one user watches.
pub const CONTACTS: u32 = 1_000;
/// Most contact requests by one user that are not answered yet.
pub const CONTACT_REQUESTS: u32 = 100;
/// Most contact requests to one user that are not answered yet. A further request evicts the oldest.
pub const CONTACT_ASKED: u32 = 200;
/// Most invitations to groups that a user has not answered. A further invitation evicts the oldest.
pub const INVITATIONS: u32 = 100;
/// Most invitations by one inviter among these.
pub const INVITATIONS_BY_ONE: u32 = 10;
/// Most declined invitations that are remembered for a user, so that the same inviter cannot repeat them.
pub const INVITATIONS_DECLINED: u32 = 100;
/// Most members of a group whose members watch each other's presence.
pub const WATCHED_GROUP_MEMBERS: u32 = 100;
/// Longest status text, in characters.
pub const STATUS_CHARS: usize = 128;
/// Most users of one `presence` frame.
pub const PRESENCE_USERS: usize = 500;
/// Most users in one query for presence.
pub const PRESENCE_QUERY: usize = 100;
/// Most items that a device may be behind. Beyond that it must take a snapshot (one process).
pub const SYNC_ITEMS: u64 = 10_000;
/// Most channels that a user has left and that the server still lists. Beyond that the server forgets open channels
/// first, then those that were left longest ago.
pub const LEFT_CHANNELS: usize = 1_000;
/// Longest region in `POST /v1/connect`, in characters.
pub const REGION_CHARS: usize = 64;
/// Most nodes of its answer.
pub const ASSIGNED_NODES: usize = 3;
/// Seconds after the connection opens within which `hello` must arrive.
pub const HELLO_SECONDS: u64 = 10;
/// Longest idempotency key of REST, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 64;
/// Hours after which the server may forget an idempotency key of REST. A client repeats a failed call within minutes; a
/// phone that was off for the night repeats it within a day.
pub const IDEMPOTENCY_KEY_HOURS: u64 = 24;
/// Seconds for which a used refresh token is accepted again, for a client that did not receive the answer. This is long
/// enough for a timeout and a few attempts over a bad network, and short enough that a stolen old token is of little
/// use.
pub const REFRESH_REPEAT_SECONDS: u64 = 60;
