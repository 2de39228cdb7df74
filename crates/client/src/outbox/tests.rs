use std::collections::BTreeMap;

use madang_ids::{ClientMsgId, MessageId, Millis, Seq};
use madang_proto::{Body, ErrorCode};
use proptest::prelude::*;

use super::*;

fn send(channel: u64, key: u128) -> Send {
    Send {
        channel_id: ChannelId::from_raw(channel),
        client_msg_id: ClientMsgId::from_uuid(key),
        body: Body { text: key.to_string(), ..Body::default() },
    }
}

fn ack(id: &RequestId, channel: u64, seq: u64) -> Ack {
    Ack {
        id: Some(id.clone()),
        channel_id: ChannelId::from_raw(channel),
        message_id: MessageId::from_raw(seq),
        seq: Seq::new(seq),
        at: Millis::new(seq),
    }
}

fn sent(outbox: &mut Outbox<()>, now: Instant) -> Option<(RequestId, u128)> {
    outbox.poll_send(now).map(|out| (out.request, out.send.client_msg_id.value()))
}

#[test]
fn a_full_queue_returns_the_message() {
    let mut outbox = Outbox::new(1, 8);
    outbox.enqueue(send(1, 1), ()).unwrap();
    let Full(message, ()) = outbox.enqueue(send(1, 2), ()).unwrap_err();
    assert_eq!(message.client_msg_id.value(), 2);
}

#[test]
fn channels_take_turns_within_the_limit_in_flight() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, 3);
    for (channel, key) in [(1, 1), (1, 2), (2, 3), (2, 4)] {
        outbox.enqueue(send(channel, key), ()).unwrap();
    }
    let keys: Vec<u128> = std::iter::from_fn(|| sent(&mut outbox, now)).map(|(_, key)| key).collect();
    assert_eq!(keys, [1, 3, 2]);
}

#[test]
fn after_a_failure_a_lane_holds_until_all_are_answered_and_continues_from_the_first() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, 8);
    for key in 1..=3 {
        outbox.enqueue(send(1, key), ()).unwrap();
    }
    let first = sent(&mut outbox, now).unwrap().0;
    let second = sent(&mut outbox, now).unwrap().0;
    let refusal = ErrorBody::unavailable("busy", 100);
    assert!(matches!(outbox.handle_error(&first, refusal.clone(), now), Answer::Again));
    let later = now + Duration::from_millis(100);
    assert!(sent(&mut outbox, later).is_none(), "the second is still in flight");
    assert!(matches!(outbox.handle_error(&second, refusal, now), Answer::Again));
    assert!(sent(&mut outbox, now).is_none(), "too early");
    assert_eq!(outbox.next_deadline(), Some(later));
    let keys: Vec<u128> = std::iter::from_fn(|| sent(&mut outbox, later)).map(|(_, key)| key).collect();
    assert_eq!(keys, [1, 2, 3]);
}

#[test]
fn an_expired_token_is_not_a_final_refusal() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, 8);
    outbox.enqueue(send(1, 1), ()).unwrap();
    let request = sent(&mut outbox, now).unwrap().0;
    let ended = ErrorBody::new(ErrorCode::Unauthorized, "the token has expired");
    assert!(matches!(outbox.handle_error(&request, ended, now), Answer::Again));
    assert!(sent(&mut outbox, now).is_none(), "the token is not renewed yet");
    assert_eq!(sent(&mut outbox, now + RETRY_AFTER).unwrap().1, 1);
}

#[test]
fn waits_grow_while_the_server_fails() {
    let mut now = Instant::now();
    let mut outbox = Outbox::new(10, 8);
    outbox.enqueue(send(1, 1), ()).unwrap();
    for wait_s in [1, 2, 4, 8, 16, 32, 32] {
        let request = sent(&mut outbox, now).unwrap().0;
        let failed = ErrorBody::new(ErrorCode::Internal, "internal server error");
        assert!(matches!(outbox.handle_error(&request, failed, now), Answer::Again));
        now += Duration::from_secs(wait_s);
        assert!(sent(&mut outbox, now - Duration::from_millis(1)).is_none(), "{wait_s} s");
    }
}

