//! Each kind of damage is found, where it is; and nothing is found where nothing is wrong.

use madang_engine::seats::{Member, SeatChange};
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Epoch, Millis, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{ChannelCard, ChannelKind, Role};

use super::*;
use crate::channels::{Channel, ChannelStore, Membership, OverviewOrder};
use crate::commit_order::CommitOrder;
use crate::embedded::Embedded;
use crate::embedded::tests::{config, fill, log};
use crate::log::{Head, LogStore};
use crate::trim::TrimStep;
use crate::upkeep::Upkeep;

/// Does something to a file.
type Harm = fn(&mut Vec<u8>);

fn checked(folder: &Path) -> Report {
    check(folder, &mut |_| {}).unwrap()
}

/// Two channels, a user's log, a member, two starts.
async fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium { synchronous: "OFF", ..Medium::default() };
    let store = Embedded::open_on(&config(folder.path()), medium).unwrap();
    store.begin_epoch(Epoch::from_raw(1)).await.unwrap();
    fill(&store, log(1), Head::default(), 50).await;
    fill(&store, log(2), Head::default(), 1).await;
    store.begin_epoch(Epoch::from_raw(2)).await.unwrap();
    fill(&store, LogId::User(UserId::from_raw(5)), Head::default(), 2).await;
    join(&store, 1, 5).await;
    folder
}

#[tokio::test]
async fn nothing_is_found_in_a_folder_that_is_well() {
    let folder = folder().await;
    let report = checked(folder.path());
    assert_eq!(report.findings, []);
    assert_eq!((report.rows, report.logs, report.position.get(), report.last_ms), (53, 3, 53, 50));
    assert_eq!(report.rows_without_checksum, 0);
}

#[tokio::test]
async fn somebody_who_was_banned_and_never_was_here_is_no_damage() {
    let folder = folder().await;
    let store = Embedded::open(config(folder.path())).unwrap();
    let member = Member {
        user_id: UserId::from_raw(6),
        role: Role::Member,
        joined_at: Millis::ZERO,
        spans: Spans::default(),
        has_accepted: false,
        muted: None,
        banned: Some(Restriction { until: None }),
        pending: None,
    };
    let seats = store.seats(ChannelId::from_raw(1)).await.unwrap();
    let (if_rev, count) = (seats.rev, seats.count);
    let change = SeatChange { channel: ChannelId::from_raw(1), if_rev, count, members: vec![member] };
    store.change_seats(change, &[]).await.unwrap();
    drop(store);
    assert_eq!(checked(folder.path()).findings, []);
}

#[tokio::test]
async fn what_was_forgotten_of_an_own_log_is_no_damage_and_what_is_missing_besides_is() {
    for (sql, told) in [
        ("UPDATE position SET value = value", None),
        ("DELETE FROM user_log WHERE seq = 2", Some("seq 3: comes after seq 1")),
        ("DELETE FROM user_log", Some("the head has no row")),
        ("UPDATE user_heads SET trimmed = 0", Some("seq 2: comes after seq 0")),
    ] {
        let folder = folder().await;
        let store = Embedded::open(config(folder.path())).unwrap();
        let user = LogId::User(UserId::from_raw(5));
        let head = store.heads(&[user]).await.unwrap()[0];
        fill(&store, user, head, 1).await;
        let step = TrimStep { after: None, users: 9, own_rows: 2, left_channels: 9, forgets: 9 };
        assert_eq!(store.trim(step).await.unwrap().own_rows, 1);
        drop(store);
        let db = Connection::open(folder.path().join(DATABASE)).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        let report = checked(folder.path());
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        match told {
            Some(told) => assert!(findings.iter().any(|it| it.contains(told)), "{sql}: {findings:?}"),
            None => assert_eq!((findings, report.rows, report.trimmed), (vec![], 53, 1)),
        }
    }
}

