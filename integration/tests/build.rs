//! The classic builder, driven by docker's CLI with BuildKit switched off: what images hold, what the cache takes, what fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::programs::{Output, run};
use integration::stack::Stack;
use integration::{eventually, images, require};

struct Builds {
    stack: Stack,
    context: PathBuf,
}

impl Builds {
    fn start() -> Result<Self> {
        let stack = Stack::start()?;
        images::busybox(&stack)?;
        let context = stack.dir().join("context");
        std::fs::create_dir_all(context.join("d"))?;
        for (name, text) in [
            ("a.txt", "hello\n"),
            ("d/f", "in d\n"),
            ("ignored.txt", "no\n"),
            (".dockerignore", "ignored*\n"),
        ] {
            std::fs::write(context.join(name), text)?;
        }
        std::os::unix::fs::symlink("/etc/shadow", context.join("leads-out"))?;
        Ok(Self { stack, context })
    }

    /// `docker build ARGUMENTS -f - CONTEXT` with the Dockerfile on its input.
    fn build(&self, dockerfile: &str, arguments: &[&str]) -> Result<Output> {
        std::fs::write(self.context.join("Dockerfile"), dockerfile)?;
        let docker = require::peer("docker")?;
        let context = self.context.to_str().context("a path in UTF-8")?;
        let all = ["build"].iter().chain(arguments).chain([&context]);
        let mut command = self.stack.client_command(&docker, all);
        command.env("DOCKER_BUILDKIT", "0");
        run(&mut command, b"", Duration::from_secs(120))
    }

    /// What a command prints in a container of the image.
    fn inside(&self, image: &str, script: &str) -> Result<String> {
        let arguments = [
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "sh",
            image,
            "-c",
            script,
        ];
        Ok(self.stack.docker(arguments)?.exits(0)?.stdout)
    }
}

fn cached(out: &Output) -> usize {
    out.stdout.matches("Using cache").count()
}

const STAGES: &str = r#"ARG base=busybox
FROM $base AS one
ARG V=1
ENV A=b C="d e"
RUN echo v=$V a=$A >/made
COPY --chown=7:8 --chmod=640 a.txt /owned
COPY d/ /dst/
WORKDIR /w/x
RUN <<END
pwd >/where
cat /dst/f >>/where
END
COPY <<one <<'two' /docs/
$A
one
$A
two
FROM busybox
COPY --from=one /made /where /owned /docs/ /out/
ENTRYPOINT ["/bin/cat"]
CMD ["/out/made"]
"#;

