//! What makes the child the process the configuration describes: its streams,
//! identity, directory, environment and program.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, accessat, fstat, makedev, stat,
};
use rustix::io::Errno;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::error::{Doing as _, StepError};
use crate::spec::{Process, User};

/// Becomes root of a user namespace that was just made or joined.
pub(crate) fn become_namespace_root() -> Result<(), StepError> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(gid, gid, gid).doing(|| "become group 0 of the user namespace")?;
    set_thread_res_uid(uid, uid, uid).doing(|| "become user 0 of the user namespace")
}

/// Takes user and groups. Group calls come first: afterwards they are refused.
pub(crate) fn take_identity(user: &User) -> Result<(), StepError> {
    let groups: Vec<Gid> = user
        .additional_gids
        .iter()
        .map(|g| Gid::from_raw(*g))
        .collect();
    let gid = Gid::from_raw(user.gid);
    let uid = Uid::from_raw(user.uid);
    match set_thread_groups(&groups) {
        // In a user namespace whose group list is fixed there is nothing to drop.
        Err(Errno::PERM) if groups.is_empty() && setgroups_denied() => {}
        other => other.doing(|| format!("set groups {:?}", user.additional_gids))?,
    }
    set_thread_res_gid(gid, gid, gid).doing(|| format!("set group {}", user.gid))?;
    set_thread_res_uid(uid, uid, uid).doing(|| format!("set user {}", user.uid))
}

fn setgroups_denied() -> bool {
    // In an exec /proc is the container's, which may have put a fifo there.
    let text = crate::files::read("/proc/self/setgroups".as_ref());
    text.is_ok_and(|b| b.starts_with(b"deny"))
}

/// Gives the standard streams to the user, so that it can open /dev/stdout. The
/// host's null device becomes the container's: through the descriptor it would reach
/// a file system of the host, and a checkpoint could not find it.
pub(crate) fn own_streams(user: &User) -> Result<(), StepError> {
    let mut own_null = None;
    for number in 0..3 {
        let stream = match number {
            0 => rustix::stdio::stdin(),
            1 => rustix::stdio::stdout(),
            _ => rustix::stdio::stderr(),
        };
        let Ok(found) = fstat(stream) else { continue };
        if is_null(&found) {
            let null = own_null.get_or_insert_with(null_of_container);
            if let Some((null, device)) = null
                && found.st_dev != *device
            {
                match number {
                    0 => rustix::stdio::dup2_stdin(null),
                    1 => rustix::stdio::dup2_stdout(null),
                    _ => rustix::stdio::dup2_stderr(null),
                }
                .doing(|| "take the null device of the container")?;
            }
        } else if found.st_uid != user.uid {
            // A file system or a user namespace may refuse; the stream stays usable.
            let _ = rustix::fs::fchown(stream.as_fd(), Some(Uid::from_raw(user.uid)), None);
        }
    }
    Ok(())
}

fn is_null(found: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == makedev(1, 3)
}

/// The container's null device and the file system it is on, if it has a true one.
fn null_of_container() -> Option<(OwnedFd, u64)> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    // What is no device may block or act when it is opened.
    let seen = rustix::fs::lstat("/dev/null").ok().filter(is_null)?;
    let fd = rustix::fs::open("/dev/null", flags, Mode::empty()).ok()?;
    let found = fstat(&fd).ok().filter(is_null)?;
    (found.st_ino == seen.st_ino).then_some((fd, found.st_dev))
}

/// Makes the working directory and enters it. Gives false where only the
/// user, not root, may enter: then it is tried again as the user.
pub(crate) fn enter_cwd(cwd: &str, last_try: bool) -> Result<bool, StepError> {
    match rustix::process::chdir(cwd) {
        Ok(()) => {}
        Err(Errno::ACCESS | Errno::PERM) if !last_try => return Ok(false),
        Err(e) => {
            return Err(e).doing(|| format!("chdir to cwd (\"{cwd}\") set in config.json failed"));
        }
    }
    // A directory outside the root has no path in it: the kernel says
    // "(unreachable)". It can only come from a leaked descriptor.
    let inside = rustix::process::getcwd(Vec::new()).is_ok_and(|p| p.as_bytes().starts_with(b"/"));
    if !inside {
        return Err(StepError::refused(
            format!("chdir to cwd (\"{cwd}\")"),
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        ));
    }
    Ok(true)
}

