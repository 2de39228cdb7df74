//! Whether a due job is worth an alert. Everything is read when the job is due: nothing that a user did since the message is ignored.

use madang_ids::{Millis, Seq, UserId};
use madang_proto::{AlertLevel, ChannelKind};
use serde::{Deserialize, Serialize};

use super::quiet::QuietHours;

/// A message of the job as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The message.
    pub seq: Seq,
    /// Its sender.
    pub sender: UserId,
    /// It names the user, or replies to one of the user's.
    pub names_user: bool,
    /// It was deleted, for all or for the user alone.
    pub is_deleted: bool,
    /// The user blocks the sender.
    pub is_blocked: bool,
}

/// What is true of the user and the channel now.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The time.
    pub now: Millis,
    /// The user.
    pub user: UserId,
    /// The account is neither deleted nor disabled.
    pub is_active: bool,
    /// The first message of the user's present stay; `None` for a user who has left.
    pub member_from: Option<Seq>,
    /// The kind of the channel.
    pub kind: ChannelKind,
    /// What the user wants to know of the channel.
    pub level: AlertLevel,
    /// The end of a mute of the channel.
    pub muted_until: Option<Millis>,
    /// When the user wants no alerts.
    pub quiet: Option<&'a QuietHours>,
    /// The last message that the user has read.
    pub read: Seq,
    /// The messages of the job that no device has received, as they are now, oldest first.
    pub candidates: &'a [Candidate],
}

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// The message that is shown: the last one that names the user, or else the last one.
    pub about: Seq,
    /// How many messages the alert stands for; the job may have had more than it remembers.
    pub count: usize,
    /// The message names the user.
    pub names_user: bool,
}

/// Why there is no alert. The operator can ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No device of the user has a subscription to which anything may be sent.
    NoSubscription,
    /// The account is deleted or disabled.
    NoAccount,
    /// The user has left the channel.
    Left,
    /// The user wants to know nothing of the channel.
    LevelNothing,
    /// The channel is muted.
    Muted,
    /// It is night, by the user's settings.
    QuietHours,
    /// A device has received all of it.
    Received,
    /// The user has read all of it.
    Read,
    /// All of it was noted before, and the user was alerted then.
    Repeated,
    /// All of it is the user's own.
    Own,
    /// All of it was deleted.
    Deleted,
    /// The user blocks its senders.
    Blocked,
    /// None of it names the user, who wants to know only of that.
    NotNamed,
}

impl Reason {
    /// The word for operators.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSubscription => "no_subscription",
            Self::NoAccount => "no_account",
            Self::Left => "left",
            Self::LevelNothing => "level_nothing",
            Self::Muted => "muted",
            Self::QuietHours => "quiet_hours",
            Self::Received => "received",
            Self::Read => "read",
            Self::Repeated => "repeated",
            Self::Own => "own",
            Self::Deleted => "deleted",
            Self::Blocked => "blocked",
            Self::NotNamed => "not_named",
        }
    }
}

/// The verdict on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Alert the user.
    Alert(Alert),
    /// Do not.
    Drop(Reason),
}

/// Decides a job that is due. Of several reasons against an alert the answer is the first in the order of [`Reason`].
#[must_use]
pub fn decide(situation: &Situation<'_>) -> Decision {
    match alert(situation) {
        Ok(alert) => Decision::Alert(alert),
        Err(reason) => Decision::Drop(reason),
    }
}

