//! Damage of a database file that is visible without SQLite: checked at start, in a time that does not grow with the file.
//! `madang check` looks at everything.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::embedded::open_error::OpenError;

const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: u64 = 100;

/// Refuses a file that is no database. An empty one is new.
pub(in crate::embedded) fn check_header(file: &Path) -> Result<(), OpenError> {
    let header = header(file).map_err(OpenError::folder(file))?;
    let what = match &header[..] {
        [] => return Ok(()),
        _ if header.starts_with(MAGIC) && header.len() as u64 == HEADER_BYTES => return Ok(()),
        _ if header.iter().all(|byte| *byte == 0) => "it starts with zeros",
        _ if header.starts_with(MAGIC) => "it ends within its header",
        _ => "it does not start with the header of an SQLite database",
    };
    Err(OpenError::Damaged { file: file.to_owned(), what: what.into() })
}

/// Refuses a file that ends before its last page. Only when its write-ahead log is empty.
pub(in crate::embedded) fn check_length(file: &Path) -> Result<(), OpenError> {
    match of_length(file) {
        Some(what) => Err(OpenError::Damaged { file: file.to_owned(), what }),
        None => Ok(()),
    }
}

/// A description of what is wrong with the length; `None` if it is right.
pub(in crate::embedded) fn of_length(file: &Path) -> Option<String> {
    let header = header(file).ok()?;
    let page_bytes = match u16::from_be_bytes(header.get(16..18)?.try_into().ok()?) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes(header.get(28..32)?.try_into().ok()?));
    let (length, expected) = (file.metadata().ok()?.len(), pages * page_bytes);
    (length < expected).then(|| format!("it has {length} bytes, but its header says {expected}"))
}

fn header(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut header = Vec::new();
    File::open(file)?.take(HEADER_BYTES).read_to_end(&mut header)?;
    Ok(header)
}
