//! Echoes messages instead of serving chat, for the Autobahn testsuite (`cargo xtask autobahn`). It uses the same handshake,
//! socket, queue and end of a connection. Without the feature `echo` it is off at compile time.

use madang_proto::limits;
use tokio_tungstenite::tungstenite::Message;

use crate::gateway::connection::Connection;
use crate::gateway::delivery::encode::Frame;
use crate::gateway::socket::ConnectionEnd;

/// Whether connections echo their messages.
pub(in crate::gateway) const IS_ON: bool = cfg!(feature = "echo");

/// The largest message that the library accepts. The testsuite measures with 16 MiB.
pub(in crate::gateway) const MESSAGE_BYTES: usize =
    if IS_ON { 16 * 1024 * 1024 } else { limits::FRAME_BYTES_LIBRARY };

/// Echoes messages until the connection ends.
pub(in crate::gateway) async fn run(connection: &mut Connection) -> ConnectionEnd {
    loop {
        if let Err(end) = echo_one(connection).await {
            return end;
        }
    }
}

async fn echo_one(connection: &mut Connection) -> Result<(), ConnectionEnd> {
    let frame = match connection.recv().await? {
        Message::Text(text) => Some(Frame::text(text.as_str().to_owned())),
        Message::Binary(bytes) => Some(Frame::binary(bytes)),
        // The library has answered the control frame.
        _ => None,
    };
    frame.into_iter().for_each(|frame| connection.outbound().push(frame));
    connection.write_all().await
}
