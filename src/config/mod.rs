//! The configuration: from files and environment to valid settings, or to everything that is wrong, with its place.

mod accounts;
mod database;
mod filters;
pub mod issue;
pub mod keys;
mod lists;
pub mod load;
mod oauth;
mod outputs;
mod placeholders;
mod print;
pub mod providers;
mod proxies;
pub mod rows;
mod search;
mod section;
pub mod settings;
pub mod starter;
mod surroundings;
mod table;
mod validate;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub use self::issue::{Issue, Severity, shown, shown_as};
use self::lists::Files;
pub use self::outputs::stdout_output;
pub use self::print::{files, lists, merged};
use self::section::Issues;
pub use self::section::parse_duration;
use self::settings::{LogFormat, Settings, TableSettings};
use self::surroundings::{Look, Observer};
use crate::accounts_table::Wanted;

/// Settings, and what is worth a warning.
pub type Loaded = (Settings, Vec<Issue>);

/// Loads the named files (or those at the usual places), `conf.d` and the environment. A secret that cannot be had
/// is a warning: only its own account waits for it.
///
/// # Errors
/// Every problem at once.
pub fn load(named: &[PathBuf]) -> Result<Loaded, Vec<Issue>> {
    judge(&load::merge(&load::files(named), environment())?, Files::OnDisk, Look::Secrets)
}

/// [`load()`], for a monitor that begins: the accounts of the database's table it reads as it gets their shards.
///
/// # Errors
/// Every problem at once.
pub fn start(named: &[PathBuf]) -> Result<Loaded, Vec<Issue>> {
    judge(&load::merge(&load::files(named), environment())?, Files::WithoutTable, Look::Secrets)
}

/// [`check`], for a monitor that runs.
///
/// # Errors
/// Every problem at once.
pub fn reload(named: &[PathBuf]) -> Result<Loaded, Vec<Issue>> {
    judge(&load::merge(&load::files(named), environment())?, Files::WithoutTable, Look::Everywhere)
}

/// [`load()`], for those who want to know before they run it: whatever it names and is not there is an error.
///
/// # Errors
/// Every problem at once.
pub fn check(named: &[PathBuf]) -> Result<Loaded, Vec<Issue>> {
    judge(&load::merge(&load::files(named), environment())?, Files::OnDisk, Look::Everywhere)
}

/// What an import brings into the table `accounts`.
#[derive(Debug)]
pub struct Import {
    /// Where that is.
    pub table: TableSettings,
    /// The rows.
    pub rows: Vec<Wanted>,
    /// What is worth a look.
    pub warnings: Vec<Issue>,
}

/// The rows of a list of accounts, as they are to stand in the table: judged as if the configuration had that list in
/// place of the table. What they name is not looked for: it is of those machines that watch.
///
/// # Errors
/// Every problem at once.
pub fn import(named: &[PathBuf], list: &Path) -> Result<Import, Vec<Issue>> {
    let tree = load::merge(&load::files(named), environment())?;
    let table = table::settings(&tree)?;
    let (_, warnings) = judge(&tree, Files::InsteadOfTable(list), Look::Nowhere)?;
    Ok(Import { table, rows: table::wanted(list)?, warnings })
}

/// Where the table `accounts` is.
///
/// # Errors
/// Where none of `[[account_lists]]` is that.
pub fn accounts_table(named: &[PathBuf]) -> Result<TableSettings, Vec<Issue>> {
    table::settings(&load::merge(&load::files(named), environment())?)
}

/// Where a monitor with this configuration may be asked, the likeliest first, whatever is wrong with it by now; and what
/// keeps it from saying so.
pub fn sockets(named: &[PathBuf]) -> (Vec<PathBuf>, Vec<Issue>) {
    let tree = match load::merge(&load::files(named), environment()) {
        Ok(tree) => tree,
        Err(found) => return (validate::usual_sockets(), found),
    };
    let mut issues = Issues::default();
    let sockets = validate::sockets(&tree, &mut issues);
    issues.found.retain(|issue| issue.severity == Severity::Error);
    (sockets, issues.found)
}

