//! The home against a store in memory: as a transcript, step by step; and with faults drawn from a seed, against
//! what must hold whatever happens.

mod changes;
mod clock;
mod consent;
mod edits;
mod invariants;
mod memberships;
mod open_channels;
mod order;
mod random;
mod reactions;
mod retries;
mod stage;
mod transcripts;
mod unreadable;
mod world;
