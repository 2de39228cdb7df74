//! Events that a client delivers to its program.

use std::time::Duration;

use madang_ids::{ChannelId, ClientMsgId, LogId, SealedCursor, Seq, UserId};
use madang_proto::rest::ChannelView;
use madang_proto::{Ack, ChannelHead, Entry, ErrorBody, PresenceList, Resume, SnapshotReason, UserCard};

use crate::rest::Tokens;

/// An event. Events are delivered in the order in which the server sent the frames.
#[derive(Debug)]
pub enum Event {
    /// A connection is open.
    Connected {
        /// Whether the server accepted the cursor.
        resume: Resume,
    },
    /// The connection broke or was closed. The client reconnects by itself.
    Disconnected {
        /// The cause, for people.
        cause: String,
        /// The wait before the reconnect.
        back_in: Duration,
    },
    /// All servers are full. The client waits in line and asks again by itself.
    Waiting {
        /// Number of clients before this one, plus one.
        place: u64,
        /// Estimated time until a server accepts the client.
        estimate: Duration,
        /// The wait before the client asks again.
        ask_in: Duration,
    },
    /// New entries of one log, in ascending order and without gaps. Each entry is delivered once.
    Entries {
        /// The log.
        log: LogId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Heads of open channels: the answer to [`crate::Client::subscribe`], and what passive subscriptions deliver. If
    /// `gap` is set, entries up to `seq` were skipped; a program that needs them reads history.
    Heads(Vec<ChannelHead>),
    /// The server refused or ended the subscription to an open channel.
    SubscriptionRefused {
        /// The channel.
        channel_id: ChannelId,
        /// The error.
        error: ErrorBody,
    },
    /// The cursor covers every event before this one. A program that stores its data stores the cursor with it.
    CursorMoved(SealedCursor),
    /// A message is durable.
    Acked {
        /// The key that [`crate::Client::send`] returned.
        client_msg_id: ClientMsgId,
        /// The ack of the server: id, place and time.
        ack: Ack,
    },
    /// A message was refused for good. It is no longer in the queue.
    Refused {
        /// The channel of the message.
        channel_id: ChannelId,
        /// The key that [`crate::Client::send`] returned.
        client_msg_id: ClientMsgId,
        /// The error.
        error: ErrorBody,
    },
    /// A user is typing. The program removes it after 6 s or at the next message of that user.
    Typing {
        /// The channel in which the user types.
        channel_id: ChannelId,
        /// The user who types.
        user_id: UserId,
    },
    /// The read marker of another member has moved.
    Receipt {
        /// The channel that was read.
        channel_id: ChannelId,
        /// The user who has read it.
        user_id: UserId,
        /// The last entry that the user has read.
        seq: Seq,
    },
    /// Presence of watched users. Once `complete` is set, every user is offline who was not named since
    /// [`Event::Connected`] or since a list with `anew`. Until then the users that the program knew before keep their
    /// state.
    Presence(PresenceList),
    /// The profile of a user has changed. Of two cards of one user keep the one with the greater `rev`.
    Profile(UserCard),
    /// The server refused the presence that the program set. It is not sent again.
    PresenceRefused(ErrorBody),
    /// This client read too slowly for a time. No entry is lost.
    Resync,
    /// The server did not accept the cursor; this is the snapshot. Entries of these channels up to `head_seq` are in
    /// history, later ones are delivered as entries.
    SnapshotRequired {
        /// The reason. After `foreign_cursor` and `beyond_store` a program deletes what it stored: it belongs to
        /// another store.
        reason: SnapshotReason,
        /// The channels whose state differs from what this client has. A channel that the user has left has
        /// `until_seq`.
        channels: Vec<ChannelView>,
        /// Channels that this client has and of which the server keeps nothing for the user.
        gone: Vec<ChannelId>,
    },
    /// Entries between two places were not received. If `filled`, all of them that the user may read follow, read from
    /// history. If not, the program must read them later.
    Gap {
        /// The log.
        log: LogId,
        /// The last entry before the gap that was delivered.
        after: Seq,
        /// The first entry after the gap.
        before: Seq,
        /// Whether the gap was filled from history.
        filled: bool,
    },
    /// The tokens were renewed. A program that stores its sign-in stores them, because a refresh token can be used once
    /// only.
    TokensRenewed(Tokens),
    /// The client has ended: the server accepts neither the access token nor the refresh token, so the user must sign
    /// in again.
    SignInRequired {
        /// The reason, for people.
        reason: String,
    },
    /// The client has ended and does not reconnect.
    Closed {
        /// The close code, if the server ended it.
        code: Option<u16>,
        /// The reason, for people.
        reason: String,
    },
}
