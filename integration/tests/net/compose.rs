//! Compose, both generations of it unchanged: an application of three services, from its first `up` to `down -v`.
//!
//! ```text
//!  outside ─▶ :8080 web ──front──▶ api (scaled) ──back (internal)──▶ db ─▶ volume
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::outside::HOST;
use integration::programs::{self, Output, run};
use integration::recorder::Recorder;
use integration::{eventually, require};

use crate::rig::{Rig, SOON, cut_off, knock, words};

/// How an application says and takes what it is asked; its files lie in the project's folder.
struct App {
    /// What is sent to web to be answered with `HOST OF THE API, VALUE`.
    request: &'static str,
    /// Sets the value, in the container of db.
    set: &'static [&'static str],
    /// The port of db.
    port: u16,
}

/// The same in busybox: netcat all over.
const SMALL: App = App {
    request: "",
    set: &["sh", "-c", "echo kept >/data/row"],
    port: 5432,
};

const SMALL_FILE: &str = r#"
services:
  db:
    image: busybox
    command: ["sh", "-c", "test -e /data/row || echo first >/data/row; exec nc -ll -p 5432 -e cat /data/row"]
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    networks: [back]
    healthcheck: {test: ["CMD-SHELL", "nc -w 2 127.0.0.1 5432 </dev/null | grep -q ."], interval: 1s, timeout: 5s, retries: 30}
  api:
    image: busybox
    command: ["nc", "-ll", "-p", "8000", "-e", "sh", "-c", "echo $$(hostname) $$(nc -w 5 db 5432 </dev/null)"]
    stop_signal: SIGKILL
    networks: [back, front]
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: ["CMD-SHELL", "nc -w 2 127.0.0.1 8000 </dev/null | grep -q ' '"], interval: 1s, timeout: 5s, retries: 30}
  web:
    image: busybox
    command: ["nc", "-ll", "-p", "80", "-e", "sh", "-c", "echo asked >/proc/1/fd/1; nc -w 5 api 8000 </dev/null"]
    stop_signal: SIGKILL
    ports: ["8080:80"]
    networks: [front]
    depends_on: {api: {condition: service_healthy}}
  tool:
    image: busybox
    command: ["echo", "a tool"]
    profiles: [tools]
volumes: {data: {}}
networks: {front: {}, back: {internal: true}}
"#;

/// One generation of compose.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Generation {
    /// docker-compose 1.29, in Python.
    First,
    /// The CLI plugin, run by docker-lite.
    Second,
}

/// A compose on a project of a rig.
struct Compose<'a> {
    rig: &'a Rig,
    program: PathBuf,
    plugin: bool,
    folder: PathBuf,
}

impl<'a> Compose<'a> {
    /// Finds that generation; says so if it is not installed.
    fn find(generation: Generation, rig: &'a Rig, file: &str) -> Result<Option<Self>> {
        let folder = rig.stack.path("shop");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("docker-compose.yml"), file)?;
        let plugin = generation == Generation::Second;
        let program = match generation {
            Generation::First => first_generation()?,
            Generation::Second => second_generation(&rig.stack.path("config"))?,
        };
        if program.is_none() {
            println!("SKIPPED compose: its {generation:?} generation is not installed");
        }
        Ok(program.map(|program| Self {
            rig,
            program,
            plugin,
            folder,
        }))
    }

    fn command(&self, host: &str, args: &[&str]) -> Command {
        let stack = &self.rig.stack;
        let mut command = stack.client_command(&self.program, &[] as &[&str]);
        if self.plugin {
            command.arg("compose");
        }
        command
            .args(args)
            .current_dir(&self.folder)
            .env("DOCKER_HOST", host)
            .env("COMPOSE_INTERACTIVE_NO_CLI", "1");
        command
    }

    fn run(&self, args: &str) -> Result<Output> {
        self.run_all(&words(args))
    }

    fn run_all<S: AsRef<str>>(&self, args: &[S]) -> Result<Output> {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let mut command = self.command(&self.rig.stack.host(), &args);
        let out = run(&mut command, b"", Duration::from_secs(300))?.exits(0);
        out.with_context(|| format!("compose {args:?}"))
    }

    /// Runs it and answers the requests that it made.
    fn recorded(&self, args: &str) -> Result<Vec<String>> {
        let socket = self.rig.stack.path("recorder.sock");
        let recorder = Recorder::start(&socket, &self.rig.stack.path("docker.sock"))?;
        let args = words(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = self.command(&recorder.host(), &args);
        run(&mut command, b"", Duration::from_secs(300))?.exits(0)?;
        let calls = recorder.take().into_iter().map(|call| call.request);
        Ok(calls.collect())
    }

    /// What web says: the api that it has asked, and the value.
    fn ask(&self, app: &App) -> Result<(String, String)> {
        let script = format!(
            "printf '{}' | busybox timeout 20 busybox nc -w 15 {HOST} 8080",
            app.request
        );
        let out = self.rig.outside.sh(&script)?;
        let line = out.stdout.lines().last().unwrap_or_default();
        let (host, value) = line.split_once(' ').with_context(|| format!("{out:?}"))?;
        Ok((host.to_owned(), value.trim().to_owned()))
    }
}

