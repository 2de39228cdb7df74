//! The time of the sandbox: of token ages, rate windows and arrivals. A test may supply its own.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the wall clock. Cheap to clone.
#[derive(Clone)]
pub struct Now(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Now {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(machine_ms))
    }

    /// A clock that a test controls. `read_ms` returns milliseconds since 1970; it is called for every request.
    #[must_use]
    pub fn from_fn(read_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(read_ms))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn ms(&self) -> u64 {
        (self.0)()
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.ms() / 1_000
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Now").field(&self.ms()).finish()
    }
}

#[expect(clippy::disallowed_methods, reason = "the crate depends on no other crate of the project")]
fn machine_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().try_into().unwrap_or(0))
}
