//! `[oauth.X]` and `[secrets.X]`: where access tokens come from, and the secrets of many accounts.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use config::{Map, Value, ValueKind};
use reqwest::Url;

use super::accounts::{AccountReader, Names, Place, required};
use super::keys;
use super::placeholders::{self, Piece, Slot};
use super::providers::{Chosen, OAuthEndpoints};
use super::section::{Issues, Section, nearest};
use super::settings::is_loopback;
use super::surroundings::{Outside, Thing};
use super::validate::default_state_dir;
use crate::oauth::grant::{Client, Device, Flow, Grant};
use crate::secrets::backend::Backend;
use crate::secrets::{SecretSource, Shape};

/// Google's, for service accounts.
const GOOGLE_TOKENS: &str = "https://oauth2.googleapis.com/token";
const GOOGLE_SCOPE: &str = "https://mail.google.com/";

/// Microsoft's, for applications.
const MICROSOFT_SCOPE: &str = "https://outlook.office365.com/.default";

/// The flows: what they need, and what they may have besides.
const FLOWS: [(&str, &[&str], &[&str]); 4] = [
    (
        "refresh_token",
        &["client_id"],
        &["client_secret", "refresh_token", "tenant", "token_url", "device_url", "scopes"],
    ),
    ("client_credentials", &["client_id", "client_secret"], &["tenant", "token_url", "scopes"]),
    ("service_account", &["key"], &["token_url", "scopes"]),
    ("token_command", &["command"], &[]),
];

/// Keys that hold secrets.
const SECRETS: [&str; 3] = ["client_secret", "refresh_token", "key"];

/// The tables, and what was made of them.
pub(super) struct OAuthTables<'a> {
    tables: BTreeMap<&'a str, Section<'a>>,
    /// Those that accounts share, by table and provider.
    shared: HashMap<(&'a str, Option<Arc<str>>), Arc<Grant>>,
    state_dir: PathBuf,
}

impl<'a> OAuthTables<'a> {
    pub(super) fn new(root: &'a Map<String, Value>, issues: &mut Issues) -> Self {
        let tables = Section::of(root, "oauth", issues).tables(issues);
        let mut told_elsewhere = Issues::default();
        let state_dir =
            Section::of(root, "monitor", &mut told_elsewhere).path("state_dir", &mut told_elsewhere);
        Self {
            tables: tables.into_iter().collect(),
            shared: HashMap::new(),
            state_dir: state_dir.unwrap_or_else(default_state_dir),
        }
    }
}

/// `[secrets.X]`
pub(super) fn backends<'a>(
    root: &'a Map<String, Value>,
    issues: &mut Issues,
) -> BTreeMap<&'a str, Arc<Backend>> {
    let mut backends = BTreeMap::new();
    for (name, table) in Section::of(root, "secrets", issues).tables(issues) {
        table.known(keys::SECRETS, issues);
        match table.texts("exec", issues) {
            Some(argv) if argv.first().is_some_and(|program| !program.is_empty()) => {
                backends.insert(name, Arc::new(Backend::new(name, argv)));
            }
            _ => table.error("exec", "expected [\"program\", \"argument\", ...]", issues),
        }
    }
    backends
}

/// The texts of a table that placeholders may stand in.
fn texts(table: &Section<'_>) -> Vec<(&'static str, String)> {
    let mut texts = Vec::new();
    let mut take = |key: &'static str, value: &Value| match &value.kind {
        ValueKind::String(text) => texts.push((key, text.clone())),
        ValueKind::Array(items) => {
            texts.extend(items.iter().skip(1).filter_map(|item| match &item.kind {
                ValueKind::String(text) => Some((key, text.clone())),
                _ => None,
            }));
        }
        _ => {}
    };
    for key in SECRETS {
        if let Some(Value { kind: ValueKind::Table(inner), .. }) = table.get(key) {
            inner.iter().filter(|(kind, _)| *kind != "inline").for_each(|(_, value)| take(key, value));
        }
    }
    if let Some(command) = table.get("command") {
        take("command", command);
    }
    texts
}

/// Whether each account has a grant of its own.
fn is_personal(table: &Section<'_>, flow: &str) -> bool {
    let has_names = |text: &str| {
        let pieces = placeholders::pieces(text).unwrap_or_default();
        pieces.iter().any(|piece| matches!(piece, Piece::Name(_)))
    };
    let waits_for_login = flow == "refresh_token" && !table.has("refresh_token");
    flow == "service_account" || waits_for_login || texts(table).iter().any(|(_, text)| has_names(text))
}

