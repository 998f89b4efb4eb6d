//! Beside a service of systemd: what `init` writes as root is root's alone, and the service runs as a user of its own.

use std::path::{Path, PathBuf};

use crate::config::starter::StarterLogin;
use crate::secrets::SecretSource;

/// Where units are.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What the service reads (packaging/idlewatch.service).
const OF_THE_SERVICE: &str = "/etc/idlewatch";

/// Whether a service is installed that reads what was written, and we are root.
pub(super) fn is_beside(path: &Path) -> bool {
    let is_installed = || UNITS.iter().any(|dir| Path::new(dir).join("idlewatch.service").exists());
    path.starts_with(OF_THE_SERVICE) && rustix::process::geteuid().is_root() && is_installed()
}

/// What makes it readable for the service, and for nobody else what is secret.
pub(super) fn advice(path: &Path, id: &str, login: &StarterLogin) -> String {
    let dir = path.parent().unwrap_or(Path::new(OF_THE_SERVICE)).display();
    let readable = format!("chmod 755 {dir}; chmod 644 {}", path.display());
    let credential = |file: &Path| {
        format!(
            "    in {}: password = {{ credential = \"{id}\" }}\n    systemctl edit idlewatch:\n        [Service]\n        LoadCredential={id}:{}\n",
            path.display(),
            path.with_file_name(file).display()
        )
    };
    let secret = match login {
        StarterLogin::Password(SecretSource::File(file)) => credential(file),
        StarterLogin::Password(SecretSource::Inline(_)) => {
            let file = PathBuf::from(format!("{id}.password"));
            format!("    move the password to {} (mode 600) first\n", path.with_file_name(&file).display())
                + &credential(&file)
        }
        StarterLogin::OAuth(_) => format!(
            "    the permission is in the state directory of root: once the service runs, idlewatch oauth login -a {id} with monitor.state_dir = \"/var/lib/idlewatch\"\n"
        ),
        StarterLogin::Password(_) => String::new(),
    };
    format!(
        "note: idlewatch.service runs as a user of its own (DynamicUser), which cannot read this yet:\n{secret}    {readable}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_given_its_secret_before_the_file_is_opened_to_all() {
        let path = Path::new("/etc/idlewatch/idlewatch.toml");
        let beside = StarterLogin::Password(SecretSource::File("bob.password".into()));
        let told = advice(path, "bob", &beside);
        let place = |words: &str| told.find(words).unwrap_or_else(|| panic!("{words}: {told}"));
        assert!(
            place("LoadCredential=bob:/etc/idlewatch/bob.password")
                < place("chmod 644 /etc/idlewatch/idlewatch.toml")
        );
        let inline = StarterLogin::Password(SecretSource::Inline("CANARY".into()));
        let told = advice(path, "bob", &inline);
        assert!(
            told.contains("move the password to /etc/idlewatch/bob.password") && !told.contains("CANARY"),
            "{told}"
        );
        assert!(!is_beside(Path::new("/home/bob/idlewatch.toml")));
    }
}
