//! Files and configuration with which a server of the product sends to a sandbox.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::sandbox::Sandbox;

const CA: &str = "ca.pem";
const SERVICE_ACCOUNT: &str = "service-account.json";
/// The address of the operator, which push services may ask. It leads nowhere.
const CONTACT: &str = "mailto:ops@example.test";

impl Sandbox {
    /// Writes the certificate authority, the signing key of APNs, and the service account of FCM into a folder, which is made if
    /// it is not there. The keys give access to nothing but this sandbox.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_files(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(CA), self.ca_pem())?;
        fs::write(self.apns_key_file(folder), self.apns().private_pem())?;
        fs::write(folder.join(SERVICE_ACCOUNT), self.fcm().service_account_json())
    }

    /// The section `[push]` of a configuration that uses the files of [`Self::write_files`] in `folder`.
    #[must_use]
    pub fn config_text(&self, folder: &Path) -> String {
        let text = |path: &Path| toml_string(&path.display().to_string());
        let key = self.apns().key();
        let web_push = self.web_push().url();
        let lines = [
            "[push]".to_owned(),
            format!("extra_roots_file = {}", text(&folder.join(CA))),
            "\n[push.apns]".to_owned(),
            format!("key_file = {}", text(&self.apns_key_file(folder))),
            format!("key_id = {}", toml_string(&key.key_id)),
            format!("team_id = {}", toml_string(&key.team_id)),
            format!("topics = [{}]", toml_string(self.apns().topic())),
            format!("url = {}", toml_string(self.apns().url())),
            format!("sandbox_url = {}", toml_string(self.apns().url())),
            "\n[push.fcm]".to_owned(),
            format!("service_account_file = {}", text(&folder.join(SERVICE_ACCOUNT))),
            format!("url = {}", toml_string(self.fcm().url())),
            "\n[push.web_push]".to_owned(),
            format!("contact = {}", toml_string(CONTACT)),
            format!("# Endpoints begin with {web_push}."),
            format!("allowed_hosts = [{}]", toml_string(self.host())),
            "\n[push.webhook]".to_owned(),
            "enabled = true".to_owned(),
        ];
        lines.join("\n") + "\n"
    }

    fn apns_key_file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("AuthKey_{}.p8", self.apns().key().key_id))
    }
}

/// A basic string of TOML.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_configuration_is_escaped() {
        assert_eq!(toml_string("C:\\a \"b\""), "\"C:\\\\a \\\"b\\\"\"");
    }
}
