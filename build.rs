//! What `idlewatch --version` says of how it was built.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Every commit would build everything anew: nobody asks a debug build where it comes from.
    let commit = if release {
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
        told_by("git", &["rev-parse", "--short=12", "HEAD"])
    } else {
        Some("a debug build".to_owned())
    };
    let named =
        |variable: String| Some(variable.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-"));
    let mut features: Vec<_> = std::env::vars().filter_map(|(name, _)| named(name)).collect();
    features.retain(|feature| feature != "default");
    features.sort();
    println!("cargo::rustc-env=IDLEWATCH_FEATURES={}", features.join(" "));
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| told_by(&rustc, &["--version"]));
    let unknown = || "unknown".to_owned();
    println!("cargo::rustc-env=IDLEWATCH_COMMIT={}", commit.unwrap_or_else(unknown));
    println!("cargo::rustc-env=IDLEWATCH_RUSTC={}", rustc.unwrap_or_else(unknown));
}

fn told_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
