//! What is known of providers: the built-in presets, and `[providers.X]`.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::keys;
use super::load;
use super::oauth::secret_url;
use super::section::{Issues, Section, nearest};

/// Which server it is. These go together: whoever names a provider means none of those that are named below.
const PLACE: &[&str] = &["host", "port", "tls"];

/// A provider of mailboxes, but for what its accounts take over from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Provider {
    /// The name of the preset.
    pub name: Arc<str>,
    /// What it takes; never empty.
    pub auth: Vec<AuthKind>,
    /// How login names are made of addresses.
    pub login: LoginName,
    /// The domains of its addresses, in small letters; `example.*` stands for all that begin so.
    pub domains: Vec<String>,
    /// The pause between two connections to its host.
    pub connect_period: Option<Duration>,
    /// AUTHENTICATE may have an initial response (RFC 4959), where it is offered.
    pub sasl_ir: bool,
    /// Its OAuth2 service.
    pub oauth: OAuthEndpoints,
}

/// What a provider takes to let somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthKind {
    /// The password of the account.
    Password,
    /// A password that was made for one program.
    AppPassword,
    /// A token.
    OAuth,
}

/// How the login name is made of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginName {
    /// It is the address.
    Address,
    /// What stands before the @, for addresses in the provider's domains.
    Local,
}

/// Where tokens come from; what is not known is `None`, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OAuthEndpoints {
    /// Where a person permits access (RFC 6749 section 3.1).
    pub auth_url: Option<String>,
    /// Where tokens are had (RFC 6749 section 3.2).
    pub token_url: Option<String>,
    /// Where a device asks for a code (RFC 8628 section 3.1).
    pub device_url: Option<String>,
    /// What access is asked for.
    pub scopes: Vec<String>,
}

impl Provider {
    /// Whether passwords are made for programs there, and the owner's own is refused.
    pub fn wants_app_password(&self) -> bool {
        self.auth.contains(&AuthKind::AppPassword) && !self.auth.contains(&AuthKind::Password)
    }

    /// Whether no password opens it.
    pub fn is_oauth_only(&self) -> bool {
        self.auth.iter().all(|kind| *kind == AuthKind::OAuth)
    }

    /// The name that `user` logs in with.
    pub fn login_name<'u>(&self, user: &'u str) -> &'u str {
        match (self.login, user.rsplit_once('@')) {
            (LoginName::Local, Some((local, domain))) if self.is_at_home(domain) => local,
            _ => user,
        }
    }

    /// Whether addresses of this domain are its own.
    fn is_at_home(&self, domain: &str) -> bool {
        let domain = domain.to_ascii_lowercase();
        self.domains.iter().any(|known| match known.strip_suffix('*') {
            Some(stem) => domain.strip_prefix(stem).is_some_and(|rest| !rest.is_empty()),
            None => domain == *known,
        })
    }
}

/// A provider, and what it fills in for accounts.
#[derive(Debug)]
struct Preset<'a> {
    keys: Section<'a>,
    provider: Arc<Provider>,
}

/// All that are known. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Providers<'a>(Rc<BTreeMap<&'a str, Preset<'a>>>);

/// The provider of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chosen {
    /// Which.
    pub provider: Arc<Provider>,
    /// Nobody named it: the address's domain is its own.
    pub guessed: bool,
}

impl Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.guessed { ", guessed from the address" } else { "" };
        write!(f, "provider {}{how}", self.provider.name)
    }
}

/// A provider was named that does not exist; told already.
#[derive(Debug)]
pub(super) struct Unknown;

static BUILT_IN: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    match load::merge_text("built-in providers", include_str!("providers.toml")).map(|tree| tree.kind) {
        Ok(ValueKind::Table(root)) => root,
        // A test reads them all.
        _ => Map::new(),
    }
});

