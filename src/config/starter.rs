//! A configuration to begin with, commented for those who read it first. Pure.

use std::fmt::Write;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use toml::Value;

use super::settings::TlsMode;
use crate::secrets::SecretSource;

/// What a provider says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The provider's name.
    pub provider: String,
    /// Its server.
    pub server: Server,
    /// The name to log in with.
    pub user: String,
    /// No password opens it.
    pub is_oauth_only: bool,
    /// It takes passwords that are made for programs, and not the one of its owner.
    pub wants_app_password: bool,
}

/// How the first account logs in.
#[derive(Clone, Debug)]
pub enum StarterLogin {
    /// Where the password comes from.
    Password(SecretSource),
    /// By access tokens, which one person permits.
    OAuth(StarterGrant),
}

/// The permission of one person, as far as no provider says it.
#[derive(Clone, Debug, Default)]
pub struct StarterGrant {
    /// The id of the application that asks for it.
    pub client_id: String,
    /// Where tokens come from.
    pub token_url: Option<String>,
    /// Where the code comes from that a person enters.
    pub device_url: Option<String>,
    /// What is asked for.
    pub scopes: Vec<String>,
}

/// Where an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: TlsMode,
}

/// The first account.
#[derive(Clone, Debug)]
pub struct Starter {
    /// Its id.
    pub id: String,
    /// Where it is, where no provider says it.
    pub server: Option<Server>,
    /// The provider, where it is one that is known.
    pub provider: Option<String>,
    /// The name to log in with.
    pub user: String,
    /// How it logs in.
    pub login: StarterLogin,
    /// The roots of its server, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// What to watch.
    pub mailboxes: Vec<String>,
}

/// The provider that an address belongs to.
pub fn guess(address: &str) -> Option<Guess> {
    let text =
        format!("[[accounts]]\nid = \"x\"\nuser = {}\npassword = {{ env = \"X\" }}\n", quoted(address));
    let (settings, _) = super::from_text("address", &text).ok()?;
    let account = settings.accounts.first()?;
    let provider = &account.provider.as_ref()?.provider;
    Some(Guess {
        provider: provider.name.to_string(),
        server: Server {
            host: account.identity.host.to_string(),
            port: account.identity.port,
            tls: account.tls,
        },
        user: account.identity.user.clone(),
        is_oauth_only: provider.is_oauth_only(),
        wants_app_password: provider.wants_app_password(),
    })
}

/// An id made of an address: what stands before the @, as far as an id may have it.
pub fn id_of(address: &str) -> String {
    let local = address.split('@').next().unwrap_or_default().to_lowercase();
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._+-".contains(*c);
    let id: String = local.chars().filter(allowed).take(64).collect();
    let id = id.trim_start_matches(['.', '_', '+', '-']);
    if id.is_empty() { "account".to_owned() } else { id.to_owned() }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

impl Starter {
    /// An account as an example.
    pub fn example(provider: Option<&str>) -> Self {
        let server = Server { host: "imap.example.com".to_owned(), port: 993, tls: TlsMode::Implicit };
        Self {
            id: "work".to_owned(),
            server: provider.is_none().then_some(server),
            provider: provider.map(str::to_owned),
            user: "bob@example.com".to_owned(),
            login: StarterLogin::Password(SecretSource::File(PathBuf::from("work.password"))),
            ca_file: None,
            mailboxes: vec!["INBOX".to_owned()],
        }
    }

    /// As TOML, with comments.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# idlewatch. Every key there is: `idlewatch config print --reference`.\n\
             # After a change: `idlewatch check`; a running monitor takes it over at `idlewatch reload`.\n\n",
        );
        if let StarterLogin::OAuth(grant) = &self.login {
            text.push_str(&grant.text(&grant_name(&self.id)));
        }
        text.push_str("[[accounts]]\n");
        let mut line = |key: &str, value: &str, comment: &str| {
            let comment = if comment.is_empty() { String::new() } else { format!("  # {comment}") };
            let _ = writeln!(text, "{key} = {value}{comment}");
        };
        line(
            "id",
            &quoted(&self.id),
            "stands in every event, and is a part of event ids: do not change it later",
        );
        if let Some(provider) = &self.provider {
            line("provider", &quoted(provider), "knows the host, the port and the limits");
        }
        if let Some(server) = &self.server {
            line("host", &quoted(&server.host), "");
            line("port", &server.port.to_string(), "");
            line("tls", &quoted(tls_name(server.tls)), "implicit (mostly 993), starttls (mostly 143), none");
        }
        line("user", &quoted(&self.user), "");
        match &self.login {
            StarterLogin::Password(source) => line(
                "password",
                &secret(source),
                "{ file }, { env }, { command }, or { credential } of systemd",
            ),
            StarterLogin::OAuth(_) => line("oauth", &quoted(&grant_name(&self.id)), "the table above"),
        }
        line("mailboxes", &list(&self.mailboxes), "`idlewatch mailboxes` lists them all");
        if let Some(file) = &self.ca_file {
            line("tls_options.ca_file", &quoted(&file.to_string_lossy()), "in place of the system's roots");
        }
        text.push_str(
            "\n# Without an output, events go to stdout: one line for people on a terminal, JSON in a pipe.\n\
             # [outputs.file]\n# type = \"file\"\n# path = \"events.jsonl\"\n",
        );
        text
    }
}