#[tokio::test]
async fn each_damage_is_found_at_its_place() {
    let damage = [
        ("UPDATE log SET content = '{}' WHERE id = 1 AND seq = 7", "seq 7: differs from its checksum"),
        (
            "UPDATE log SET content = '{}', checksum = row_checksum(id, seq, pos, at_ms, ordinal, version, sender, client_msg_id,
             body_hash, '{}') WHERE id = 1 AND seq = 7",
            "seq 7: its content cannot be read: kind: is missing",
        ),
        ("UPDATE user_log SET client_msg_id = x'00' WHERE seq = 2", "seq 2: differs from its checksum"),
        ("DELETE FROM log WHERE id = 1 AND seq = 7", "seq 8: comes after seq 6"),
        ("UPDATE log SET pos = 0 WHERE id = 1 AND seq = 7", "seq 7: its position 0 is not above 6"),
        ("UPDATE log SET at_ms = 1 WHERE id = 1 AND seq = 7", "seq 7: its time 1 is before 6"),
        ("UPDATE log SET ordinal = 9 WHERE id = 1 AND seq = 7", "seq 7: its ordinal 9 does not follow 0"),
        ("DELETE FROM log WHERE id = 1 AND seq = 50", "seq 49: is the last row"),
        ("UPDATE heads SET ordinal = 1 WHERE id = 1", "seq 50: is the last row"),
        ("DELETE FROM heads WHERE id = 1", "the log has no head"),
        ("DELETE FROM log WHERE id = 2", "seq 1: the head has no row"),
        ("UPDATE position SET value = 99", "the position is 99, and the greatest of a row is 53"),
        (
            "UPDATE position SET value = 52",
            "positions up to 53 were acked, the database ends at 52: 1 are lost",
        ),
        ("UPDATE seats SET count = 2", "2 seats are taken, but there are 1 members"),
        ("DELETE FROM seats", "has members but no seats"),
        ("DELETE FROM memberships", "is a member, but their membership differs"),
        ("UPDATE memberships SET role = 'owner'", "is a member, but their membership differs"),
        ("UPDATE memberships SET has_accepted = 0", "differ in whether the user has accepted"),
        ("INSERT INTO group_invitations VALUES (5, 99, 1, 1, 'waiting', 1, 1)", "refers to no group"),
        ("INSERT INTO group_invitations VALUES (5, 1, 1, 1, 'lost', 1, 1)", "an unknown state"),
        ("DELETE FROM members", "has a membership but is not a member"),
        ("UPDATE epochs SET start_pos = 52 WHERE start_order = 1", "start 2 begins at position 51, after 52"),
        ("DROP TABLE epochs", "epochs cannot be read further"),
    ];
    for (sql, told) in damage {
        let folder = folder().await;
        let db = Connection::open(folder.path().join(DATABASE)).unwrap();
        checksum::register(&db).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        let report = checked(folder.path());
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.iter().any(|finding| finding.contains(told)), "{sql}: {findings:?}");
    }
}

/// What users see of the members of channel 1 and of the channels of user 5.
async fn seen(store: &Embedded) -> (usize, usize, usize, usize) {
    let (user, channel) = (UserId::from_raw(5), ChannelId::from_raw(1));
    let members = store.members_ever(channel, None, 2).await.unwrap().len();
    let list = store.overview(user, OverviewOrder::Id(None), 1).await.unwrap().len();
    let active = store.overview(user, OverviewOrder::Activity(None), 9).await.unwrap().len();
    let scan = store.scan(user, Position::ZERO, 1_000, 1_000).await.unwrap().unwrap();
    (members, list, active, scan.items.iter().filter(|item| matches!(item.log, LogId::Channel(_))).count())
}

