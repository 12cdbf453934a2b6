//! Where each target's corpus starts.

use serde_json::{Value, json};

fn bytes(values: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    values
        .into_iter()
        .map(|v| v.to_string().into_bytes())
        .collect()
}

fn texts_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_owned()).collect()
}

fn process() -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "terminal": true, "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 5, "gid": 6, "umask": 18, "additionalGids": [7, 8]},
        "args": ["sh", "-c", "true"], "env": ["PATH=/bin", "HOME=", "A=1", "A=2"], "cwd": "/",
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": caps},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
        "noNewPrivileges": true, "oomScoreAdj": -5, "apparmorProfile": "", "selinuxLabel": "",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "execCPUAffinity": {"initial": "0-1", "final": "0"},
    })
}

fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["read", "write", "exit", "openat2", "futex", "socketcall"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288_u64, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["personality", "socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
             "args": [{"index": 0, "value": 8, "valueTwo": 1, "op": "SCMP_CMP_EQ"},
                      {"index": 1, "value": 40, "op": "SCMP_CMP_GT"}]},
            {"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
        ],
    })
}

fn limits() -> Value {
    json!({
        "devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "b", "major": 8, "access": "r"},
            {"allow": false, "type": "a", "major": -1, "minor": -1, "access": "m"},
        ],
        "memory": {"limit": 67108864, "swap": -1, "reservation": 1, "swappiness": 10, "disableOOMKiller": false},
        "cpu": {"shares": 512, "quota": 5000, "period": 10000, "cpus": "0-1", "mems": "0", "idle": 0, "burst": 1},
        "pids": {"limit": 50},
        "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
        "rdma": {"mlx": {"hcaHandles": 1}}, "unified": {"memory.high": "1"},
    })
}

fn config() -> Value {
    json!({
        "ociVersion": "1.2.0", "process": process(), "root": {"path": "rootfs", "readonly": true},
        "hostname": "h", "domainname": "d",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/b", "type": "bind", "source": "/x", "options": ["rbind", "rro", "rslave"],
             "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
             "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}]},
            {"destination": "/c", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        ],
        "hooks": {"prestart": [{"path": "/h", "args": ["h"], "env": ["A=1"], "timeout": 1}], "poststop": []},
        "annotations": {"a": "b"},
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "1"},
            "resources": limits(), "cgroupsPath": "/a/b", "seccomp": profile(),
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"}, {"type": "ipc"},
                {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "user"}, {"type": "time"}],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
            "rootfsPropagation": "rslave", "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "personality": {"domain": "LINUX"}, "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        },
    })
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    let mut plain = config();
    plain["linux"] = json!({"namespaces": [{"type": "mount"}, {"type": "pid"}]});
    plain["process"]["user"] = Value::Null;
    bytes([config(), plain])
}

pub(super) fn states() -> Vec<Vec<u8>> {
    bytes([json!({
        "version": 1, "ociVersion": "1.2.0", "id": "x", "pid": 7, "init_process_start": 99,
        "bundle": "/b", "rootfs": "/b/rootfs", "created": "2026-01-01T00:00:00Z", "annotations": {"a": "b"},
        "namespaces": 1073741824, "systemd_cgroup": false, "has_poststop": true,
        "cgroup": {"hierarchy": 1, "owned": true, "paths": {"cpu": "/sys/fs/cgroup/cpu/x", "": "/y"}, "new": [1]},
        "tomorrow": {"a": [1, 2.5, null]},
    })])
}

pub(super) fn processes() -> Vec<Vec<u8>> {
    bytes([process(), json!({"args": ["a"], "cwd": "/"})])
}

pub(super) fn profiles() -> Vec<Vec<u8>> {
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s", "listenerMetadata": "m",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    bytes([
        profile(),
        notify,
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}),
    ])
}

pub(super) fn resources() -> Vec<Vec<u8>> {
    bytes([limits(), json!({"memory": {"limit": -1}})])
}

pub(super) fn options() -> Vec<Vec<u8>> {
    let all = crate::rootfs::options::known_words().join(",");
    let mut seeds = texts_of(&[
        "nosuid,strictatime,mode=755,size=65536k",
        "rbind,rprivate,rro",
        "",
    ]);
    seeds.push(all.into_bytes());
    seeds
}

pub(super) fn arguments() -> Vec<Vec<u8>> {
    texts_of(&[
        "create\0--bundle\0b\0--console-socket=s\0-preserve-fds\x003\0id",
        "run\0-d\0--keep\0--no-pivot=false\0id",
        "exec\0-t\0--user=5:6\0-e\0A=B\0--cap\0CAP_KILL\0id\0sh\0-c\0true",
        "exec\0--process\0p\0-d\0id",
        "update\0--memory\x0064m\0--cpu-quota=-1\0--pids-limit\x007\0--blkio-weight\x00100\0id",
        "kill\0--all\0id\0SIGRTMIN+3",
        "ps\0-f\0json\0id\0-ef",
        "events\0--stats\0--interval\x005s\0id",
        "--root\0/r\0--log-format\0json\0--debug\0state\0id",
        "delete\0-f\0id",
        "spec\0--rootless",
        "list\0-q",
    ])
}

pub(super) fn texts() -> Vec<Vec<u8>> {
    texts_of(&[
        "12 (a) b) (c) S 1 12 12 0 -1 4194624 99 0 0 0 0 0 0 0 20 0 1 0 4711 1 2\n",
        "9:name=systemd:/a:b\n1:cpu,cpuacct:/\n0::/user.slice\n",
        "32 31 0:29 /docker/a\\040b /mnt/cg\\040x rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n",
        "0-2, 7",
        "SIGRTMAX-1",
        "a *:* rwm\nc 1:3 rwm\nb 8:* r\n",
        "anon 1\ntotal_rss 5\noom_kill 2\n",
        "\x01\x02\0\0\0exec /x",
    ])
}
