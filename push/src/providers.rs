//! The providers that the configuration names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use madang_proto::rest::PushInfo;
use madang_proto::{ErrorBody, PushProvider, PushTarget};
use url::Url;

use crate::apns::Apns;
use crate::config::PushConfig;
use crate::fcm::Fcm;
use crate::http::{self, LookUp};
use crate::notice::Provider;
use crate::shelf::Keep;
use crate::web_push::{self, Endpoint, Vapid, WebPush};
use crate::webhook::Webhook;

/// The longest token of APNs. Apple names no length; tokens have 64 digits today.
const APNS_TOKEN_CHARS: usize = 400;
/// The longest token of FCM.
const FCM_TOKEN_BYTES: usize = 4_096;

/// The adapters. One that could not be opened is absent, and the others work.
#[derive(Default)]
pub struct Providers {
    web_push: Option<WebPush>,
    apns: Option<Apns>,
    fcm: Option<Fcm>,
    webhook: Option<Webhook>,
    info: PushInfo,
    /// Hosts that may be endpoints although they are not public.
    pub(crate) allowed: Vec<String>,
}

impl Providers {
    /// Opens what is configured. In the folder of one process are the key of Web Push, `vapid.pem`, if the configuration names none, which
    /// is created if it is missing, and the token for APNs. Returns what is wrong as well: each text names the setting.
    pub fn open(config: &PushConfig, keep: &Keep, look_up: &Arc<dyn LookUp>) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut opened = Self { allowed: config.web_push.allowed_hosts.clone(), ..Self::default() };
        let roots = http::roots(&config.extra_roots_file).unwrap_or_else(|error| {
            problems.push(format!("push.extra_roots_file {}: {error}", config.extra_roots_file.display()));
            Vec::new()
        });
        let mut note = |problem: String| problems.push(problem);
        if !config.web_push.contact.is_empty() {
            if Url::parse(&config.link).is_err() {
                tracing::warn!(
                    link = config.link,
                    "push.link is not a whole address such as https://chat.example: Safari shows \
                     notifications only with one"
                );
            }
            let vapid = open_vapid(config, keep.vapid_file());
            let made = vapid.and_then(|vapid| WebPush::new(vapid, &opened.allowed, look_up, &roots));
            opened.web_push = made.map_err(&mut note).ok();
        }
        if !config.apns.key_file.as_os_str().is_empty() {
            opened.apns = Apns::open(&config.apns, &roots, keep.token_shelf()).map_err(&mut note).ok();
        }
        if !config.fcm.service_account_file.as_os_str().is_empty() {
            opened.fcm = Fcm::open(&config.fcm, &roots).map_err(&mut note).ok();
        }
        if config.webhook.enabled {
            opened.webhook = Webhook::new(&opened.allowed, look_up, &roots).map_err(&mut note).ok();
        }
        opened.info = opened.describe(config);
        (opened, problems)
    }

    /// Whether there is any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.info.providers.is_empty()
    }

    /// What an app needs to subscribe.
    #[must_use]
    pub const fn info(&self) -> &PushInfo {
        &self.info
    }

    /// The adapter of a provider.
    #[must_use]
    pub fn of(&self, provider: PushProvider) -> Option<&dyn Provider> {
        match provider {
            PushProvider::Apns => self.apns.as_ref().map(|it| it as _),
            PushProvider::Fcm => self.fcm.as_ref().map(|it| it as _),
            PushProvider::WebPush | PushProvider::UnifiedPush => self.web_push.as_ref().map(|it| it as _),
            PushProvider::Webhook => self.webhook.as_ref().map(|it| it as _),
        }
    }

    /// Checks what an app registers.
    ///
    /// # Errors
    /// `unsupported` for a provider that this server does not use; `invalid` names the field.
    pub fn check(&self, target: &PushTarget) -> Result<(), ErrorBody> {
        let provider = target.provider();
        if self.of(provider).is_none() {
            let message = format!("this server sends no alerts over {}", provider.as_str());
            return Err(ErrorBody::field(madang_proto::ErrorCode::Unsupported, "provider", message));
        }
        let refuse = |field, is_wrong: bool, message: String| match is_wrong {
            true => Err(ErrorBody::invalid(field, message)),
            false => Ok(()),
        };
        match target {
            PushTarget::Apns { token, topic, .. } => {
                let is_hex = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_hexdigit());
                let message = format!("token must have 1 to {APNS_TOKEN_CHARS} hexadecimal digits");
                refuse("token", !is_hex || token.len() > APNS_TOKEN_CHARS, message)?;
                let topics = &self.info.apns_topics;
                let message = format!("topic is not among those of this server: {}", topics.join(", "));
                refuse("topic", !topics.contains(topic), message)
            }
            PushTarget::Fcm { token, project } => {
                let is_plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
                let message = format!("token must have 1 to {FCM_TOKEN_BYTES} printable ASCII characters");
                refuse("token", !is_plain || token.len() > FCM_TOKEN_BYTES, message)?;
                let projects = &self.info.fcm_projects;
                let message = format!("project is not among those of this server: {}", projects.join(", "));
                refuse("project", !projects.contains(project), message)
            }
            PushTarget::WebPush { endpoint, keys } | PushTarget::UnifiedPush { endpoint, keys } => {
                self.check_endpoint("endpoint", endpoint)?;
                web_push::keys(keys).map(drop).map_err(|error| ErrorBody::invalid("keys", error.to_string()))
            }
            PushTarget::Webhook { url } => self.check_endpoint("url", url),
        }
    }

    fn check_endpoint(&self, field: &'static str, text: &str) -> Result<(), ErrorBody> {
        let parsed = Endpoint::parse(text, &self.allowed);
        parsed.map(drop).map_err(|error| ErrorBody::invalid(field, format!("{field}: {error}")))
    }

    fn describe(&self, config: &PushConfig) -> PushInfo {
        let providers = PushProvider::ALL.into_iter().filter(|provider| self.of(*provider).is_some());
        PushInfo {
            providers: providers.collect(),
            vapid_public_key: self.web_push.as_ref().map(WebPush::public_key),
            apns_topics: self.apns.as_ref().map(|_| config.apns.topics.clone()).unwrap_or_default(),
            fcm_projects: self.fcm.iter().map(|fcm| fcm.project().to_owned()).collect(),
        }
    }
}

