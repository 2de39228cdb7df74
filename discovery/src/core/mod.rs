//! The decisions of discovery, without IO and without a clock: who is alive ([`view`]), which node a client gets
//! ([`assignment`]), and who waits when all nodes are full ([`line`]).
//!
//! [`ViewCore::handle_seen`] takes each reading of the registry in and returns the view if it has changed.
//! [`Assigner::assign`] is called with the present view whenever a client asks. The two may be driven independently.

mod assignment;
mod line;
mod view;

pub use assignment::{Assigner, Decision};
pub use view::{View, ViewCore, ViewRevision};
