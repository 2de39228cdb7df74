//! The core by itself: scenes written as transcripts, random histories against a simple model, and its memory; then several cores
//! that share the users.

mod cores;
mod cores_scenes;
mod harness;
mod memory;
mod random;
mod scenes;
