//! A minimal HTTP client: one request per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// Time limit of a call. A disk may be slow; a server that does not answer fails the scenario.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.status < 300
    }

    /// The code of an error.
    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// Sends a request and waits for the answer.
pub(super) fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{token}\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said)?;
    parse(&String::from_utf8_lossy(&said))
}

fn parse(said: &str) -> Result<Answer> {
    let (head, body) = said.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok(Answer { status, body: serde_json::from_str(body).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed() {
        let answer =
            parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n{\"code\":\"unavailable\"}").unwrap();
        assert_eq!((answer.status, answer.code(), answer.is_success()), (503, "unavailable", false));
        assert!(parse("HTTP/1.1 503 Service").is_err());
    }
}
