//! docker-lite beside docker's own CLI on the same daemon: each line of `golden/cases` is run with both; what they print
//! on both channels and their exit codes are equal, once ids, times and sizes that differ by nature are masked.
//!
//! `LITE_GOLDEN=TEXT` takes only the cases that hold TEXT. A case under a `! reason` line must differ: the list of known
//! differences cannot go stale.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::cases::Verdict;
use integration::programs::{self, Output, run};
use integration::stack::Stack;
use integration::{images, require};
use regex::{Captures, Regex};

const CASES: &str = include_str!("../golden/cases");

/// One line of the list.
#[derive(Debug)]
struct Case {
    line: &'static str,
    /// Why the two differ here.
    differs: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let wanted = std::env::var("LITE_GOLDEN").unwrap_or_default();
    let mut differs = None;
    let mut cases = Vec::new();
    for line in CASES.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            differs = None;
        } else if let Some(reason) = line.strip_prefix("! ") {
            differs = Some(reason);
        } else if line.contains(&wanted) {
            cases.push(Case { line, differs });
        }
    }
    cases
}

/// What is masked, in this order: pattern and what it becomes.
fn masks() -> Result<Vec<(Regex, &'static str)>> {
    [
        (r"\bg(ld|gd)\b", "g"),
        (r"g(ld|gd)-", "g-"),
        (r"\b[0-9a-f]{64}\b", "ID64"),
        (r"\b[0-9a-f]{12}\b", "ID12"),
        (
            r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( UTC)?",
            "TIME",
        ),
        (
            r"\b(\d+|a|an|About a|About an|Less than a) (second|minute|hour)s?\b",
            "SPAN",
        ),
        (r"\b\d+(\.\d+)?(B|kB|MB|GB|KiB|MiB|GiB)\b", "SIZE"),
        (r"\b\d+\.\d+%", "PERCENT"),
        // 28.5 wrote this word anew
        (r"[Ii]nvalid (container|host)Port", "invalid Port"),
        (r"[ \t]+\n", "\n"),
        // columns are as wide as what was masked
        (r"  +", "  "),
    ]
    .into_iter()
    .map(|(pattern, to)| Ok((Regex::new(pattern)?, to)))
    .collect()
}

fn mask(text: &str, masks: &[(Regex, &'static str)]) -> String {
    masks.iter().fold(text.to_owned(), |text, (pattern, to)| {
        pattern.replace_all(&text, |_: &Captures| *to).into_owned()
    })
}

fn once(stack: &Stack, cli: &Path, mark: &str, line: &str) -> Result<Output> {
    let line = line.replace('@', mark);
    let mut command = stack.client_command(Path::new("/bin/bash"), ["-c", &line]);
    // nothing of the machine's own settings, nor plugins below its root's home
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_docker = text.starts_with("DOCKER_") || text.starts_with("BUILDKIT_");
        if of_docker && !["DOCKER_HOST", "DOCKER_CONFIG"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    for name in ["COLUMNS", "LINES", "NO_COLOR", "TERM", "LANG", "LC_ALL"] {
        command.env_remove(name);
    }
    command
        .env("D", cli)
        .env("TZ", "UTC")
        .env("HOME", stack.path("home"))
        .current_dir(stack.dir().join("golden"));
    run(&mut command, b"", Duration::from_secs(60))
}

/// The two outputs as one text each.
fn both(
    stack: &Stack,
    docker: &Path,
    lite: &Path,
    case: &Case,
    masks: &[(Regex, &'static str)],
) -> Result<(String, String)> {
    let told = |out: Output| {
        format!(
            "{}--- stderr\n{}--- exit code {}\n",
            mask(&out.stdout, masks),
            mask(&out.stderr, masks)
                .replace("docker-lite", "docker")
                .replace("DOCKER-LITE", "DOCKER"),
            out.code
        )
    };
    let theirs = told(once(stack, docker, "gld", case.line)?);
    let ours = told(once(stack, lite, "ggd", case.line)?);
    Ok((theirs, ours))
}

/// docker's CLI, if it is new enough to be the measure.
fn docker_cli() -> Result<Option<std::path::PathBuf>> {
    let docker = require::peer("docker")?;
    let version = run(
        &mut programs::command(&docker, ["--version"]),
        b"",
        Duration::from_secs(10),
    )?
    .exits(0)?
    .stdout;
    let major = version
        .split([' ', '.'])
        .find_map(|w| w.parse::<u32>().ok());
    Ok((major >= Some(28)).then_some(docker))
}

#[test]
fn the_same_words_as_dockers_cli() -> Result<()> {
    let Some(docker) = docker_cli()? else {
        println!(
            "SKIPPED golden: docker's CLI is older than 28 (LITE_PEERS_DIR names newer peers)"
        );
        return Ok(());
    };
    let lite = programs::path("docker-lite")?;
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let dir = stack.dir().join("golden");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("env"), "A=1\nB=two words\n# remark\nHOME\n")?;
    std::fs::write(dir.join("file"), "text\n")?;
    for fixture in [
        "run -d --name up --label tier=front -e A=b busybox sleep 1000",
        "run --name done busybox sh -c 'echo out; echo err >&2; exit 3'",
        "create --name made --restart on-failure:2 -v /data busybox true",
        "volume create --label a=b vol",
    ] {
        let made = once(&stack, &docker, "", &format!("$D {fixture}"))?;
        ensure!([0, 3].contains(&made.code), "{fixture}: {made:?}");
    }
    let masks = masks()?;
    let mut verdict = Verdict::default();
    for case in &cases() {
        let (theirs, ours) = both(&stack, &docker, &lite, case, &masks)
            .with_context(|| format!("case {}", case.line))?;
        let said = [("docker", theirs.as_str()), ("docker-lite", &ours)];
        verdict.add(case.line, case.differs, theirs == ours, said);
    }
    verdict.end("cases")?;
    stack.stop()
}
