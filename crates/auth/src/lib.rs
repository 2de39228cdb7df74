//! Authentication: access tokens, refresh tokens, passwords, cursors bound to their user, tickets to nodes, calls between
//! processes of a fleet, and the secret on which these depend.
//!
//! This is the first stage of every request (G5): the gateway and REST convert a token into [`Claims`] here and take
//! the user and the device from nowhere else. This crate knows neither HTTP nor the store; its callers store what must
//! be kept (PHC texts, hashes of refresh tokens).

#![warn(missing_docs)]

mod cursors;
mod internal;
mod invitation;
mod operators;
mod passwords;
mod refresh;
mod secret;
mod tickets;
mod tokens;

pub use cursors::{Cursors, SealError};
pub use internal::{
    CALL_WINDOW_MS, InternalCall, InternalCalls, InternalError, NONCE_BYTES, SEEN_WINDOW_MS, Stamp,
};
pub use invitation::InvitationCode;
pub use operators::{
    OPERATOR_TOKEN_TTL, OperatorClaims, OperatorSecret, OperatorTokens, credential, is_operator_secret,
};
pub use passwords::{Lane, MAX_PASSWORD_BYTES, PasswordConfig, PasswordError, Passwords, spellings};
pub use refresh::{RefreshToken, RefreshTokenError};
pub use secret::{create_secret_file, load_or_create_secret, load_secret, replace_secret_file};
pub use tickets::{TICKET_TTL_MS, Ticket, TicketError, TicketId, TicketPlace, Tickets};
pub use tokens::{Claims, MAX_TOKEN_BYTES, TokenError, Tokens};
