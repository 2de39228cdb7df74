//! The last acknowledged position, written to a note beside the database each second and when the store ends. A flipped byte in a
//! write-ahead log silently cuts off the commits behind it; an older file in its place does the same. The database alone
//! does not show that; the note does.
//!
//! A position is noted after it was durable, so the note never claims more than there was, and a refusal is never false. A loss
//! of positions that were acknowledged after the last note is not detected: one second after a kill; after a loss of power the
//! time that the kernel kept the file in memory (some 30 s), since it is synced only when the store ends. If the note were written
//! before the commit, a crash in between would look like a loss.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use madang_ids::Position;

use super::admin::folder;
use super::log_limit::LogLimit;

const NOTE: &str = "acked";
const EVERY: Duration = Duration::from_secs(1);

/// The content of a folder's note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// There is no note: the folder is new, or of version 1.
    Nothing,
    /// The note cannot be read: torn by a loss of power.
    Torn,
    Position(Position),
}

pub(super) fn read(folder: &Path) -> std::io::Result<Noted> {
    let text = match std::fs::read(folder.join(NOTE)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Noted::Nothing),
        read => read?,
    };
    Ok(parse(&text).map_or(Noted::Torn, Noted::Position))
}

fn parse(text: &[u8]) -> Option<Position> {
    let position = std::str::from_utf8(text).ok()?.split_whitespace().next()?.parse().ok()?;
    (line(Position::new(position)).as_bytes() == text).then(|| Position::new(position))
}

/// The position, readable for operators, and a checksum.
fn line(position: Position) -> String {
    let number = position.get().to_string();
    format!("{number} {:08x}\n", crc32c::crc32c(number.as_bytes()))
}

/// Replaces the note by one with this position.
pub(super) fn write(folder: &Path, position: Position, sync: bool) -> std::io::Result<()> {
    let (new, note) = (folder.join("acked.new"), folder.join(NOTE));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(line(position).as_bytes())?;
    if sync {
        file.sync_all()?;
    }
    drop(file);
    std::fs::rename(&new, &note)?;
    if sync { folder::sync_file(folder) } else { Ok(()) }
}

/// The thread that writes the note. Dropping it writes the last position.
#[derive(Debug)]
pub(super) struct Noting {
    closing: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Noting {
    pub(super) fn start(
        folder: PathBuf,
        position: impl Fn() -> Position + Send + 'static,
    ) -> std::io::Result<Self> {
        let (closing, closed) = channel();
        write(&folder, position(), false)?;
        let thread = std::thread::Builder::new().name("store-note".into()).spawn(move || {
            let (mut noted, mut limit) = (position(), LogLimit::default());
            while closed.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = position();
                if now != noted && note(&folder, now, false, &mut limit) {
                    noted = now;
                }
            }
            note(&folder, position(), true, &mut LogLimit::default());
        })?;
        Ok(Self { closing: Some(closing), thread: Some(thread) })
    }
}

fn note(folder: &Path, position: Position, sync: bool, limit: &mut LogLimit) -> bool {
    let written = write(folder, position, sync);
    if let Err(error) = &written
        && let Some(unlogged) = limit.unlogged()
    {
        tracing::warn!(%error, unlogged, "writing the acked position failed");
    }
    written.is_ok()
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.closing = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the acked position panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_written_and_a_torn_one_differs_from_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Noted::Nothing);
        write(folder.path(), Position::new(1_234), true).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Noted::Position(Position::new(1_234)));
        let whole = std::fs::read(folder.path().join(NOTE)).unwrap();
        for torn in [&b""[..], &whole[..4], &whole[..whole.len() - 1], b"1235 00000000\n"] {
            std::fs::write(folder.path().join(NOTE), torn).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Noted::Torn, "{torn:?}");
        }
    }
}
