//! HTTP requests made by hand: from any address of this machine, with any header.

use std::net::SocketAddr;

use madang_chat_server::config::Config;
use madang_testkit::{PATIENCE, Storage, TestNode, manual_clock};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> TestNode {
    let mut config = Config::default();
    change(&mut config);
    TestNode::start(config, &Storage::model(), manual_clock().0).await.unwrap()
}

/// An answer, not decoded.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// All values of a header, in the order of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values = self.head.lines().filter_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        let values: Vec<String> = values.collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends a request from an address of this machine, with header lines besides those of every request.
pub(crate) async fn ask_from(
    from: &str,
    to: SocketAddr,
    line: &str,
    headers: &[String],
    body: &str,
) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: madang\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    let mut stream = connect(from, to).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) async fn ask(node: &TestNode, line: &str, headers: &[&str]) -> Answer {
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    ask_from("127.0.0.1", node.addr, line, &headers, "").await
}
