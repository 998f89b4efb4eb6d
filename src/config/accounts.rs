//! One account from its layers: its own table or row, its template, the defaults.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{Map, Value, ValueKind};
use data_encoding::{BASE64, HEXLOWER};
use secrecy::SecretString;

use super::keys;
use super::oauth::{OAuthTables, backends};
use super::placeholders::{self, Piece, Slot};
use super::providers::{Chosen, Provider, Providers};
use super::proxies::Proxies;
use super::search;
use super::section::{Issues, Section, nearest, parse_duration};
use super::settings::*;
use super::surroundings::{Outside, Thing};
use super::validate::{DAY, SECOND, section};
use crate::event::{AccountId, AccountIdentity};
use crate::mailbox_choice::MailboxChoice;
use crate::secrets::backend::Backend;
use crate::secrets::{SecretSource, Shape};

/// Keys that are not of the policy.
const IDENTITY: [&str; 10] =
    ["id", "template", "enabled", "host", "port", "user", "password", "oauth", "sasl", "labels"];

/// The keys that say how to log in: one of them.
const LOGIN: [&str; 3] = ["password", "oauth", "sasl"];

/// Reads accounts one by one. What they have in common is read once.
pub(super) struct AccountReader<'a> {
    pub(super) accounts: Vec<Arc<Account>>,
    defaults: Section<'a>,
    templates: BTreeMap<&'a str, Section<'a>>,
    providers: Providers<'a>,
    keys: Vec<keys::Key>,
    /// Where each of them stands.
    pub(super) ids: HashMap<AccountId, String>,
    /// The policies of accounts that have none of their own, by template and provider.
    of_template: HashMap<(Option<&'a str>, Option<Chosen>), Arc<Policy>>,
    /// Placeholders that nobody can fill were told already: where.
    unfillable: HashSet<String>,
    proxies: Proxies,
    pub(super) common: Common,
    pub(super) oauth: OAuthTables<'a>,
    pub(super) backends: BTreeMap<&'a str, Arc<Backend>>,
}

/// What accounts have in common.
#[derive(Default)]
pub(super) struct Common {
    policies: Shared<Policy>,
    tls_options: Shared<TlsOptions>,
    mailboxes: Shared<MailboxChoice>,
    hosts: Shared<str>,
    labels: Shared<BTreeMap<String, String>>,
}

impl Common {
    /// Without what nobody has any more.
    pub(super) fn shrink(&mut self) {
        self.policies.shrink();
        self.tls_options.shrink();
        self.mailboxes.shrink();
        self.hosts.shrink();
        self.labels.shrink();
    }
}

/// Equal values are one.
struct Shared<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized + Eq + Hash> Shared<T> {
    fn one<V: Borrow<T>>(&mut self, value: V) -> Arc<T>
    where
        Arc<T>: From<V>,
    {
        if let Some(known) = self.0.get(value.borrow()) {
            return known.clone();
        }
        let new = Arc::from(value);
        self.0.insert(Arc::clone(&new));
        new
    }

    fn shrink(&mut self) {
        self.0.retain(|known| Arc::strong_count(known) > 1);
    }
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<'a> AccountReader<'a> {
    pub(super) fn new(root: &'a Map<String, Value>, issues: &mut Issues) -> Self {
        let defaults = section(root, "defaults", keys::DEFAULTS, issues);
        let mut templates = BTreeMap::new();
        for (name, template) in Section::of(root, "templates", issues).tables(issues) {
            template.known(keys::DEFAULTS, issues);
            templates.insert(name, template.over(&defaults));
        }
        Self {
            accounts: Vec::new(),
            defaults,
            templates,
            providers: Providers::new(root, issues),
            keys: keys::account(),
            ids: HashMap::new(),
            of_template: HashMap::new(),
            unfillable: HashSet::new(),
            proxies: Proxies::default(),
            common: Common::default(),
            oauth: OAuthTables::new(root, issues),
            backends: backends(root, issues),
        }
    }

    /// The template that a table names.
    pub(super) fn template(
        &self,
        section: &Section<'_>,
        issues: &mut Issues,
    ) -> Result<Option<&'a str>, Unknown> {
        if !section.is_own("template") {
            return Ok(None);
        }
        let name = section.text("template", issues).ok_or(Unknown)?;
        if let Some((name, _)) = self.templates.get_key_value(name) {
            return Ok(Some(name));
        }
        let known = self.templates.keys().copied();
        let near = nearest(name, known).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let name = crate::text::shortened(name, 60);
        section.error("template", format!("there is no [templates.{name}]{near}"), issues);
        Err(Unknown)
    }