/// A URL that secrets are sent to: over TLS, or not further than this machine.
pub(super) fn secret_url(section: &Section<'_>, key: &str, issues: &mut Issues) -> Option<String> {
    let text = section.text(key, issues)?;
    let sound = text.parse::<Url>().is_ok_and(|url| match url.scheme() {
        "https" => url.has_host(),
        "http" => url.host_str().is_some_and(is_loopback),
        _ => false,
    });
    if !sound {
        section.error(key, "expected a URL that begins with https://", issues);
        return None;
    }
    Some(text.to_owned())
}

impl<'a> AccountReader<'a> {
    /// What the account's `oauth` entitles it to.
    pub(super) fn grant(
        &mut self,
        names: &Names<'_, '_>,
        chosen: Option<&Chosen>,
        issues: &mut Issues,
    ) -> Option<Arc<Grant>> {
        let named = required(names.section, "oauth", issues)?;
        let Some((&name, table)) = self.oauth.tables.get_key_value(named) else {
            let near = nearest(named, self.oauth.tables.keys().copied());
            let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            let named = crate::text::shortened(named, 60);
            names.section.error("oauth", format!("there is no [oauth.{named}]{near}"), issues);
            return None;
        };
        let table = table.clone();
        // What is wrong with the table itself is told once, by `check_oauth`.
        let flow = table.text("flow", &mut Issues::default())?;
        let provider = chosen.map(|chosen| &chosen.provider);
        let endpoints = provider.map(|provider| provider.oauth.clone()).unwrap_or_default();
        if is_personal(&table, flow) {
            let name = format!("{name}~{}", names.id?);
            let flow = self.flow(names, &table, flow, &endpoints, issues)?;
            self.look_for_permission(&name, &flow, names, issues);
            return Some(Arc::new(Grant { name, flow }));
        }
        let alike = (name, provider.map(|provider| provider.name.clone()));
        if let Some(known) = self.oauth.shared.get(&alike) {
            return Some(known.clone());
        }
        let flow = self.flow(names, &table, flow, &endpoints, issues)?;
        let grant = Arc::new(Grant { name: name.to_owned(), flow });
        let mut others = self.oauth.shared.iter().filter(|((table, _), _)| *table == name);
        if others.any(|(_, other)| *other != grant) {
            table.error("flow", "its accounts have different providers: set token_url here", issues);
            return None;
        }
        self.oauth.shared.insert(alike, grant.clone());
        Some(grant)
    }

    fn flow(
        &mut self,
        names: &Names<'_, '_>,
        table: &Section<'_>,
        flow: &str,
        endpoints: &OAuthEndpoints,
        issues: &mut Issues,
    ) -> Option<Flow> {
        let scopes = table.texts("scopes", issues);
        match flow {
            "refresh_token" => {
                let permitted = scopes.clone().unwrap_or_else(|| endpoints.scopes.clone());
                let device_url =
                    url(table, "device_url", "devicecode", endpoints.device_url.as_ref(), issues);
                let refresh_token = match table.has("refresh_token") {
                    true => Some(self.oauth_secret(names, table, "refresh_token", Shape::Line, issues)?),
                    false => None,
                };
                Some(Flow::RefreshToken {
                    client: self.client(names, table, endpoints.token_url.as_ref(), scopes, issues)?,
                    refresh_token,
                    device: device_url.map(|url| Device { url, scopes: permitted }),
                })
            }
            "client_credentials" => {
                let of_microsoft = || vec![MICROSOFT_SCOPE.to_owned()];
                let is_microsoft = table.has("tenant")
                    || table
                        .text("token_url", issues)
                        .is_some_and(|url| url.contains("login.microsoftonline.com"));
                let scopes = scopes.or_else(|| is_microsoft.then(of_microsoft));
                // Not the provider's: that is for persons, and for no tenant.
                self.client(names, table, None, scopes, issues).map(Flow::ClientCredentials)
            }
            "service_account" => {
                let default = || {
                    if endpoints.scopes.is_empty() {
                        vec![GOOGLE_SCOPE.to_owned()]
                    } else {
                        endpoints.scopes.clone()
                    }
                };
                Some(Flow::ServiceAccount {
                    key: self.oauth_secret(names, table, "key", Shape::Document, issues)?,
                    subject: names.user?.to_owned(),
                    token_url: secret_url(table, "token_url", issues)
                        .or_else(|| endpoints.token_url.clone())
                        .unwrap_or_else(|| GOOGLE_TOKENS.to_owned()),
                    scopes: scopes.unwrap_or_else(default),
                })
            }
            "token_command" => self.token_command(names, table, issues).map(Flow::TokenCommand),
            _ => None,
        }
    }

