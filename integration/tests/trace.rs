//! The command list of a Docker user, driven by docker's CLI on a real dockerd and on dockerd-lite: the same requests, statuses,
//! exit codes and output. Each line of `golden/trace` is one command; a line under `! reason` must differ. What the table of
//! endpoints in docs/compatibility.md says to be shown here was asked.
//!
//! `LITE_TRACE=1` prints what both have said.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::cases::Verdict;
use integration::images::Registry;
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
    compose: Option<PathBuf>,
    /// All that was asked, as `METHOD /path`.
    asked: Vec<String>,
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
            compose: require::optional("docker-compose", "trace of compose").filter(|p| is_v2(p)),
            asked: Vec::new(),
            masks: masks.collect::<Result<_>>()?,
        })
    }

    /// What a command asks and says; none if its program is not there.
    fn told(&mut self, case: &Case) -> Result<Option<String>> {
        let of_compose = case.line.contains("$C ");
        if of_compose && self.compose.is_none() {
            return Ok(None);
        }
        let mut command = programs::command(Path::new("/bin/bash"), ["-c", case.line]);
        command
            .env("D", &self.docker)
            .env("C", self.compose.as_deref().unwrap_or(Path::new("")))
            .env("DOCKER_HOST", self.recorder.host())
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env_remove("DOCKER_CONTEXT")
            .current_dir(&self.dir);
        let out = run(&mut command, b"", Duration::from_secs(120))
            .with_context(|| format!("run {}", case.line))?;
        let mut calls = Vec::new();
        for call in self.recorder.take() {
            self.asked.push(without_version(&call.request));
            // how often a client asks whether the daemon is there is its own affair
            if !call.request.ends_with("/_ping") {
                calls.push(self.masked(format!("{} -> {}\n", call.request, call.status)));
            }
        }
        if of_compose {
            calls.sort();
            calls.dedup();
        }
        let mut told = calls.concat();
        told += &format!("exit code {}\n", out.code);
        if case.output {
            told += &format!("{}--- stderr\n{}", out.stdout, out.stderr);
        }
        Ok(Some(self.masked(told)))
    }

    fn masked(&self, told: String) -> String {
        self.masks.iter().fold(told, |text, (pattern, to)| {
            pattern.replace_all(&text, *to).into_owned()
        })
    }
}

/// Whether it is a compose of the second kind: the first one has other commands.
fn is_v2(compose: &Path) -> bool {
    let version = run(
        &mut programs::command(compose, ["version"]),
        b"",
        Duration::from_secs(30),
    );
    let is = version.is_ok_and(|out| out.stdout.contains("Docker Compose version"));
    if !is {
        println!(
            "SKIPPED trace of compose: {} is an old one",
            compose.display()
        );
    }
    is
}

/// `POST /v1.41/containers/x/start?a=b` as `POST /containers/x/start`.
fn without_version(request: &str) -> String {
    let path = request.split('?').next().unwrap_or(request);
    let version = Regex::new(r" /v1\.\d+/").expect("the pattern is one");
    version.replace(path, " /").into_owned()
}

/// The endpoints that the table says to be shown by the trace, each as a pattern.
fn promised() -> Result<Vec<(String, Regex)>> {
    let page = include_str!("../../docs/compatibility.md");
    let mut promised = Vec::new();
    for line in page.lines() {
        let cells: Vec<_> = line.split(" | ").collect();
        let [rank, endpoint, _, tests] = cells[..] else {
            continue;
        };
        if ["| must", "| should", "| could"].contains(&rank) && tests.starts_with("trace") {
            let pattern = regex::escape(endpoint)
                .replace(r"\{name\}", ".+")
                .replace(r"\{id\}", "[^/]+");
            promised.push((endpoint.to_owned(), Regex::new(&format!("^{pattern}$"))?));
        }
    }
    ensure!(promised.len() > 40, "{} in the table", promised.len());
    Ok(promised)
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
    let mut ours = Side::new(stack.path("trace-ours"), &socket(&stack.host()))?;
    let mut theirs = Side::new(stack.path("trace-theirs"), &socket(&real.host()))?;
    let registry = Registry::start(&stack)?;
    let other = Registry::beside(real.dir(), |program| real.in_namespace(program))?;
    let tar = images::rootfs_tar(stack.dir())?;
    for side in [&mut ours, &mut theirs] {
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
        let (Some(theirs), Some(ours)) = (theirs.told(case)?, ours.told(case)?) else {
            continue;
        };
        if std::env::var_os("LITE_TRACE").is_some() {
            println!("$ {}\n{theirs}", case.line);
        }
        let said = [("dockerd", theirs.as_str()), ("dockerd-lite", &ours)];
        verdict.add(case.line, case.differs, theirs == ours || case.free, said);
    }
    verdict.end("commands")?;
    let mut missing = promised()?;
    missing.retain(|(_, pattern)| !ours.asked.iter().any(|asked| pattern.is_match(asked)));
    let missing: Vec<_> = missing.iter().map(|(endpoint, _)| endpoint).collect();
    ensure!(
        missing.is_empty(),
        "docs/compatibility.md says that the trace shows what it does not ask for: {missing:?}"
    );
    drop((registry, other, real));
    stack.stop()
}
