//! The load tool's parser of IRC logs.

use crate::irc::{Notice, notice, parse, spread};

/// Any file can be parsed, and the times of its lines never fall.
pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let spoken: Vec<_> = text.lines().filter_map(parse).collect();
    assert!(spoken.iter().all(|line| !line.nick.is_empty() && !line.text.is_empty()));
    for (nick, what) in text.lines().filter_map(notice) {
        assert!(!nick.is_empty() && what != Notice::Renamed(""));
    }
    let times = spread(&spoken);
    assert_eq!(times.len(), spoken.len());
    assert!(times.is_sorted());
}