fn first_generation() -> Result<Option<PathBuf>> {
    let Some(program) = programs::installed("docker-compose") else {
        return Ok(None);
    };
    let mut version = programs::command(&program, ["version", "--short"]);
    let version = run(&mut version, b"", Duration::from_secs(60))?.exits(0)?;
    Ok(version.stdout.starts_with("1.").then_some(program))
}

/// docker-lite, with the plugin where it looks for it.
fn second_generation(config: &Path) -> Result<Option<PathBuf>> {
    const NAME: &str = "docker-compose";
    let newest = std::env::var_os("LITE_PEERS_DIR")
        .map(|dir| PathBuf::from(dir).join("bin/cli-plugins").join(NAME));
    if let Some(plugin) = newest.filter(|path| path.is_file()) {
        let folder = config.join("cli-plugins");
        std::fs::create_dir_all(&folder)?;
        std::os::unix::fs::symlink(plugin, folder.join(NAME))?;
        return programs::path("docker-lite").map(Some);
    }
    let folders = [
        "/usr/libexec",
        "/usr/lib",
        "/usr/local/libexec",
        "/usr/local/lib",
    ];
    let installed = |folder: &&str| {
        Path::new(folder)
            .join("docker/cli-plugins")
            .join(NAME)
            .is_file()
    };
    match folders.iter().any(installed) {
        true => programs::path("docker-lite").map(Some),
        false => Ok(None),
    }
}

/// The life of the application.
fn live(compose: &Compose, app: &App) -> Result<()> {
    let rig = compose.rig;
    compose.run("up -d --scale api=2")?;
    let listed = rig.lite("ps --format {{.Names}}|{{.Status}}|{{.Ports}}")?;
    ensure!(
        listed.lines().count() == 4 && !listed.contains("tool"),
        "{listed}"
    );
    let healthy = listed.lines().filter(|l| l.contains("(healthy)")).count();
    ensure!(
        healthy == 3 && listed.contains("0.0.0.0:8080->80/tcp"),
        "{listed}"
    );
    // Both of the api are asked, by one name.
    let mut hosts = Vec::new();
    eventually::within(SOON, "both of the api have been asked", || {
        let (host, value) = compose.ask(app)?;
        ensure!(value == "first", "{value:?}");
        hosts.push(host);
        hosts.sort_unstable();
        hosts.dedup();
        ensure!(hosts.len() == 2, "{hosts:?}");
        Ok(())
    })?;
    // Web has no way to db, and db none out.
    let name = |service: &str| -> Result<String> {
        Ok(compose
            .run(&format!("ps -q {service}"))?
            .stdout
            .trim()
            .to_owned())
    };
    let (web, db) = (name("web")?, name("db")?);
    let address = rig.address(&db, "shop_back")?;
    cut_off(rig.exec(&web, &knock(&address, app.port)))?;
    let networks = rig.json(&format!("inspect {db}"))?[0]["NetworkSettings"]["Networks"].clone();
    let count = networks.as_object().map_or(0, serde_json::Map::len);
    ensure!(count == 1, "{networks:#}");
    // A second `up` finds everything as it shall be, and writes nothing.
    let before = rig.lite("ps -q --no-trunc")?;
    let calls = compose.recorded("up -d --scale api=2")?;
    let writes: Vec<_> = calls
        .iter()
        .filter(|c| !c.starts_with("GET ") && !c.starts_with("HEAD "))
        .collect();
    ensure!(
        !calls.is_empty() && writes.is_empty(),
        "{writes:#?} of {calls:#?}"
    );
    println!("the second up: {} requests, none a write", calls.len());
    ensure!(
        rig.lite("ps -q --no-trunc")? == before,
        "the same containers"
    );
    // What is kept stays over all that follows.
    compose.run_all(&[&["exec", "-T", "db"], app.set].concat())?;
    ensure!(compose.ask(app)?.1 == "kept");
    compose.run("restart -t 0 api")?;
    compose.run("up -d --scale api=3")?;
    eventually::within(SOON, "the restarted api answers", || {
        ensure!(compose.ask(app)?.1 == "kept");
        Ok(())
    })?;
    ensure!(compose.run("ps -q api")?.stdout.lines().count() == 3);
    ensure!(compose.run("logs --no-color web")?.stdout.contains("web"));
    compose.run("down")?;
    ensure!(rig.lite("ps -aq")?.is_empty() && rig.lite("volume ls -q")? == "shop_data");
    ensure!(!rig.lite("network ls")?.contains("shop"));
    compose.run("up -d")?;
    ensure!(compose.ask(app)?.1 == "kept");
    compose.run("down -v")?;
    ensure!(rig.lite("ps -aq")?.is_empty() && rig.lite("volume ls -q")?.is_empty());
    Ok(())
}

fn small(generation: Generation) -> Result<()> {
    let rig = Rig::start(&[])?;
    if let Some(compose) = Compose::find(generation, &rig, SMALL_FILE)? {
        live(&compose, &SMALL)?;
        let tool = compose.run("--profile tools run --rm tool")?;
        ensure!(tool.stdout.contains("a tool"), "{tool:?}");
        compose.run("down -v")?;
    }
    rig.stop()
}

