//! The core by itself: scenes that read like a conversation, random histories against a simple model, and its size.

mod memory;
mod random;
mod scenes;
mod yard;
