//! Gives the program its git commit, empty where there is no git, and tells the linker how to lay it out.

use std::process::Command;

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .unwrap_or_default();
    println!("cargo::rustc-env=GIT_COMMIT={}", commit.trim());
    // The table of relocations is read whole at each start, and stays in memory: packed it is a fiftieth (glibc 2.36 and newer).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=build.rs");
}