#[test]
fn stages_files_and_cache() -> Result<()> {
    let on = Builds::start()?;
    let first = on
        .build(
            STAGES,
            &["-t", "x:1", "--build-arg", "V=2", "--label", "k=v"],
        )?
        .exits(0)?;
    ensure!(
        first.stdout.contains("Step 1/15 : ARG base=busybox"),
        "{first:?}"
    );
    ensure!(
        first.stdout.contains("Successfully tagged x:1"),
        "{first:?}"
    );
    ensure!(cached(&first) == 0, "{first:?}");
    let ran = on
        .stack
        .docker(["run", "--rm", "--network", "none", "x:1"])?
        .exits(0)?;
    ensure!(ran.stdout == "v=2 a=b\n", "{ran:?}");
    ensure!(on.inside("x:1", "cat /out/where")? == "/w/x\nin d\n");
    ensure!(on.inside("x:1", "cat /out/one /out/two")? == "b\n$A\n");
    ensure!(on.inside("x:1", "stat -c '%a' /out/owned")? == "640\n");
    let label = on
        .stack
        .docker(["inspect", "-f", "{{.Config.Labels.k}}", "x:1"])?
        .exits(0)?;
    ensure!(label.stdout == "v\n", "{label:?}");

    let again = on
        .build(
            STAGES,
            &["-t", "x:1", "--build-arg", "V=2", "--label", "k=v"],
        )?
        .exits(0)?;
    ensure!(cached(&again) == 12, "a second build: {again:?}");
    // another value is another RUN, and all that stands on it; what came before stays
    let value = on.build(STAGES, &["--build-arg", "V=3"])?.exits(0)?;
    ensure!(cached(&value) == 2, "another value: {value:?}");
    std::fs::write(on.context.join("d/f"), "changed\n")?;
    let file = on.build(STAGES, &["--build-arg", "V=2"])?.exits(0)?;
    ensure!(cached(&file) == 4, "another file: {file:?}");
    let none = on
        .build(STAGES, &["--no-cache", "-q", "-t", "x:2"])?
        .exits(0)?;
    ensure!(
        none.stdout.starts_with("sha256:") && none.stdout.lines().count() == 1,
        "{none:?}"
    );
    ensure!(on.inside("x:2", "cat /out/where")? == "/w/x\nchanged\n");

    let target = on
        .build(STAGES, &["--target", "one", "-t", "x:3"])?
        .exits(0)?;
    ensure!(
        cached(&target) > 0 && !target.stdout.contains("ENTRYPOINT"),
        "{target:?}"
    );
    ensure!(on.inside("x:3", "stat -c '%u:%g' /owned")? == "7:8\n");

    on.stack.docker(["builder", "prune", "-af"])?.exits(0)?;
    let pruned = on.build(STAGES, &["--build-arg", "V=2"])?.exits(0)?;
    ensure!(cached(&pruned) == 0, "after a prune: {pruned:?}");
    ensure!(
        on.inside("x:2", "cat /out/made")? == "v=1 a=b\n",
        "images outlive the cache"
    );
    on.stack.stop()
}

#[test]
fn failures_are_told_and_leave_nothing() -> Result<()> {
    let on = Builds::start()?;
    let told = |dockerfile: &str, code: i32, text: &str| {
        let out = on.build(dockerfile, &["--force-rm"])?;
        ensure!(
            out.code == code && out.stderr.contains(text),
            "{dockerfile}: {out:?}"
        );
        anyhow::Ok(())
    };
    told(
        "FROM busybox\nRUN exit 7",
        7,
        "The command '/bin/sh -c exit 7' returned a non-zero code: 7",
    )?;
    told(
        "FROM busybox\nNOPE",
        1,
        "dockerfile parse error on line 2: unknown instruction: NOPE",
    )?;
    told(
        "FROM busybox\nCOPY none /",
        1,
        "stat none: file does not exist",
    )?;
    told(
        "FROM busybox\nCOPY ignored.txt /",
        1,
        "excluded by .dockerignore",
    )?;
    told(
        "FROM busybox\nCOPY ../../etc/shadow /",
        1,
        "file does not exist",
    )?;
    told(
        "FROM busybox\nRUN --mount=type=secret,id=x true",
        1,
        "requires BuildKit",
    )?;
    told(
        "FROM busybox\nCOPY a.txt d /x",
        1,
        "the destination must be a directory and end with a /",
    )?;
    // a link of the context leads to nowhere but the context
    told("FROM busybox\nCOPY leads-out /x", 1, "COPY failed")?;
    // one of an image leads to nowhere but the image
    let out = on.build(
        "FROM busybox\nRUN ln -s /proc/1/root /out && ln -s /etc /e\nCOPY a.txt /e/new\n",
        &["-t", "l"],
    )?;
    out.exits(0)?;
    ensure!(on.inside("l", "cat /etc/new")? == "hello\n");
    ensure!(
        !Path::new("/etc/new").exists(),
        "a file has come to the host"
    );

    let mut command = on
        .stack
        .client_command(&require::peer("docker")?, ["build", "-"]);
    command.env("DOCKER_BUILDKIT", "0");
    let left = run(
        &mut command,
        b"FROM busybox\nRUN sleep 600\n",
        Duration::from_secs(4),
    );
    ensure!(left.is_err(), "a build was not cut off: {left:?}");
    eventually::within(
        Duration::from_secs(20),
        "the containers of builds are gone",
        || {
            let left = on.stack.docker(["ps", "-aq"])?.exits(0)?.stdout;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        },
    )?;
    let contexts = on.stack.path("data").join("builds");
    eventually::within(Duration::from_secs(20), "the contexts are gone", || {
        ensure!(
            std::fs::read_dir(&contexts)?.next().is_none(),
            "some are left"
        );
        Ok(())
    })?;
    on.stack.stop()
}