    /// An account; `template` is meant where it names none.
    pub(super) fn account<'s>(&mut self, own: Section<'s>, template: Option<&'a str>, issues: &mut Issues)
    where
        'a: 's,
    {
        own.known(&self.keys, issues);
        let template = match self.template(&own, issues) {
            Ok(named) => named.or(template),
            // Without its template, all else would seem to be missing too.
            Err(Unknown) => return,
        };
        let below = template.and_then(|name| self.templates.get(name)).unwrap_or(&self.defaults);
        let section = own.over(below);
        let account = self.read(&section, template, issues);
        self.accounts.extend(account.map(Arc::new));
    }

    fn read(
        &mut self,
        section: &Section<'_>,
        template: Option<&'a str>,
        issues: &mut Issues,
    ) -> Option<Account> {
        let id = self.id(section, issues);
        let anonymous = Names { id: id.as_ref().map(AccountId::as_str), user: None, section };
        let user = self.filled(&anonymous, "user", issues);
        // Without its provider, all else would seem to be missing too.
        let chosen = self.providers.chosen(section, user.as_deref(), issues).ok()?;
        let section = &self.providers.below(section.clone(), chosen.as_ref());
        let names = Names { user: user.as_deref(), section, ..anonymous };
        let policy = self.policy(section, template, chosen, issues);
        let port = port(section, policy.tls, issues);
        let labels = self.common.labels.one(section.text_table("labels", issues));
        let enabled = section.boolean("enabled", true, issues);
        let host = self.host(&names, issues);
        let proxy = self.proxies.of(section, issues);
        let login = self.login(&names, &policy, issues);
        if let Some(host) = &host {
            check_host(section, host, &policy, issues);
        }
        let (host, user, login) = (self.common.hosts.one(host?.as_str()), user?, login?);
        let provider = policy.provider.as_ref().map(|chosen| &*chosen.provider);
        if let Some(provider) = provider {
            check_auth(section, provider, &login, issues);
        }
        let user = provider.map_or(&*user, |provider| provider.login_name(&user)).to_owned();
        let identity = AccountIdentity { id: id?, user, host, port, labels };
        Some(Account { identity: Arc::new(identity), enabled, login, proxy, policy })
    }

    fn id(&mut self, section: &Section<'_>, issues: &mut Issues) -> Option<AccountId> {
        let id = required(section, "id", issues)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._@+-".contains(&b);
        let first = id.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !first || id.len() > 128 || !id.bytes().all(allowed) {
            let message = format!(
                "\"{}\" is no id: [a-z0-9][a-z0-9._@+-]*, at most 128 bytes",
                crate::text::shortened(id, 60)
            );
            section.error("id", message, issues);
            return None;
        }
        let id = AccountId::from(id);
        if let Some(other) = self.ids.get(&id) {
            section.error("id", format!("\"{id}\" is the id of another account already, at {other}"), issues);
            return None;
        }
        self.ids.insert(id.clone(), section.origin_of("id"));
        Some(id)
    }

