//! What the documents name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use idlewatch::config::from_texts;
use idlewatch::config::issue::Issue;

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

/// The tree's files below `dir` with this ending.
fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let pattern = format!("{}/{dir}/**/*.{ending}", env!("CARGO_MANIFEST_DIR"));
    glob::glob(&pattern).unwrap().map(Result::unwrap).collect()
}

/// What people read: the documents at the root, and those in docs.
fn documents() -> Vec<PathBuf> {
    let root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let root = root.map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
    files("docs", "md").into_iter().chain(root).collect()
}

/// Of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .map(|anchor| anchor.replace(|sign: char| !(sign.is_alphanumeric() || "-_".contains(sign)), ""))
        .collect()
}

#[test]
fn every_link_leads_to_something() {
    let mut found = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.with_file_name(path) };
            assert!(target.exists(), "{}: {link}", document.display());
            let known = || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            assert!(anchor.is_empty() || known(), "{}: {link}", document.display());
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}

/// A page that nobody links to is not found by those who need it.
#[test]
fn every_page_is_named_in_the_readme() {
    let readme = read("README.md");
    for page in files("docs", "md") {
        let name = format!("(docs/{})", page.file_name().unwrap().to_str().unwrap());
        assert!(readme.contains(&name), "{name}");
    }
}

/// Whoever looks for a text by its words finds it only if these are the words.
#[test]
fn what_troubleshooting_quotes_is_what_the_program_says() {
    let sources: String = files("src", "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let continued = regex::Regex::new(r"\\\n\s*").unwrap();
    let sources = continued.replace_all(&sources, "").replace("\\\"", "\"");
    let page = read("docs/troubleshooting.md");
    let (_, table) = page.split_once("## By what it says").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let said: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(said.len() > 20, "{}", said.len());
    for (text, part) in said.iter().flat_map(|text| text.split('…').map(move |part| (text, part))) {
        assert!(sources.contains(part), "{text}: {part}");
    }
}

/// The blocks of one language in a document, with the line where each begins.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open) = (Vec::new(), None::<(usize, String)>);
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            None if line == format!("```{language}") => open = Some((number + 1, String::new())),
            Some((_, block)) if !line.starts_with("```") => *block += &format!("{line}\n"),
            _ => blocks.extend(open.take()),
        }
    }
    blocks
}

/// An account, where an example is about something else.
const ACCOUNT: &str = "[[accounts]]\nid = \"example\"\nhost = \"imap.example.com\"\nuser = \"bob\"\npassword = { env = \"PASSWORD\" }\n";

/// As whoever copies it would have it: an example without an account is put beside one. Files and secrets that it names need not be there.
#[test]
fn every_configuration_in_the_documents_can_be_loaded() {
    let mut found = 0;
    for document in documents() {
        for (line, block) in blocks(&fs::read_to_string(&document).unwrap(), "toml") {
            let account = if block.contains("[[account") { "" } else { ACCOUNT };
            let name = format!("{}:{line}", document.file_name().unwrap().to_str().unwrap());
            let row = "in-the-table\t{\"password\": {\"env\": \"PASSWORD\"}}";
            let lists = [("accounts.csv", "id\nexample\n"), ("idlewatch.accounts", row)];
            match from_texts(&name, &format!("{block}{account}"), &lists) {
                Ok((settings, _)) => assert!(!settings.accounts.is_empty(), "{name}"),
                Err(issues) => {
                    let other_build =
                        |issue: &Issue| issue.message.contains("this build is without the feature");
                    assert!(issues.iter().any(other_build), "{name}: {issues:#?}");
                }
            }
            found += 1;
        }
    }
    assert!(found > 15, "{found}");
}