#[test]
fn a_build_is_cancelled_by_its_name() -> Result<()> {
    let on = Builds::start()?;
    let (socket, host) = (on.stack.path("docker.sock"), on.stack.path("context"));
    std::fs::write(host.join("Dockerfile"), "FROM busybox\nRUN sleep 600\n")?;
    let mut tar = integration::programs::command(
        "tar",
        ["-C", &host.to_string_lossy(), "-cf", "-", "Dockerfile"],
    );
    let tar = tar.output().context("pack a context")?.stdout;
    let (to, wait) = std::sync::mpsc::channel();
    let builder = socket.clone();
    std::thread::spawn(move || {
        let headers = format!(
            "Content-Type: application/x-tar\r\nContent-Length: {}\r\n",
            tar.len()
        );
        let path = "/v1.41/build?buildid=mine&forcerm=1";
        to.send(integration::http::raw(
            &builder, "POST", path, &headers, &tar,
        ))
    });
    eventually::within(Duration::from_secs(30), "the step runs", || {
        let runs = on.stack.docker(["ps", "-q"])?.exits(0)?.stdout;
        ensure!(!runs.is_empty(), "no container");
        Ok(())
    })?;
    let cancel = |query: &str| {
        integration::http::ask(&socket, "POST", &format!("/v1.41/build/cancel{query}"), "")
    };
    ensure!(cancel("")?.status == 400);
    ensure!(cancel("?id=another")?.status == 200);
    ensure!(wait.try_recv().is_err(), "another build was cancelled");
    ensure!(cancel("?id=mine")?.status == 200);
    let answer = wait
        .recv_timeout(Duration::from_secs(20))
        .context("the build ends")??;
    ensure!(
        answer.text().contains("the build was cancelled"),
        "{answer:?}"
    );
    eventually::within(Duration::from_secs(20), "its container is gone", || {
        let left = on.stack.docker(["ps", "-aq"])?.exits(0)?.stdout;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    on.stack.stop()
}

#[test]
fn files_come_from_addresses() -> Result<()> {
    let on = Builds::start()?;
    let served = on.stack.path("served");
    std::fs::create_dir(&served)?;
    std::fs::write(served.join("file"), "fetched\n")?;
    let files = images::Files::serve(&on.stack, &served, "127.0.0.1:5001")?;
    let sum = integration::programs::command("sha256sum", [served.join("file")]).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout)[..64].to_owned();
    let dockerfile = format!(
        "FROM busybox\nADD --checksum=sha256:{sum} http://127.0.0.1:5001/file /one\nADD a.txt http://127.0.0.1:5001/file /d/\n"
    );
    on.build(&dockerfile, &["-t", "x"])?.exits(0)?;
    ensure!(
        on.inside("x", "cat /one /d/a.txt /d/file; stat -c %a /one")?
            == "fetched\nhello\nfetched\n600\n"
    );
    let again = on.build(&dockerfile, &["-t", "x"])?.exits(0)?;
    ensure!(cached(&again) == 2, "{again:?}");
    std::fs::write(served.join("file"), "changed\n")?;
    let other = on.build(&dockerfile, &["-t", "x"])?;
    ensure!(
        other.code == 1 && other.stderr.contains("digest mismatch"),
        "{other:?}"
    );
    let missing = on.build("FROM busybox\nADD http://127.0.0.1:5001/none /\n", &[])?;
    ensure!(
        missing.code == 1 && missing.stderr.contains("404"),
        "{missing:?}"
    );
    drop(files);
    on.stack.stop()
}