    fn policy(
        &mut self,
        section: &Section<'_>,
        template: Option<&'a str>,
        chosen: Option<Chosen>,
        issues: &mut Issues,
    ) -> Arc<Policy> {
        if section.own_keys().any(|key| !IDENTITY.contains(&key)) {
            return self.read_policy(section, chosen, issues);
        }
        let alike = (template, chosen);
        if let Some(known) = self.of_template.get(&alike) {
            return known.clone();
        }
        let policy = self.read_policy(section, alike.1.clone(), issues);
        self.of_template.insert(alike, policy.clone());
        policy
    }

    fn read_policy(
        &mut self,
        section: &Section<'_>,
        provider: Option<Chosen>,
        issues: &mut Issues,
    ) -> Arc<Policy> {
        let modes =
            [("implicit", TlsMode::Implicit), ("starttls", TlsMode::StartTls), ("none", TlsMode::None)];
        let long = Duration::from_secs(29 * 60);
        let timeout = SECOND..=Duration::from_secs(600);
        let idle_refresh = section.duration("idle_refresh", Duration::from_secs(540), SECOND..=long, issues);
        if idle_refresh >= long {
            section.error("idle_refresh", "must be below 29m (RFC 2177)", issues);
        }
        let max_connections = section.number("max_connections", 5, 1..=1000, issues);
        let policy = Policy {
            provider,
            tls: section.choice("tls", TlsMode::Implicit, &modes, issues),
            tls_options: self.common.tls_options.one(tls_options(section, issues)),
            allow_plaintext: section.boolean("allow_plaintext", false, issues),
            allow_preauth: section.boolean("allow_preauth", false, issues),
            mailboxes: self.common.mailboxes.one(mailboxes(section, issues)),
            max_connections: u32::try_from(max_connections).unwrap_or(u32::MAX),
            initial: initial(section, issues),
            search: search::criteria(section, issues).map(Arc::new),
            idle_refresh,
            poll_interval: section.duration("poll_interval", Duration::from_secs(60), SECOND..=DAY, issues),
            source_address: source_address(section, issues),
            ip_version: section.choice("ip_version", IpVersion::Auto, &IP_VERSIONS, issues),
            connect_timeout: section.duration(
                "connect_timeout",
                Duration::from_secs(10),
                timeout.clone(),
                issues,
            ),
            command_timeout: section.duration("command_timeout", Duration::from_secs(30), timeout, issues),
            keepalive: keepalive(section, issues),
        };
        self.common.policies.one(policy)
    }

    fn host(&mut self, names: &Names<'_, '_>, issues: &mut Issues) -> Option<String> {
        if !names.section.has("host") {
            let Section { origin, path, .. } = names.section;
            issues.error(origin, path, "missing required key `host`, or `provider`");
            return None;
        }
        self.filled(names, "host", issues)
    }

    /// The text of a key that a template may make of placeholders.
    fn filled(&mut self, names: &Names<'_, '_>, key: &str, issues: &mut Issues) -> Option<String> {
        let section = names.section;
        let text = required(section, key, issues)?;
        if section.is_own(key) {
            return Some(text.to_owned());
        }
        let place = Place { origin: section.origin_of(key), path: section.key_path(key), own: key };
        self.fill(names, &place, text, Slot::Text, issues)
    }

    /// A text of a template with its placeholders filled in. What cannot be is told where it can be mended.
    pub(super) fn fill(
        &mut self,
        names: &Names<'_, '_>,
        place: &Place<'_>,
        text: &str,
        slot: Slot,
        issues: &mut Issues,
    ) -> Option<String> {
        let id = names.id?;
        let pieces = match pieces(place.own, text) {
            Ok(pieces) => pieces,
            Err(message) => {
                if self.unfillable.insert(format!("{} {}", place.origin, place.path)) {
                    let origin = &names.section.origin;
                    let first = format!("{message} (account \"{id}\" at {origin} is the first)");
                    issues.error(&place.origin, &place.path, first);
                }
                return None;
            }
        };
        match placeholders::fill(text, &pieces, slot, |name| names.value(name)) {
            Ok(filled) => Some(filled),
            Err(unfit) => {
                let message = format!("{} ({}): {unfit}", place.path, place.origin);
                issues.error(&names.section.origin, &names.own_path(place.own), message);
                None
            }
        }
    }