    fn client(
        &mut self,
        names: &Names<'_, '_>,
        table: &Section<'_>,
        default: Option<&String>,
        scopes: Option<Vec<String>>,
        issues: &mut Issues,
    ) -> Option<Client> {
        let Some(token_url) = url(table, "token_url", "token", default, issues) else {
            let message = "token_url or tenant is needed: the provider of its accounts is none that has one";
            issues.error(&table.origin, &table.path, message);
            return None;
        };
        let secret = match table.has("client_secret") {
            true => Some(self.oauth_secret(names, table, "client_secret", Shape::Line, issues)?),
            false => None,
        };
        let id = table.text("client_id", issues)?.to_owned();
        Some(Client { id, secret, token_url, scopes: scopes.unwrap_or_default() })
    }

    fn oauth_secret(
        &mut self,
        names: &Names<'_, '_>,
        table: &Section<'_>,
        key: &'static str,
        shape: Shape,
        issues: &mut Issues,
    ) -> Option<SecretSource> {
        let source = self.secret_source(names, table, key, false, issues)?;
        let thing = match shape {
            Shape::Document => Thing::ServiceKey(source.clone()),
            Shape::Line => Thing::Secret(source.clone(), shape),
        };
        table.names(key, thing, issues);
        Some(source)
    }

    fn token_command(
        &mut self,
        names: &Names<'_, '_>,
        table: &Section<'_>,
        issues: &mut Issues,
    ) -> Option<Vec<String>> {
        let mut argv = table.texts("command", issues)?;
        let place =
            Place { origin: table.origin_of("command"), path: table.key_path("command"), own: "oauth" };
        for argument in argv.iter_mut().skip(1) {
            *argument = self.fill(names, &place, argument, Slot::Argument, issues)?;
        }
        table.names("command", Thing::Secret(SecretSource::Command(argv.clone()), Shape::Line), issues);
        Some(argv)
    }

    /// Whether `oauth login` is still to be done.
    fn look_for_permission(&self, name: &str, flow: &Flow, names: &Names<'_, '_>, issues: &mut Issues) {
        if let (Flow::RefreshToken { refresh_token: None, .. }, Some(id)) = (flow, names.id) {
            let file = self.oauth.state_dir.join("tokens").join(format!("{name}.json"));
            let thing = Thing::Permission { file, account: id.to_owned() };
            let origin = names.section.origin_of("oauth");
            issues.outside.push(Outside { thing, origin, path: names.own_path("oauth") });
        }
    }

    /// Reads the tables for themselves, used or not.
    pub(super) fn check_oauth(&mut self, issues: &mut Issues) {
        for (name, table) in self.oauth.tables.clone() {
            table.known(keys::OAUTH, issues);
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
                issues.error(&table.origin, &table.path, "a name of letters, digits, - and _, at most 64");
            }
            check_flow(&table, issues);
            for (key, text) in texts(&table) {
                self.check_pieces(table.origin_of(key), table.key_path(key), "oauth", &text, issues);
            }
        }
    }
}

fn check_flow(table: &Section<'_>, issues: &mut Issues) {
    if required(table, "flow", issues).is_none() {
        return;
    }
    let names: Vec<_> = FLOWS.iter().enumerate().map(|(at, (name, ..))| (*name, at)).collect();
    let Some((name, needed, optional)) = FLOWS.get(table.choice("flow", usize::MAX, &names, issues)).copied()
    else {
        return;
    };
    for key in needed.iter().filter(|key| !table.has(key)) {
        issues.error(&table.origin, &table.path, format!("missing required key `{key}`"));
    }
    if needed.contains(&"command") && table.has("command") {
        let argv = table.texts("command", issues).unwrap_or_default();
        if argv.first().is_none_or(String::is_empty) {
            table.error("command", "expected [\"program\", \"argument\", ...]", issues);
        }
    }
    for key in
        table.own_keys().filter(|key| *key != "flow" && keys::OAUTH.iter().any(|known| known.name == *key))
    {
        if !needed.contains(&key) && !optional.contains(&key) {
            table.error(key, format!("flow = \"{name}\" has no such key"), issues);
        }
    }
    for key in ["token_url", "device_url"] {
        secret_url(table, key, issues);
    }
    tenant(table, issues);
}

