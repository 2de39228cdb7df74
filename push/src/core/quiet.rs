//! Hours of the day in which a user wants no alerts.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use madang_ids::Millis;

/// Quiet hours, by the clock on the wall where the user is. They may span midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    /// Minutes after midnight.
    from: u16,
    until: u16,
    zone: TimeZone,
}

/// Why a text is no quiet hours. The message names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuietError {
    /// Not an hour and a minute.
    #[error("{0} must be a time of day such as 22:30")]
    Time(&'static str),
    /// Not in the time zone database.
    #[error("zone must be a name of the time zone database, such as Europe/Berlin")]
    Zone,
    /// The whole day: that is a mute.
    #[error("until is the same as from: to have no alerts at all, set the level to nothing")]
    Empty,
}

impl QuietHours {
    /// From and until are `HH:MM`; the zone is a name of the IANA database.
    ///
    /// # Errors
    /// [`QuietError`].
    pub fn parse(from: &str, until: &str, zone: &str) -> Result<Self, QuietError> {
        let (from, until) = (minutes("from", from)?, minutes("until", until)?);
        if from == until {
            return Err(QuietError::Empty);
        }
        let zone = TimeZone::get(zone).map_err(|_| QuietError::Zone)?;
        Ok(Self { from, until, zone })
    }

    /// Whether it is quiet at this time.
    #[must_use]
    pub fn contain(&self, now: Millis) -> bool {
        let now = i64::try_from(now.get()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let Some(now) = now else { return false };
        let time = now.to_zoned(self.zone.clone()).time();
        let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        match self.from < self.until {
            true => (self.from..self.until).contains(&minute),
            false => minute >= self.from || minute < self.until,
        }
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{} to {} {zone}", time(self.from), time(self.until))
    }
}

fn minutes(field: &'static str, text: &str) -> Result<u16, QuietError> {
    let parse = || {
        let (hour, minute) = text.split_once(':')?;
        let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let (hour, minute) = (is_plain(hour).then_some(hour)?, is_plain(minute).then_some(minute)?);
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    parse().ok_or(QuietError::Time(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let at: Timestamp = text.parse().unwrap();
        Millis::new(u64::try_from(at.as_millisecond()).unwrap())
    }

    #[test]
    fn a_night_spans_midnight_and_follows_summer_time() {
        let night = QuietHours::parse("22:30", "07:00", "Europe/Berlin").unwrap();
        assert_eq!(night.to_string(), "22:30 to 07:00 Europe/Berlin");
        for (time, is_quiet) in [
            ("2026-01-15T21:29:59Z", false),
            ("2026-01-15T21:30:00Z", true),
            ("2026-01-16T05:59:59Z", true),
            ("2026-01-16T06:00:00Z", false),
            // In summer the same clock on the wall is an hour earlier.
            ("2026-07-15T20:30:00Z", true),
            ("2026-07-16T05:00:00Z", false),
        ] {
            assert_eq!(night.contain(at(time)), is_quiet, "{time}");
        }
    }

    #[test]
    fn an_afternoon_does_not() {
        let nap = QuietHours::parse("13:00", "14:00", "UTC").unwrap();
        assert!(nap.contain(at("2026-01-15T13:00:00Z")));
        assert!(!nap.contain(at("2026-01-15T14:00:00Z")));
        assert!(!nap.contain(at("2026-01-15T03:00:00Z")));
    }

    #[test]
    fn bad_input_is_refused_by_field() {
        let refused = |from, until, zone| QuietHours::parse(from, until, zone).unwrap_err();
        for text in ["", "7:00", "24:00", "22:60", "22:3", "+1:00", "22:00:00", "22.00"] {
            assert_eq!(refused(text, "07:00", "UTC"), QuietError::Time("from"), "{text}");
            assert_eq!(refused("07:00", text, "UTC"), QuietError::Time("until"), "{text}");
        }
        assert_eq!(refused("22:00", "07:00", "Mars/Base"), QuietError::Zone);
        assert_eq!(refused("22:00", "22:00", "UTC"), QuietError::Empty);
    }
}
