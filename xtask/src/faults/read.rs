//! A read from a stream that has a time limit.

use std::io::{ErrorKind, Read, Result};

/// Reads what is there, and waits for it as long as the stream's time limit says; `None` if nothing came. 0 bytes are the end.
///
/// A read with a time limit also fails with EINTR when this process was paused and resumed, or moved with its machine
/// (signal(7)). It is made again then.
pub(super) fn read_in_time(mut from: impl Read, buffer: &mut [u8]) -> Result<Option<usize>> {
    loop {
        return match from.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(None),
                _ => Err(error),
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with each of these in turn, and is at its end then.
    struct Failing(Vec<ErrorKind>);

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> Result<usize> {
            self.0.pop().map_or(Ok(0), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn a_pause_of_the_process_is_no_failure_of_the_stream() {
        let read = |kinds: &[ErrorKind]| {
            read_in_time(Failing(kinds.to_vec()), &mut [0]).map_err(|error| error.kind())
        };
        assert_eq!(read(&[ErrorKind::Interrupted, ErrorKind::Interrupted]), Ok(Some(0)));
        assert_eq!(read(&[ErrorKind::WouldBlock, ErrorKind::Interrupted]), Ok(None));
        assert_eq!(read(&[ErrorKind::ConnectionReset]), Err(ErrorKind::ConnectionReset));
    }
}
