//! What push services answer.

use std::time::Duration;

use crate::core::Verdict;

/// The wait if a push service fails or limits us, and names none.
const BUSY: Duration = Duration::from_secs(60);

/// The meaning of a status (RFC 8030, sections 5 to 7). `text` is the beginning of the body, `retry_after` its header.
#[must_use]
pub fn verdict(status: u16, text: &str, retry_after: Option<Duration>) -> Verdict {
    let not_taken = Verdict::NotTaken { after: retry_after.or(Some(BUSY)) };
    match status {
        200..=202 => Verdict::Delivered,
        404 | 410 => Verdict::Gone { at: None },
        // The subscription was made with another key of this server: the browser must subscribe again.
        400 | 403 if is_of_another_key(text) => Verdict::Gone { at: None },
        // Of this subscription alone: the user who named the endpoint chooses what it answers.
        401 | 403 => Verdict::WrongEnvironment,
        // 507: ntfy has no subscriber for the topic yet (UnifiedPush).
        429 | 503 | 507 => not_taken,
        // Redirects are not followed: the endpoint was checked, and where it leads to was not.
        300..=499 => Verdict::Ours,
        _ => Verdict::Unknown,
    }
}

fn is_of_another_key(text: &str) -> bool {
    // Apple; Google.
    text.contains("VapidPkHashMismatch") || text.contains("do not correspond to the credentials")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_one_meaning() {
        let of = |status| verdict(status, "", None);
        let busy = Verdict::NotTaken { after: Some(BUSY) };
        let gone = Verdict::Gone { at: None };
        for status in [200, 201, 202] {
            assert_eq!(of(status), Verdict::Delivered);
        }
        for status in [404, 410] {
            assert_eq!(of(status), gone);
        }
        for status in [429, 503, 507] {
            assert_eq!(of(status), busy);
        }
        for status in [301, 307, 400, 413] {
            assert_eq!(of(status), Verdict::Ours);
        }
        for status in [401, 403] {
            assert_eq!(of(status), Verdict::WrongEnvironment, "of this subscription alone");
        }
        for status in [500, 502, 504, 100, 600] {
            assert_eq!(of(status), Verdict::Unknown, "it may have been taken");
        }
        let asked = Some(Duration::from_secs(7));
        assert_eq!(verdict(429, "", asked), Verdict::NotTaken { after: asked });
    }

    #[test]
    fn a_subscription_of_another_key_is_gone() {
        let gone = Verdict::Gone { at: None };
        assert_eq!(verdict(400, "{\"reason\":\"VapidPkHashMismatch\"}", None), gone);
        let google = "the key in the authorization header do not correspond to the credentials used";
        assert_eq!(verdict(403, google, None), gone);
    }
}
