//! The tables: every command of runc with its options.

use super::{CommandTable, Opt};

const fn switch(names: &'static [&'static str], help: &'static str) -> Opt {
    Opt {
        names,
        value: false,
        help,
    }
}

const fn value(names: &'static [&'static str], help: &'static str) -> Opt {
    Opt {
        names,
        value: true,
        help,
    }
}

/// Options before the command.
pub(crate) static GLOBAL: CommandTable = CommandTable {
    name: "",
    about: "",
    operands: "",
    count: (0, 0),
    passes_rest: true,
    options: &[&[
        switch(&["debug"], "enable debug logging"),
        value(&["log"], "file for the log (default: standard error)"),
        value(&["log-format"], "format of the log: text (default) or json"),
        value(
            &["root"],
            "directory of container state (default: \"/run/runc-lite\")",
        ),
        value(&["criu"], "path of the criu binary"),
        switch(
            &["systemd-cgroup"],
            "let systemd make the cgroups; cgroupsPath is \"slice:prefix:name\"",
        ),
        value(
            &["rootless"],
            "ignore cgroup permission errors: true, false or auto (default)",
        ),
        switch(&["help", "h"], "show help"),
        switch(&["version", "v"], "print the version"),
    ]],
};

const HELP: &[Opt] = &[switch(&["help", "h"], "show help")];

const CREATE: &[Opt] = &[
    value(
        &["bundle", "b"],
        "bundle directory (default: current directory)",
    ),
    value(
        &["console-socket"],
        "socket that receives the master side of the terminal",
    ),
    value(
        &["pidfd-socket"],
        "socket that receives a pidfd of the container's first process",
    ),
    value(&["pid-file"], "file to write the process id to"),
    switch(
        &["no-pivot"],
        "move the root instead of pivot_root, for a rootfs on a ramdisk",
    ),
    switch(&["no-new-keyring"], "keep the caller's session keyring"),
    value(
        &["preserve-fds"],
        "pass N more descriptors on, after stdio and $LISTEN_FDS",
    ),
];

const RUN: &[Opt] = &[
    switch(&["detach", "d"], "do not wait for the container's process"),
    switch(&["keep"], "do not delete the container after it exits"),
    switch(&["no-subreaper"], "do not reap reparented processes"),
];

const EXEC: &[Opt] = &[
    value(
        &["console-socket"],
        "socket that receives the master side of the terminal",
    ),
    value(
        &["pidfd-socket"],
        "socket that receives a pidfd of the process",
    ),
    value(&["cwd"], "working directory in the container"),
    value(&["env", "e"], "set an environment variable"),
    switch(&["tty", "t"], "give the process a terminal"),
    value(&["user", "u"], "user as uid[:gid]"),
    value(&["additional-gids", "g"], "further group"),
    value(&["process", "p"], "file with the process as JSON"),
    switch(&["detach", "d"], "do not wait for the process"),
    value(&["pid-file"], "file to write the process id to"),
    value(&["process-label"], "SELinux label of the process"),
    value(&["apparmor"], "AppArmor profile of the process"),
    switch(&["no-new-privs"], "set no_new_privs"),
    value(&["cap", "c"], "add a capability"),
    value(
        &["preserve-fds"],
        "pass N more descriptors on, after stdio and $LISTEN_FDS",
    ),
    value(&["cgroup"], "sub-cgroup to run in, as [controllers:]path"),
    switch(&["ignore-paused"], "do not refuse a paused container"),
];

const UPDATE: &[Opt] = &[
    value(
        &["resources", "r"],
        "file with the resources as JSON, - for standard input; other options are ignored then",
    ),
    value(&["blkio-weight"], "block I/O weight, 10 to 1000"),
    value(&["cpu-period"], "CFS period in microseconds"),
    value(&["cpu-quota"], "CFS quota in microseconds"),
    value(&["cpu-burst"], "CFS burst in microseconds"),
    value(&["cpu-share"], "CPU shares"),
    value(&["cpu-rt-period"], "real-time period in microseconds"),
    value(&["cpu-rt-runtime"], "real-time runtime in microseconds"),
    value(&["cpu-idle"], "idle scheduling of the cgroup"),
    value(&["cpuset-cpus"], "CPUs to use"),
    value(&["cpuset-mems"], "memory nodes to use"),
    value(&["memory"], "memory limit"),
    value(&["memory-reservation"], "soft memory limit"),
    value(&["memory-swap"], "memory and swap; -1 for no limit"),
    value(
        &["kernel-memory"],
        "ignored, as the kernel has no such limit any more",
    ),
    value(
        &["kernel-memory-tcp"],
        "ignored, as the kernel has no such limit any more",
    ),
    value(&["pids-limit"], "greatest number of processes"),
    value(&["l3-cache-schema"], "cache schema of resource control"),
    value(
        &["mem-bw-schema"],
        "memory bandwidth schema of resource control",
    ),
];

