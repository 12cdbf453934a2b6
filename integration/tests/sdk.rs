//! Client libraries' own tests, run on dockerd-lite: their sources come from crates.io, the images that they name are made of
//! busybox and lie in a registry beside the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::images::{Registry, rootfs};
use integration::programs::{command, run};
use integration::stack::Stack;

const BUILD: Duration = Duration::from_secs(3000);
const TESTS: Duration = Duration::from_secs(600);

/// A stack, and the registry `localhost:5000` with images.
struct Place {
    stack: Stack,
    registry: Registry,
}

/// An image: its name, a program that it has besides busybox, and what that does.
type Made = (&'static str, Option<(&'static str, &'static str)>);

impl Place {
    fn with(arguments: &[&str], images: &[Made]) -> Result<Self> {
        let stack = Stack::with(arguments)?;
        let registry = Registry::start(&stack)?;
        for (number, (name, program)) in images.iter().enumerate() {
            let root = stack.path(&format!("image{number}"));
            rootfs(&root)?;
            // one test reads a setting of the web server's
            std::fs::create_dir_all(root.join("etc/config"))?;
            std::fs::write(root.join("etc/config/uhttpd"), "\nconfig uhttpd main\n")?;
            if let Some((path, script)) = program {
                let path = root.join(path.trim_start_matches('/'));
                std::fs::create_dir_all(path.parent().context("a folder")?)?;
                std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&path, mode)?;
            }
            let tar = stack.path("image.tar");
            let (from, to) = (root.to_string_lossy(), tar.to_string_lossy());
            let mut pack = command("tar", ["-C", &from, "-cf", &to, "."]);
            run(&mut pack, b"", Duration::from_secs(60))?.exits(0)?;
            let cmd = match program {
                Some((path, _)) => format!("CMD [\"{path}\"]"),
                None => "CMD [\"sh\"]".to_owned(),
            };
            let name = format!("localhost:5000/{name}");
            stack.lite(["import", "-c", &cmd, &to, &name])?.exits(0)?;
            stack.lite(["push", &name])?.exits(0)?;
            stack.lite(["rmi", &name])?.exits(0)?;
        }
        Ok(Self { stack, registry })
    }

    /// Runs a program of tests one by one, but for those whose names hold one of `without`.
    fn passes(&self, program: &Path, without: &[&str]) -> Result<()> {
        // Some ask at the usual place, whatever they are told.
        let place = "mount -t tmpfs run /run && ln -s \"$0\" /run/docker.sock && exec \"$@\"";
        let mut tests = self.stack.in_namespace(Path::new("/usr/bin/unshare"));
        tests
            .args(["--mount", "--", "/bin/sh", "-c", place])
            .arg(self.stack.path("docker.sock"))
            .arg(program)
            .args(["--test-threads", "1"])
            .env("DOCKER_HOST", self.stack.host())
            .env("DOCKER_CONFIG", self.stack.path("config"))
            .env("REGISTRY_PASSWORD", "any");
        for name in without {
            tests.args(["--skip", name]);
        }
        let out = run(&mut tests, b"", TESTS)?;
        let name = program.file_name().unwrap_or_default().display();
        let results = out.stdout.lines().filter(|l| l.starts_with("test result"));
        println!("{name}: {}", results.collect::<Vec<_>>().join(" "));
        ensure!(out.code == 0, "{name}: {}\n{}", out.stdout, out.stderr);
        Ok(())
    }
}

/// Builds a library's tests.
fn built(arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sdk");
    let mut build = command(script, arguments);
    build.env_remove("CARGO_TARGET_DIR");
    let out = run(&mut build, b"", BUILD)?.exits(0)?;
    let programs: Vec<_> = out.stdout.lines().map(PathBuf::from).collect();
    ensure!(!programs.is_empty(), "no tests were built");
    Ok(programs)
}

#[test]
#[ignore = "builds the crate bollard: drill sdk"]
fn bollards_tests() -> Result<()> {
    // without what dockerd-lite has not: buildkit, swarm, plugins
    let tests = [
        "container_test",
        "distribution",
        "exec_test",
        "image_test",
        "network_test",
        "system_test",
        "version_test",
        "volume_test",
    ];
    let features = ["bollard", "0.21.1", "time,test_websocket"];
    let programs = built(&[&features[..], &tests].concat())?;
    ensure!(programs.len() == tests.len(), "built {programs:?}");
    let place = Place::with(
        &[],
        &[
            (
                "hello-world:linux",
                Some(("/hello", "echo; echo 'Hello from Docker!'")),
            ),
            ("alpine", None),
            (
                "fussybeaver/uhttpd",
                Some(("/usr/sbin/run_uhttpd", "exec httpd -f -p 80 -h /")),
            ),
        ],
    )?;
    let mut wrong = Vec::new();
    for program in &programs {
        // Docker Hub is asked, and nobody else
        if let Err(e) = place.passes(program, &["search_images"]) {
            wrong.push(format!("{e:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(place.registry);
    place.stack.stop()
}