/// The form of diagnostics, as far as the configuration can be read: what is wrong with it is told in that form too.
pub fn log_format(named: &[PathBuf]) -> LogFormat {
    let merged = load::merge(&load::files(named), environment());
    let tree = merged.or_else(|_| load::merge(&[], environment()));
    tree.map_or(LogFormat::Auto, |tree| validate::log_format(&tree))
}

/// Our variables. Those of others may hold what they like, UTF-8 or not.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with("IDLEWATCH_"))?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// [`load()`] for one text, for tests and the demo; nothing outside of it is looked at.
///
/// # Errors
/// Every problem at once.
pub fn from_text(name: &str, text: &str) -> Result<Loaded, Vec<Issue>> {
    from_texts(name, text, &[])
}

/// [`from_text`], with the lists of accounts that it names: their names and texts.
///
/// # Errors
/// Every problem at once.
pub fn from_texts(name: &str, text: &str, lists: &[(&str, &str)]) -> Result<Loaded, Vec<Issue>> {
    judge(&load::merge_text(name, text)?, Files::These(lists), Look::Nowhere)
}

fn judge(tree: &config::Value, files: Files<'_>, look: Look) -> Result<Loaded, Vec<Issue>> {
    let (settings, issues) = validate::settings(tree, files);
    let found = settled(issues, look);
    match settings {
        Some(settings) if found.iter().all(|issue| issue.severity == Severity::Warning) => {
            Ok((settings, found))
        }
        _ => Err(found),
    }
}

