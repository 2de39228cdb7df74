//! The order of commits, and a user's inbox read from it: the merge of the user's logs after a position.

use async_trait::async_trait;
use madang_ids::{ChannelId, Epoch, LogId, Position, Seq, UserId};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::Embedded;
use super::codec::{from_json, int, number};
use super::readable::readable;
use super::tables::log::place;
use super::tables::members::membership;
use super::unreadable::Unreadables;
use crate::Spans;
use crate::commit_order::{CommitFeed, CommitOrder, EpochRow, Scan, ScanItem};
use crate::error::StoreResult;

/// The most rows of one run. A cursor lies between two runs, and an interrupted reader continues behind the last one.
const RUN_ROWS: u64 = 256;

#[async_trait]
impl CommitOrder for Embedded {
    fn take_feed(&self) -> Option<CommitFeed> {
        let feed = self.feed.lock().take()?;
        self.writer.open_feed();
        Some(feed)
    }

    fn position(&self) -> Position {
        self.writer.position()
    }

    async fn begin_epoch(&self, epoch: Epoch) -> StoreResult<EpochRow> {
        self.write(move |transaction| {
            let start = int(transaction.position().get());
            let mut insert = transaction.db().prepare_cached(
                "INSERT INTO epochs (epoch, start_pos) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?;
            insert.execute([int(epoch.raw()), start])?;
            let mut read =
                transaction.db().prepare_cached("SELECT epoch, start_pos FROM epochs WHERE epoch = ?1")?;
            read.query_row([int(epoch.raw())], epoch_row)
        })
        .await
    }

    async fn epochs(&self) -> StoreResult<Vec<EpochRow>> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT epoch, start_pos FROM epochs ORDER BY start_order")?;
            statement.query_map([], epoch_row)?.collect()
        })
        .await
    }

    async fn scan(
        &self,
        user: UserId,
        after: Position,
        max_rows: usize,
        give_up: usize,
    ) -> StoreResult<Option<Scan>> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| scan(db, (user, after), max_rows, give_up, &unreadables)).await
    }
}

fn epoch_row(row: &rusqlite::Row<'_>) -> Result<EpochRow> {
    Ok(EpochRow { epoch: Epoch::from_raw(number(row, 0)?), start: Position::new(number(row, 1)?) })
}

fn scan(
    db: &Connection,
    (user, after): (UserId, Position),
    max_rows: usize,
    give_up: usize,
    unreadables: &Unreadables,
) -> Result<Option<Scan>> {
    let committed = db.prepare_cached("SELECT value FROM position")?.query_row([], |row| number(row, 0))?;
    let mut walk = Walk { db, after, give_up, rows: Vec::new() };
    if lacks_stays(db, user, after)? {
        return Ok(None);
    }
    for (channel, spans, head) in moved_channels(db, user, after, unreadables)? {
        if !walk.channel(channel, &spans, head)? {
            return Ok(None);
        }
    }
    if !walk.own_log(user)? {
        return Ok(None);
    }
    let mut rows = walk.rows;
    rows.sort_unstable_by_key(|row| row.position);
    Ok(Some(page(rows, max_rows, Position::new(committed))))
}

/// Whether rows after `after` may be missing, since stays were removed.
fn lacks_stays(db: &Connection, user: UserId, after: Position) -> Result<bool> {
    let mut statement =
        db.prepare_cached("SELECT 1 FROM user_heads WHERE id = ?1 AND forgotten_upto > ?2")?;
    statement.exists([int(user.raw()), int(after.get())])
}

/// The first `max_rows` of `rows`, which rise by position.
fn page(mut rows: Vec<ScanItem>, max_rows: usize, committed: Position) -> Scan {
    let max_rows = max_rows.max(1);
    let more = rows.len() > max_rows;
    rows.truncate(max_rows);
    let upto = match rows.last() {
        Some(last) if more => last.position,
        _ => committed,
    };
    rows.dedup_by(|next, run| {
        let goes_on =
            next.log == run.log && next.from == run.to.next() && next.to.get() - run.from.get() < RUN_ROWS;
        if goes_on {
            run.to = next.to;
            run.position = next.position;
        }
        goes_on
    });
    Scan { items: rows, upto, more }
}