/// The hosts of built-in token endpoints, with the first provider of each.
static ISSUERS: LazyLock<Vec<(String, &'static str)>> = LazyLock::new(|| {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let all = Providers::new(&NONE, &mut Issues::default());
    let issuer = |(&name, preset): (&&'static str, &Preset<'_>)| {
        Some((host_of(preset.provider.oauth.token_url.as_deref()?)?, name))
    };
    all.0.iter().filter_map(issuer).collect()
});

fn host_of(url: &str) -> Option<String> {
    reqwest::Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// The built-in provider at whose endpoint, `token_url`, tokens are had: the first one, where they share it.
pub fn issuer(token_url: &str) -> Option<&'static str> {
    let host = host_of(token_url)?;
    ISSUERS.iter().find(|(known, _)| *known == host).map(|(_, name)| *name)
}

impl<'a> Providers<'a> {
    /// The built-in ones, with those of `[providers.X]` over them.
    pub(super) fn new(root: &'a Map<String, Value>, issues: &mut Issues) -> Self {
        let mut presets: BTreeMap<&'a str, Section<'a>> = BTreeMap::new();
        presets.extend(Section::of(&BUILT_IN, "providers", issues).tables(issues));
        for (name, own) in Section::of(root, "providers", issues).tables(issues) {
            own.known(keys::PROVIDER, issues);
            let keys = match presets.get(name) {
                Some(built_in) => own.over(built_in),
                None => own,
            };
            presets.insert(name, keys);
        }
        let presets = presets.into_iter().map(|(name, keys)| {
            let provider = Arc::new(provider(name, &keys, issues));
            (name, Preset { keys, provider })
        });
        Self(Rc::new(presets.collect()))
    }

    /// The built-in ones alone, by name.
    #[cfg(test)]
    fn built_in() -> Vec<(&'static str, Section<'static>, Arc<Provider>)> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let all = Providers::new(&NONE, &mut Issues::default());
        all.0.iter().map(|(name, preset)| (*name, preset.keys.clone(), preset.provider.clone())).collect()
    }

    /// The provider that a table names by `key`.
    pub(super) fn named(
        &self,
        section: &Section<'_>,
        key: &str,
        issues: &mut Issues,
    ) -> Result<Option<Arc<Provider>>, Unknown> {
        if !section.has(key) {
            return Ok(None);
        }
        let name = section.text(key, issues).ok_or(Unknown)?;
        if let Some(preset) = self.0.get(name) {
            return Ok(Some(preset.provider.clone()));
        }
        let near = nearest(name, self.0.keys().copied());
        let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let name = crate::text::shortened(name, 60);
        section.error(
            key,
            format!("there is no provider \"{name}\", and no [providers.{name}]{near}"),
            issues,
        );
        Err(Unknown)
    }

    /// The provider of an account or template: the one that it names, else the one that its address tells, where
    /// there is no host.
    pub(super) fn chosen(
        &self,
        section: &Section<'_>,
        user: Option<&str>,
        issues: &mut Issues,
    ) -> Result<Option<Chosen>, Unknown> {
        if let Some(provider) = self.named(section, "provider", issues)? {
            return Ok(Some(Chosen { provider, guessed: false }));
        }
        let domain = user.filter(|_| !section.has("host")).and_then(|user| user.rsplit_once('@'));
        let provider = domain.and_then(|(_, domain)| self.of_domain(domain));
        Ok(provider.map(|provider| Chosen { provider, guessed: true }))
    }

    fn of_domain(&self, domain: &str) -> Option<Arc<Provider>> {
        let presets = self.0.values().find(|preset| preset.provider.is_at_home(domain));
        presets.map(|preset| preset.provider.clone())
    }

    /// An account's table over its provider's.
    pub(super) fn below<'s>(&self, section: Section<'s>, chosen: Option<&Chosen>) -> Section<'s>
    where
        'a: 's,
    {
        match chosen.and_then(|chosen| self.0.get(&*chosen.provider.name)) {
            Some(preset) => section.over_preset(&preset.keys, "provider", PLACE),
            None => section,
        }
    }
}