/// What people may see of an address: the topic, the project, or the origin of the endpoint. Never the token.
#[must_use]
pub fn destination(target: &PushTarget) -> String {
    match target {
        PushTarget::Apns { topic, .. } => topic.clone(),
        PushTarget::Fcm { project, .. } => project.clone(),
        PushTarget::WebPush { endpoint: url, .. }
        | PushTarget::UnifiedPush { endpoint: url, .. }
        | PushTarget::Webhook { url } => {
            Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
        }
    }
}

fn open_vapid(config: &PushConfig, default: Option<PathBuf>) -> Result<Vapid, String> {
    let named = Some(config.web_push.key_file.clone()).filter(|file| !file.as_os_str().is_empty());
    let is_named = named.is_some();
    let file = named.or(default).ok_or_else(|| {
        "push.web_push.key_file is empty: in a fleet it must name a key that all processes have".to_owned()
    })?;
    let name = format!("push.web_push.key_file {}", file.display());
    if !is_named && !file.exists() {
        create_key(&file).map_err(|error| format!("{name}: {error}"))?;
    }
    let pem = std::fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
    Vapid::new(&pem, &config.web_push.contact).map_err(|error| error.to_string())
}

/// Writes a new key, which only the owner of the folder can read.
fn create_key(file: &Path) -> std::io::Result<()> {
    let failed = |_| std::io::Error::other("the machine has no random numbers");
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).map_err(failed)?;
    let text = STANDARD.encode(key.as_ref());
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem += &String::from_utf8_lossy(line);
        pem.push('\n');
    }
    pem += "-----END PRIVATE KEY-----\n";
    madang_auth::create_secret_file(file, pem.as_bytes())
}