    /// Exactly one of [`LOGIN`]; the nearest of the account's layers decides.
    fn login(&mut self, names: &Names<'_, '_>, policy: &Policy, issues: &mut Issues) -> Option<LoginMeans> {
        let section = names.section;
        let depths = LOGIN.iter().filter_map(|key| Some((section.depth(key)?, *key)));
        let Some(nearest) = depths.clone().map(|(depth, _)| depth).min() else {
            let Section { origin, path, .. } = section;
            issues.error(origin, path, "missing required key `password`, or `oauth`");
            return None;
        };
        let keys: Vec<_> = depths.filter(|(depth, _)| *depth == nearest).map(|(_, key)| key).collect();
        match keys.as_slice() {
            [first, second, ..] => {
                section.error(second, format!("`{first}` and `{second}`: only one of them"), issues);
                None
            }
            ["password"] => self.password(names, issues).map(LoginMeans::Password),
            ["oauth"] => self.grant(names, policy.provider.as_ref(), issues).map(LoginMeans::OAuth),
            _ => external(section, policy, issues).map(LoginMeans::Certificate),
        }
    }

    fn password(&mut self, names: &Names<'_, '_>, issues: &mut Issues) -> Option<SecretSource> {
        let own = names.section.is_own("password");
        let source = self.secret_source(names, names.section, "password", own, issues)?;
        let section = names.section;
        let own = section.is_own("password");
        // What is made of a template is missing for this account, not for the template.
        let origin = if own { section.origin_of("password") } else { section.origin.clone() };
        let path = names.own_path("password");
        issues.outside.push(Outside { thing: Thing::Secret(source.clone(), Shape::Line), origin, path });
        Some(source)
    }