fn provider(name: &str, keys: &Section<'_>, issues: &mut Issues) -> Provider {
    let logins = [("address", LoginName::Address), ("local", LoginName::Local)];
    let oauth = OAuthEndpoints {
        auth_url: secret_url(keys, "auth_url", issues),
        token_url: secret_url(keys, "token_url", issues),
        device_url: secret_url(keys, "device_url", issues),
        scopes: keys.texts("scopes", issues).unwrap_or_default(),
    };
    if keys.text("host", issues).is_some_and(|host| host.trim().is_empty()) {
        keys.error("host", "must not be empty", issues);
    }
    Provider {
        name: name.into(),
        auth: auth(keys, issues),
        login: keys.choice("login", LoginName::Address, &logins, issues),
        domains: domains(keys, issues),
        connect_period: keys.has("rate").then(|| keys.rate("rate", Duration::from_secs(1), issues)),
        sasl_ir: keys.boolean("sasl_ir", true, issues),
        oauth,
    }
}

fn auth(keys: &Section<'_>, issues: &mut Issues) -> Vec<AuthKind> {
    let Some(names) = keys.texts("auth", issues) else { return vec![AuthKind::Password] };
    let kind = |name: &str| match name {
        "password" => Some(AuthKind::Password),
        "app-password" => Some(AuthKind::AppPassword),
        "oauth" => Some(AuthKind::OAuth),
        _ => None,
    };
    let kinds: Vec<_> = names.iter().filter_map(|name| kind(name)).collect();
    if kinds.is_empty() || kinds.len() < names.len() {
        keys.error("auth", "expected some of \"password\", \"app-password\", \"oauth\"", issues);
    }
    kinds
}

