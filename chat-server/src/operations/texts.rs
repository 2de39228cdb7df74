//! Short texts that people write: how long they may be, in one line.

use std::ops::RangeInclusive;

use madang_proto::ErrorBody;

/// Whether `text` has so many characters, none of which is a control character.
///
/// # Errors
/// `invalid`, with the field, the length and the limit.
pub(super) fn check_text(field: &str, text: &str, allowed: RangeInclusive<usize>) -> Result<(), ErrorBody> {
    let chars = text.chars().count();
    if allowed.contains(&chars) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let (min, max) = allowed.into_inner();
    let bounds = if min == 0 { format!("at most {max}") } else { format!("{min} to {max}") };
    let message = format!("{field} has {chars} characters, it must be {bounds} without control characters");
    Err(ErrorBody::invalid(field, message))
}
