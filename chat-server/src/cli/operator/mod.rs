//! Requests of an operator to a data folder. If its server runs, they go over a socket in the folder, which is private to its
//! owner; otherwise the command opens the folder itself.

mod carry_out;
mod client;
mod request;
mod server;

pub(super) use carry_out::back_up;
pub(super) use client::{ask_folder, ask_server};
pub(super) use request::{AdminAnswer, Ask, ConfigAsk, InvitationsAsk, OperatorAsk, PushAsk, UsersAsk};
pub(super) use server::listen;

const SOCKET: &str = "operator.sock";
const REQUEST_BYTES: u64 = 64 * 1024;
/// A page of 500 accounts takes half of it.
const ANSWER_BYTES: u64 = 1024 * 1024;
