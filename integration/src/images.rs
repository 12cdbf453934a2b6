//! A small image made of Debian's busybox-static, and a registry on loopback that serves it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::programs::{command, run};
use crate::stack::Stack;
use crate::{eventually, require};

/// Imports the image `busybox` (command `sh`) into a stack and runs it once, so that the folders that first use makes are
/// there before a census.
pub fn busybox(stack: &Stack) -> Result<()> {
    let tar = rootfs_tar(stack.dir())?;
    stack
        .lite([
            "import",
            "-c",
            "CMD [\"sh\"]",
            &tar.to_string_lossy(),
            "busybox",
        ])?
        .exits(0)?;
    stack.lite(["run", "--rm", "busybox", "true"])?.exits(0)?;
    Ok(())
}

/// Writes `rootfs.tar` in `dir`: busybox with its applets, passwd and group.
pub fn rootfs_tar(dir: &Path) -> Result<PathBuf> {
    let tar = dir.join("rootfs.tar");
    let root = dir.join("image");
    rootfs(&root)?;
    let out = run(
        command(
            "tar",
            [
                "-C",
                &root.to_string_lossy(),
                "-cf",
                &tar.to_string_lossy(),
                ".",
            ],
        )
        .env_remove("TAR_OPTIONS"),
        b"",
        Duration::from_secs(60),
    )?;
    out.exits(0)?;
    Ok(tar)
}

/// Makes a root file system of busybox in `root`.
pub fn rootfs(root: &Path) -> Result<()> {
    let busybox = require::peer("busybox")?;
    for folder in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::copy(&busybox, root.join("bin/busybox")).context("copy busybox")?;
    let applets = run(
        &mut command(&busybox, ["--list"]),
        b"",
        Duration::from_secs(10),
    )?
    .exits(0)?;
    for applet in applets.stdout.lines().filter(|a| *a != "busybox") {
        match symlink("busybox", root.join("bin").join(applet)) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n",
    )?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nalice:x:1000:\n")?;
    Ok(())
}

/// Debian's docker-registry on loopback of a stack's network namespace.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    /// Starts it beside the stack's daemon and puts `test/busybox:latest` into it with skopeo.
    pub fn start(stack: &Stack) -> Result<Self> {
        Self::beside(stack.dir(), |program| stack.in_namespace(program))
    }

    /// The same with its files in a folder of the caller's, and its programs in the network namespace that `inside` puts them in.
    pub fn beside(folder: &Path, inside: impl Fn(&Path) -> Command) -> Result<Self> {
        let dir = folder.join("registry");
        std::fs::create_dir_all(&dir)?;
        let address = "127.0.0.1:5000".to_owned();
        std::fs::write(
            dir.join("config.yml"),
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
                dir.join("data").display()
            ),
        )?;
        let binary = require::peer("docker-registry")?;
        let child = inside(&binary)
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start docker-registry")?;
        let registry = Self { child, address };
        eventually::within(Duration::from_secs(10), "registry answers", || {
            let mut probe = inside(Path::new("/bin/bash"));
            probe.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/5000"]);
            run(&mut probe, b"", Duration::from_secs(5))?
                .exits(0)
                .map(drop)
        })?;
        let saved = oci_archive(folder)?;
        let skopeo = require::peer("skopeo")?;
        let mut copy = inside(&skopeo);
        copy.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:latest", saved.display()))
            .arg(format!("docker://{}/test/busybox:latest", registry.address));
        run(&mut copy, b"", Duration::from_secs(60))?.exits(0)?;
        Ok(registry)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // the process may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of files beside a stack's daemon.
#[derive(Debug)]
pub struct Files(Child);

impl Files {
    /// Serves a folder at an address of the stack's network namespace by HTTP.
    pub fn serve(stack: &Stack, folder: &Path, address: &str) -> Result<Self> {
        let child = stack
            .in_namespace(&require::peer("busybox")?)
            .args(["httpd", "-f", "-p", address, "-h"])
            .arg(folder)
            .stdin(Stdio::null())
            .spawn()
            .context("start a server of files")?;
        let (host, port) = address.split_once(':').context("HOST:PORT")?;
        let probe = format!("exec 3<>/dev/tcp/{host}/{port}");
        let files = Self(child);
        eventually::within(Duration::from_secs(10), "files are served", || {
            let mut asks = stack.in_namespace(Path::new("/bin/bash"));
            asks.args(["-c", &probe]);
            run(&mut asks, b"", Duration::from_secs(5))?
                .exits(0)
                .map(drop)
        })?;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes an OCI image layout of busybox in `dir/oci`, tag `latest`, and returns its folder.
pub fn oci_archive(dir: &Path) -> Result<PathBuf> {
    let tar = rootfs_tar(dir)?;
    let oci = dir.join("oci");
    let blobs = oci.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let layer = blob(&blobs, &std::fs::read(&tar)?)?;
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        layer.0
    );
    let config = blob(&blobs, config.as_bytes())?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{}","size":{}}}]}}"#,
        config.0, config.1, layer.0, layer.1
    );
    let manifest = blob(&blobs, manifest.as_bytes())?;
    std::fs::write(oci.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    std::fs::write(
        oci.join("index.json"),
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
            manifest.0, manifest.1
        ),
    )?;
    Ok(oci)
}

/// Stores bytes under their digest; returns digest and size.
fn blob(blobs: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let sum = run(
        &mut command("sha256sum", ["-"]),
        bytes,
        Duration::from_secs(60),
    )?
    .exits(0)?;
    let digest = sum.stdout.split(' ').next().unwrap_or_default().to_owned();
    ensure!(digest.len() == 64, "sha256sum printed {:?}", sum.stdout);
    std::fs::write(blobs.join(&digest), bytes)?;
    Ok((digest, bytes.len()))
}
