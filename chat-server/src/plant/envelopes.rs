//! Between the inbox and the gateway: deliveries that are left out, repeated, exchanged or changed.

use std::collections::VecDeque;
use std::time::Duration;

use madang_bus::{Delivery, Envelope};
use madang_ids::{LogId, UserId};
use madang_proto::Content;
use madang_store::{Row, SharedRows};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Fault, strikes};

/// The time for which a delivery waits for one to exchange its rows with. The deliveries behind it wait too.
const PATIENCE: Duration = Duration::from_millis(500);

/// Passes envelopes on, and spoils some of them. Ends when one of the two channels does.
pub(crate) async fn spoil_envelopes(mut from: mpsc::Receiver<Envelope>, to: mpsc::Sender<Envelope>) {
    while let Some(envelope) = from.recv().await {
        let mut ready = spoil(envelope);
        if let Some(log) = ready.front_mut().and_then(messages).map(|delivery| delivery.log)
            && strikes(Fault::SwapTwo)
        {
            wait_for_next(&mut from, &mut ready, log).await;
            swap_rows(&mut ready);
        }
        for envelope in ready {
            if to.send(envelope).await.is_err() {
                return;
            }
        }
    }
}

/// The delivery, if it has messages.
fn messages(envelope: &mut Envelope) -> Option<&mut Delivery> {
    match envelope {
        Envelope::Delivery(delivery)
            if delivery.rows.iter().any(|row| row.entry.content.message().is_some()) =>
        {
            Some(delivery)
        }
        _ => None,
    }
}

/// Returns the envelopes to pass on instead of this one.
fn spoil(mut envelope: Envelope) -> VecDeque<Envelope> {
    change_rows(&mut envelope);
    let mut spoilt = None;
    if let Some(delivery) = messages(&mut envelope) {
        if strikes(Fault::SkipFanout) {
            spoilt = split_one(delivery, |_| SharedRows::from(&[][..]));
        }
        if strikes(Fault::DeliverTwice) {
            spoilt = split_one(delivery, |rows| SharedRows::from(&[rows, rows].concat()[..]));
        }
    }
    [envelope].into_iter().chain(spoilt.map(Envelope::Delivery)).collect()
}

/// Delivers other rows to one of the recipients: the judge must notice what only the devices of one user miss.
fn split_one(delivery: &mut Delivery, rows: impl FnOnce(&[Row]) -> SharedRows) -> Option<Delivery> {
    let middle = delivery.recipients.len() / 2;
    let recipient = delivery.recipients.get(middle).copied()?;
    delivery.recipients.remove(middle);
    Some(Delivery { log: delivery.log, rows: rows(&delivery.rows), recipients: vec![recipient] })
}

fn change_rows(envelope: &mut Envelope) {
    let rows = match envelope {
        Envelope::Delivery(delivery) => &mut delivery.rows,
        Envelope::Open(open) => &mut open.rows,
        _ => return,
    };
    change(rows, |content| match content {
        Content::Edited(change) if strikes(Fault::EditNotDelivered) => change.message = None,
        // The gateway ends the subscription of the user who is named here. This user has none.
        Content::Left { user_id, .. } | Content::Banned { user_id, .. } if strikes(Fault::BanLeaks) => {
            *user_id = UserId::from_raw(1);
        }
        _ => {}
    });
}

fn change(rows: &mut SharedRows, mut of_each: impl FnMut(&mut Content)) {
    let mut changed: Vec<Row> = rows.to_vec();
    changed.iter_mut().for_each(|row| of_each(&mut row.entry.content));
    *rows = SharedRows::from(&changed[..]);
}

/// Receives envelopes until one delivers messages of `log`, or for [`PATIENCE`].
async fn wait_for_next(from: &mut mpsc::Receiver<Envelope>, ready: &mut VecDeque<Envelope>, log: LogId) {
    let next = async {
        while let Some(envelope) = from.recv().await {
            ready.push_back(envelope);
            let last = ready.back_mut().and_then(messages);
            if last.is_some_and(|delivery| delivery.log == log) {
                return;
            }
        }
    };
    // If none comes, the last envelope is of another log, and nothing is exchanged.
    let _ = timeout(PATIENCE, next).await;
}

/// Exchanges the rows of the first and the last delivery, if both are of one log.
fn swap_rows(ready: &mut VecDeque<Envelope>) {
    let [first, .., last] = ready.make_contiguous() else { return };
    if let (Some(first), Some(last)) = (messages(first), messages(last))
        && first.log == last.log
    {
        std::mem::swap(&mut first.rows, &mut last.rows);
    }
}