/// The environment: the last value of each name wins; HOME is found in
/// /etc/passwd where it is missing or empty.
pub(crate) fn environment(process: &Process) -> Vec<String> {
    let mut env: Vec<String> = Vec::with_capacity(process.env.len() + 1);
    let name = |e: &str| e.split_once('=').map_or(e.len(), |(n, _)| n.len() + 1);
    for entry in process
        .env
        .iter()
        .filter(|e| e.contains('=') && !e.starts_with('='))
    {
        let prefix = &entry[..name(entry)];
        match env.iter_mut().find(|e| e.starts_with(prefix)) {
            Some(earlier) => entry.clone_into(earlier),
            None => env.push(entry.clone()),
        }
    }
    if !env.iter().any(|e| e.starts_with("HOME=") && e.len() > 5) {
        env.retain(|e| e != "HOME=");
        let home = home_of(process.user.uid).unwrap_or_else(|| "/".into());
        env.push(format!("HOME={home}"));
    }
    env
}

/// The home directory in the container's /etc/passwd, which may be anything.
fn home_of(uid: u32) -> Option<String> {
    let text = crate::files::read("/etc/passwd".as_ref()).ok()?;
    home_in(&String::from_utf8_lossy(&text), uid)
}

fn home_in(text: &str, uid: u32) -> Option<String> {
    for line in text.lines() {
        let mut fields = line.split(':');
        if fields.nth(2).and_then(|f| f.parse().ok()) == Some(uid) {
            return fields.nth(2).filter(|h| !h.is_empty()).map(str::to_owned);
        }
    }
    None
}

/// Finds the program as a shell would, with errors in the words that callers
/// turn into exit codes 126 and 127.
pub(crate) fn find_program(name: &str, env: &[String]) -> Result<CString, StepError> {
    let what = || format!("exec: \"{name}\"");
    let c_string = |path: String| CString::new(path).doing(what);
    if name.contains('/') {
        executable(name).doing(|| match executable(name) {
            Err(Errno::NOENT) => format!("exec: \"{name}\": stat {name}"),
            _ => what(),
        })?;
        return c_string(name.to_owned());
    }
    let path = env
        .iter()
        .find_map(|e| e.strip_prefix("PATH="))
        .unwrap_or("");
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{name}");
        if executable(&candidate).is_ok() {
            return c_string(candidate);
        }
    }
    Err(StepError::refused(
        what(),
        "executable file not found in $PATH",
    ))
}

fn executable(path: &str) -> Result<(), Errno> {
    let found = stat(path)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory || found.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Kernels before 5.8 cannot answer for the effective user; execve will.
        Err(Errno::NOSYS | Errno::INVAL) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins_and_newlines_stay() {
        let process = Process {
            env: ["A=1", "HOME=/h", "A=2\n3", "broken", "AB=x"]
                .map(str::to_owned)
                .to_vec(),
            ..Process::default()
        };
        assert_eq!(environment(&process), ["A=2\n3", "HOME=/h", "AB=x"]);
    }

    #[test]
    fn home_comes_from_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbad\nu:x:7:7::/home/u:/bin/sh\nv:x:8:8:::";
        let home = |uid| home_in(text, uid);
        assert_eq!(home(7).as_deref(), Some("/home/u"));
        assert_eq!(home(8), None);
        assert_eq!(home(9), None);
    }

    #[test]
    fn programs_are_found_and_refused_in_known_words() {
        let env = ["PATH=/nope:/bin:/usr/bin".to_owned()];
        assert_eq!(find_program("sh", &env).unwrap().to_str(), Ok("/bin/sh"));
        let text = |name: &str| crate::error::chain(&find_program(name, &env).unwrap_err());
        assert_eq!(
            text("no-such"),
            "exec: \"no-such\": executable file not found in $PATH"
        );
        assert_eq!(
            text("/no/such"),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert_eq!(
            text("/etc/passwd"),
            "exec: \"/etc/passwd\": permission denied"
        );
        assert_eq!(text("/etc"), "exec: \"/etc\": permission denied");
    }
}
