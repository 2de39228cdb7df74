//! Handles: their form, and reserved ones.

use madang_proto::{ErrorBody, ErrorCode, limits};

/// A handle in the form in which it is stored: in lower case. The rules for new handles do not apply, because older handles may
/// break them.
///
/// # Errors
/// `invalid`.
pub(in crate::operations) fn check_handle(handle: &str) -> Result<String, ErrorBody> {
    let max = limits::HANDLE_CHARS;
    let handle = handle.to_ascii_lowercase();
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    if (2..=max).contains(&handle.len()) && handle.bytes().all(is_allowed) {
        return Ok(handle);
    }
    let message = format!("handle must be 2 to {max} of the characters a-z, 0-9, '_', '.', '-'");
    Err(ErrorBody::invalid("handle", message))
}

/// A handle for a new account.
///
/// # Errors
/// `invalid`; `conflict` for a reserved one.
pub(in crate::operations) fn check_new_handle(
    handle: &str,
    reserved: &[String],
) -> Result<String, ErrorBody> {
    let handle = check_shape(handle)?;
    if is_reserved(&handle, reserved) {
        return Err(ErrorBody::field(ErrorCode::Conflict, "handle", "handle is reserved"));
    }
    Ok(handle)
}

/// A handle for a new account made by an operator, who may use a reserved one.
///
/// # Errors
/// `invalid`.
pub(in crate::operations) fn check_shape(handle: &str) -> Result<String, ErrorBody> {
    let handle = check_handle(handle)?;
    if handle.starts_with('.') || handle.ends_with('.') {
        return Err(ErrorBody::invalid("handle", "handle must not begin or end with '.'"));
    }
    if !handle.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ErrorBody::invalid("handle", "handle must contain a letter or a digit"));
    }
    Ok(handle)
}

/// `ad.min` looks like `admin` at a glance, so separators are ignored.
fn is_reserved(handle: &str, reserved: &[String]) -> bool {
    let letters = |text: &str| text.replace(['_', '.', '-'], "");
    let handle = letters(handle);
    reserved.iter().any(|one| letters(one) == handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_handles_have_a_letter_no_dot_at_an_end_and_are_not_reserved() {
        let reserved: Vec<String> = limits::RESERVED_HANDLES.map(str::to_owned).to_vec();
        for good in ["ada", "Ada", "-ada-", "a.b", "_1", "administrative", "rooted", "x".repeat(32).as_str()]
        {
            assert_eq!(check_new_handle(good, &reserved), Ok(good.to_ascii_lowercase()), "{good}");
        }
        let bad = [
            "..", "...", "__", "-.-", ".ada", "ada.", "admin", "Admin", "ADMIN", "ad.min", "_admin_", "root",
            "system", "support", "madang", "a", "a b", "adä",
        ];
        for bad in bad {
            assert!(check_new_handle(bad, &reserved).is_err(), "{bad}");
        }
        assert_eq!(check_new_handle("admin", &["boss".to_owned()]), Ok("admin".to_owned()));
        assert!(check_new_handle("b.o.s.s", &["Boss".to_owned().to_lowercase()]).is_err());
        // An account that has such a handle can still sign in.
        assert!(check_handle("..").is_ok() && check_handle("admin").is_ok() && check_shape("admin").is_ok());
    }
}
