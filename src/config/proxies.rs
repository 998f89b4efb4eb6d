//! `proxy`: a URL, `"none"`, or a table of URL, user and password.

use std::collections::HashMap;
use std::sync::Arc;

use config::ValueKind;
use reqwest::Url;

use super::keys;
use super::outputs::secret;
use super::section::{Issues, Section};
use super::settings::{ProxyCredentials, ProxyProtocol, ProxySettings};

/// Turns off what lies below.
const NONE: &str = "none";

/// The proxies that were read already, by the place where they stand.
#[derive(Debug, Default)]
pub(super) struct Proxies(HashMap<String, Option<Arc<ProxySettings>>>);

impl Proxies {
    /// The proxy of an account. What a template says is taken as it is: placeholders mean nothing here.
    pub(super) fn of(&mut self, section: &Section<'_>, issues: &mut Issues) -> Option<Arc<ProxySettings>> {
        section.get("proxy")?;
        // Rows of the database have one origin.
        let place = format!("{} {}", section.origin_of("proxy"), section.key_path("proxy"));
        self.0.entry(place).or_insert_with(|| proxy(section, issues).map(Arc::new)).clone()
    }
}

fn proxy(section: &Section<'_>, issues: &mut Issues) -> Option<ProxySettings> {
    if !matches!(section.get("proxy")?.kind, ValueKind::Table(_)) {
        let url = section.text("proxy", issues).filter(|url| *url != NONE)?;
        return read(section, "proxy", url, None, issues);
    }
    let table = section.nearest("proxy", issues)?;
    table.known(keys::PROXY, issues);
    let credentials = credentials(&table, issues);
    if !table.has("url") {
        issues.error(&table.origin, &table.path, "missing required key `url`");
    }
    let url = table.text("url", issues)?;
    read(&table, "url", url, credentials, issues)
}

/// Nothing of the URL is shown: people write passwords into it.
fn read(
    section: &Section<'_>,
    key: &str,
    url: &str,
    credentials: Option<ProxyCredentials>,
    issues: &mut Issues,
) -> Option<ProxySettings> {
    let parsed = url.parse::<Url>();
    let problem = match &parsed {
        Err(error) => format!("it is no URL: {error}"),
        Ok(url) if url.scheme() == "socks5" => {
            "expected socks5h://: names are resolved by the proxy, never here".to_owned()
        }
        Ok(url) if !["socks5h", "http"].contains(&url.scheme()) => {
            "expected \"socks5h://host:1080\", \"http://host:3128\" or \"none\"".to_owned()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "a user does not belong in the URL: proxy = { url = \"...\", user = \"...\", password = { file = \"...\" } }".to_owned()
        }
        Ok(url) if url.host_str().is_none_or(str::is_empty) => "it names no host".to_owned(),
        Ok(url) if !["", "/"].contains(&url.path()) || url.query().is_some() => {
            "expected no path after the host".to_owned()
        }
        Ok(url) => return Some(settings(url, credentials)),
    };
    section.error(key, problem, issues);
    None
}

fn settings(url: &Url, credentials: Option<ProxyCredentials>) -> ProxySettings {
    let (protocol, port) =
        if url.scheme() == "http" { (ProxyProtocol::Http, 80) } else { (ProxyProtocol::Socks5, 1080) };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    ProxySettings { protocol, host, port: url.port().unwrap_or(port), credentials }
}

fn credentials(table: &Section<'_>, issues: &mut Issues) -> Option<ProxyCredentials> {
    let password = secret(table, "password", issues);
    match (table.text("user", issues), table.has("password")) {
        (None, false) => None,
        (Some(user), true) if (1..=255).contains(&user.len()) && !user.contains(':') => {
            Some(ProxyCredentials { user: user.to_owned(), password: password? })
        }
        (Some(_), true) => {
            table.error("user", "expected 1 to 255 bytes without a colon", issues);
            None
        }
        _ => {
            issues.error(&table.origin, &table.path, "`user` and `password` go together");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Issue, from_text};
    use super::*;

    fn proxies(defaults: &str, own: &str) -> Result<Vec<Option<Arc<ProxySettings>>>, Vec<String>> {
        let account = |id: &str, own: &str| {
            format!(
                "[[accounts]]\nid = \"{id}\"\nhost = \"h.example\"\nuser = \"u\"\npassword = {{ env = \"PW\" }}\n{own}\n"
            )
        };
        let text = format!("[defaults]\n{defaults}\n{}{}", account("a", own), account("b", ""));
        match from_text("t.toml", &text) {
            Ok((settings, _)) => Ok(settings.accounts.iter().map(|account| account.proxy.clone()).collect()),
            Err(issues) => Err(issues.iter().map(Issue::to_string).collect()),
        }
    }

    #[test]
    fn a_proxy_is_a_url_or_a_table_and_none_turns_it_off() {
        let named = |proxy: &Option<Arc<ProxySettings>>| {
            proxy.as_ref().map(|proxy| (proxy.protocol, proxy.host.clone(), proxy.port))
        };
        let read = |defaults, own| -> Vec<_> { proxies(defaults, own).unwrap().iter().map(named).collect() };
        let socks = Some((ProxyProtocol::Socks5, "p.example".to_owned(), 1080));
        assert_eq!(read("proxy = \"socks5h://p.example\"", ""), [socks.clone(), socks.clone()]);
        assert_eq!(read("proxy = \"socks5h://p.example\"", "proxy = \"none\""), [None, socks]);
        let http = Some((ProxyProtocol::Http, "::1".to_owned(), 3128));
        assert_eq!(read("", "proxy = { url = \"http://[::1]:3128/\" }"), [http, None]);
        let own = "proxy = { url = \"http://p.example\", user = \"me\", password = { env = \"X\" } }";
        let read = proxies("", own).unwrap();
        let proxy = read[0].as_ref().unwrap();
        assert_eq!((proxy.port, proxy.credentials.as_ref().unwrap().user.as_str()), (80, "me"));
    }

    #[test]
    fn accounts_share_the_proxy_of_the_defaults() {
        let read = proxies("proxy = \"http://p.example:3128\"", "").unwrap();
        assert!(Arc::ptr_eq(read[0].as_ref().unwrap(), read[1].as_ref().unwrap()));
    }

    #[test]
    fn mistakes_are_told_once_and_echo_no_password() {
        for (proxy, expected) in [
            (
                "\"socks5://p.example\"",
                ".proxy: expected socks5h://: names are resolved by the proxy, never here",
            ),
            ("\"ftp://p\"", ".proxy: expected \"socks5h://host:1080\", \"http://host:3128\" or \"none\""),
            (
                "\"p.example:3128\"",
                ".proxy: expected \"socks5h://host:1080\", \"http://host:3128\" or \"none\"",
            ),
            ("{ user = \"u\", url = \"http://p\" }", ".proxy: `user` and `password` go together"),
            ("{ url = \"http://p\", host = \"x\" }", ".proxy.host: unknown key"),
        ] {
            let told = proxies(&format!("proxy = {proxy}"), "").unwrap_err();
            assert!(told.len() == 1 && told[0].contains(&format!("defaults{expected}")), "{proxy}: {told:?}");
        }
        let told = proxies("proxy = \"http://me:hunter2@p.example\"", "").unwrap_err();
        assert!(!told.concat().contains("hunter2") && told[0].contains("does not belong"), "{told:?}");
    }
}