fn alert(situation: &Situation<'_>) -> Result<Alert, Reason> {
    let Situation { now, user, kind, level, read, candidates, .. } = *situation;
    let refuse = |reason: Reason, is_so: bool| if is_so { Err(reason) } else { Ok(()) };
    refuse(Reason::NoAccount, !situation.is_active)?;
    let from = situation.member_from.ok_or(Reason::Left)?;
    refuse(Reason::LevelNothing, level == AlertLevel::Nothing)?;
    refuse(Reason::Muted, situation.muted_until.is_some_and(|until| now < until))?;
    refuse(Reason::QuietHours, situation.quiet.is_some_and(|quiet| quiet.contain(now)))?;
    let only_named = level == AlertLevel::Mentions || kind == ChannelKind::Open;
    let mut left: Vec<&Candidate> = candidates.iter().collect();
    let mut keep = |reason: Reason, is_kept: &dyn Fn(&Candidate) -> bool| {
        left.retain(|candidate| is_kept(candidate));
        if left.is_empty() { Err(reason) } else { Ok(()) }
    };
    keep(Reason::Received, &|_| true)?;
    keep(Reason::Left, &|candidate| candidate.seq >= from)?;
    keep(Reason::Read, &|candidate| candidate.seq > read)?;
    keep(Reason::Own, &|candidate| candidate.sender != user)?;
    keep(Reason::Deleted, &|candidate| !candidate.is_deleted)?;
    keep(Reason::Blocked, &|candidate| !candidate.is_blocked)?;
    keep(Reason::NotNamed, &|candidate| candidate.names_user || !only_named)?;
    let named = left.iter().rfind(|candidate| candidate.names_user);
    let shown = named.or(left.last()).ok_or(Reason::Received)?;
    Ok(Alert { about: shown.seq, count: left.len(), names_user: shown.names_user })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: UserId = UserId::from_raw(1);
    const ADA: UserId = UserId::from_raw(2);

    fn said(seq: u64) -> Candidate {
        Candidate { seq: Seq::new(seq), sender: ADA, names_user: false, is_deleted: false, is_blocked: false }
    }

    fn situation(candidates: &[Candidate]) -> Situation<'_> {
        Situation {
            now: Millis::new(1_800_000_000_000),
            user: ME,
            is_active: true,
            member_from: Some(Seq::new(1)),
            kind: ChannelKind::Group,
            level: AlertLevel::All,
            muted_until: None,
            quiet: None,
            read: Seq::ZERO,
            candidates,
        }
    }

    fn dropped(situation: &Situation<'_>) -> Option<Reason> {
        match decide(situation) {
            Decision::Drop(reason) => Some(reason),
            Decision::Alert(_) => None,
        }
    }

    #[test]
    fn an_alert_shows_the_last_message_and_counts_all() {
        let all = [said(4), said(5), said(7)];
        let alert = Alert { about: Seq::new(7), count: 3, names_user: false };
        assert_eq!(decide(&situation(&all)), Decision::Alert(alert));
        let named = [said(4), Candidate { names_user: true, ..said(5) }, said(7)];
        let alert = Alert { about: Seq::new(5), count: 3, names_user: true };
        assert_eq!(decide(&situation(&named)), Decision::Alert(alert), "what names the user is shown");
    }

    #[test]
    fn what_is_read_deleted_blocked_or_own_is_left_out() {
        let all = [
            said(4),
            Candidate { is_deleted: true, ..said(5) },
            Candidate { is_blocked: true, ..said(6) },
            Candidate { sender: ME, ..said(7) },
            said(8),
        ];
        let alert =
            |about, count| Decision::Alert(Alert { about: Seq::new(about), count, names_user: false });
        assert_eq!(decide(&situation(&all)), alert(8, 2));
        assert_eq!(decide(&Situation { read: Seq::new(4), ..situation(&all) }), alert(8, 1));
        assert_eq!(decide(&situation(&all[..4])), alert(4, 1));
    }

    #[test]
    fn each_reason_against_an_alert_is_named() {
        let one = [said(4)];
        let base = situation(&one);
        let now = base.now;
        let quiet = QuietHours::parse("00:00", "23:59", "UTC").unwrap();
        let of = |candidate: Candidate| dropped(&situation(&[candidate]));
        assert_eq!(dropped(&Situation { is_active: false, ..base.clone() }), Some(Reason::NoAccount));
        assert_eq!(dropped(&Situation { member_from: None, ..base.clone() }), Some(Reason::Left));
        assert_eq!(
            dropped(&Situation { member_from: Some(Seq::new(5)), ..base.clone() }),
            Some(Reason::Left)
        );
        assert_eq!(
            dropped(&Situation { level: AlertLevel::Nothing, ..base.clone() }),
            Some(Reason::LevelNothing)
        );
        assert_eq!(
            dropped(&Situation { muted_until: Some(now.next()), ..base.clone() }),
            Some(Reason::Muted)
        );
        assert_eq!(dropped(&Situation { muted_until: Some(now), ..base.clone() }), None);
        assert_eq!(dropped(&Situation { quiet: Some(&quiet), ..base.clone() }), Some(Reason::QuietHours));
        assert_eq!(dropped(&situation(&[])), Some(Reason::Received));
        assert_eq!(dropped(&Situation { read: Seq::new(4), ..base.clone() }), Some(Reason::Read));
        assert_eq!(of(Candidate { sender: ME, ..said(4) }), Some(Reason::Own));
        assert_eq!(of(Candidate { is_deleted: true, ..said(4) }), Some(Reason::Deleted));
        assert_eq!(of(Candidate { is_blocked: true, ..said(4) }), Some(Reason::Blocked));
        assert_eq!(
            dropped(&Situation { level: AlertLevel::Mentions, ..base.clone() }),
            Some(Reason::NotNamed)
        );
        let open = Situation { kind: ChannelKind::Open, ..base };
        assert_eq!(
            dropped(&open),
            Some(Reason::NotNamed),
            "in an open channel only users that a message names are alerted"
        );
        let named = [Candidate { names_user: true, ..said(4) }];
        assert_eq!(dropped(&Situation { candidates: &named, ..open }), None);
    }
}
