//! The user's service and context: made, and taken away. The contexts are the client's; so it is asked to change them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::super::user::User;
use super::check;
use crate::error::{During, Error, Result};
use crate::supervise;

/// Name of the service.
const UNIT: &str = "docker-lite.service";
/// Name of the context.
const CONTEXT: &str = "rootless";

/// Makes them.
pub(super) fn install(force: bool) -> Result<ExitCode> {
    let user = User::of_environment()?;
    if !force && !check::passes()? {
        check::main()?;
        eprintln!("dockerd-lite rootless: something is missing; install -f installs all the same");
        return Ok(ExitCode::FAILURE);
    }
    let own = supervise::own_program()?;
    match has_systemd() {
        true => {
            let path = unit_path(&user);
            write_unit(&path, &own)?;
            println!("wrote {}", path.display());
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", UNIT])?;
            systemctl(&["restart", UNIT])?;
            println!(
                "The service {UNIT} runs. To have it run without a login: sudo loginctl enable-linger $USER"
            );
        }
        false => println!(
            "systemd does not run here. Start the daemon by:\n    {} rootless",
            own.display()
        ),
    }
    let socket = format!("host=unix://{}", user.socket().display());
    let described = "docker-lite, rootless";
    // One that is there may name another socket.
    let _ = client(&["context", "rm", "-f", CONTEXT]);
    client(&[
        "context",
        "create",
        CONTEXT,
        "--description",
        described,
        "--docker",
        &socket,
    ])?;
    client(&["context", "use", CONTEXT])?;
    println!(
        "Clients find it by context {CONTEXT}, which is in use now, or by DOCKER_HOST=unix://{}",
        user.socket().display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Takes them away.
pub(super) fn uninstall() -> Result<ExitCode> {
    let user = User::of_environment()?;
    let path = unit_path(&user);
    if path.exists() {
        if has_systemd() {
            systemctl(&["disable", "--now", UNIT])?;
        }
        std::fs::remove_file(&path).during(|| format!("remove {}", path.display()))?;
        if has_systemd() {
            systemctl(&["daemon-reload"])?;
        }
        println!("removed {}", path.display());
    }
    if client(&["context", "inspect", CONTEXT]).is_ok() {
        client(&["context", "use", "default"])?;
        client(&["context", "rm", "-f", CONTEXT])?;
        println!("removed the context {CONTEXT}");
    }
    println!(
        "Containers and the data in {} stay. To stop what runs: dockerd-lite rootless --stop-all",
        user.data_home.join("docker-lite").display()
    );
    Ok(ExitCode::SUCCESS)
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn unit_path(user: &User) -> PathBuf {
    user.config_home.join("systemd/user").join(UNIT)
}

fn write_unit(path: &Path, program: &Path) -> Result<()> {
    let what = || format!("write {}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).during(what)?;
    }
    crate::replace(path, unit(program)).during(what)
}

/// The service. Containers, the namespaces and the network outlive a stop of the daemon, so only the main process is ended.
fn unit(program: &Path) -> String {
    let program = program.display();
    format!(
        "[Unit]
Description=docker-lite, rootless
Documentation=man:dockerd-lite(8)
StartLimitBurst=3
StartLimitIntervalSec=60s

[Service]
Type=notify
NotifyAccess=all
ExecStart={program} rootless
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=process
Delegate=yes
Restart=always
RestartSec=100ms
TimeoutStartSec=0
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=default.target
"
    )
}

fn systemctl(words: &[&str]) -> Result<()> {
    let status = Command::new("systemctl")
        .arg("--user")
        .args(words)
        .status()
        .during(|| "run systemctl")?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::internal(format!(
            "systemctl --user {}: {status}",
            words.join(" ")
        ))),
    }
}

/// Runs the client beside this program, else the one on PATH.
fn client(words: &[&str]) -> Result<()> {
    let beside = supervise::own_program()?.with_file_name(proto::layout::program::CLI);
    let mut tried = Vec::new();
    for program in [beside, proto::layout::program::CLI.into(), "docker".into()] {
        match Command::new(&program).args(words).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(Error::internal(format!(
                    "{} {}: {}",
                    program.display(),
                    words.join(" "),
                    said.trim()
                )));
            }
            Err(_) => tried.push(program.display().to_string()),
        }
    }
    Err(Error::not_found(format!(
        "no client is installed: tried {}",
        tried.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_the_program_and_leaves_containers_alone() {
        let text = unit(Path::new("/usr/bin/dockerd-lite"));
        assert!(text.contains("\nExecStart=/usr/bin/dockerd-lite rootless\n"));
        assert!(text.contains("\nKillMode=process\n") && text.contains("\nDelegate=yes\n"));
    }
}
