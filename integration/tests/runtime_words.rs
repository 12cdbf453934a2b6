//! runc-lite beside runc: each line of `golden/runtime-cases` is run with both; what they print on both channels and their exit
//! codes are equal, once times, process ids and folders are masked. The measure is Debian's runc, and the newest one where
//! `LITE_PEERS_DIR` has it.
//!
//! `LITE_GOLDEN=TEXT` takes only the cases that hold TEXT. A case under a `! reason` line must differ from every runc that is
//! here, one under `!1.1 reason` from that version only: the list of known differences cannot go stale.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use integration::cases::Verdict;
use integration::programs::{self, Output, command, run};
use integration::rig::parts::Release;
use integration::{images, require};
use regex::{Captures, Regex};
use serde_json::{Value, json};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/runtime-cases");
const LIMIT: Duration = Duration::from_secs(60);

/// One line of the list.
#[derive(Debug)]
struct Case {
    line: String,
    /// Version (empty for all) and reason of a known difference.
    differs: Vec<(String, String)>,
}

fn cases() -> Result<Vec<Case>> {
    let wanted = std::env::var("LITE_GOLDEN").unwrap_or_default();
    let mut differs = Vec::new();
    let mut cases = Vec::new();
    for line in std::fs::read_to_string(CASES)?.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            differs.clear();
        } else if let Some(rest) = line.strip_prefix('!') {
            let (version, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            differs.push((version.to_owned(), reason.to_owned()));
        } else if line.contains(&wanted) {
            let (line, differs) = (line.to_owned(), differs.clone());
            cases.push(Case { line, differs });
        }
    }
    Ok(cases)
}

/// A runtime with bundles and containers of its own.
struct Side {
    /// `1.1` and so on; empty for ours.
    version: String,
    program: PathBuf,
    dir: tempfile::TempDir,
    mark: String,
}

impl Side {
    fn new(program: PathBuf, ours: bool, template: &Value) -> Result<Self> {
        let said = run(&mut command(&program, ["--version"]), b"", LIMIT)?.exits(0)?;
        let version = said.stdout.split_whitespace().nth(2).unwrap_or_default();
        let version: Vec<_> = version.splitn(3, '.').take(2).collect();
        let version = match ours {
            true => String::new(),
            false => version.join("."),
        };
        let dir = tempfile::Builder::new().prefix("words.").tempdir()?;
        let mark = format!("words-{}-{}", std::process::id(), version.replace('.', "-"));
        let side = Self {
            version,
            program,
            dir,
            mark,
        };
        images::rootfs(&side.dir.path().join("rootfs"))?;
        for (name, change) in bundles() {
            let mut config = template.clone();
            config["root"]["path"] = side.dir.path().join("rootfs").display().to_string().into();
            config["linux"]["cgroupsPath"] = format!("/{}/{name}", side.mark).into();
            for (pointer, value) in change {
                *config
                    .pointer_mut(pointer)
                    .with_context(|| format!("no {pointer} in the template"))? = value;
            }
            let bundle = side.dir.path().join(name);
            std::fs::create_dir(&bundle)?;
            std::fs::write(bundle.join("config.json"), config.to_string())?;
        }
        for (name, text) in [("empty", None), ("broken", Some("{")), ("list", Some("[]"))] {
            let bundle = side.dir.path().join(name);
            std::fs::create_dir(&bundle)?;
            if let Some(text) = text {
                std::fs::write(bundle.join("config.json"), text)?;
            }
        }
        for fixture in [
            "$R run -d -b live up",
            "$R create -b made made",
            "$R run -d -b done done; until $R state done | grep -q stopped; do sleep 0.01; done",
            "$R run -d -b held held && $R pause held",
        ] {
            let line = format!("exec >/dev/null 2>&1; {fixture}");
            side.once(&line)?
                .exits(0)
                .with_context(|| format!("{fixture} on {}", side.program.display()))?;
        }
        Ok(side)
    }

