//! The statements on the tables, one file for each trait of the store or table. Each file implements its part of the traits for
//! [`super::Embedded`]: reads run on a reader, writes in the writer's next transaction.

mod accounts;
mod acts;
pub(super) mod alerts;
pub(super) mod channels;
mod contacts;
mod devices;
mod erasure;
mod group_invitations;
mod invitations;
pub(super) mod log;
pub(super) mod members;
mod open_channels;
mod overviews;
pub(super) mod push;
mod reactions;
mod sends;
mod settings;
mod trim;
mod upkeep;
