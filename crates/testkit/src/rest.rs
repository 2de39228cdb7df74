//! REST calls as any client makes them: method, path, token, body, and the answer.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// Calls one server.
#[derive(Debug, Clone)]
pub struct Rest {
    url: String,
    client: Client,
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; `Null` if there is none.
    pub body: Value,
}

impl Rest {
    /// A caller of the server at `http://…`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        // An open connection would keep the store of a stopped node open.
        // No call uses TLS, so the root certificates of the system are not read.
        let client = Client::builder().pool_max_idle_per_host(0).tls_certs_only([]).build().unwrap();
        Self { url: url.to_owned(), client }
    }

    /// Sends a request `method path`.
    ///
    /// # Errors
    /// If the server cannot be reached, or its answer is not JSON.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.request(method, path, token)?;
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    /// Replaces something, if it still has this `ETag`.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn put_if_match(&self, path: &str, token: &str, tag: &str, body: &Value) -> Answer {
        let request = self.request("PUT", path, Some(token)).unwrap();
        answer(request.header("If-Match", tag).json(body)).await.unwrap()
    }

    /// Sends a request with this text as its body; an empty text means no body.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn send_text(&self, method: &str, path: &str, token: Option<&str>, text: &str) -> Answer {
        let mut request = self.request(method, path, token).unwrap();
        if !text.is_empty() {
            request = request.header("Content-Type", "application/json").body(text.to_owned());
        }
        answer(request).await.unwrap()
    }

    fn request(&self, method: &str, path: &str, token: Option<&str>) -> anyhow::Result<RequestBuilder> {
        let method = Method::from_bytes(method.as_bytes())?;
        let request = self.client.request(method, format!("{}{path}", self.url));
        Ok(if let Some(token) = token { request.bearer_auth(token) } else { request })
    }

    /// Sends a request that must succeed; returns the body of the answer.
    ///
    /// # Panics
    /// If the answer is an error.
    pub async fn must(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Value {
        let answer = self.call(method, path, token, None, body).await.unwrap();
        assert!((200..300).contains(&answer.status), "{method} {path} → {answer:?}");
        answer.body
    }

    /// Signs a user up; returns the answer.
    pub async fn sign_up(&self, handle: &str) -> Value {
        let body = serde_json::json!({
            "handle": handle, "display_name": handle, "password": "correct horse", "device_name": "phone",
        });
        self.must("POST", "/v1/accounts", None, Some(&body)).await
    }
}

async fn answer(request: RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.timeout(crate::PATIENCE).send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    Ok(Answer { status, body })
}