    fn once(&self, line: &str) -> Result<Output> {
        let runtime = format!("{} --root {}", self.program.display(), self.path("root"));
        let mut bash = command("/bin/bash", ["-c", line]);
        bash.env("R", runtime)
            .env("TZ", "UTC")
            .env_remove("XDG_RUNTIME_DIR")
            .current_dir(self.dir.path());
        run(&mut bash, b"", LIMIT)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// What a line comes to, masked.
    fn told(&self, line: &str, masks: &[(Regex, &'static str)]) -> Result<String> {
        let out = self.once(line)?;
        let told = format!(
            "{}--- stderr\n{}--- exit code {}\n",
            out.stdout, out.stderr, out.code
        );
        let told = without_usage(&told)
            .replace(&self.program.display().to_string(), "runc")
            .replace(&self.dir.path().display().to_string(), "DIR")
            .replace(&self.mark, "MARK")
            .replace("runc-lite", "runc");
        Ok(masks.iter().fold(told, |text, (pattern, to)| {
            pattern.replace_all(&text, |_: &Captures| *to).into_owned()
        }))
    }
}

/// Leaves out help texts, which everybody words for themselves.
fn without_usage(text: &str) -> String {
    let mut kept = String::new();
    let mut usage = false;
    for line in text.split_inclusive('\n') {
        usage = match line {
            _ if line.starts_with("Incorrect Usage") => true,
            _ if line.starts_with("--- ") || line.starts_with("time=") => false,
            _ => usage,
        };
        if !usage {
            kept.push_str(line);
        }
    }
    kept
}

impl Drop for Side {
    fn drop(&mut self) {
        // What is left of a failed run as well.
        let _ = self.once("for id in $($R list -q); do $R delete -f $id; done");
        let _ = self.once(&format!(
            "find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name {} -exec find {{}} -depth -type d -delete \\;",
            self.mark
        ));
    }
}

/// Bundles by name: what each has other than the template.
fn bundles() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let sleep = json!(["sleep", "1000"]);
    let args = |value: Value| vec![("/process/args", value)];
    let script = |text: &str| vec![("/process/args", json!(["sh", "-c", text]))];
    vec![
        ("live", args(sleep.clone())),
        ("made", args(sleep.clone())),
        ("done", args(json!(["true"]))),
        ("held", args(sleep)),
        ("plain", script("echo out; echo err >&2; exit 3")),
        ("killed", script("kill -9 $$; sleep 1")),
        ("noargs", args(json!([]))),
        ("noprogram", args(json!(["nonesuch"]))),
        ("nopath", args(json!(["/nonesuch"]))),
        ("adir", args(json!(["/etc"]))),
        ("notexec", args(json!(["/etc/passwd"]))),
        ("relcwd", vec![("/process/cwd", json!("tmp"))]),
        ("nocwd", vec![("/process/cwd", json!(""))]),
        ("version2", vec![("/ociVersion", json!("2.0.0"))]),
        ("noversion", vec![("/ociVersion", json!(""))]),
        ("noroot", vec![("/root/path", json!("nonesuch"))]),
        ("tty", vec![("/process/terminal", json!(true))]),
        (
            "badrlimit",
            vec![(
                "/process/rlimits",
                json!([{"type": "RLIMIT_X", "hard": 1, "soft": 1}]),
            )],
        ),
        (
            "badns",
            vec![(
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "moon"}]),
            )],
        ),
        (
            "twons",
            vec![(
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "mount"}]),
            )],
        ),
        (
            "nsgone",
            vec![(
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "ipc", "path": "/nonesuch"}]),
            )],
        ),
        (
            "userns",
            vec![(
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "user"}]),
            )],
        ),
        (
            "nouts",
            vec![("/linux/namespaces", json!([{"type": "mount"}]))],
        ),
        (
            "nosource",
            vec![(
                "/mounts",
                json!([{"destination": "/x", "type": "bind", "source": "/nonesuch", "options": ["bind"]}]),
            )],
        ),
        (
            "nofs",
            vec![(
                "/mounts",
                json!([{"destination": "/x", "type": "nofs", "source": "x"}]),
            )],
        ),
        (
            "shares",
            vec![("/linux/resources", json!({"cpu": {"shares": 1}}))],
        ),
        (
            "cpus",
            vec![("/linux/resources", json!({"cpu": {"cpus": "4000"}}))],
        ),
        (
            "memory",
            vec![("/linux/resources", json!({"memory": {"limit": 4096}}))],
        ),
        ("selinux", vec![("/process/selinuxLabel", json!("a:b:c"))]),
        (
            "apparmor",
            vec![("/process/apparmorProfile", json!("nowhere"))],
        ),
        (
            "sysctl",
            vec![("/linux/sysctl", json!({"vm.swappiness": "1"}))],
        ),
        (
            "seccomp",
            vec![("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"}))],
        ),
        (
            "propagation",
            vec![("/linux/rootfsPropagation", json!("sideways"))],
        ),
        (
            "hook",
            vec![("/hooks", json!({"createRuntime": [{"path": "/bin/false"}]}))],
        ),
        (
            "prestart",
            vec![("/hooks", json!({"prestart": [{"path": "/nonesuch"}]}))],
        ),
        (
            "start",
            vec![("/hooks", json!({"startContainer": [{"path": "/nonesuch"}]}))],
        ),
    ]
}