/// A name of a grant, which may hold less than an id.
fn grant_name(id: &str) -> String {
    id.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_")
}

impl StarterGrant {
    /// The table of its name.
    fn text(&self, name: &str) -> String {
        let mut text = format!("[oauth.{name}]\nflow = \"refresh_token\"\n");
        let urls = [("token_url", &self.token_url), ("device_url", &self.device_url)];
        let urls = urls.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?)));
        for (key, value) in std::iter::once(("client_id", &self.client_id)).chain(urls) {
            let _ = writeln!(text, "{key} = {}", quoted(value));
        }
        if !self.scopes.is_empty() {
            let _ = writeln!(text, "scopes = {}", list(&self.scopes));
        }
        text + "\n"
    }
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

fn tls_name(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::Implicit => "implicit",
        TlsMode::StartTls => "starttls",
        TlsMode::None => "none",
    }
}

fn secret(source: &SecretSource) -> String {
    let inline = |secret: &SecretString| format!("{{ inline = {} }}", quoted(secret.expose_secret()));
    match source {
        SecretSource::Env(name) => format!("{{ env = {} }}", quoted(name)),
        SecretSource::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
        SecretSource::Command(argv) => {
            let argv: Vec<_> = argv.iter().map(|word| quoted(word)).collect();
            format!("{{ command = [{}] }}", argv.join(", "))
        }
        SecretSource::Credential(name) => format!("{{ credential = {} }}", quoted(name)),
        SecretSource::Backend(backend, name) => {
            format!("{{ secret = {} }}", quoted(&format!("{}:{name}", backend.name())))
        }
        SecretSource::Inline(secret) => inline(secret),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::from_text;
    use crate::config::settings::LoginMeans;
    use crate::event::MailboxName;
    use crate::imap::listing::ListedMailbox;
    use crate::mailbox_choice::entry_of;

    #[test]
    fn the_examples_are_valid_and_the_provider_fills_in_the_rest() {
        let (settings, _) = from_text("t", &Starter::example(None).text()).unwrap();
        assert_eq!(&*settings.accounts[0].identity.host, "imap.example.com");
        let (settings, _) = from_text("t", &Starter::example(Some("gmail")).text()).unwrap();
        assert_eq!(&*settings.accounts[0].identity.host, "imap.gmail.com");
    }

    #[test]
    fn a_provider_is_guessed_from_the_address() {
        let gmail = guess("bob@gmail.com").unwrap();
        assert_eq!((gmail.provider.as_str(), gmail.server.host.as_str()), ("gmail", "imap.gmail.com"));
        assert_eq!(guess("bob@icloud.com").unwrap().user, "bob");
        assert!(guess("bob@outlook.com").unwrap().is_oauth_only);
        assert!(gmail.wants_app_password && !gmail.is_oauth_only);
        assert_eq!(guess("bob@example.org"), None);
        assert_eq!(guess("x\"\nhost = \"evil"), None);
    }

    #[test]
    fn an_id_is_made_of_what_may_stand_in_one() {
        for (address, id) in [
            ("Bob.Smith+x@e.org", "bob.smith+x"),
            ("ärger@e.org", "rger"),
            ("日本@e", "account"),
            ("-@e", "account"),
        ] {
            assert_eq!(id_of(address), id);
        }
    }

    #[test]
    fn a_permission_and_an_authority_are_written_so_that_they_are_read() {
        let grant = StarterGrant {
            client_id: "an \"id\"".to_owned(),
            token_url: Some("https://sso.example/token".to_owned()),
            device_url: Some("https://sso.example/device".to_owned()),
            scopes: vec!["imap".to_owned(), "offline_access".to_owned()],
        };
        let starter = Starter {
            id: "bob.smith".to_owned(),
            login: StarterLogin::OAuth(grant),
            ca_file: Some(PathBuf::from("/etc/ssl/corp.pem")),
            ..Starter::example(None)
        };
        let account = from_text("t", &starter.text()).unwrap().0.accounts[0].clone();
        let LoginMeans::OAuth(grant) = &account.login else { panic!("{account:?}") };
        assert_eq!(
            (&grant.name[..9], grant.flow.token_url()),
            ("bob_smith", Some("https://sso.example/token"))
        );
        assert_eq!(account.tls_options.ca_file, Some(PathBuf::from("/etc/ssl/corp.pem")));
        let login =
            StarterLogin::OAuth(StarterGrant { client_id: "x".to_owned(), ..StarterGrant::default() });
        let outlook = Starter { login, ..Starter::example(Some("outlook")) };
        assert_eq!(from_text("t", &outlook.text()).unwrap().1, [], "the provider knows the rest");
    }

    proptest! {
        /// Whatever somebody types comes back as it was typed.
        #[test]
        fn what_is_written_is_what_is_read(user in "[^\\p{C}\\p{Z}][^\\p{C}]{0,39}", password in "[^\\p{C}]{1,40}", mailbox in "(re:|!|\\\\)?[^\\p{C}]{1,40}") {
            let server = Server { host: "h.example".to_owned(), port: 1143, tls: TlsMode::StartTls };
            let starter = Starter {
                server: Some(server),
                user: user.clone(),
                login: StarterLogin::Password(SecretSource::Inline(SecretString::from(password.clone()))),
                mailboxes: vec![entry_of(&mailbox)],
                ..Starter::example(None)
            };
            let (settings, _) = from_text("t", &starter.text()).map_err(|issues| TestCaseError::fail(format!("{issues:?}")))?;
            let account = &settings.accounts[0];
            prop_assert_eq!(&account.identity.user, &user);
            let inline = LoginMeans::Password(SecretSource::Inline(SecretString::from(password)));
            prop_assert_eq!(&account.login, &inline);
            prop_assert_eq!(account.identity.port, 1143);
            let listed = |name: &str| ListedMailbox {
                name: MailboxName::from(name),
                wire_name: Vec::new(),
                delimiter: None,
                role: None,
                selectable: true,
            };
            let all = [listed(&mailbox), listed(&format!("{mailbox}x")), listed(&format!("x{mailbox}"))];
            let chosen = account.mailboxes.choose(&all);
            prop_assert_eq!(chosen.iter().map(|chosen| chosen.mailbox.as_str()).collect::<Vec<_>>(), [mailbox.as_str()]);
        }
    }
}