    /// Nothing of the value is ever echoed: people paste passwords where a table belongs.
    pub(super) fn secret_source(
        &mut self,
        names: &Names<'_, '_>,
        section: &Section<'_>,
        key: &'static str,
        own: bool,
        issues: &mut Issues,
    ) -> Option<SecretSource> {
        let (inner, kind) = secret_table(section, key, issues)?;
        let place = Place { origin: inner.origin_of(kind), path: inner.key_path(kind), own: slot_of(key) };
        let backends = self.backends.clone();
        let mut fill = |text: &str, slot, issues: &mut Issues| {
            if own { Some(text.to_owned()) } else { self.fill(names, &place, text, slot, issues) }
        };
        let name = Slot::SecretName;
        match kind {
            "env" => Some(SecretSource::Env(fill(required(&inner, "env", issues)?, name, issues)?)),
            "file" => {
                let file = fill(required(&inner, "file", issues)?, name, issues)?;
                Some(SecretSource::File(inner.dir_of("file").join(file)))
            }
            "credential" => {
                let name = fill(required(&inner, "credential", issues)?, name, issues)?;
                if name.contains('/') || name.starts_with('.') {
                    inner.error("credential", "a name without `/`", issues);
                    return None;
                }
                Some(SecretSource::Credential(name))
            }
            "command" => {
                let mut argv = inner.texts("command", issues)?;
                if argv.first().is_none_or(String::is_empty) {
                    inner.error("command", "expected [\"program\", \"argument\", ...]", issues);
                    return None;
                }
                for argument in argv.iter_mut().skip(1) {
                    *argument = fill(argument, Slot::Argument, issues)?;
                }
                Some(SecretSource::Command(argv))
            }
            "secret" => {
                // Cut before it is filled in: no value leads to another backend.
                let text = required(&inner, "secret", issues)?;
                let Some((backend, rest)) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()) else {
                    inner.error("secret", "expected \"NAME:SECRET\", where [secrets.NAME] tells it", issues);
                    return None;
                };
                let Some(backend) = backends.get(backend).cloned() else {
                    let near = nearest(backend, backends.keys().copied());
                    let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                    let backend = crate::text::shortened(backend, 60);
                    inner.error("secret", format!("there is no [secrets.{backend}]{near}"), issues);
                    return None;
                };
                Some(SecretSource::Backend(backend, fill(rest, name, issues)?))
            }
            _ => {
                let text = inner.secret("inline", issues)?;
                let message = format!("the {key} stands in the file; use file, command or credential");
                issues.warn(&inner.origin, &inner.path, message);
                Some(SecretSource::Inline(SecretString::from(text)))
            }
        }
    }

    /// Reads the layers for themselves: what every account overrides is wrong all the same.
    pub(super) fn check_layers(&mut self, issues: &mut Issues) {
        let layers: Vec<_> =
            std::iter::once(&self.defaults).chain(self.templates.values()).cloned().collect();
        for layer in layers {
            let Ok(chosen) = self.providers.chosen(&layer, None, issues) else { continue };
            let layer = self.providers.below(layer, chosen.as_ref());
            let policy = self.read_policy(&layer, chosen, issues);
            port(&layer, policy.tls, issues);
            layer.boolean("enabled", true, issues);
            self.proxies.of(&layer, issues);
            layer.text_table("labels", issues);
            for key in ["host", "user"].into_iter().filter(|key| layer.is_own(key)) {
                let text = required(&layer, key, issues).unwrap_or_default();
                self.check_pieces(layer.origin_of(key), layer.key_path(key), key, text, issues);
            }
            if layer.is_own("password") {
                self.check_secret(&layer, issues);
            }
            let own: Vec<_> = LOGIN.into_iter().filter(|key| layer.is_own(key)).collect();
            if let [first, second, ..] = own.as_slice() {
                layer.error(second, format!("`{first}` and `{second}`: only one of them"), issues);
            }
            mechanism(&layer, issues);
        }
        self.check_oauth(issues);
    }

    fn check_secret(&mut self, layer: &Section<'_>, issues: &mut Issues) {
        let Some((inner, kind)) = secret_table(layer, "password", issues) else { return };
        let texts = match kind {
            "inline" => Vec::new(),
            "command" => inner.texts(kind, issues).unwrap_or_default().into_iter().skip(1).collect(),
            _ => required(&inner, kind, issues).map(str::to_owned).into_iter().collect(),
        };
        for text in texts {
            self.check_pieces(inner.origin_of(kind), inner.key_path(kind), "password", &text, issues);
        }
    }

    pub(super) fn check_pieces(
        &mut self,
        origin: String,
        path: String,
        key: &str,
        text: &str,
        issues: &mut Issues,
    ) {
        if let Err(message) = pieces(key, text)
            && self.unfillable.insert(format!("{origin} {path}"))
        {
            issues.error(&origin, &path, message);
        }
    }
}

/// A template was named that does not exist; told already.
#[derive(Debug)]
pub(super) struct Unknown;

/// A text of a template: where it stands, and which key of an account it fills.
pub(super) struct Place<'k> {
    pub(super) origin: String,
    pub(super) path: String,
    pub(super) own: &'k str,
}

/// What placeholders stand for, of one account.
pub(super) struct Names<'n, 'a> {
    /// `None` where it is wrong: nothing can be made of it.
    pub(super) id: Option<&'n str>,
    /// Known once it is made.
    pub(super) user: Option<&'n str>,
    pub(super) section: &'n Section<'a>,
}

