//! A network of its own for a test, so that its faults are nobody else's.

use std::process::Command;

const MARK: &str = "IDLEWATCH_TEST_ISOLATED";

/// Runs the test of this name again, in a network and a mount namespace that go with it. True there, with a loopback.
pub fn isolated(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        shell("ip link set lo up");
        return true;
    }
    let mut again = Command::new("unshare");
    again
        .args(["--net", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1");
    let output = again.output().unwrap();
    let words =
        [output.stdout, output.stderr].map(|words| String::from_utf8_lossy(&words).into_owned()).concat();
    assert!(output.status.success() && words.contains("1 passed"), "{words}");
    false
}

/// Runs a line of shell.
pub fn shell(line: &str) {
    assert!(Command::new("sh").args(["-ec", line]).status().unwrap().success(), "{line}");
}
