//! Tickets: short texts with which discovery sends a user to a node.
//!
//! A ticket admits a user to one node in one of its lives, or to any node of the fleet, within 30 s. It says nothing about who the
//! user is: a socket still sends its access token. Whether a ticket was used before is for its receiver to know.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use madang_ids::{Millis, NodeEpoch, NodeId, UserId};

/// How long a ticket is valid.
pub const TICKET_TTL_MS: u64 = 30_000;
/// Separates this key from other keys that are derived from the secret.
const PURPOSE: &[u8] = b"madang ticket 1";
/// Kind, user, node, epoch, expiry, nonce.
const BODY_BYTES: usize = 1 + 8 + 2 + 8 + 8 + 8;
/// The first bytes of HMAC-SHA256.
const TAG_BYTES: usize = 16;
/// Length in base64, without padding.
const TEXT_BYTES: usize = (BODY_BYTES + TAG_BYTES) / 3 * 4;
const NAMED: u8 = 1;
const SHARED: u8 = 2;

/// Where a ticket is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketPlace {
    /// On this node, in this life of it.
    Node(NodeId, NodeEpoch),
    /// On any node of the fleet.
    Fleet,
}

/// A ticket whose signature, user and expiry are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Where it is valid.
    pub place: TicketPlace,
    /// It is valid before this time.
    pub expires_at: Millis,
    /// Distinguishes it from all others.
    pub id: TicketId,
}

/// The id of a ticket, as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketId(u64);

impl TicketId {
    /// An id with this number.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why a ticket is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It was not signed under this secret, or not for this user.
    #[error("the ticket is not valid")]
    Invalid,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
}

/// Mints and verifies tickets. One per process; shared by reference.
#[derive(Debug)]
pub struct Tickets {
    key: hmac::Key,
}

impl Tickets {
    /// Uses a key derived from `secret`, which all processes of a fleet share.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// A new ticket of `user`: its text, which needs no escaping in a URL, and its expiry.
    #[must_use]
    pub fn mint(&self, user: UserId, place: TicketPlace, now: Millis) -> (String, Millis) {
        let expires_at = now.plus(TICKET_TTL_MS);
        let (kind, node, epoch) = match place {
            TicketPlace::Node(node, epoch) => (NAMED, node, epoch),
            TicketPlace::Fleet => (SHARED, NodeId(0), NodeEpoch(0)),
        };
        let mut bytes = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        bytes.push(kind);
        bytes.extend(user.raw().to_be_bytes());
        bytes.extend(node.0.to_be_bytes());
        bytes.extend(epoch.0.to_be_bytes());
        bytes.extend(expires_at.get().to_be_bytes());
        bytes.extend(rand::random::<[u8; 8]>());
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend(tag.as_ref().iter().take(TAG_BYTES));
        (URL_SAFE_NO_PAD.encode(bytes), expires_at)
    }

    /// Checks signature, user and expiry. The caller checks the place, and that the ticket was not used before.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn verify(&self, text: &str, user: UserId, now: Millis) -> Result<Ticket, TicketError> {
        let parsed = Some(text).filter(|text| text.len() == TEXT_BYTES);
        let bytes = parsed.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(TicketError::Invalid)?;
        let (body, tag) = bytes.split_at_checked(BODY_BYTES).ok_or(TicketError::Invalid)?;
        let signed = hmac::sign(&self.key, body);
        let expected = signed.as_ref().get(..TAG_BYTES).ok_or(TicketError::Invalid)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag).map_err(|_| TicketError::Invalid)?;
        let (of, ticket) = read(body).ok_or(TicketError::Invalid)?;
        match ticket {
            _ if of != user => Err(TicketError::Invalid),
            _ if now >= ticket.expires_at => Err(TicketError::Expired),
            ticket => Ok(ticket),
        }
    }
}

fn read(body: &[u8]) -> Option<(UserId, Ticket)> {
    let number = |from: usize| Some(u64::from_be_bytes(body.get(from..from + 8)?.try_into().ok()?));
    let node = NodeId(u16::from_be_bytes(body.get(9..11)?.try_into().ok()?));
    let place = match *body.first()? {
        NAMED => TicketPlace::Node(node, NodeEpoch(number(11)?)),
        SHARED => TicketPlace::Fleet,
        _ => return None,
    };
    let ticket = Ticket { place, expires_at: Millis::new(number(19)?), id: TicketId(number(27)?) };
    Some((UserId::from_raw(number(1)?), ticket))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: UserId = UserId::from_raw(11);
    const NOON: Millis = Millis::new(1_800_000_000_000);
    const HERE: TicketPlace = TicketPlace::Node(NodeId(1023), NodeEpoch(77));

    fn tickets() -> Tickets {
        Tickets::new(&[7; 32])
    }

    #[test]
    fn a_ticket_says_where_it_is_valid_and_until_when() {
        for place in [HERE, TicketPlace::Fleet] {
            let (text, expires_at) = tickets().mint(ADA, place, NOON);
            let ticket = tickets().verify(&text, ADA, NOON).unwrap();
            assert_eq!((ticket.place, ticket.expires_at), (place, expires_at));
            assert_eq!(expires_at, NOON.plus(30_000));
            assert_eq!(text.len(), TEXT_BYTES);
            let needs_no_escaping = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            assert!(text.chars().all(needs_no_escaping), "{text}");
        }
    }

    #[test]
    fn every_ticket_has_an_id_of_its_own() {
        let id = || {
            let (text, _) = tickets().mint(ADA, HERE, NOON);
            tickets().verify(&text, ADA, NOON).unwrap().id
        };
        assert_ne!(id(), id());
        assert_eq!(id().to_string().len(), 16);
    }

    #[test]
    fn a_ticket_expires_on_the_millisecond() {
        let (text, expires_at) = tickets().mint(ADA, HERE, NOON);
        assert!(tickets().verify(&text, ADA, expires_at.minus(1)).is_ok());
        assert_eq!(tickets().verify(&text, ADA, expires_at), Err(TicketError::Expired));
    }

    #[test]
    fn a_ticket_of_another_user_or_secret_is_refused() {
        let (text, _) = tickets().mint(ADA, HERE, NOON);
        let bob = UserId::from_raw(12);
        assert_eq!(tickets().verify(&text, bob, NOON), Err(TicketError::Invalid));
        assert_eq!(Tickets::new(&[8; 32]).verify(&text, ADA, NOON), Err(TicketError::Invalid));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (text, _) = tickets().mint(ADA, HERE, NOON);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(tickets().verify(&changed, ADA, NOON), Err(TicketError::Invalid), "at {at}");
            assert_eq!(tickets().verify(&text[..at], ADA, NOON), Err(TicketError::Invalid), "cut at {at}");
        }
        for text in ["", "마당", &"A".repeat(TEXT_BYTES), &"A".repeat(1 << 20)] {
            assert_eq!(tickets().verify(text, ADA, NOON), Err(TicketError::Invalid));
        }
    }
}
