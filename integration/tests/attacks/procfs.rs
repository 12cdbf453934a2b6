//! /proc and /sys that are not the kernel's, and parameters by crooked names (CVE-2019-16884, CVE-2019-19921,
//! CVE-2023-28642, CVE-2025-52881).

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::harness::Victim;

#[test]
fn a_link_in_the_place_of_proc_or_sys_is_refused() -> Result<()> {
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let targets = ["/data", "data", "../../outside", "/nowhere"];
        for target in targets
            .map(str::to_owned)
            .into_iter()
            .chain([format!("/{name}")])
        {
            let victim = Victim::new("true")?;
            fs::remove_dir(victim.root().join(name))?;
            symlink(&target, victim.root().join(name))?;
            let out = victim.run()?;
            ensure!(
                out.code == 1 && out.stderr.contains(kind),
                "{name} -> {target}: {} {}",
                out.code,
                out.stderr
            );
            victim.unharmed()?;
        }
        // A directory on the way does as well.
        let mut victim = Victim::new("true")?;
        symlink(victim.outside(), victim.root().join("way"))?;
        victim.unmount(&format!("/{name}"));
        victim.mount(&format!("/way/{name}"), kind, kind, &[]);
        ensure!(victim.run()?.code == 1, "{kind} behind a link");
        victim.unharmed()?;
    }
    Ok(())
}

#[test]
fn parameters_are_set_in_the_kernel_whatever_the_image_has() -> Result<()> {
    let mut victim = Victim::new("cat /real/sys/net/ipv4/ip_forward")?;
    victim.unmount("/proc");
    victim.mount("/real", "proc", "proc", &[]);
    victim.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    // The image's own, and one of the host by a link.
    let proc = victim.root().join("proc");
    fs::create_dir_all(proc.join("sys/net/ipv4"))?;
    fs::write(proc.join("sys/net/ipv4/ip_forward"), "false\n")?;
    ensure!(
        victim.run()?.exits(0)?.stdout == "1\n",
        "the parameter went astray"
    );
    ensure!(
        fs::read_to_string(proc.join("sys/net/ipv4/ip_forward"))? == "false\n",
        "the image's file was written"
    );
    fs::remove_dir_all(&proc)?;
    symlink(victim.outside(), &proc)?;
    ensure!(
        victim.run()?.exits(0)?.stdout == "1\n",
        "the parameter went astray"
    );
    victim.unharmed()
}

#[test]
fn no_name_of_a_parameter_leads_elsewhere() -> Result<()> {
    let mut victim = Victim::new("true")?;
    for name in [
        "net.ipv4/../../kernel.core_pattern",
        "net/ipv4/../../kernel/core_pattern",
        "net...kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.ip_forward/..",
        "/net/ipv4/ip_forward",
        "../../tmp/x",
        "net",
        "net.ipv4",
        "net.ipv4.ip_forward\u{0}",
        "kernel.core_pattern",
        "kernel/core_pattern",
        "kernel.modprobe",
        "fs.mqueue/../file-max",
        "net.",
        ".net",
        "",
        "kernel.hostname",
    ] {
        victim.config["linux"]["sysctl"] = json!({name: "1"});
        let out = victim.run()?;
        ensure!(out.code == 1, "{name:?}: {} {}", out.code, out.stderr);
        victim.unharmed()?;
    }
    Ok(())
}

#[test]
fn mounts_cannot_stand_in_for_the_kernels_word() -> Result<()> {
    for (destination, link) in [
        ("/proc", None),
        ("/proc/self", None),
        ("/proc/sys", None),
        ("/proc/thread-self/attr", None),
        ("/proc/1/attr", None),
        ("/x/../proc/sys", None),
        ("/alias", Some("proc")),
        ("/alias/sys", Some("/proc")),
        ("/alias", Some("/proc/self/attr")),
        ("/alias", Some("../../../../proc/sys")),
    ] {
        for kind in ["bind", "tmpfs"] {
            let mut victim = Victim::new("true")?;
            if let Some(target) = link {
                symlink(target, victim.root().join("alias"))?;
            }
            fs::create_dir(victim.bundle().join("fake"))?;
            let options: &[&str] = if kind == "bind" { &["bind"] } else { &[] };
            victim.mount(destination, kind, "fake", options);
            let out = victim.run()?;
            ensure!(out.code == 1, "{kind} on {destination} ({link:?}) ran");
            victim.unharmed()?;
        }
    }
    Ok(())
}

/// A container that may mount covers its /proc; what exec does there must neither wait nor reach the host.
#[test]
fn an_exec_into_a_container_with_a_false_proc_touches_nothing() -> Result<()> {
    let mut victim = Victim::new("mount -t tmpfs none /proc && cat /data/ready; sleep 1000")?;
    for set in ["bounding", "effective", "permitted"] {
        let all = victim.config["process"]["capabilities"][set]
            .as_array_mut()
            .context("a list of capabilities")?;
        all.push(json!("CAP_SYS_ADMIN"));
    }
    super::harness::fifo(&victim.root().join("data/ready"))?;
    victim.start()?;
    // Its reader opens it when the mount is there.
    fs::write(victim.root().join("data/ready"), "go\n")?;
    let out = victim
        .call(&["exec", &victim.id, "ls", "/proc"])?
        .exits(0)?;
    ensure!(out.stdout.is_empty(), "not covered: {}", out.stdout);
    for script in [
        "mkdir -p /proc/self/attr && echo x > /proc/self/attr/exec",
        "ls /proc",
    ] {
        victim.call(&[
            "exec", "--env", "X=1", "--user", "7:7", &victim.id, "sh", "-c", script,
        ])?;
        victim.call(&["exec", &victim.id, "sh", "-c", script])?;
    }
    victim.call(&["kill", &victim.id, "KILL"])?.exits(0)?;
    victim.unharmed()
}
