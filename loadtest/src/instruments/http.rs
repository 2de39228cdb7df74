//! A minimal HTTP/1.1 client with one keep-alive connection. The generator makes thousands of calls a second and shares
//! its cores with the server; `reqwest` would cost several times as much.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Initial size of the buffer. Most answers are smaller.
const BUFFER_BYTES: usize = 4 * 1024;
/// Ends the head of an answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A connection with at most one call in progress.
#[derive(Debug)]
pub(crate) struct Http {
    addr: String,
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Status and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Http {
    pub(crate) async fn connect(addr: &str, source: IpAddr) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        socket.set_nodelay(true)?;
        let stream = socket.connect(addr.parse()?).await.context("cannot connect")?;
        Ok(Self { addr: addr.to_owned(), stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Makes a call without a body. `line` is such as `GET /metrics`. After an error the connection is useless.
    pub(crate) async fn call(&mut self, line: &str, token: Option<&str>) -> anyhow::Result<Answer<'_>> {
        let mut request = format!("{line} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n", self.addr);
        if let Some(token) = token {
            request.push_str("Authorization: Bearer ");
            request.push_str(token);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        let head = loop {
            filled += self.fill(filled).await?;
            if let Some(at) = memchr::memmem::find(&self.buffer[..filled], HEAD_END) {
                break Head::parse(&self.buffer[..at])?.at(at + HEAD_END.len());
            }
        };
        let end = head.body_from + head.length;
        while filled < end {
            filled += self.fill(filled).await?;
        }
        ensure!(filled == end, "bytes after the answer");
        Ok(Answer { status: head.status, body: &self.buffer[head.body_from..end] })
    }

    async fn fill(&mut self, filled: usize) -> anyhow::Result<usize> {
        if filled == self.buffer.len() {
            self.buffer.resize(filled * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[filled..]).await?;
        ensure!(count > 0, "the server closed the connection");
        Ok(count)
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    body_from: usize,
    /// Bytes of the body.
    length: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(bytes)?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.with_context(|| format!("not an answer: {first:?}"))?;
        let mut length = (status == 204).then_some(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("an answer in chunks, which this client does not read");
            }
        }
        let length = length.context("an answer without a length")?;
        Ok(Self { status, body_from: 0, length })
    }

    fn at(self, body_from: usize) -> Self {
        Self { body_from, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn heads_are_parsed() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nX: y").unwrap();
        assert_eq!((head.status, head.length), (200, 12));
        assert_eq!(Head::parse(b"HTTP/1.1 204 No Content").unwrap().length, 0);
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").is_err());
        assert!(Head::parse(b"SSH-2.0").is_err());
    }

    #[tokio::test]
    async fn answers_follow_each_other_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut http = Http::connect(&addr, [127, 0, 0, 1].into()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let long = "x".repeat(3 * BUFFER_BYTES);
        let answers = [
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        ];
        for (answer, length) in answers.iter().zip([0, long.len()]) {
            server.write_all(answer.as_bytes()).await.unwrap();
            let answer = http.call("GET /", Some("token")).await.unwrap();
            assert_eq!(answer.body.len(), length);
        }
        let mut said = vec![0; 1024];
        let count = server.read(&mut said).await.unwrap();
        let said = String::from_utf8_lossy(&said[..count]).into_owned();
        assert_eq!(said.matches("GET / HTTP/1.1\r\n").count(), 2);
        assert!(said.contains("Authorization: Bearer token\r\n"));
    }
}
