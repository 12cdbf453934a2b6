//! Further processes in a running container.

use super::wire::wire;

wire! {
    /// The body of `POST /containers/ID/exec`.
    pub struct ExecConfig {
        "User" user: String,
        "Privileged" privileged: bool,
        "Tty" tty: bool,
        "ConsoleSize" [omitempty] console_size: Option<[u32; 2]>,
        "AttachStdin" attach_stdin: bool,
        "AttachStderr" attach_stderr: bool,
        "AttachStdout" attach_stdout: bool,
        "Detach" [omitempty] detach: bool,
        "DetachKeys" detach_keys: String,
        "Env" env: Option<Vec<String>>,
        "WorkingDir" working_dir: String,
        "Cmd" cmd: Option<Vec<String>>,
    }

    /// The body of `POST /exec/ID/start`.
    pub struct ExecStart {
        "Detach" detach: bool,
        "Tty" tty: bool,
        "ConsoleSize" [omitempty] console_size: Option<[u32; 2]>,
    }

    /// The answer to `GET /exec/ID/json`; the exit code is `null` while it runs.
    pub struct ExecInspect {
        "ID" id: String,
        "Running" running: bool,
        "ExitCode" exit_code: Option<i64>,
        "ProcessConfig" process_config: ExecProcess,
        "OpenStdin" open_stdin: bool,
        "OpenStderr" open_stderr: bool,
        "OpenStdout" open_stdout: bool,
        "CanRemove" can_remove: bool,
        "ContainerID" container_id: String,
        "DetachKeys" detach_keys: String,
        "Pid" pid: i64,
    }

    /// The process of an exec.
    pub struct ExecProcess {
        "tty" tty: bool,
        "entrypoint" entrypoint: String,
        "arguments" arguments: Vec<String>,
        "privileged" [omitempty] privileged: Option<bool>,
        "user" [omitempty] user: String,
    }
}
