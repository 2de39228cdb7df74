//! Lists with unreadable rows: each of these is left out, and the others are served.

use rusqlite::{Error, Result};

/// The content of a row; `None` if it cannot be read. Other errors concern the whole read.
pub(super) fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_of_one_row(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

const fn is_of_one_row(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// The first `rows` readable rows of a list. `read` returns the first rows up to a limit. A page must not be short because rows of
/// it are unreadable: its reader would take it for the last page.
pub(super) fn readable_page<T>(
    rows: usize,
    mut read: impl FnMut(usize) -> Result<Vec<Option<T>>>,
) -> Result<Vec<T>> {
    let mut asked = rows;
    loop {
        let found = read(asked)?;
        let (count, is_end) = (found.len(), found.len() < asked);
        let readable: Vec<T> = found.into_iter().flatten().take(rows).collect();
        if is_end || readable.len() == rows {
            return Ok(readable);
        }
        asked = asked.saturating_add(count - readable.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_full_as_long_as_there_are_rows() {
        let all = [None, Some(1), None, None, Some(2), Some(3), None];
        for (rows, expected) in [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3]), (9, vec![1, 2, 3])] {
            let page = readable_page(rows, |limit| Ok(all.iter().take(limit).copied().collect()));
            assert_eq!(page, Ok(expected));
        }
        assert_eq!(readable_page(2, |_| Ok(Vec::<Option<u8>>::new())), Ok(Vec::new()));
    }

    #[test]
    fn what_concerns_the_whole_read_is_an_error() {
        assert_eq!(readable(Ok(1)), Ok(Some(1)));
        assert_eq!(readable::<u8>(Err(Error::IntegralValueOutOfRange(1, -1))), Ok(None));
        assert_eq!(readable::<u8>(Err(Error::InvalidQuery)), Err(Error::InvalidQuery));
    }
}