/// The user's channels whose last row is after `after`; the others cost only this comparison. An unreadable membership affects only
/// its channel: the next live entry of that shows the hole, which `history` fills or refuses.
fn moved_channels(
    db: &Connection,
    user: UserId,
    after: Position,
    unreadables: &Unreadables,
) -> Result<Vec<(ChannelId, Spans, Seq)>> {
    let mut statement = db.prepare_cached(
        "SELECT m.channel, m.spans, h.seq FROM memberships m CROSS JOIN heads h ON h.id = m.channel
         WHERE m.user = ?1 AND m.role IS NOT NULL AND m.in_inbox = 1 AND h.pos > ?2",
    )?;
    let mut found = statement.query([int(user.raw()), int(after.get())])?;
    let mut channels = Vec::new();
    while let Some(row) = found.next()? {
        let channel = ChannelId::from_raw(number(row, 0)?);
        let spans = match readable(from_json(row, 1))? {
            Some(spans) => Some(spans),
            None => readable(membership(db, user, channel, unreadables))?.flatten().map(|it| it.spans),
        };
        let head = Seq::new(number(row, 2)?);
        channels.extend(spans.map(|spans| (channel, spans, head)));
    }
    Ok(channels)
}

/// Walks logs downwards, each from its end to `after`. Positions rise with `seq`, so the first row at or below
/// `after` ends a log.
struct Walk<'a> {
    db: &'a Connection,
    after: Position,
    give_up: usize,
    rows: Vec<ScanItem>,
}

impl Walk<'_> {
    /// Walks one channel. `false` if there are too many rows.
    fn channel(&mut self, channel: ChannelId, spans: &Spans, head: Seq) -> Result<bool> {
        for part in spans.clip(Seq::new(1)..=head).rev() {
            match self.part(LogId::Channel(channel), *part.start(), *part.end())? {
                Walked::AllOfIt => {}
                Walked::ToTheCursor => return Ok(true),
                Walked::TooMuch => return Ok(false),
            }
        }
        Ok(true)
    }

    fn own_log(&mut self, user: UserId) -> Result<bool> {
        let log = LogId::User(user);
        let (statements, id) = place(log);
        let mut statement = self.db.prepare_cached(statements.head)?;
        let head = statement.query_row([id], |row| Ok((number(row, 0)?, number(row, 3)?))).optional()?;
        match head {
            Some((seq, position)) if position > self.after.get() => {
                match self.part(log, Seq::new(1), Seq::new(seq))? {
                    Walked::AllOfIt => Ok(!self.is_trimmed(user)?),
                    Walked::ToTheCursor => Ok(true),
                    Walked::TooMuch => Ok(false),
                }
            }
            _ => Ok(true),
        }
    }

    /// Whether the first rows of the own log were removed: their positions in the order of commits are unknown.
    fn is_trimmed(&self, user: UserId) -> Result<bool> {
        let mut statement = self.db.prepare_cached("SELECT trimmed > 0 FROM user_heads WHERE id = ?1")?;
        statement.query_row([int(user.raw())], |row| row.get(0))
    }

    fn part(&mut self, log: LogId, from: Seq, to: Seq) -> Result<Walked> {
        let (statements, id) = place(log);
        let mut statement = self.db.prepare_cached(statements.positions_back)?;
        let mut found = statement.query(params![id, int(from.get()), int(to.get())])?;
        while let Some(row) = found.next()? {
            let (seq, position) = (Seq::new(number(row, 0)?), Position::new(number(row, 1)?));
            if position <= self.after {
                return Ok(Walked::ToTheCursor);
            }
            if self.rows.len() == self.give_up {
                return Ok(Walked::TooMuch);
            }
            self.rows.push(ScanItem { log, from: seq, to: seq, position });
        }
        Ok(Walked::AllOfIt)
    }
}

enum Walked {
    AllOfIt,
    ToTheCursor,
    TooMuch,
}