/// Of checkpoint and restore.
const IMAGE: &[Opt] = &[
    value(
        &["image-path"],
        "directory of the image (default: checkpoint)",
    ),
    value(&["work-path"], "directory of work files and logs"),
    switch(&["tcp-established"], "allow open TCP connections"),
    switch(&["ext-unix-sk"], "allow external unix sockets"),
    switch(&["shell-job"], "allow shell jobs"),
    switch(&["lazy-pages"], "move memory when it is needed"),
    switch(&["file-locks"], "handle file locks"),
    value(
        &["manage-cgroups-mode"],
        "soft (default), full, strict or ignore",
    ),
    value(
        &["empty-ns"],
        "make a namespace without its properties (network)",
    ),
    switch(&["auto-dedup"], "remove duplicate memory images"),
];

const CHECKPOINT: &[Opt] = &[
    value(
        &["parent-path"],
        "earlier image of a pre-dump, relative to the new one",
    ),
    switch(&["leave-running"], "leave the process running"),
    switch(&["tcp-skip-in-flight"], "skip connections in flight"),
    switch(&["link-remap"], "allow remapping of unlinked files"),
    value(
        &["status-fd"],
        "descriptor that tells when lazy pages are ready",
    ),
    value(&["page-server"], "ADDRESS:PORT of the page server"),
    switch(&["pre-dump"], "dump memory only and go on"),
];

const RESTORE: &[Opt] = &[
    value(
        &["bundle", "b"],
        "bundle directory (default: current directory)",
    ),
    value(
        &["console-socket"],
        "socket that receives the master side of the terminal",
    ),
    switch(&["detach", "d"], "do not wait for the container's process"),
    value(&["pid-file"], "file to write the process id to"),
    switch(&["no-subreaper"], "do not reap reparented processes"),
    switch(
        &["no-pivot"],
        "accepted; criu makes the root in its own way",
    ),
    value(&["lsm-profile"], "security profile, as TYPE:NAME"),
    value(&["lsm-mount-context"], "security context of mounts"),
];

const fn table(
    name: &'static str,
    about: &'static str,
    operands: &'static str,
    count: (usize, usize),
    options: &'static [&'static [Opt]],
) -> CommandTable {
    CommandTable {
        name,
        about,
        operands,
        count,
        passes_rest: false,
        options,
    }
}

/// Every command.
pub(crate) static COMMANDS: &[CommandTable] = &[
    table(
        "checkpoint",
        "checkpoint a running container",
        "<container-id>",
        (1, 1),
        &[IMAGE, CHECKPOINT, HELP],
    ),
    table(
        "create",
        "create a container",
        "<container-id>",
        (1, 1),
        &[CREATE, HELP],
    ),
    table(
        "delete",
        "delete what a container holds",
        "<container-id>",
        (1, 1),
        &[
            &[switch(&["force", "f"], "kill a running container first")],
            HELP,
        ],
    ),
    table(
        "events",
        "show statistics and events of a container",
        "<container-id>",
        (1, 1),
        &[
            &[
                value(&["interval"], "time between statistics (default: 5s)"),
                switch(&["stats"], "show the statistics once"),
            ],
            HELP,
        ],
    ),
    CommandTable {
        name: "exec",
        about: "run a new process in a container",
        operands: "<container-id> <command> [arguments...] || -p process.json <container-id>",
        count: (1, usize::MAX),
        passes_rest: true,
        options: &[EXEC, HELP],
    },
    table(
        "features",
        "show what this runtime can do",
        "",
        (0, 0),
        &[HELP],
    ),
    table(
        "kill",
        "send a signal (default: SIGTERM) to a container's first process",
        "<container-id> [signal]",
        (1, 2),
        &[
            &[switch(
                &["all", "a"],
                "send it to all processes of the container",
            )],
            HELP,
        ],
    ),
    table(
        "list",
        "list the containers of this root",
        "",
        (0, 0),
        &[
            &[
                value(&["format", "f"], "table (default) or json"),
                switch(&["quiet", "q"], "show ids only"),
            ],
            HELP,
        ],
    ),
    table(
        "pause",
        "suspend all processes of a container",
        "<container-id>",
        (1, 1),
        &[HELP],
    ),
    CommandTable {
        name: "ps",
        about: "show the processes of a container",
        operands: "<container-id> [ps options]",
        count: (1, usize::MAX),
        passes_rest: true,
        options: &[&[value(&["format", "f"], "table (default) or json")], HELP],
    },
    table(
        "restore",
        "restore a container from a checkpoint",
        "<container-id>",
        (1, 1),
        &[IMAGE, RESTORE, HELP],
    ),
    table(
        "resume",
        "resume a paused container",
        "<container-id>",
        (1, 1),
        &[HELP],
    ),
    table(
        "run",
        "create and start a container",
        "<container-id>",
        (1, 1),
        &[CREATE, RUN, HELP],
    ),
    table(
        "spec",
        "write a config.json to start from",
        "",
        (0, 0),
        &[
            &[
                value(&["bundle", "b"], "directory to write it to"),
                switch(&["rootless"], "for a user without privileges"),
            ],
            HELP,
        ],
    ),
    table(
        "start",
        "run the program of a created container",
        "<container-id>",
        (1, 1),
        &[HELP],
    ),
    table(
        "state",
        "show the state of a container",
        "<container-id>",
        (1, 1),
        &[HELP],
    ),
    table(
        "update",
        "change the limits of a container",
        "<container-id>",
        (1, 1),
        &[UPDATE, HELP],
    ),
];