fn domains(keys: &Section<'_>, issues: &mut Issues) -> Vec<String> {
    let domains = keys.texts("domains", issues).unwrap_or_default();
    for domain in &domains {
        let plain = domain.strip_suffix(".*").unwrap_or(domain);
        if plain.is_empty() || plain.contains(['*', '@', ' ']) {
            keys.error("domains", format!("\"{domain}\": expected \"example.com\" or \"example.*\""), issues);
        }
    }
    domains.into_iter().map(|domain| domain.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Account, TlsMode};
    use super::super::{Issue, from_text};
    use super::*;

    fn load(text: &str) -> (Vec<Arc<Account>>, Vec<String>) {
        match from_text("t.toml", text) {
            Ok((settings, warnings)) => (settings.accounts, warnings.iter().map(Issue::to_string).collect()),
            Err(issues) => (Vec::new(), issues.iter().map(Issue::to_string).collect()),
        }
    }

    fn account(user: &str, more: &str) -> String {
        format!("[[accounts]]\nid = \"a\"\nuser = \"{user}\"\npassword = {{ env = \"PW\" }}\n{more}\n")
    }

    #[test]
    fn the_built_in_presets_are_sound() {
        let mut issues = Issues::default();
        for (name, keys, provider) in Providers::built_in() {
            keys.known(keys::PROVIDER, &mut issues);
            assert!(keys.has("host") && !provider.auth.is_empty(), "{name}");
            let (accounts, told) = load(&account("bob@a.example", &format!("provider = \"{name}\"")));
            assert_eq!(accounts.len(), 1, "{name}: {told:?}");
            assert!(!provider.is_oauth_only() || provider.oauth.token_url.is_some(), "{name}");
        }
        assert!(issues.found.is_empty(), "{:?}", issues.found);
        assert!(Providers::built_in().len() >= 26);
    }

    #[test]
    fn the_provider_of_tokens_is_known_by_the_host_of_its_endpoint() {
        assert_eq!(issuer("https://oauth2.googleapis.com/token"), Some("gmail"));
        let tenant = "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token";
        assert_eq!(issuer(tenant), Some("office365"));
        assert_eq!(issuer("https://login.microsoftonline.com.evil.example/"), None);
        assert_eq!(issuer("no url"), None);
    }

    /// One row of docs/providers.md.
    fn row(name: &str, keys: &Section<'_>, provider: &Provider) -> String {
        let mut issues = Issues::default();
        let text =
            |key: &str, default: &str| keys.text(key, &mut Issues::default()).unwrap_or(default).to_owned();
        let auth = provider.auth.iter().map(|kind| match kind {
            AuthKind::Password => "password",
            AuthKind::AppPassword => "app password",
            AuthKind::OAuth => "OAuth2",
        });
        let user = if provider.login == LoginName::Local { "before the @" } else { "address" };
        let quirks = if provider.sasl_ir { "" } else { "no initial response" };
        format!(
            "| {name} | {}:{} {} | {} | {user} | {} | {} | {quirks} | {} |\n",
            text("host", ""),
            keys.number("port", 993, 1..=65_535, &mut issues),
            text("tls", "implicit"),
            auth.collect::<Vec<_>>().join(", "),
            keys.number("max_connections", 5, 1..=1000, &mut issues),
            text("rate", ""),
            provider.domains.join(" "),
        )
    }

    #[test]
    fn the_table_of_the_documentation_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
        let kept = std::fs::read_to_string(&path).unwrap();
        let mark = "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
        let (head, _) = kept.split_once(mark).unwrap();
        let rows: String =
            Providers::built_in().iter().map(|(name, keys, provider)| row(name, keys, provider)).collect();
        let made = format!("{head}{mark}{rows}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        assert!(kept == made, "docs/providers.md is stale: run UPDATE=1 cargo test --lib config");
    }

    #[test]
    fn no_domain_is_at_home_twice() {
        let all = Providers::built_in();
        for (name, _, provider) in &all {
            for domain in provider.domains.iter().filter(|domain| !domain.ends_with('*')) {
                let homes: Vec<_> = all
                    .iter()
                    .filter(|(_, _, other)| other.is_at_home(domain))
                    .map(|(name, ..)| name)
                    .collect();
                assert_eq!(homes, [name], "{domain}");
            }
        }
    }

    #[test]
    fn a_provider_is_guessed_from_the_address_where_there_is_no_host() {
        for (user, host, login) in [
            ("bob@gmail.com", "imap.gmail.com", "bob@gmail.com"),
            ("Bob@GoogleMail.com", "imap.gmail.com", "Bob@GoogleMail.com"),
            ("bob@hotmail.co.uk", "outlook.office365.com", "bob@hotmail.co.uk"),
            ("bob@icloud.com", "imap.mail.me.com", "bob"),
            ("bob@163.com", "imap.163.com", "bob@163.com"),
        ] {
            let (accounts, told) = load(&account(user, ""));
            let identity = &accounts.first().unwrap_or_else(|| panic!("{user}: {told:?}")).identity;
            assert_eq!((&*identity.host, &*identity.user, identity.port), (host, login, 993), "{user}");
            let chosen = accounts[0].provider.as_ref().unwrap();
            assert!(chosen.to_string().ends_with(", guessed from the address"), "{chosen}");
        }
        let (accounts, _) = load(&account("bob@gmail.com", "host = \"imap.example.com\""));
        assert_eq!((&*accounts[0].identity.host, &accounts[0].provider), ("imap.example.com", &None));
        let (_, told) = load(&account("bob@hotmail.", ""));
        assert_eq!(told, ["t.toml:1:1: accounts[0]: missing required key `host`, or `provider`"]);
    }

    #[test]
    fn a_preset_lies_below_the_defaults_but_for_the_server_that_it_names() {
        let defaults = "[defaults]\nhost = \"mail.corp.example\"\nport = 1143\ntls = \"starttls\"\nidle_refresh = \"5m\"\nmax_connections = 3\n";
        for (more, host, port, tls) in [
            ("", "mail.corp.example", 1143, TlsMode::StartTls),
            ("provider = \"gmail\"", "imap.gmail.com", 993, TlsMode::Implicit),
            ("provider = \"gmail\"\nport = 994", "imap.gmail.com", 994, TlsMode::Implicit),
            ("provider = \"proton-bridge\"\nhost = \"10.0.0.1\"", "10.0.0.1", 1143, TlsMode::StartTls),
        ] {
            let (accounts, told) = load(&format!("{defaults}{}", account("bob@x.example", more)));
            let account = accounts.first().unwrap_or_else(|| panic!("{more}: {told:?}"));
            assert_eq!(
                (&*account.identity.host, account.identity.port, account.tls),
                (host, port, tls),
                "{more}"
            );
            assert_eq!(
                (account.idle_refresh, account.max_connections),
                (Duration::from_secs(300), 3),
                "{more}"
            );
        }
        let named_there = defaults.replace("host =", "provider = \"gmail\"\nhost =");
        let (accounts, _) = load(&format!("{named_there}{}", account("bob@x.example", "")));
        assert_eq!(&*accounts[0].identity.host, "mail.corp.example", "of one table the host goes first");
        let template = "[templates.g]\nprovider = \"gmail\"\n";
        let (accounts, _) =
            load(&format!("{defaults}{template}{}", account("bob@x.example", "template = \"g\"")));
        assert_eq!((&*accounts[0].identity.host, accounts[0].max_connections), ("imap.gmail.com", 3));
    }

    #[test]
    fn a_preset_fills_what_nobody_says() {
        let (accounts, told) = load(&account("bob@163.com", ""));
        let chosen = accounts[0].provider.as_ref().unwrap();
        assert_eq!(
            (chosen.provider.sasl_ir, chosen.provider.connect_period),
            (false, Some(Duration::from_secs(1)))
        );
        assert_eq!((accounts[0].max_connections, told), (5, Vec::new()));
        assert_eq!(load(&account("bob@gmail.com", "")).0[0].max_connections, 10);
    }

    #[test]
    fn own_providers_are_read_and_override_the_built_in_ones() {
        let own = "[providers.gmail]\nrate = \"5/s\"\n[providers.corp]\nhost = \"imap.{domain}\"\ndomains = [\"corp.*\"]\n";
        let (accounts, told) = load(&format!("{own}{}", account("bob@corp.example", "")));
        assert_eq!(accounts.len(), 1, "{told:?}");
        assert_eq!(&*accounts[0].identity.host, "imap.corp.example");
        let (accounts, _) = load(&format!("{own}{}", account("bob@gmail.com", "")));
        let chosen = accounts[0].provider.as_ref().unwrap();
        assert_eq!(chosen.provider.connect_period, Some(Duration::from_millis(200)));
        assert_eq!(&*accounts[0].identity.host, "imap.gmail.com");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, expected) in [
            (
                account("b@x.example", "provider = \"gmial\""),
                "t.toml:5:1: accounts[0].provider: there is no provider \"gmial\", and no [providers.gmial]; did you mean \"gmail\"?",
            ),
            (
                format!(
                    "[providers.x]\nhost = \"h.example\"\nratte = \"1/s\"\n{}",
                    account("b@gmail.com", "")
                ),
                "t.toml:3:1: providers.x.ratte: unknown key; did you mean \"rate\"?",
            ),
            (
                format!("[providers.x]\ntoken_url = \"http://x.example\"\n{}", account("b@gmail.com", "")),
                "t.toml:2:1: providers.x.token_url: expected a URL that begins with https://",
            ),
            (
                format!("[providers.x]\nauth = [\"pasword\"]\n{}", account("b@gmail.com", "")),
                "t.toml:2:1: providers.x.auth: expected some of \"password\", \"app-password\", \"oauth\"",
            ),
        ] {
            assert_eq!(load(&text).1, [expected]);
        }
    }

    #[test]
    fn a_password_where_none_is_taken_is_worth_a_warning() {
        let (accounts, told) = load(&account("bob@outlook.com", ""));
        assert_eq!(accounts.len(), 1);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("outlook takes no passwords"), "{told:?}");
    }
}
