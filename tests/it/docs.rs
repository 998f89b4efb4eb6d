//! What the documents name is there.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A name may be cut short by `…`.
fn begins(name: &str) -> &str {
    name.split('…').next().unwrap().trim()
}

/// Of each test in the table of faults: that it exists.
#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let table = read("docs/reliability.md");
    let transcripts: String = [
        "fetch-and-idle",
        "greeting-and-login",
        "mailbox",
        "mailboxes",
        "notify",
        "oauth",
        "pipelining",
        "search",
        "servers",
        "starttls",
    ]
    .map(|name| read(&format!("tests/transcripts/{name}.imap")))
    .concat();
    let mut module = String::new();
    let mut found = 0;
    for line in table.lines().filter(|line| line.starts_with('|')) {
        for name in quoted(line) {
            if let Some((file, test)) = name.split_once("::").filter(|(file, _)| !file.contains(' ')) {
                module = read(&format!("tests/it/{file}.rs")) + &read(&format!("tests/it/{file}/mod.rs"));
                assert!(module.contains(&format!("fn {}", begins(test))), "{name}");
            } else if let Some(title) = name.strip_prefix("transcripts: ") {
                assert!(transcripts.contains(&format!("== {}", begins(title))), "{name}");
            } else if let Some(path) = name.strip_prefix("src: ") {
                let path = path.replace("::", "/");
                let source = read(&format!("src/{path}.rs")) + &read(&format!("src/{path}/mod.rs"));
                assert!(source.contains("mod tests"), "{name}");
            } else if name.starts_with("a_") || name.starts_with("an_") || name.starts_with("files_") {
                assert!(module.contains(&format!("fn {}", begins(name))), "{name}");
            } else {
                continue;
            }
            found += 1;
        }
    }
    assert!(found > 100, "{found}");
}