/// With what is found outside, in order, and each once.
fn settled(Issues { mut found, outside }: Issues, look: Look) -> Vec<Issue> {
    let mut observer = Observer::new(look);
    found.extend(outside.into_iter().filter_map(|outside| observer.look(outside)));
    found.sort_by_cached_key(Issue::order);
    // What is wrong with a template is wrong for each of its accounts.
    let mut seen = HashSet::new();
    found.retain(|issue| seen.insert(issue.clone()));
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::settings::*;
    use super::*;

    const MINIMAL: &str = "[[accounts]]\nid = \"work\"\nhost = \"imap.example.com\"\nuser = \"bob\"\npassword = { env = \"PW\" }\n";

    fn issues(text: &str) -> Vec<String> {
        from_text("t.toml", text)
            .map_or_else(|issues| issues.iter().map(ToString::to_string).collect(), |_| Vec::new())
    }

    #[test]
    fn the_least_configuration_has_the_documented_defaults() {
        let (settings, warnings) = from_text("t.toml", MINIMAL).unwrap();
        let account = &settings.accounts[0];
        assert_eq!((account.identity.port, account.tls), (993, TlsMode::Implicit));
        assert_eq!(account.idle_refresh, Duration::from_secs(540));
        assert!(account.mailboxes.names()[0].is_inbox() && warnings.is_empty());
        assert_eq!(settings.outputs[0].kind, OutputKind::Stdout);
        assert_eq!(settings.journal.max_bytes, 1 << 30);
    }

    #[test]
    fn every_problem_is_told_with_its_place_and_none_echoes_a_secret() {
        let text = format!(
            "{MINIMAL}[[accounts]]\nid = \"work\"\nport = \"993\"\ntls = \"startls\"\npassword = \"hunter2\"\nidle_refresh = \"30m\"\n[accounts.tls_options]\nmin_verson = \"1.2\"\n[events]\ninclude = [\"message.newer\"]\n[htpp]\nx = 1\n[http]\nlisten = \"x\"\n"
        );
        assert_eq!(
            issues(&text),
            [
                "t.toml:6:1: accounts[1]: missing required key `user`",
                "t.toml:6:1: accounts[1]: missing required key `host`, or `provider`",
                "t.toml:7:1: accounts[1].id: \"work\" is the id of another account already, at t.toml:2:1",
                "t.toml:8:1: accounts[1].port: expected an integer, found string \"993\"",
                "t.toml:9:1: accounts[1].tls: unknown value \"startls\" (expected \"implicit\", \"starttls\", \"none\"); did you mean \"starttls\"?",
                "t.toml:10:1: accounts[1].password: expected a table with one of \"env\", \"file\", \"command\", \"credential\", \"secret\", \"inline\"",
                "t.toml:11:1: accounts[1].idle_refresh: expected 1s to 1740s, found \"30m\"",
                "t.toml:13:1: accounts[1].tls_options.min_verson: unknown key; did you mean \"min_version\"?",
                "t.toml:15:1: events.include: unknown action \"message.newer\" (known: message.new, message.flags, message.expunged, account.state, mailbox.reset, mailbox.gap, monitor.state)",
                "t.toml:17:1: htpp: unknown key; did you mean \"http\"?",
                "t.toml:19:1: http.listen: expected an address and a port like \"127.0.0.1:9464\", found \"x\"",
            ]
        );
    }

    #[test]
    fn where_no_account_is_enabled_it_is_said() {
        let warnings =
            |text: &str| from_text("t.toml", text).unwrap().1.iter().map(ToString::to_string).collect();
        let off = format!("{MINIMAL}enabled = false\n");
        let said: Vec<String> = warnings(&off);
        assert_eq!(said, ["accounts: warning: none is enabled: nothing is watched"]);
        let one_is_on = format!("{off}{}", MINIMAL.replace("id = \"", "id = \"other-"));
        let said: Vec<String> = warnings(&one_is_on);
        assert!(said.is_empty(), "{said:?}");
    }

    #[test]
    fn defaults_lie_below_accounts() {
        let text = format!("[defaults]\nidle_refresh = \"5m\"\nlabels = {{ env = \"prod\" }}\n{MINIMAL}");
        let (settings, _) = from_text("t.toml", &text).unwrap();
        assert_eq!(settings.accounts[0].idle_refresh, Duration::from_secs(300));
        assert_eq!(settings.accounts[0].identity.labels.get("env").map(String::as_str), Some("prod"));
    }

    #[test]
    fn tables_merge_key_by_key_but_a_password_is_one_thing() {
        let text = format!(
            "[defaults]\nlabels = {{ env = \"prod\", team = \"a\" }}\npassword = {{ file = \"x\" }}\n{MINIMAL}labels = {{ team = \"b\" }}\n"
        );
        let (settings, _) = from_text("t.toml", &text).unwrap();
        assert_eq!(
            format!("{:?}", settings.accounts[0].identity.labels),
            "{\"env\": \"prod\", \"team\": \"b\"}"
        );
    }

    #[test]
    fn what_comes_in_later_versions_is_called_so() {
        assert_eq!(
            issues(&format!("[defaults]\noauth2 = \"x\"\n{MINIMAL}")),
            ["t.toml:2:1: defaults.oauth2: not supported in this version"]
        );
        assert!(
            issues(&format!("{MINIMAL}[accounts.oauth2]\nx = 1\n"))[0]
                .ends_with("accounts[0].oauth2: not supported in this version")
        );
    }

    #[test]
    fn pins_and_client_certificates_are_whole_or_wrong() {
        let hex =
            "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";
        let base64 = "sha256/ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";
        let tls = |options: &str| format!("{MINIMAL}[accounts.tls_options]\n{options}\n");
        // It begins with a slash itself.
        let slash = "/xEREREREREREREREREREREREREREREREREREREREf8=";
        let prefixed = ["", "sha256/", "sha256//"].map(|prefix| prefix.to_owned() + slash);
        for pin in [hex, base64].map(str::to_owned).into_iter().chain(prefixed) {
            let (settings, _) =
                from_text("t.toml", &tls(&format!("pin_sha256 = [\"{pin}\"]\npin_only = true"))).unwrap();
            let options = &settings.accounts[0].tls_options;
            assert_eq!(
                (options.pins[0][1], options.pins[0][31], options.pin_only),
                (0x11, 0xff, true),
                "{pin}"
            );
        }
        for (options, expected) in [
            (
                "pin_sha256 = [\"abc\"]",
                "pin_sha256: \"abc\" is no SHA-256: 44 characters of base64, or 64 of hex",
            ),
            ("pin_sha256 = []", "pin_sha256: there is none"),
            ("pin_only = true", "pin_only: which key? `pin_sha256` is missing"),
            ("client_cert = \"c.pem\"", "client_cert: `client_key` is missing"),
            ("client_key = \"k.pem\"", "client_key: `client_cert` is missing"),
        ] {
            let told = issues(&tls(options));
            assert_eq!(told, [format!("t.toml:7:1: accounts[0].tls_options.{expected}")], "{options}");
        }
        let both = format!("ca_file = \"ca.pem\"\npin_only = true\npin_sha256 = [\"{base64}\"]");
        assert!(issues(&tls(&both))[0].ends_with("no chain is looked at, and `ca_file` has no meaning"));
    }

    #[test]
    fn a_certificate_can_stand_in_for_a_password() {
        let text = |login: &str, tls: &str| MINIMAL.replace("password = { env = \"PW\" }", login) + tls;
        let tls = "[accounts.tls_options]\nclient_cert = \"c.pem\"\nclient_key = \"k.pem\"\n";
        let (settings, _) = from_text("t.toml", &text("sasl = \"external\"", tls)).unwrap();
        assert!(matches!(settings.accounts[0].login, LoginMeans::Certificate(_)));
        for (login, tls, expected) in [
            ("sasl = \"external\"", "", "sasl: which certificate? `tls_options.client_cert` is missing"),
            (
                "sasl = \"external\"\ntls = \"none\"\nallow_plaintext = true",
                tls,
                "sasl: a certificate is shown in TLS only",
            ),
            (
                "sasl = \"external\"\npassword = { env = \"PW\" }",
                tls,
                "sasl: `password` and `sasl`: only one of them",
            ),
            ("sasl = \"plain\"", tls, "sasl: unknown value \"plain\" (expected \"external\")"),
        ] {
            let told = issues(&text(login, tls));
            assert!(told.len() == 1 && told[0].contains(expected), "{login}: {told:?}");
        }
        // The nearest layer decides, as with passwords and tokens.
        let defaults = format!("[defaults]\nsasl = \"external\"\n{MINIMAL}");
        assert!(matches!(
            from_text("t.toml", &defaults).unwrap().0.accounts[0].login,
            LoginMeans::Password(_)
        ));
    }

    #[test]
    fn a_password_in_clear_goes_nowhere_by_accident() {
        let plain = MINIMAL.replace("user =", "tls = \"none\"\nuser =");
        assert_eq!(issues(&plain).len(), 1);
        assert!(issues(&plain.replace("imap.example.com", "127.0.0.1")).is_empty());
        assert!(issues(&plain.replace("tls =", "allow_plaintext = true\ntls =")).is_empty());
    }

    #[test]
    fn files_merge_and_accounts_append_and_the_environment_wins() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.toml");
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(&main, format!("[log]\nlevel = \"debug\"\n{MINIMAL}")).unwrap();
        let more = MINIMAL.replace("work", "more");
        std::fs::write(dir.path().join("conf.d/20.toml"), format!("[events]\nmax_bytes = 4000\n{more}"))
            .unwrap();
        std::fs::write(
            dir.path().join("conf.d/10.toml"),
            "[events]\nmax_bytes = 3000\nattachments = false\n",
        )
        .unwrap();
        let env = [
            ("IDLEWATCH_LOG__LEVEL", "warn"),
            ("IDLEWATCH_HOME", "x"),
            ("IDLEWATCH_EVENTS__MAX_ADDRESSES", "5"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let tree = load::merge(&load::files(&[main]), env.into_iter()).unwrap();
        let (settings, _) = judge(&tree, Files::OnDisk, Look::Nowhere).unwrap();
        assert_eq!(settings.accounts.iter().map(|a| a.id().as_str()).collect::<Vec<_>>(), ["work", "more"]);
        assert_eq!((settings.events.max_bytes, settings.events.attachments), (4000, false));
        assert_eq!((settings.log.level.as_str(), settings.events.max_addresses), ("warn", 5));
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_found_before_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.toml");
        let text = MINIMAL.replace("env = \"PW\"", "file = \"pw\"");
        std::fs::write(&main, format!("{text}[monitor]\nstate_dir = \"state\"\n")).unwrap();
        let found = check(std::slice::from_ref(&main)).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].to_string().contains("main.toml:5:") && found[0].message.contains("pw"),
            "{found:?}"
        );
        let (_, warnings) = load(std::slice::from_ref(&main)).unwrap();
        assert_eq!(warnings.len(), 1, "only its account waits for it");
        std::fs::write(dir.path().join("pw"), "x\n").unwrap();
        std::fs::set_permissions(dir.path().join("pw"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let (_, warnings) = check(&[main]).unwrap();
        assert!(warnings[0].message.contains("0644"), "{warnings:?}");
    }

    #[test]
    fn a_wrong_environment_variable_is_named() {
        let env = [("IDLEWATCH_LOG__COLOUR".to_owned(), "x".to_owned())];
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.toml");
        std::fs::write(&main, MINIMAL).unwrap();
        let tree = load::merge(&[main], env.into_iter()).unwrap();
        let found = judge(&tree, Files::OnDisk, Look::Nowhere).unwrap_err();
        assert_eq!(
            found[0].to_string(),
            "environment variable IDLEWATCH_LOG__COLOUR: log.colour: unknown key (known keys: level, format, wire)"
        );
    }

    #[test]
    fn the_reference_and_the_schema_are_fresh() {
        let schema = serde_json::to_string_pretty(&keys::schema()).unwrap() + "\n";
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for (name, made) in [("reference.toml", keys::reference()), ("schema.json", schema)] {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(root.join(name), &made).unwrap();
            }
            let kept = std::fs::read_to_string(root.join(name)).unwrap_or_default();
            assert_eq!(kept, made, "config/{name} is stale: run UPDATE=1 cargo test --lib config");
        }
    }

    #[test]
    fn the_examples_load_and_match_the_schema() {
        let validator = jsonschema::validator_for(&keys::schema()).unwrap();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for name in ["minimal.toml", "example.toml", "reference.toml"] {
            let text = std::fs::read_to_string(root.join(name)).unwrap();
            let value: serde_json::Value = toml::from_str(&text).unwrap();
            assert!(
                validator.is_valid(&value),
                "{name}: {:?}",
                validator.iter_errors(&value).next().map(|e| e.to_string())
            );
            if name != "reference.toml" {
                from_text(name, &text).unwrap_or_else(|issues| panic!("{name}: {issues:?}"));
            }
        }
        let text = std::fs::read_to_string(root.join("tenk.toml")).unwrap();
        assert!(validator.is_valid(&toml::from_str(&text).unwrap()));
        let (settings, warnings) = judge(
            &load::merge(&[root.join("tenk.toml")], std::iter::empty()).unwrap(),
            Files::OnDisk,
            Look::Nowhere,
        )
        .unwrap();
        assert_eq!((settings.accounts.len(), warnings.as_slice()), (8, &[][..]));
        assert_eq!(&*settings.accounts[4].identity.host, "fra.mail.contoso.example");
    }

    #[test]
    fn the_configuration_of_the_readme_loads() {
        let readme = include_str!("../../README.md");
        let (_, rest) = readme.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        assert_eq!(from_text("README.md", text).unwrap().0.accounts.len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[+[a-z_.]{0,12}\\]+\n|[a-z_]{1,12} = [-0-9a-z\"\\[\\]{}=, ]{0,20}\n){0,12}") {
            let _ = from_text("t.toml", &text);
        }
    }
}