impl<'n> Names<'n, '_> {
    fn value(&self, name: &str) -> Option<Cow<'n, str>> {
        let value = match name {
            "id" => self.id.map(Cow::Borrowed),
            "user" => self.user.map(Cow::Borrowed),
            "local" => Some(Cow::Borrowed(
                self.address()?.split_once('@').map_or(self.address()?, |(local, _)| local),
            )),
            "domain" => Some(Cow::Borrowed(self.address()?.rsplit_once('@')?.1)),
            _ => scalar(self.section.own_value(name)?),
        };
        value.filter(|text| !text.is_empty())
    }

    /// The address that `{local}` and `{domain}` are of: the user's, or the id where that made the user.
    fn address(&self) -> Option<&'n str> {
        let id = self.id.filter(|id| !self.section.is_own("user") && id.contains('@'));
        id.or(self.user)
    }

    /// The path of a key as if the account had set it.
    pub(super) fn own_path(&self, key: &str) -> String {
        let path = &self.section.path;
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    }
}

fn scalar(value: &Value) -> Option<Cow<'static, str>> {
    match &value.kind {
        ValueKind::String(text) => Some(Cow::Owned(text.clone())),
        ValueKind::I64(number) => Some(Cow::Owned(number.to_string())),
        ValueKind::Boolean(boolean) => Some(Cow::Owned(boolean.to_string())),
        _ => None,
    }
}

fn names_of<'p, 't: 'p>(pieces: &'p [Piece<'t>]) -> impl Iterator<Item = &'t str> + 'p {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Name(name) => Some(*name),
        Piece::Text(_) => None,
    })
}

/// The pieces of a template's text, if every placeholder is one that the account's `key` may be made of.
fn pieces<'t>(key: &str, text: &'t str) -> Result<Vec<Piece<'t>>, String> {
    let pieces = placeholders::pieces(text).ok_or(placeholders::MALFORMED)?;
    if key == "user" && names_of(&pieces).any(|name| name == "user") {
        return Err("a user is not made of itself".to_owned());
    }
    if let Some(name) = names_of(&pieces).find(|name| !keys::is_placeholder(name)) {
        let near = nearest(name, keys::placeholders());
        let near = near.map(|near| format!("; did you mean \"{{{near}}}\"?")).unwrap_or_default();
        return Err(format!("unknown placeholder \"{{{}}}\"{near}", crate::text::shortened(name, 60)));
    }
    Ok(pieces)
}

pub(super) fn required<'s>(section: &Section<'s>, key: &str, issues: &mut Issues) -> Option<&'s str> {
    if !section.has(key) {
        issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
        return None;
    }
    let text = section.text(key, issues)?;
    if text.trim().is_empty() {
        section.error(key, "must not be empty", issues);
        return None;
    }
    Some(text)
}

fn port(section: &Section<'_>, tls: TlsMode, issues: &mut Issues) -> u16 {
    let default = if tls == TlsMode::Implicit { 993 } else { 143 };
    u16::try_from(section.number("port", default, 1..=65_535, issues)).unwrap_or(993)
}

fn check_host(section: &Section<'_>, host: &str, policy: &Policy, issues: &mut Issues) {
    if host.len() > 255 || host.contains(['/', ' ', '@']) {
        section.error("host", "expected a host name or an address, without scheme, port or path", issues);
    }
    if policy.tls == TlsMode::None && !is_loopback(host) && !policy.allow_plaintext {
        let message = "tls = \"none\" sends the password in clear: only to this machine, or with allow_plaintext = true";
        section.error(if section.is_own("tls") { "tls" } else { "host" }, message, issues);
    }
}

const IP_VERSIONS: [(&str, IpVersion); 5] = [
    ("auto", IpVersion::Auto),
    ("4", IpVersion::Only4),
    ("6", IpVersion::Only6),
    ("prefer4", IpVersion::Prefer4),
    ("prefer6", IpVersion::Prefer6),
];

fn source_address(section: &Section<'_>, issues: &mut Issues) -> Option<IpAddr> {
    let text = section.text("source_address", issues)?;
    let address: Option<IpAddr> = text.parse().ok();
    let excluded = address.map(|address| if address.is_ipv4() { "6" } else { "4" });
    if address.is_none() {
        let text = crate::text::shortened(text, 60);
        section.error("source_address", format!("\"{text}\" is no IP address"), issues);
    } else if excluded.is_some() && section.text("ip_version", issues) == excluded {
        section.error("source_address", "no address of that ip_version can be reached from it", issues);
    }
    address
}

