//! The command list of a Docker user, driven by docker's CLI on a real dockerd and on dockerd-lite: the same requests, statuses,
//! exit codes and output. Each line of `golden/trace` is one command; a line under `! reason` must differ.
//!
//! `LITE_TRACE=1` prints what both have said.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use integration::cases::Verdict;
use integration::peers::Dockerd;
use integration::programs::{self, run};
use integration::recorder::Recorder;
use integration::stack::Stack;
use integration::{images, require};
use regex::Regex;

const CASES: &str = include_str!("../golden/trace");

#[derive(Debug)]
struct Case {
    line: &'static str,
    output: bool,
    differs: Option<&'static str>,
    /// It is run on both, but may differ.
    free: bool,
}

fn cases() -> Vec<Case> {
    let (mut differs, mut free) = (None, false);
    let mut cases = Vec::new();
    for line in CASES.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            (differs, free) = (None, false);
        } else if let Some(reason) = line.strip_prefix("! ") {
            differs = Some(reason);
        } else if line.starts_with("? ") {
            free = true;
        } else {
            let (line, output) = match line.strip_prefix("= ") {
                Some(line) => (line, true),
                None => (line, false),
            };
            cases.push(Case {
                line,
                output,
                differs,
                free,
            });
        }
    }
    cases
}

/// One of the two sides.
struct Side {
    recorder: Recorder,
    dir: PathBuf,
    docker: PathBuf,
    masks: Vec<(Regex, &'static str)>,
}

impl Side {
    fn new(dir: PathBuf, daemon: &Path) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let masks = [
            (r"/v1\.\d+/", "/"),
            (r"\b[0-9a-f]{64}\b", "ID64"),
            (r"\b[0-9a-f]{12}\b", "ID12"),
            (r"(since|until)=[0-9.]+", "$1=MOMENT"),
            (
                r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?",
                "TIME",
            ),
            (r"\b\d+(\.\d+)?(kB|MB|GB)\b", "SIZE"),
        ];
        let masks = masks
            .into_iter()
            .map(|(pattern, to)| Ok((Regex::new(pattern)?, to)));
        Ok(Self {
            recorder: Recorder::start(&dir.join("recorder.sock"), daemon)?,
            dir,
            docker: require::peer("docker")?,
            masks: masks.collect::<Result<_>>()?,
        })
    }

    /// What a command asks and says.
    fn told(&self, case: &Case) -> Result<String> {
        let mut command = programs::command(Path::new("/bin/bash"), ["-c", case.line]);
        command
            .env("D", &self.docker)
            .env("DOCKER_HOST", self.recorder.host())
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env_remove("DOCKER_CONTEXT")
            .current_dir(&self.dir);
        let out = run(&mut command, b"", Duration::from_secs(120))
            .with_context(|| format!("run {}", case.line))?;
        let mut told = String::new();
        for call in self.recorder.take() {
            // how often a client asks whether the daemon is there is its own affair
            if !call.request.ends_with("/_ping") {
                told += &format!("{} -> {}\n", call.request, call.status);
            }
        }
        told += &format!("exit code {}\n", out.code);
        if case.output {
            told += &format!("{}--- stderr\n{}", out.stdout, out.stderr);
        }
        Ok(self.masks.iter().fold(told, |text, (pattern, to)| {
            pattern.replace_all(&text, *to).into_owned()
        }))
    }
}

#[test]
fn the_same_requests_statuses_and_results_as_on_dockerd() -> Result<()> {
    let stack = Stack::start()?;
    let real = Dockerd::start(&[])?;
    if !real.is_measure("trace")? {
        drop(real);
        return stack.stop();
    }
    let socket = |host: &str| PathBuf::from(host.trim_start_matches("unix://"));
    let ours = Side::new(stack.path("trace-ours"), &socket(&stack.host()))?;
    let theirs = Side::new(stack.path("trace-theirs"), &socket(&real.host()))?;
    let tar = images::rootfs_tar(stack.dir())?;
    for side in [&ours, &theirs] {
        let line = format!("$D import -c 'CMD [\"sh\"]' {} busybox", tar.display());
        let case = Case {
            line: Box::leak(line.into_boxed_str()),
            output: false,
            differs: None,
            free: false,
        };
        side.told(&case)?;
    }
    let mut verdict = Verdict::default();
    for case in &cases() {
        let (theirs, ours) = (theirs.told(case)?, ours.told(case)?);
        if std::env::var_os("LITE_TRACE").is_some() {
            println!("$ {}\n{theirs}", case.line);
        }
        let said = [("dockerd", theirs.as_str()), ("dockerd-lite", &ours)];
        verdict.add(case.line, case.differs, theirs == ours || case.free, said);
    }
    verdict.end("commands")?;
    drop(real);
    stack.stop()
}
