//! A checksum over each row of a log, so that a flipped bit on the disk is detected and never served. SQLite calls it as the
//! function `row_checksum`, with all columns of a row in their order. A statement that changes a row also sets
//! `checksum = row_checksum(..)`, and a statement that reads rows also reads whether the checksum is right.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

/// The SQL condition under which the content of a row is trusted. Rows of version 1 have no checksum.
macro_rules! is_whole_sql {
    () => {
        "(checksum IS NULL OR checksum = row_checksum(id, seq, pos, at_ms, ordinal, version, sender, \
         client_msg_id, body_hash, content))"
    };
}
pub(super) use is_whole_sql;

/// Registers `row_checksum` on a connection.
pub(super) fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("row_checksum", 10, flags, |row| Ok(i64::from(of(row))))
}

/// CRC-32C over each column's type, length and bytes.
fn of(row: &Context<'_>) -> u32 {
    (0..row.len()).fold(0, |sum, column| match row.get_raw(column) {
        ValueRef::Null => tagged(sum, 0, 0),
        ValueRef::Integer(value) => tagged(sum, 1, value.cast_unsigned()),
        ValueRef::Real(value) => tagged(sum, 2, value.to_bits()),
        ValueRef::Text(bytes) => crc32c::crc32c_append(tagged(sum, 3, bytes.len() as u64), bytes),
        ValueRef::Blob(bytes) => crc32c::crc32c_append(tagged(sum, 4, bytes.len() as u64), bytes),
    })
}

fn tagged(sum: u32, tag: u8, value: u64) -> u32 {
    let mut bytes = [tag; 9];
    bytes[1..].copy_from_slice(&value.to_le_bytes());
    crc32c::crc32c_append(sum, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(values: &str) -> i64 {
        let db = Connection::open_in_memory().unwrap();
        register(&db).unwrap();
        db.query_row(&format!("SELECT row_checksum({values})"), [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_column_counts_and_so_do_its_type_and_place() {
        let row = "1, 2, 3, 4, 5, 6, 7, x'08', x'09', 'ten'";
        let others = [
            "2, 2, 3, 4, 5, 6, 7, x'08', x'09', 'ten'",
            "1, 3, 3, 4, 5, 6, 7, x'08', x'09', 'ten'",
            "1, 2, 4, 4, 5, 6, 7, x'08', x'09', 'ten'",
            "1, 2, 3, 5, 5, 6, 7, x'08', x'09', 'ten'",
            "1, 2, 3, 4, 6, 6, 7, x'08', x'09', 'ten'",
            "1, 2, 3, 4, 5, 7, 7, x'08', x'09', 'ten'",
            "1, 2, 3, 4, 5, 6, 8, x'08', x'09', 'ten'",
            "1, 2, 3, 4, 5, 6, NULL, x'08', x'09', 'ten'",
            "1, 2, 3, 4, 5, 6, 7, x'00', x'09', 'ten'",
            "1, 2, 3, 4, 5, 6, 7, x'0809', x'', 'ten'",
            "1, 2, 3, 4, 5, 6, 7, x'08', x'09', x'74656e'",
            "1, 2, 3, 4, 5, 6, 7, x'08', x'09', 'tem'",
            "2, 1, 3, 4, 5, 6, 7, x'08', x'09', 'ten'",
        ];
        for other in others {
            assert_ne!(sum_of(other), sum_of(row), "{other}");
        }
    }

    #[test]
    fn what_is_in_files_stays_readable() {
        assert_eq!(sum_of("1, 2, 3, 4, 5, 6, 7, x'08', x'09', 'ten'"), 740_314_886);
    }
}
