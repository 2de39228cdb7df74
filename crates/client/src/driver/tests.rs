use super::*;

#[test]
fn close_codes_say_whether_to_come_back() {
    assert!(matches!(after_close(CloseReason::Draining.code(), String::new()), Next::Again(_)));
    assert!(matches!(after_close(1006, String::new()), Next::Again(_)));
    assert!(matches!(after_close(CloseReason::TokenExpired.code(), String::new()), Next::Renew(_)));
    assert!(matches!(
        after_close(CloseReason::Replaced.code(), String::new()),
        Next::Stop { code: Some(4502), .. }
    ));
}
