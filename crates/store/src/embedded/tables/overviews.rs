//! A user's channels for lists, read from five tables at once.

use madang_ids::{ChannelId, Millis, Ordinal, Seq, UserId};
use rusqlite::{Connection, Result, Row, params_from_iter};

use super::channels::channel_at;
use super::log::head_at;
use super::members::{membership, membership_at};
use super::settings::settings_at;
use crate::channels::{MENTIONS_COUNTED, Membership, Overview};
use crate::embedded::codec::{bound, int, limit, number, optional_number};
use crate::embedded::readable::{readable, readable_page};
use crate::embedded::unreadable::Unreadables;
use crate::log::Marker;

// `concat!` takes literals only.
const _: () = assert!(MENTIONS_COUNTED == 1_000, "overview_sql! counts mentions up to 1000");

/// Overviews of a user's channels, `?1`.
macro_rules! overview_sql {
    ($where:literal) => {
        concat!(
            "SELECT m.user, m.channel, m.role, m.spans, m.as_of, m.in_inbox, m.has_accepted, m.marker_seq, m.marker_ordinal,
             coalesce(h.seq, 0), coalesce(h.ordinal, 0), coalesce(h.at_ms, 0) AS at_ms,
             (SELECT count(*) FROM (SELECT DISTINCT x.seq FROM mentions x
              WHERE x.channel = m.channel AND x.user IN (0, m.user) AND x.seq > m.marker_seq
              AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.user = m.user AND b.other = x.sender)
              AND x.seq <= coalesce(json_extract(m.spans, '$[#-1].until'), x.seq) LIMIT 1000)),
             c.id, c.kind, c.name, c.between_one, c.between_other, c.topic, c.avatar, c.created_by, c.created_at,
             c.capacity, c.slow_mode_s, c.pins, c.state,
             t.rev, t.favourite, t.marked_unread, t.muted_until, t.hidden_ordinal, t.alerts, h.message_at
             FROM memberships m CROSS JOIN channels c ON c.id = m.channel LEFT JOIN heads h ON h.id = m.channel
             LEFT JOIN channel_settings t ON t.user = m.user AND t.channel = m.channel
             WHERE m.user = ?1 AND m.role IS NOT NULL ",
            $where
        )
    };
}

/// Reads the channels of one user. A channel that cannot be read is left out.
pub(in crate::embedded) struct Overviews<'a> {
    pub(in crate::embedded) db: &'a Connection,
    pub(in crate::embedded) user: UserId,
    pub(in crate::embedded) unreadables: &'a Unreadables,
}

impl Overviews<'_> {
    pub(in crate::embedded) fn of(&self, channel: ChannelId) -> Result<Option<Overview>> {
        let mut statement = self.db.prepare_cached(overview_sql!("AND m.channel = ?2"))?;
        let mut found = statement.query([int(self.user.raw()), int(channel.raw())])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let Some(membership) = membership(self.db, self.user, channel, self.unreadables)? else {
            return Ok(None);
        };
        overview_row(row, membership).map(Some)
    }

    pub(in crate::embedded) fn by_id(&self, after: Option<ChannelId>, rows: usize) -> Result<Vec<Overview>> {
        let sql = overview_sql!("AND m.is_open = 1 AND m.channel > ?2 ORDER BY m.channel LIMIT ?3");
        let after = after.map_or(0, |channel| int(channel.raw()));
        self.page(sql, rows, |limit| [int(self.user.raw()), after, limit])
    }

    pub(in crate::embedded) fn left(&self, after: Option<ChannelId>, rows: usize) -> Result<Vec<Overview>> {
        let sql = overview_sql!(
            "AND m.is_open = 0 AND c.kind <> 'open' AND c.state <> 2 AND m.channel > ?2 ORDER BY m.channel LIMIT ?3"
        );
        let after = after.map_or(0, |channel| int(channel.raw()));
        self.page(sql, rows, |limit| [int(self.user.raw()), after, limit])
    }

    pub(in crate::embedded) fn by_activity(
        &self,
        after: Option<(Millis, ChannelId)>,
        rows: usize,
    ) -> Result<Vec<Overview>> {
        let sql = overview_sql!(
            "AND m.is_open = 1 AND (coalesce(h.at_ms, 0), m.channel) < (?2, ?3)
             ORDER BY at_ms DESC, m.channel DESC LIMIT ?4"
        );
        let (at, channel) =
            after.map_or((i64::MAX, i64::MAX), |(at, channel)| (bound(at.get()), int(channel.raw())));
        self.page(sql, rows, |limit| [int(self.user.raw()), at, channel, limit])
    }

    fn page<const N: usize>(
        &self,
        sql: &str,
        rows: usize,
        parameters: impl Fn(i64) -> [i64; N],
    ) -> Result<Vec<Overview>> {
        readable_page(rows, |rows| {
            let mut statement = self.db.prepare_cached(sql)?;
            let mut found = statement.query(params_from_iter(parameters(limit(rows))))?;
            let mut page = Vec::new();
            while let Some(row) = found.next()? {
                page.push(self.readable(row)?);
            }
            Ok(page)
        })
    }

    fn readable(&self, row: &Row<'_>) -> Result<Option<Overview>> {
        let overview = readable(membership_at(row, 0).and_then(|membership| overview_row(row, membership)))?;
        if overview.is_some() {
            return Ok(overview);
        }
        let channel = ChannelId::from_raw(number(row, 1)?);
        let elsewhere = readable(membership(self.db, self.user, channel, self.unreadables))?.flatten();
        let overview =
            readable(elsewhere.map(|membership| overview_row(row, membership)).transpose())?.flatten();
        if overview.is_none() {
            self.unreadables.note_other("a channel of a list", channel);
        }
        Ok(overview)
    }
}

fn overview_row(row: &Row<'_>, membership: Membership) -> Result<Overview> {
    Ok(Overview {
        membership,
        marker: Marker { seq: Seq::new(number(row, 7)?), ordinal: Ordinal::new(number(row, 8)?) },
        head: head_at(row, 9)?,
        mentions: number(row, 12)?,
        channel: channel_at(row, 13)?,
        settings: settings_at(row, 26)?,
        last_message_at: optional_number(row, 32)?.map(Millis::new),
    })
}