#[test]
fn docker_compose_1_sees_no_difference() -> Result<()> {
    small(Generation::First)
}

#[test]
fn docker_compose_2_sees_no_difference() -> Result<()> {
    small(Generation::Second)
}

/// The same of Debian's packages: nginx before an API in Python, before PostgreSQL.
const LARGE: App = App {
    request: "GET / HTTP/1.0\\r\\n\\r\\n",
    set: &[
        "psql",
        "-U",
        "postgres",
        "-c",
        "UPDATE shop SET value = $$kept$$",
    ],
    port: 5432,
};

const LARGE_FILE: &str = r#"
services:
  db:
    image: shop
    command: ["sh", "/app/db.sh"]
    stop_signal: SIGINT
    volumes: ["data:/data", "./app:/app:ro"]
    networks: [back]
    healthcheck: {test: ["CMD", "psql", "-U", "postgres", "-c", "SELECT value FROM shop"], interval: 1s, timeout: 10s, retries: 120}
  api:
    image: shop
    init: true
    command: ["python3", "/app/api.py"]
    volumes: ["./app:/app:ro"]
    networks: [back, front]
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: ["CMD", "python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/').read()"], interval: 1s, timeout: 10s, retries: 120}
  web:
    image: shop
    command: ["nginx", "-c", "/app/nginx.conf", "-g", "daemon off;"]
    stop_signal: SIGQUIT
    volumes: ["./app:/app:ro"]
    ports: ["8080:80"]
    networks: [front]
    depends_on: {api: {condition: service_healthy}}
volumes: {data: {}}
networks: {front: {}, back: {internal: true}}
"#;

const LARGE_APP: [(&str, &str); 3] = [
    (
        "db.sh",
        r#"
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
if ! [ -e /data/pg/ready ]; then
  mkdir -p /data/pg; chown postgres /data/pg
  su postgres -c "$bin/initdb -A trust -D /data/pg >&2"
  echo 'host all all 0.0.0.0/0 trust' >>/data/pg/pg_hba.conf
  echo "CREATE TABLE shop (value text); INSERT INTO shop VALUES ('first');" | su postgres -c "$bin/postgres --single -j -D /data/pg postgres"
  touch /data/pg/ready
fi
mkdir -p /run/postgresql; chown postgres /run/postgresql
exec setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D /data/pg -c 'listen_addresses=*'
"#,
    ),
    (
        "api.py",
        r#"
import http.server, socket, psycopg2
class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        db = psycopg2.connect(host="db", user="postgres", connect_timeout=5)
        rows = db.cursor()
        rows.execute("SELECT value FROM shop")
        text = f"{socket.gethostname()} {rows.fetchone()[0]}\n".encode()
        db.close()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
http.server.ThreadingHTTPServer(("", 8000), Api).serve_forever()
"#,
    ),
    (
        "nginx.conf",
        r#"
events {}
http {
  access_log /dev/stdout; error_log /dev/stderr;
  resolver 127.0.0.11 valid=1s;
  server { listen 80; location / { set $api http://api:8000; proxy_pass $api; } }
}
"#,
    ),
];

/// An image of Debian with these packages, made by debootstrap.
fn debian(rig: &Rig) -> Result<()> {
    let debootstrap =
        require::optional("debootstrap", "compose").context("debootstrap is missing")?;
    let root = rig.stack.path("debian");
    let mut make = programs::command(debootstrap, ["--variant=minbase"]);
    make.arg("--include=nginx-light,python3-minimal,python3-psycopg2,postgresql")
        .arg("stable")
        .arg(&root);
    run(&mut make, b"", Duration::from_secs(1800))?.exits(0)?;
    let pack = format!(
        "tar -C {} --exclude=./var/cache/apt --exclude=./usr/share/doc -c . | \"$0\" -H {} import -c 'CMD [\"sh\"]' - shop",
        root.display(),
        rig.stack.host()
    );
    let mut pack = programs::command("/bin/sh", ["-c", &pack]);
    pack.arg(programs::path("docker-lite")?);
    run(&mut pack, b"", Duration::from_secs(600))?.exits(0)?;
    std::fs::remove_dir_all(&root)?;
    Ok(())
}

/// The long form, for `integration/scripts/drill`.
#[test]
#[ignore = "makes an image of a gigabyte"]
fn a_shop_of_debians_packages() -> Result<()> {
    let rig = Rig::start(&[])?;
    debian(&rig)?;
    for generation in [Generation::First, Generation::Second] {
        let Some(compose) = Compose::find(generation, &rig, LARGE_FILE)? else {
            continue;
        };
        let app = compose.folder.join("app");
        std::fs::create_dir_all(&app)?;
        for (name, text) in LARGE_APP {
            std::fs::write(app.join(name), text)?;
        }
        live(&compose, &LARGE).with_context(|| format!("{generation:?} generation"))?;
    }
    rig.stop()
}
