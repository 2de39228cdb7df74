//! Access tokens of a service account (RFC 7523, "Using OAuth 2.0 for server to server applications", Google).

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use madang_ids::Millis;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::core::Verdict;
use crate::http::call;
use crate::notice::Answer;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// The life of an assertion; the limit is an hour.
const VALID_SECONDS: u64 = 3_600;

/// How long a call waits for a token, and for the answer to a request for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file that Google gives to an operator, as far as it is used.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    token_uri: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Serialize)]
struct Form<'a> {
    grant_type: &'a str,
    assertion: &'a str,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

struct Token {
    bearer: String,
    /// When it is renewed: after 80 % of its life.
    renew_at: Millis,
}

/// Gets access tokens, and keeps the last one.
pub(super) struct Grants {
    account: ServiceAccount,
    key: EncodingKey,
    /// One call at a time asks for a token; the others wait for it.
    current: Mutex<Option<Token>>,
}

impl Grants {
    pub(super) fn new(account: ServiceAccount) -> Result<Self, String> {
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .map_err(|_| "private_key is not an RSA key in PEM".to_owned())?;
        let grants = Self { account, key, current: Mutex::default() };
        // A damaged key is found by signing only.
        grants.assertion(Millis::ZERO).ok_or("private_key cannot sign")?;
        Ok(grants)
    }

    /// The token to use now.
    ///
    /// # Errors
    /// The answer that takes the place of that of the service.
    pub(super) async fn get(&self, client: &Client, now: Millis) -> Result<String, Answer> {
        let not_now = |why| Answer::without(Verdict::NotTaken { after: None }, why);
        let waited = timeout(PATIENCE, self.current.lock()).await;
        let mut current = waited.map_err(|_| not_now("no access token in time"))?;
        if let Some(token) = current.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.bearer.clone());
        }
        let assertion = self.assertion(now);
        let assertion =
            assertion.ok_or_else(|| Answer::without(Verdict::Credential, "the key cannot sign"))?;
        let form = Form { grant_type: GRANT, assertion: &assertion };
        // Whatever happens to this call, the message was not sent.
        let not_sent = |answer: Answer| Answer { verdict: Verdict::NotTaken { after: None }, ..answer };
        let received = call(client.post(&self.account.token_uri).form(&form).timeout(PATIENCE))
            .await
            .map_err(not_sent)?;
        let granted =
            serde_json::from_slice::<Granted>(&received.body).ok().filter(|_| received.status == 200);
        let Some(Granted { access_token, expires_in }) = granted else {
            let verdict = match received.status {
                400..=403 => Verdict::Credential,
                _ => Verdict::NotTaken { after: received.retry_after.or(Some(Duration::from_secs(10))) },
            };
            return Err(Answer::of(verdict, received.status, &received.body));
        };
        let bearer = format!("Bearer {access_token}");
        let renew_at = now.plus(expires_in.min(VALID_SECONDS) * 800);
        *current = Some(Token { bearer: bearer.clone(), renew_at });
        Ok(bearer)
    }

    /// The service does not accept this token any more.
    pub(super) async fn expire(&self, bearer: &str) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|token| token.bearer == bearer) {
            *current = None;
        }
    }

    fn assertion(&self, now: Millis) -> Option<String> {
        let ServiceAccount { private_key_id, client_email, token_uri, .. } = &self.account;
        let iat = now.get() / 1_000;
        let claims =
            Claims { iss: client_email, scope: SCOPE, aud: token_uri, iat, exp: iat + VALID_SECONDS };
        let header = Header { kid: Some(private_key_id.clone()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, &claims, &self.key).ok()
    }
}
