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
