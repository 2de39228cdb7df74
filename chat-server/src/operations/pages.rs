//! Lists in pages: the bounds of a page, and where the next one begins.

use std::str::FromStr;

use madang_proto::rest::PageQuery;
use madang_proto::{ErrorBody, limits};

/// The key after which a page begins, and its number of rows.
pub(super) fn bounds<T: FromStr>(query: &PageQuery) -> Result<(Option<T>, usize), ErrorBody> {
    let max = limits::LIST_PAGE;
    let limit = query.limit.unwrap_or(100);
    if !(1..=max).contains(&limit) {
        return Err(ErrorBody::invalid("limit", format!("limit is {limit}, it must be 1 to {max}")));
    }
    let after = query.after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| {
        ErrorBody::invalid(
            "after",
            "after is not the next of an earlier page of this list of this \
         list",
        )
    })?;
    Ok((after, limit as usize))
}

/// The key after which the next page begins, if `rows` fill this one.
pub(super) fn next<T, I: ToString>(rows: &[T], limit: usize, id: impl FnOnce(&T) -> I) -> Option<String> {
    rows.last().filter(|_| rows.len() == limit).map(|last| id(last).to_string())
}
