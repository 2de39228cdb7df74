//! The memory that a connection costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::harness::{Harness, NODE, up, user};
use crate::core::Loaded;

/// Counts the bytes that this thread has allocated.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe; this one passes every call to the system's")]
// SAFETY: every call is passed to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // At the end of a thread nothing is counted.
        let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(layout.size())));
        // SAFETY: the caller's promise holds for `System` too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(layout.size())));
        // SAFETY: the caller's promise holds for `System` too.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CONNECTIONS: u64 = 15_000;

/// Bytes that the core holds for each connection, if each is of another user who watches `watched` others.
fn bytes_per_connection(watched: u64) -> usize {
    let mut harness = Harness::settled();
    let before = HELD.get();
    for id in 1..=CONNECTIONS {
        harness.core.handle_up(NODE, up(id, id, id), harness.now);
        for wanted in harness.core.poll_wanted(1) {
            let circle = (0..watched).map(|other| user(1 + (id + other * 7) % CONNECTIONS)).collect();
            let loaded = Loaded { user: wanted.user, row: Default::default(), rev: 1, circle: Some(circle) };
            harness.core.handle_loaded(loaded, harness.now);
        }
        while harness.core.poll_notice().is_some() {}
    }
    assert_eq!(harness.core.users() as u64, CONNECTIONS);
    (HELD.get() - before) / CONNECTIONS as usize
}

#[test]
fn a_connection_costs_200_bytes_and_8_for_each_watched_user() {
    for (watched, at_most) in [(0, 200), (20, 360)] {
        let bytes = bytes_per_connection(watched);
        println!("{CONNECTIONS} connections, each watching {watched}: {bytes} bytes each");
        assert!(bytes < at_most, "{bytes} bytes");
    }
}
