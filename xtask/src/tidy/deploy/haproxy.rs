//! Reads deploy/haproxy.cfg: sections of lines of words.

/// A line.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub(super) line: usize,
    /// The first two words of the section, such as `backend rest`.
    pub(super) section: String,
    pub(super) words: Vec<&'a str>,
}

/// A server of a backend.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) line: usize,
    pub(super) backend: &'a str,
    pub(super) name: &'a str,
    pub(super) address: &'a str,
}

/// The file.
#[derive(Debug)]
pub(super) struct Haproxy<'a>(Vec<Setting<'a>>);

impl<'a> Haproxy<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let (mut section, mut settings) = (String::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let code = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = code.split_whitespace().collect();
            if code.starts_with(char::is_alphabetic) {
                section = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            } else if !words.is_empty() {
                settings.push(Setting { line: index + 1, section: section.clone(), words });
            }
        }
        Self(settings)
    }

    /// The settings that begin with these words.
    pub(super) fn with(&self, begin: &[&str]) -> impl Iterator<Item = &Setting<'a>> {
        self.0.iter().filter(move |setting| setting.words.starts_with(begin))
    }

    /// The word after these, where they are first.
    pub(super) fn after(&self, begin: &[&str]) -> Option<(usize, &'a str)> {
        self.with(begin).find_map(|setting| Some((setting.line, *setting.words.get(begin.len())?)))
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = Server<'_>> {
        self.with(&["server"]).filter_map(|setting| {
            let backend = setting.section.strip_prefix("backend ")?;
            let (name, address) = (setting.words.get(1)?, setting.words.get(2)?);
            Some(Server { line: setting.line, backend, name, address })
        })
    }

    /// The ports on which it listens.
    pub(super) fn ports(&self) -> Vec<&'a str> {
        let addresses = self.with(&["bind"]).filter_map(|setting| setting.words.get(1));
        addresses.filter_map(|address| Some(address.rsplit_once(':')?.1)).collect()
    }
}

/// Seconds of a time such as `500ms`, `30s`, `2m` or `1h`, as HAProxy and compose.yaml write it.
pub(super) fn seconds(time: &str) -> Option<u64> {
    let digits = time.len() - time.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = time.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(number / 1_000),
        "s" => Some(number),
        "m" => Some(number * 60),
        "h" => Some(number * 3_600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_settings_are_read_with_their_section() {
        let text = "global\n    maxconn 5 # why\n\nfrontend a\n    bind :80\n    #bind :81\nbackend b\n    server c d:1 check\n";
        let file = Haproxy::read(text);
        let servers: Vec<_> =
            file.servers().map(|server| (server.line, server.backend, server.name, server.address)).collect();
        assert_eq!(servers, [(8, "b", "c", "d:1")]);
        assert_eq!(file.after(&["maxconn"]), Some((2, "5")));
        assert_eq!(file.ports(), ["80"]);
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(
            ["500ms", "30s", "2m", "1h", "5", "5d"].map(seconds),
            [Some(0), Some(30), Some(120), Some(3_600), None, None]
        );
    }
}