/// `sasl = "external"`: the server knows us by the certificate that TLS shows.
fn external(section: &Section<'_>, policy: &Policy, issues: &mut Issues) -> Option<SecretSource> {
    mechanism(section, issues)?;
    if policy.tls == TlsMode::None {
        section.error("sasl", "a certificate is shown in TLS only: tls is \"none\"", issues);
    }
    let client = policy.tls_options.client.as_ref();
    if client.is_none() {
        section.error("sasl", "which certificate? `tls_options.client_cert` is missing", issues);
    }
    Some(SecretSource::File(client?.certificate.clone()))
}

/// The one that has to be asked for.
fn mechanism(section: &Section<'_>, issues: &mut Issues) -> Option<()> {
    section.choice("sasl", None, &[("external", Some(()))], issues)
}

/// The provider would refuse it each time, and block the account at last.
fn check_auth(section: &Section<'_>, provider: &Provider, login: &LoginMeans, issues: &mut Issues) {
    if provider.is_oauth_only() && matches!(login, LoginMeans::Password(_)) {
        let (origin, path) = (section.origin_of("password"), section.key_path("password"));
        let name = &provider.name;
        issues.warn(&origin, &path, format!("{name} takes no passwords any more, only tokens (OAuth2)"));
    }
}

pub(super) fn tls_options(section: &Section<'_>, issues: &mut Issues) -> TlsOptions {
    let section = section.inner("tls_options", issues);
    section.known(keys::TLS_OPTIONS, issues);
    let backends = [("rustls", TlsBackend::Rustls), ("native", TlsBackend::Native)];
    let versions = [
        ("1.0", TlsVersion::Tls10),
        ("1.1", TlsVersion::Tls11),
        ("1.2", TlsVersion::Tls12),
        ("1.3", TlsVersion::Tls13),
    ];
    let options = TlsOptions {
        backend: section.choice("backend", TlsBackend::Rustls, &backends, issues),
        ca_file: section.path("ca_file", issues),
        min_version: section.choice("min_version", TlsVersion::Tls12, &versions, issues),
        client: client_certificate(&section, issues),
        pins: pins(&section, issues),
        pin_only: section.boolean("pin_only", false, issues),
    };
    if options.pin_only && !section.has("pin_sha256") {
        section.error("pin_only", "which key? `pin_sha256` is missing", issues);
    }
    if options.pin_only && options.ca_file.is_some() {
        section.error("pin_only", "no chain is looked at, and `ca_file` has no meaning", issues);
    }
    if let Some(file) = &options.ca_file {
        section.names("ca_file", Thing::Certificates(file.clone()), issues);
    }
    if options.backend == TlsBackend::Rustls && options.min_version < TlsVersion::Tls12 {
        section.error("min_version", "below 1.2 with backend = \"native\" only", issues);
    }
    if options.backend == TlsBackend::Native && options.min_version == TlsVersion::Tls13 {
        section.error("min_version", "1.3 with backend = \"rustls\" only", issues);
    }
    if options.backend == TlsBackend::Native && !cfg!(feature = "native-tls") {
        section.error("backend", "this build is without the feature native-tls", issues);
    }
    options
}

fn client_certificate(section: &Section<'_>, issues: &mut Issues) -> Option<ClientCertificate> {
    let (certificate, key) = (section.path("client_cert", issues), section.path("client_key", issues));
    let (Some(certificate), Some(key)) = (certificate, key) else {
        for (one, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
            if section.has(one) && !section.has(other) {
                section.error(one, format!("`{other}` is missing"), issues);
            }
        }
        return None;
    };
    section.names("client_cert", Thing::Certificates(certificate.clone()), issues);
    let native = section.text("backend", &mut Issues::default()) == Some("native");
    section.names("client_key", Thing::Key { file: key.clone(), pkcs8: native }, issues);
    Some(ClientCertificate { certificate, key })
}