#[test]
fn the_end_of_a_wait_is_no_deadline_while_the_limit_in_flight_is_reached() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, 1);
    outbox.enqueue(send(1, 1), ()).unwrap();
    outbox.enqueue(send(2, 2), ()).unwrap();
    let first = sent(&mut outbox, now).unwrap().0;
    assert!(matches!(outbox.handle_error(&first, ErrorBody::unavailable("busy", 100), now), Answer::Again));
    let second = sent(&mut outbox, now).unwrap();
    assert_eq!((second.1, outbox.next_deadline()), (2, None));
    assert!(matches!(outbox.handle_ack(ack(&second.0, 2, 1)), Answer::Acked(..)));
    assert_eq!(outbox.next_deadline(), Some(now + Duration::from_millis(100)));
}

#[test]
fn a_final_refusal_settles_and_an_unknown_answer_changes_nothing() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, 8);
    outbox.enqueue(send(1, 1), ()).unwrap();
    let request = sent(&mut outbox, now).unwrap().0;
    assert!(matches!(outbox.handle_ack(ack(&RequestId("99".into()), 1, 1)), Answer::Unknown));
    let error = ErrorBody::new(ErrorCode::Conflict, "another body");
    assert!(matches!(outbox.handle_error(&request, error, now), Answer::Refused(..)));
    assert!(outbox.is_empty());
    assert!(matches!(outbox.handle_ack(ack(&request, 1, 1)), Answer::Unknown));
}

/// A server with one connection. It appends in order, fails every message after a failed one, and remembers keys.
#[derive(Default)]
struct Server {
    logs: BTreeMap<u64, Vec<u128>>,
    inbound: VecDeque<(RequestId, u64, u128)>,
}

impl Server {
    fn append(&mut self, channel: u64, key: u128) -> u64 {
        let log = self.logs.entry(channel).or_default();
        let index = log.iter().position(|row| *row == key).unwrap_or_else(|| {
            log.push(key);
            log.len() - 1
        });
        index as u64 + 1
    }

    /// Fails the oldest request and all others of its channel.
    fn fail(&mut self, outbox: &mut Outbox<()>, now: Instant) {
        let Some(&(_, failed, _)) = self.inbound.front() else { return };
        for (id, channel, key) in std::mem::take(&mut self.inbound) {
            if channel == failed {
                outbox.handle_error(&id, ErrorBody::unavailable("busy", 1), now);
            } else {
                self.inbound.push_back((id, channel, key));
            }
        }
    }

    fn answer(&mut self, outbox: &mut Outbox<()>) {
        if let Some((id, channel, key)) = self.inbound.pop_front() {
            let seq = self.append(channel, key);
            assert!(matches!(outbox.handle_ack(ack(&id, channel, seq)), Answer::Acked(..)));
        }
    }

    /// The connection breaks. The first `appended` messages in flight are in the log although no ack was received.
    fn cut(&mut self, outbox: &mut Outbox<()>, appended: usize) {
        for (_, channel, key) in std::mem::take(&mut self.inbound).into_iter().take(appended) {
            self.append(channel, key);
        }
        outbox.handle_disconnected();
    }
}

proptest! {
    #[test]
    fn each_channel_gets_each_message_once_and_in_order_through_any_failures(steps in prop::collection::vec((0_u8..5, 0_usize..4), 0..200)) {
        let mut now = Instant::now();
        let mut outbox = Outbox::new(1_000, 5);
        let mut server = Server::default();
        let mut said: BTreeMap<u64, Vec<u128>> = BTreeMap::new();
        let mut key = 0;
        for (step, count) in steps {
            match step {
                0 => {
                    key += 1;
                    let channel = count as u64 + 1;
                    said.entry(channel).or_default().push(key);
                    outbox.enqueue(send(channel, key), ()).unwrap();
                }
                1 => while let Some(out) = outbox.poll_send(now) {
                    let item = (out.request, out.send.channel_id.raw(), out.send.client_msg_id.value());
                    server.inbound.push_back(item);
                },
                2 => (0..count).for_each(|_| server.answer(&mut outbox)),
                3 => server.fail(&mut outbox, now),
                _ => server.cut(&mut outbox, count),
            }
            now += Duration::from_millis(1);
        }
        while !outbox.is_empty() {
            now += Duration::from_secs(1);
            while let Some(out) = outbox.poll_send(now) {
                let item = (out.request, out.send.channel_id.raw(), out.send.client_msg_id.value());
                server.inbound.push_back(item);
            }
            while !server.inbound.is_empty() {
                server.answer(&mut outbox);
            }
        }
        prop_assert_eq!(server.logs, said);
        prop_assert_eq!(outbox.in_flight(), 0);
    }
}