/// What all bundles have; fields that a bundle changes are there, though empty.
fn template(runc: &Path) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    run(command(runc, ["spec"]).current_dir(dir.path()), b"", LIMIT)?.exits(0)?;
    let text = std::fs::read(dir.path().join("config.json"))?;
    let mut config: Value = serde_json::from_slice(&text)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["true"]);
    config["process"]["selinuxLabel"] = json!("");
    config["process"]["apparmorProfile"] = json!("");
    // 1.1's template raises some that it then warns of.
    config["process"]["capabilities"]["ambient"] = json!([]);
    config["hooks"] = json!({});
    config["linux"]["sysctl"] = json!({});
    config["linux"]["seccomp"] = json!(null);
    config["linux"]["rootfsPropagation"] = json!("");
    config["annotations"] = json!({"org.example.key": "value"});
    Ok(config)
}

/// What is masked, in this order: pattern and what it becomes.
fn masks() -> Result<Vec<(Regex, &'static str)>> {
    [
        (
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
            "TIME",
        ),
        (r#""ociVersion": ?"[^"]*""#, "\"ociVersion\": VERSION"),
        (r#""(pid|init_process_pid)": ?[1-9]\d*"#, "\"pid\": PID"),
        (
            r"(?m)^(\w+ +)[1-9]\d*( +(running|created|paused))",
            "ID PID STATUS",
        ),
        (r"[ \t]+\n", "\n"),
        // urfave's only words of its own end with a line
        (r#"\\n"\n"#, "\"\n"),
        // columns are as wide as what was masked
        (r"  +", "  "),
    ]
    .into_iter()
    .map(|(pattern, to)| Ok((Regex::new(pattern)?, to)))
    .collect()
}

#[test]
fn the_same_words_as_runc() -> Result<()> {
    let installed = Release::Installed
        .program("runc")
        .map_or_else(|| require::peer("runc"), Ok)?;
    let template = template(&installed)?;
    let mut runcs = vec![Side::new(installed.clone(), false, &template)?];
    match Release::Newest.program("runc") {
        Some(newest) if newest != installed => runcs.push(Side::new(newest, false, &template)?),
        _ => println!("SKIPPED the newest runc: LITE_PEERS_DIR has none"),
    }
    let ours = Side::new(programs::path("runc-lite")?, true, &template)?;
    let masks = masks()?;
    let mut verdict = Verdict::default();
    for case in &cases()? {
        let lite = ours.told(&case.line, &masks)?;
        for runc in &runcs {
            let theirs = runc.told(&case.line, &masks)?;
            let known = case
                .differs
                .iter()
                .find(|(version, _)| version.is_empty() || *version == runc.version);
            let differs = known.map(|(_, reason)| reason.as_str());
            let name = format!("runc {}", runc.version);
            let said = [(name.as_str(), theirs.as_str()), ("runc-lite", &lite)];
            verdict.add(&case.line, differs, theirs == lite, said);
        }
    }
    verdict.end("comparisons")
}
