//! What a client tells the program that uses it.

use std::time::Duration;

use madang_ids::{ChannelId, ClientMsgId, LogId, SealedCursor, Seq, UserId};
use madang_proto::rest::ChannelView;
use madang_proto::{Ack, ChannelHead, Entry, ErrorBody, PresenceList, Resume, SnapshotReason, UserCard};

use crate::rest::Tokens;

/// Something happened. Events come in the order in which the server said them.
#[derive(Debug)]
pub enum Event {
    /// A connection stands, with this verdict on the cursor.
    Connected {
        /// The verdict.
        resume: Resume,
    },
    /// The connection broke or was closed; the client comes back by itself.
    Disconnected {
        /// Why, for people.
        cause: String,
        /// After this wait.
        back_in: Duration,
    },
    /// New entries of one log, rising, without a hole, none of them told before.
    Entries {
        /// Which log.
        log: LogId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Where open channels stand: the answer to [`crate::Client::subscribe`], and what passive subscriptions bring. Where
    /// there is a `gap`, entries up to `seq` are left out; a program that wants them reads history.
    Heads(Vec<ChannelHead>),
    /// There is no subscription to this open channel.
    SubscriptionRefused {
        /// Which.
        channel_id: ChannelId,
        /// Why.
        error: ErrorBody,
    },
    /// Everything told so far is covered by this cursor; a program that keeps its data keeps the cursor with it.
    CursorMoved(SealedCursor),
    /// A message is durable.
    Acked {
        /// The key that [`crate::Client::send`] gave.
        client_msg_id: ClientMsgId,
        /// Its place.
        ack: Ack,
    },
    /// A message will not be taken. It is no longer in the queue.
    Refused {
        /// In which channel.
        channel_id: ChannelId,
        /// The key that [`crate::Client::send`] gave.
        client_msg_id: ClientMsgId,
        /// Why.
        error: ErrorBody,
    },
    /// Somebody is writing. Forget it after six seconds, or with her next message.
    Typing {
        /// Where.
        channel_id: ChannelId,
        /// Who.
        user_id: UserId,
    },
    /// Somebody has read a channel up to here.
    Receipt {
        /// Which channel.
        channel_id: ChannelId,
        /// Who.
        user_id: UserId,
        /// Up to here.
        seq: Seq,
    },
    /// How watched users are. Whoever was not named, after [`Event::Connected`] or a list that begins `anew`, when
    /// `complete` is said, is offline; until then those whom the program knew from before stay as they were.
    Presence(PresenceList),
    /// The profile of a user is another one now. Of two cards keep the one with the greater `rev`.
    Profile(UserCard),
    /// What the program said of its user was not taken, and is not said again.
    PresenceRefused(ErrorBody),
    /// This client read too slowly for a while. Nothing is lost.
    Resync,
    /// The cursor did not serve, and this is the snapshot. Content of these channels up to `head_seq` is in history;
    /// what is above comes as entries.
    SnapshotRequired {
        /// Why. For `foreign_cursor` and `beyond_store` a program drops what it kept: it is of another store.
        reason: SnapshotReason,
        /// The channels that are not as this client has them; one that the user has left has `until_seq`.
        channels: Vec<ChannelView>,
        /// Channels that this client has and of which the server keeps nothing for the user.
        gone: Vec<ChannelId>,
    },
    /// Entries between two places did not come. If `filled`, all of them that the user may read follow, read from
    /// history; if not, the program must read them when it can.
    Gap {
        /// Which log.
        log: LogId,
        /// The last entry that was told.
        after: Seq,
        /// The first one behind the hole.
        before: Seq,
        /// Whether history filled it.
        filled: bool,
    },
    /// There are new tokens; a program that keeps its sign-in keeps them (a refresh token serves once).
    TokensRenewed(Tokens),
    /// The end: the server takes neither the access token nor the refresh token, so the person must sign in again.
    SignInRequired {
        /// Why, for people.
        reason: String,
    },
    /// The end: the client does not come back by itself.
    Closed {
        /// The close code of the server, if it was the server's wish.
        code: Option<u16>,
        /// Why, for people.
        reason: String,
    },
}
