//! The core by itself: scenes written as transcripts, random histories against a simple model, and its memory.

mod memory;
mod random;
mod scenes;
mod yard;