fn pins(section: &Section<'_>, issues: &mut Issues) -> Vec<Pin> {
    let texts = section.texts("pin_sha256", issues).unwrap_or_default();
    if texts.is_empty() && section.has("pin_sha256") {
        section.error("pin_sha256", "there is none", issues);
    }
    let mut pins = Vec::new();
    for text in texts {
        match pin(&text) {
            Some(pin) => pins.push(pin),
            None => {
                let text = crate::text::shortened(&text, 80);
                let message = format!("\"{text}\" is no SHA-256: 44 characters of base64, or 64 of hex");
                section.error("pin_sha256", message, issues);
            }
        }
    }
    pins.sort_unstable();
    pins
}

/// As `openssl dgst` or curl write it.
fn pin(text: &str) -> Option<Pin> {
    let text = text.strip_prefix("sha256").unwrap_or(text);
    // A pin may begin with a slash of its own: its length tells.
    ["//", "/", ""].iter().filter_map(|slashes| text.strip_prefix(slashes)).find_map(digest)
}

fn digest(text: &str) -> Option<Pin> {
    let hex = text.replace(':', "").to_ascii_lowercase();
    let bytes = match hex.len() {
        64 => HEXLOWER.decode(hex.as_bytes()),
        _ => BASE64.decode(text.as_bytes()),
    };
    bytes.ok()?.try_into().ok()
}

fn mailboxes(section: &Section<'_>, issues: &mut Issues) -> MailboxChoice {
    let Some(entries) = section.texts("mailboxes", issues) else { return MailboxChoice::inbox() };
    MailboxChoice::new(&entries).unwrap_or_else(|errors| {
        errors.iter().for_each(|error| section.error("mailboxes", error.to_string(), issues));
        MailboxChoice::inbox()
    })
}

fn initial(section: &Section<'_>, issues: &mut Issues) -> Initial {
    match section.text("initial", issues) {
        None | Some("baseline") => Initial::Baseline,
        Some("all") => Initial::All,
        Some(text) => match text.strip_prefix("since:").and_then(parse_duration) {
            Some(age) => Initial::Since(age),
            None => {
                let message =
                    format!("expected \"baseline\", \"all\" or \"since:<duration>\", found \"{text}\"");
                section.error("initial", message, issues);
                Initial::Baseline
            }
        },
    }
}

fn keepalive(section: &Section<'_>, issues: &mut Issues) -> Keepalive {
    let section = section.inner("keepalive", issues);
    section.known(keys::KEEPALIVE, issues);
    let hour = Duration::from_secs(3600);
    Keepalive {
        idle: section.duration("idle", Duration::from_secs(30), SECOND..=hour, issues),
        interval: section.duration("interval", Duration::from_secs(10), SECOND..=hour, issues),
        count: u32::try_from(section.number("count", 3, 1..=100, issues)).unwrap_or(3),
    }
}

const SECRET: &str =
    "expected a table with one of \"env\", \"file\", \"command\", \"credential\", \"secret\", \"inline\"";

/// The key of an account that a secret belongs to.
fn slot_of(key: &'static str) -> &'static str {
    if key == "password" { key } else { "oauth" }
}

/// The table of a secret, and the one key in it.
fn secret_table<'a>(
    section: &Section<'a>,
    key: &str,
    issues: &mut Issues,
) -> Option<(Section<'a>, &'static str)> {
    let Some(value) = section.get(key) else {
        issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
        return None;
    };
    let only = match &value.kind {
        ValueKind::Table(table) if table.len() == 1 => table.keys().next().map(String::as_str),
        _ => None,
    };
    match keys::SECRET.iter().find(|key| only == Some(key.name)) {
        Some(known) => Some((section.nearest(key, issues)?, known.name)),
        None => {
            section.error(key, SECRET, issues);
            None
        }
    }
}