/// The table's own, that of its tenant, or the default.
fn url(
    table: &Section<'_>,
    key: &str,
    of_tenant: &str,
    default: Option<&String>,
    issues: &mut Issues,
) -> Option<String> {
    if table.has(key) {
        return secret_url(table, key, issues);
    }
    match tenant(table, issues) {
        Some(tenant) => Some(format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/{of_tenant}")),
        None => default.cloned(),
    }
}

fn tenant<'s>(table: &Section<'s>, issues: &mut Issues) -> Option<&'s str> {
    let tenant = table.text("tenant", issues)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    if tenant.is_empty() || !tenant.bytes().all(allowed) || tenant.starts_with('.') {
        table.error("tenant", "expected an id or a domain like \"contoso.onmicrosoft.com\"", issues);
        return None;
    }
    Some(tenant)
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Account, LoginMeans};
    use super::super::{Issue, from_text};
    use super::*;

    fn load(text: &str) -> Result<Vec<Arc<Account>>, Vec<String>> {
        from_text("t.toml", text)
            .map(|(settings, _)| settings.accounts)
            .map_err(|issues| issues.iter().map(Issue::to_string).collect())
    }

    fn issues(text: &str) -> Vec<String> {
        load(text).err().unwrap_or_default()
    }

    fn grant(account: &Account) -> &Arc<Grant> {
        match &account.login {
            LoginMeans::OAuth(grant) => grant,
            LoginMeans::Password(_) | LoginMeans::Certificate(_) => panic!("{account:?}"),
        }
    }

    fn account(id: &str, more: &str) -> String {
        format!("[[accounts]]\nid = \"{id}\"\nuser = \"{id}@example.com\"\n{more}\n")
    }

    const APPLICATION: &str = "[oauth.m365]\nflow = \"client_credentials\"\ntenant = \"contoso.onmicrosoft.com\"\nclient_id = \"0\"\nclient_secret = { env = \"S\" }\n";

    #[test]
    fn all_accounts_of_a_tenant_share_one_grant() {
        let office = "provider = \"office365\"\noauth = \"m365\"";
        let accounts =
            load(&format!("{APPLICATION}{}{}", account("a", office), account("b", office))).unwrap();
        assert!(Arc::ptr_eq(grant(&accounts[0]), grant(&accounts[1])));
        let Flow::ClientCredentials(client) = &grant(&accounts[0]).flow else { panic!() };
        assert_eq!(
            client.token_url,
            "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
        );
        assert_eq!(client.scopes, [MICROSOFT_SCOPE]);
    }

    #[test]
    fn a_service_account_speaks_for_each_mailbox_and_a_person_for_his_own() {
        let text = format!(
            "[oauth.g]\nflow = \"service_account\"\nkey = {{ file = \"k.json\" }}\n[oauth.p]\nflow = \"refresh_token\"\nclient_id = \"c\"\nrefresh_token = {{ file = \"/t/{{id}}\" }}\n[oauth.l]\nflow = \"refresh_token\"\nclient_id = \"c\"\n{}{}{}",
            account("a", "provider = \"gmail\"\noauth = \"g\""),
            account("b", "provider = \"gmail\"\noauth = \"p\""),
            account("c", "provider = \"outlook\"\noauth = \"l\"")
        );
        let accounts = load(&text).unwrap();
        let names: Vec<_> = accounts.iter().map(|account| grant(account).name.as_str()).collect();
        assert_eq!(names, ["g~a", "p~b", "l~c"]);
        let Flow::ServiceAccount { subject, token_url, scopes, .. } = &grant(&accounts[0]).flow else {
            panic!()
        };
        assert_eq!((subject.as_str(), token_url.as_str()), ("a@example.com", GOOGLE_TOKENS));
        assert_eq!(scopes, &[GOOGLE_SCOPE]);
        let Flow::RefreshToken { refresh_token: Some(SecretSource::File(file)), .. } =
            &grant(&accounts[1]).flow
        else {
            panic!()
        };
        assert_eq!(file.display().to_string(), "/t/b");
        let Flow::RefreshToken { device: Some(device), .. } = &grant(&accounts[2]).flow else { panic!() };
        assert!(
            device.url.ends_with("/devicecode")
                && device.scopes.iter().any(|scope| scope == "offline_access")
        );
    }

    #[test]
    fn the_nearest_of_password_and_oauth_counts_and_both_are_a_mistake() {
        let host = "host = \"h\"";
        let own = format!(
            "{APPLICATION}[defaults]\noauth = \"m365\"\n{}",
            account("a", &format!("{host}\npassword = {{ env = \"PW\" }}"))
        );
        assert!(matches!(load(&own).unwrap()[0].login, LoginMeans::Password(_)));
        let both = format!(
            "{APPLICATION}{}",
            account("a", &format!("{host}\noauth = \"m365\"\npassword = {{ env = \"PW\" }}"))
        );
        assert_eq!(
            issues(&both),
            ["t.toml:10:1: accounts[0].oauth: `password` and `oauth`: only one of them"]
        );
        let neither = account("a", host);
        assert_eq!(
            issues(&neither),
            ["t.toml:1:1: accounts[0]: missing required key `password`, or `oauth`"]
        );
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        for (table, told) in [
            ("", "oauth.x: missing required key `flow`"),
            ("flow = \"device\"", "oauth.x.flow: unknown value"),
            ("flow = \"refresh_token\"", "oauth.x: missing required key `client_id`"),
            ("flow = \"refresh_token\"\nclient_id = \"c\"", "token_url or tenant is needed"),
            ("flow = \"token_command\"\ncommand = []", "oauth.x.command: expected"),
            ("flow = \"token_command\"\ncommand = [\"p\"]\nclient_id = \"c\"", "has no such key"),
            (
                "flow = \"client_credentials\"\nclient_id = \"c\"\nclient_secret = \"canary\"\ntenant = \"t\"",
                "client_secret: expected a table",
            ),
            (
                "flow = \"refresh_token\"\nclient_id = \"c\"\ntoken_url = \"http://localhost.evil.example/\"",
                "https://",
            ),
            ("flow = \"refresh_token\"\nclient_id = \"c\"\ntenant = \"a/../b\"", "tenant: expected"),
            (
                "flow = \"refresh_token\"\nclient_id = \"c\"\ntenant = \"t\"\nrefresh_token = { file = \"/t/{nobody}\" }",
                "unknown placeholder",
            ),
        ] {
            let text = format!("[oauth.x]\n{table}\n{}", account("a", "host = \"h\"\noauth = \"x\""));
            let issues = issues(&text);
            assert!(issues.iter().any(|issue| issue.contains(told)), "{table}: {issues:?}");
            assert!(!issues.iter().any(|issue| issue.contains("canary")), "{issues:?}");
        }
        let unknown = issues(&format!("{APPLICATION}{}", account("a", "host = \"h\"\noauth = \"m356\"")));
        assert_eq!(
            unknown,
            ["t.toml:10:1: accounts[0].oauth: there is no [oauth.m356]; did you mean \"m365\"?"]
        );
    }

    #[test]
    fn a_secret_of_many_is_named_by_placeholders_that_lead_nowhere_else() {
        let list = |id: &str, secret: &str| {
            format!(
                "[secrets.vault]\nexec = [\"tell\"]\n[secrets.other]\nexec = [\"tell\"]\n[defaults]\nhost = \"h\"\npassword = {{ secret = \"{secret}\" }}\n[[accounts]]\nid = \"{id}\"\nuser = \"u\"\nlabels = {{ dept = \"other:x/y\" }}\n"
            )
        };
        let accounts = load(&list("a", "vault:imap/{id}")).unwrap();
        let LoginMeans::Password(SecretSource::Backend(backend, name)) = &accounts[0].login else { panic!() };
        assert_eq!((backend.argv(), name.as_str()), (&["tell".to_owned()][..], "imap/a"));
        for (secret, told) in [
            ("vualt:{id}", "there is no [secrets.vualt]; did you mean \"vault\"?"),
            ("{labels.dept}", "expected \"NAME:SECRET\""),
            ("vault:{labels.dept}", "could name the secret of somebody else"),
            ("vault:", "expected \"NAME:SECRET\""),
        ] {
            let issues = issues(&list("a", secret));
            assert!(issues.iter().any(|issue| issue.contains(told)), "{secret}: {issues:?}");
        }
    }
}
