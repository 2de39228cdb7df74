//! Sends a message.

use std::sync::Arc;

use madang_engine::body;
use madang_engine::home::{Command, Reply, Sent};
use madang_engine::log::RowKey;
use madang_engine::overload::Class;
use madang_ids::{ChannelId, ClientMsgId, LogId, Seq};
use madang_proto::{Ack, Body, ErrorBody};
use madang_store::{Channel, urgently};
use tokio::sync::oneshot;

use crate::operations::costs::Cost;
use crate::operations::messages::history::readable;
use crate::operations::{Caller, Operations};
use crate::refusal::Result;

impl Operations {
    /// Checks a message and hands it to the home of its channel. `answer` is called once, when the message is durable or refused.
    /// Sends of one connection are appended in the order of these calls.
    ///
    /// # Errors
    /// Refusals that need no answer of the home. `answer` is not called then.
    pub async fn send(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        client_msg_id: ClientMsgId,
        body: Body,
        answer: impl FnOnce(Result<Ack, ErrorBody>) + Send + 'static,
    ) -> Result<()> {
        body::check(&body)?;
        self.shedding.admit(Class::Messages, caller.user_id.raw())?;
        self.callers.take_send(caller.user_id, Cost::mentions(&body), body::json_bytes(&body))?;
        let channel = urgently(self.check_send(caller, channel_id, body.reply_to)).await?;
        let key = RowKey { sender: caller.user_id, client_msg_id, body_hash: body::hash(&body) };
        let command = Command::Send { origin: caller.origin, key, body };
        self.homes.submit(&channel, command, Box::new(move |reply| answer(ack(channel_id, reply))));
        Ok(())
    }

    /// Sends a message and waits for the answer. Dropping the future does not cancel the send.
    ///
    /// # Errors
    /// The refusal.
    pub async fn send_and_wait(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        client_msg_id: ClientMsgId,
        body: Body,
    ) -> Result<Ack> {
        let (sender, receiver) = oneshot::channel();
        self.send(caller, channel_id, client_msg_id, body, move |answer| drop(sender.send(answer))).await?;
        Ok(receiver.await.unwrap_or_else(|_| Err(ErrorBody::unavailable("the server is stopping", 1000)))?)
    }

    /// Reads what a send needs before it is handed over. These reads go before others, because an ack waits for them.
    async fn check_send(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        reply_to: Option<Seq>,
    ) -> Result<Arc<Channel>> {
        let channel = self.channel(channel_id).await?;
        if let Some(target) = reply_to {
            self.check_reply(caller, &channel, target).await?;
        }
        Ok(channel)
    }

    /// Checks that a message answers one that its sender may read.
    async fn check_reply(&self, caller: Caller, channel: &Channel, target: Seq) -> Result<()> {
        let id = channel.card.id;
        let membership = self.store.membership(caller.user_id, id).await?;
        let Some(membership) = membership else { return Err(self.refuse_stranger(id).await) };
        let rows = self.logs.rows(LogId::Channel(id), target..=target, 1).await?;
        let is_message = rows.first().is_some_and(|row| row.entry.content.message().is_some());
        if is_message && readable(channel.card.kind, &membership.spans)?.contains(target) {
            return Ok(());
        }
        let message = format!("body.reply_to {target} is not a message of this channel that you may read");
        Err(ErrorBody::invalid("body.reply_to", message).into())
    }
}

fn ack(channel_id: ChannelId, reply: Reply) -> Result<Ack, ErrorBody> {
    match reply {
        Reply::Sent(Sent { message_id, seq, at, .. }) => {
            Ok(Ack { id: None, channel_id, message_id, seq, at })
        }
        Reply::Refused(error) => Err(error),
        _ => Err(ErrorBody::new(madang_proto::ErrorCode::Internal, "internal server error")),
    }
}