#[tokio::test]
async fn a_row_of_a_member_or_a_channel_that_cannot_be_read_costs_itself_alone() {
    let damage = [
        ("UPDATE position SET value = value", (2, 1, 2, 2), None),
        // The membership says the same.
        (
            "UPDATE members SET spans = '[' WHERE channel = 1 AND user = 5",
            (2, 1, 2, 2),
            Some("its member 5 cannot"),
        ),
        (
            "UPDATE members SET role = 'king' WHERE channel = 1 AND user = 5",
            (2, 1, 2, 2),
            Some("its member 5 cannot"),
        ),
        // And the other way round.
        (
            "UPDATE memberships SET spans = '[' WHERE channel = 1 AND user = 5",
            (2, 1, 2, 2),
            Some("the membership of user 5 cannot"),
        ),
        // It is lost in both, and the member behind it and the other channel are there.
        (
            "UPDATE members SET spans = '[' WHERE channel = 1 AND user = 5;
             UPDATE memberships SET spans = '[' WHERE channel = 1 AND user = 5",
            (1, 1, 1, 1),
            Some("its member 5 cannot"),
        ),
        ("UPDATE channels SET pins = '[' WHERE id = 1", (2, 1, 1, 2), Some("channel 1: its row cannot")),
    ];
    for (sql, expected, told) in damage {
        let folder = folder().await;
        let store = Embedded::open(config(folder.path())).unwrap();
        for id in [1, 2] {
            let card = ChannelCard::new(ChannelId::from_raw(id), ChannelKind::Group, None, None);
            let row = Channel::new(card, UserId::from_raw(5), Millis::ZERO, 9);
            store.create_channel(&row).await.unwrap();
        }
        join(&store, 2, 5).await;
        join(&store, 1, 6).await;
        drop(store);
        let db = Connection::open(folder.path().join(DATABASE)).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        let findings: Vec<String> = checked(folder.path()).findings.iter().map(ToString::to_string).collect();
        let is_recorded = told.is_none_or(|told| findings.iter().any(|finding| finding.contains(told)));
        assert!(is_recorded && findings.is_empty() == told.is_none(), "{sql}: {findings:?}");
        let store = Embedded::open(config(folder.path())).unwrap();
        assert_eq!(seen(&store).await, expected, "{sql}");
    }
}

async fn join(store: &Embedded, id: u64, user: u64) {
    let (channel_id, user_id) = (ChannelId::from_raw(id), UserId::from_raw(user));
    let (spans, version) = (Spans::since(Seq::new(1)), Seq::new(1));
    let (role, joined_at) = (Role::Member, Millis::ZERO);
    let member = Member {
        user_id,
        role,
        joined_at,
        spans: spans.clone(),
        has_accepted: true,
        muted: None,
        banned: None,
        pending: None,
    };
    let seats = store.seats(channel_id).await.unwrap();
    let change =
        SeatChange { channel: channel_id, if_rev: seats.rev, count: seats.count + 1, members: vec![member] };
    let membership =
        Membership { user_id, channel_id, role, spans, version, in_inbox: true, has_accepted: true };
    store.change_seats(change, &[membership]).await.unwrap();
}

#[tokio::test]
async fn a_lost_page_a_lost_end_and_a_lost_header_are_found() {
    let damage: [(&str, Harm); 3] = [
        ("the database file", |bytes| bytes[8 * 4096..9 * 4096].fill(0)),
        ("its header says", |bytes| bytes.truncate(5 * 4096)),
        ("starts with zeros", |bytes| bytes.fill(0)),
    ];
    for (told, damage) in damage {
        let folder = folder().await;
        let file = folder.path().join(DATABASE);
        let mut bytes = std::fs::read(&file).unwrap();
        damage(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        let findings = checked(folder.path()).findings;
        assert!(findings.iter().any(|finding| finding.what.contains(told)), "{told}: {findings:?}");
    }
}

#[test]
fn a_folder_in_use_or_of_nobody_is_not_checked() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(check(folder.path(), &mut |_| {}), Err(OpenError::Folder { .. })));
    let _store = Embedded::open(config(folder.path())).unwrap();
    assert!(matches!(check(folder.path(), &mut |_| {}), Err(OpenError::InUse { .. })));
}
