//! The servers of one fleet, and the order in which they are tried.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Request, Url};

use super::Result;
use crate::endpoint::Endpoint;
use crate::error::ClientError;

/// At least one server.
#[derive(Debug)]
pub(super) struct Servers {
    /// Base URLs without a slash at the end.
    bases: Vec<String>,
    /// The server to try first: the one that answered last.
    first: AtomicUsize,
}

impl Servers {
    /// Only `http://` and `https://` are addresses of servers.
    pub(super) fn parse<S: AsRef<str>>(urls: &[S]) -> Result<Self> {
        let parse = |url: &S| {
            let bad = || ClientError::Address(url.as_ref().to_owned());
            Endpoint::parse(url.as_ref())?;
            let url = Url::parse(url.as_ref()).map_err(|_| bad())?;
            let is_base = matches!(url.scheme(), "http" | "https");
            is_base.then(|| url.as_str().trim_end_matches('/').to_owned()).ok_or_else(bad)
        };
        let bases = urls.iter().map(parse).collect::<Result<Vec<String>>>()?;
        if bases.is_empty() {
            return Err(ClientError::Address(String::new()));
        }
        Ok(Self { bases, first: AtomicUsize::new(0) })
    }

    pub(super) fn need_tls(&self) -> bool {
        self.bases.iter().any(|base| base.starts_with("https://"))
    }

    /// The base of the URLs that [`Self::for_server`] takes.
    pub(super) fn base(&self) -> &str {
        &self.bases[0]
    }

    /// All servers, in the order in which a call tries them.
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.first.load(Ordering::Relaxed), self.bases.len());
        (0..count).map(move |step| (first + step) % count)
    }

    /// The same request to another server; `None` if its body can be sent only once.
    pub(super) fn for_server(&self, request: &Request, server: usize) -> Option<Request> {
        let mut request = request.try_clone()?;
        if server > 0 {
            let path = request.url().as_str().strip_prefix(self.base())?;
            let url = Url::parse(&format!("{}{path}", self.bases[server])).ok()?;
            *request.url_mut() = url;
        }
        Some(request)
    }

    /// This server answered: it is tried first from now on.
    pub(super) fn note_answer(&self, server: usize) {
        self.first.store(server, Ordering::Relaxed);
    }

    /// The server that answered last is of no use: the next one is tried first.
    pub(super) fn skip_first(&self) {
        let next = (self.first.load(Ordering::Relaxed) + 1) % self.bases.len();
        self.first.store(next, Ordering::Relaxed);
    }

    /// The socket of a server.
    pub(super) fn endpoint(&self, server: usize) -> Result<Endpoint> {
        Endpoint::parse(&self.bases[server])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> Request {
        Request::new(reqwest::Method::GET, Url::parse(url).unwrap())
    }

    #[test]
    fn the_server_that_answered_last_is_tried_first() {
        let servers = Servers::parse(&["http://a", "http://b", "http://c"]).unwrap();
        let order = || servers.in_order().collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        servers.note_answer(1);
        assert_eq!(order(), [1, 2, 0]);
        servers.skip_first();
        assert_eq!(order(), [2, 0, 1]);
        servers.skip_first();
        assert_eq!(order(), [0, 1, 2]);
    }

    #[test]
    fn a_request_keeps_its_path_and_query_on_another_server() {
        let servers = Servers::parse(&["http://A.example:80/", "https://b.example/madang"]).unwrap();
        let request = request(&format!("{}/v1/users?handle=a%2Fb", servers.base()));
        let url = |server| servers.for_server(&request, server).unwrap().url().to_string();
        assert_eq!(url(0), "http://a.example/v1/users?handle=a%2Fb");
        assert_eq!(url(1), "https://b.example/madang/v1/users?handle=a%2Fb");
    }

    #[test]
    fn addresses_of_sockets_and_other_texts_are_refused() {
        for url in ["ws://a/v1/ws", "a", "", "ftp://a"] {
            assert!(Servers::parse(&[url]).is_err(), "{url}");
        }
        assert!(Servers::parse::<&str>(&[]).is_err());
    }
}
