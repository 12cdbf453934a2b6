//! Descriptors that stay open over execve, and directories of the host behind them (CVE-2024-21626, CVE-2016-9962).

use anyhow::{Result, ensure};
use serde_json::json;

use super::harness::Victim;

/// A shell that leaves descriptors of the host open for the runtime.
const LEAKY: &str = "exec 3<$OUTSIDE 4<$OUTSIDE 5</ 6<$OUTSIDE/host-secret 9<$OUTSIDE/data; ";

#[test]
fn a_program_gets_its_streams_and_what_it_was_given() -> Result<()> {
    let mut victim =
        Victim::new("ls /proc/self/fd | wc -l; cat /proc/self/fd/6; ls /proc/self/fd/3/")?;
    victim.write_config()?;
    // Three, and the directory that ls has open itself.
    for options in ["", "--preserve-fds 0"] {
        let out = victim.shell(&format!("{LEAKY} exec $RUN run {options} $ID"))?;
        ensure!(out.stdout == "4\n", "run {options}: {}", out.stdout);
    }
    victim.config["process"]["args"] = json!(["sleep", "1000"]);
    victim.start()?;
    let out = victim.shell(&format!(
        "{LEAKY} exec $RUN exec $ID sh -c 'ls /proc/self/fd | wc -l; cat <&6; ls /proc/self/fd/4/'"
    ))?;
    ensure!(out.stdout == "4\n", "exec: {}", out.stdout);
    // The init waiting at its gate has nothing of the caller's either.
    victim.call(&["delete", "--force", &victim.id])?.exits(0)?;
    let out = victim.shell(&format!(
        "{LEAKY} $RUN create --pid-file pid $ID </dev/null >/dev/null 2>&1; ls -l /proc/$(cat pid)/fd"
    ))?;
    ensure!(
        !out.stdout.contains("/outside"),
        "the init has {}",
        out.stdout
    );
    victim.unharmed()
}

#[test]
fn no_working_directory_lies_behind_a_descriptor() -> Result<()> {
    let mut victim =
        Victim::new("pwd; ls -a . ..; cat host-secret ../host-secret ../../outside/host-secret")?;
    for fd in 3..24 {
        for cwd in [
            format!("/proc/self/fd/{fd}"),
            format!("/proc/self/fd/{fd}/.."),
        ] {
            victim.config["process"]["cwd"] = cwd.as_str().into();
            victim.write_config()?;
            let out = victim.shell(&format!("{LEAKY} exec $RUN run $ID"))?;
            ensure!(
                !out.stdout.contains("host-secret") && !out.stdout.contains("of the host"),
                "{cwd}: {}",
                out.stdout
            );
        }
    }
    // An init that waits at its gate has its directory already.
    for fd in 3..12 {
        victim.config["process"]["cwd"] = format!("/proc/self/fd/{fd}").into();
        victim.write_config()?;
        let out = victim.shell(&format!(
            "{LEAKY} $RUN create --pid-file pid $ID </dev/null >/dev/null 2>&1 && ls -a /proc/$(cat pid)/cwd/ && $RUN delete --force $ID"
        ))?;
        ensure!(
            !out.stdout.contains("host-secret"),
            "create, {fd}: {}",
            out.stdout
        );
    }
    // One that was passed on is the program's, but not as a place to start from.
    victim.config["process"]["cwd"] = "/proc/self/fd/3".into();
    victim.write_config()?;
    let out = victim.shell(&format!("{LEAKY} exec $RUN run --preserve-fds 1 $ID"))?;
    ensure!(
        out.code == 1 && out.stderr.contains("outside of container"),
        "preserved: {} {}",
        out.stdout,
        out.stderr
    );
    victim.config["process"]["cwd"] = "/".into();
    victim.config["process"]["args"] = json!(["sleep", "1000"]);
    victim.start()?;
    for fd in 3..24 {
        let out = victim.shell(&format!(
            "{LEAKY} exec $RUN exec --cwd /proc/self/fd/{fd} $ID sh -c 'ls -a . ..; cat host-secret ../host-secret'"
        ))?;
        ensure!(
            !out.stdout.contains("host-secret"),
            "exec, {fd}: {}",
            out.stdout
        );
    }
    let out = victim.shell(&format!(
        "{LEAKY} exec $RUN exec --preserve-fds 1 --cwd /proc/self/fd/3 $ID true"
    ))?;
    ensure!(
        out.code == 255 && out.stderr.contains("outside of container"),
        "preserved: {}",
        out.stderr
    );
    victim.unharmed()
}

/// A link in the image does as well as the text.
#[test]
fn no_working_directory_lies_behind_a_link_to_one() -> Result<()> {
    let mut victim = Victim::new("ls -a . ..; cat host-secret ../host-secret")?;
    for fd in 3..12 {
        let name = format!("work{fd}");
        std::os::unix::fs::symlink(format!("/proc/self/fd/{fd}"), victim.root().join(&name))?;
        victim.config["process"]["cwd"] = format!("/{name}").into();
        victim.write_config()?;
        let out = victim.shell(&format!("{LEAKY} exec $RUN run $ID"))?;
        ensure!(
            !out.stdout.contains("host-secret"),
            "{name}: {}",
            out.stdout
        );
    }
    victim.unharmed()
}

#[test]
fn a_count_of_sockets_that_is_a_lie_is_refused() -> Result<()> {
    let victim = Victim::new("ls /proc/self/fd | wc -l")?;
    victim.write_config()?;
    for (count, code) in [
        ("5", 1),
        ("4095", 1),
        ("4294967295", 1),
        ("-1", 0),
        ("x", 0),
        ("", 0),
    ] {
        let out = victim.shell(&format!("LISTEN_FDS='{count}' exec $RUN run $ID"))?;
        ensure!(out.code == code, "{count}: {} {}", out.code, out.stderr);
        ensure!(code != 0 || out.stdout == "4\n", "{count}: {}", out.stdout);
    }
    for count in ["3", "4294967295", "-1", "99999999999999999999"] {
        let out = victim.shell(&format!("exec $RUN run --preserve-fds {count} $ID"))?;
        ensure!(out.code != 0, "--preserve-fds {count}");
    }
    victim.unharmed()
}
