//! What strangers can do: nobody joins a group without consent, presence is shown after acceptance, and each user chooses who may
//! add and write to them.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod acceptance;
mod invitations;
mod left_over;
mod stage;
