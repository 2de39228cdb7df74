//! What strangers can do to somebody: groups are not joined without consent, presence follows acceptance, and each user
//! says who may add and write to them.
#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy sees that of test functions only, not of their helpers"
)]

mod acceptance;
mod invitations;
mod left_over;
mod stage;
