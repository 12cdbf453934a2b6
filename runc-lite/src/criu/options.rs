//! The options of `checkpoint` and `restore` as criu takes them.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::wire::Message;
use crate::args::{ArgsError, Parsed};
use crate::error::{Doing as _, StepError};

/// Numbers of the fields of criu's options.
pub(crate) mod field {
    pub(crate) const IMAGES: u32 = 1;
    pub(crate) const PID: u32 = 2;
    pub(crate) const LEAVE_RUNNING: u32 = 3;
    pub(crate) const EXT_UNIX_SK: u32 = 4;
    pub(crate) const TCP_ESTABLISHED: u32 = 5;
    pub(crate) const EVASIVE_DEVICES: u32 = 6;
    pub(crate) const SHELL_JOB: u32 = 7;
    pub(crate) const FILE_LOCKS: u32 = 8;
    pub(crate) const LOG_LEVEL: u32 = 9;
    pub(crate) const LOG_FILE: u32 = 10;
    pub(crate) const PAGE_SERVER: u32 = 11;
    pub(crate) const NOTIFY: u32 = 12;
    pub(crate) const ROOT: u32 = 13;
    pub(crate) const PARENT: u32 = 14;
    pub(crate) const TRACK_MEMORY: u32 = 15;
    pub(crate) const AUTO_DEDUP: u32 = 16;
    pub(crate) const WORK: u32 = 17;
    pub(crate) const LINK_REMAP: u32 = 18;
    pub(crate) const EXT_MOUNT: u32 = 23;
    pub(crate) const MANAGE_CGROUPS: u32 = 24;
    pub(crate) const CGROUP_ROOT: u32 = 25;
    pub(crate) const SIBLING: u32 = 26;
    pub(crate) const INHERIT_FD: u32 = 27;
    pub(crate) const MANAGE_CGROUPS_MODE: u32 = 34;
    pub(crate) const EXTERNAL: u32 = 37;
    pub(crate) const EMPTY_NS: u32 = 38;
    pub(crate) const JOIN_NS: u32 = 39;
    pub(crate) const FREEZE_CGROUP: u32 = 44;
    pub(crate) const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub(crate) const LAZY_PAGES: u32 = 48;
    pub(crate) const ORPHAN_PTS: u32 = 50;
    pub(crate) const CONFIG_FILE: u32 = 51;
    pub(crate) const LSM_PROFILE: u32 = 53;
    pub(crate) const LSM_MOUNT_CONTEXT: u32 = 63;
}

/// What the standard streams were when an image was made: a file beside criu's.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// The name under which a namespace that is not in the image is known.
pub(crate) fn external_key(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("extRoot{}{rest}NS", first.to_ascii_uppercase())
}

/// The directories of the image and of criu's work, opened.
#[derive(Debug)]
pub(crate) struct Directories {
    images: OwnedFd,
    /// The path of the first.
    pub(crate) path: PathBuf,
    work: Option<(OwnedFd, PathBuf)>,
    /// Where criu writes its log.
    pub(crate) log: PathBuf,
}

impl Directories {
    /// Opens them; makes what is missing, the images only to write them.
    pub(crate) fn open(parsed: &Parsed, log: &str, make: bool) -> Result<Self, StepError> {
        let given = parsed.value("image-path").filter(|p| !p.is_empty());
        let path = PathBuf::from(given.unwrap_or("checkpoint"));
        let path = std::path::absolute(&path).doing(|| "find the image directory")?;
        let images = open_dir(&path, make)?;
        let (work, log) = match parsed.value("work-path").filter(|p| !p.is_empty()) {
            None => (None, path.join(log)),
            Some(work) => {
                let work = std::path::absolute(work).doing(|| "find the work directory")?;
                let log = work.join(log);
                (Some((open_dir(&work, true)?, work)), log)
            }
        };
        Ok(Self {
            images,
            path,
            work,
            log,
        })
    }

    /// Opens them anew under the same numbers, for criu, which takes our place: in a
    /// process with another mount namespace, whose mounts they are then.
    pub(crate) fn reopen(&self) -> Result<(), StepError> {
        let work = self.work.as_ref().map(|(fd, path)| (fd, path));
        for (fd, path) in std::iter::once((&self.images, &self.path)).chain(work) {
            let new = open_dir(path, false)?;
            crate::sys::exec::replace(fd, &new)
                .doing(|| format!("pass directory {} on", path.display()))?;
        }
        Ok(())
    }

    /// Adds them to the options.
    pub(crate) fn tell(&self, opts: &mut Message) {
        opts.number(field::IMAGES, self.images.as_raw_fd().into());
        if let Some((work, _)) = &self.work {
            opts.number(field::WORK, work.as_raw_fd().into());
        }
        let name = self.log.file_name().unwrap_or_default().to_string_lossy();
        opts.number(field::LOG_LEVEL, 4);
        opts.text(field::LOG_FILE, &name);
    }
}

fn open_dir(path: &Path, make: bool) -> Result<OwnedFd, StepError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if make {
        // Memory of the container goes into it.
        let mut builder = std::fs::DirBuilder::new();
        match builder.mode(0o700).create(path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(e).doing(|| format!("make directory {}", path.display()))?;
            }
            _ => {}
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).doing(|| format!("open directory {}", path.display()))
}

/// What both commands have.
#[derive(Debug)]
pub(crate) struct Options;

impl Options {
    /// The switches and values of the command line that both commands take.
    pub(crate) fn common(parsed: &Parsed, opts: &mut Message) -> Result<(), ArgsError> {
        for (name, number) in [
            ("ext-unix-sk", field::EXT_UNIX_SK),
            ("tcp-established", field::TCP_ESTABLISHED),
            ("shell-job", field::SHELL_JOB),
            ("file-locks", field::FILE_LOCKS),
            ("auto-dedup", field::AUTO_DEDUP),
            ("lazy-pages", field::LAZY_PAGES),
        ] {
            opts.flag(number, parsed.switch(name));
        }
        opts.flag(field::NOTIFY, true);
        opts.flag(field::ORPHAN_PTS, true);
        opts.flag(field::MANAGE_CGROUPS, true);
        let mode = parsed.value("manage-cgroups-mode").unwrap_or("");
        let mode = match mode {
            "" | "soft" => 3,
            "full" => 4,
            "strict" => 5,
            "ignore" => 0,
            other => {
                return Err(ArgsError::Invalid {
                    name: "manage-cgroups-mode".into(),
                    value: other.into(),
                    why: "not soft, full, strict or ignore",
                });
            }
        };
        opts.number(field::MANAGE_CGROUPS_MODE, mode);
        let mut empty = 0;
        for name in parsed.values("empty-ns") {
            empty |= match name {
                "network" => i64::from(libc::CLONE_NEWNET),
                other => {
                    return Err(ArgsError::Invalid {
                        name: "empty-ns".into(),
                        value: other.into(),
                        why: "only a network namespace can be left empty",
                    });
                }
            };
        }
        if empty != 0 {
            opts.number(field::EMPTY_NS, empty);
        }
        Ok(())
    }

    /// The container's own configuration file of criu (annotation `org.criu.config`;
    /// empty for none).
    pub(crate) fn config_file(
        annotations: &std::collections::BTreeMap<String, String>,
        opts: &mut Message,
    ) {
        let file = annotations.get("org.criu.config").map(String::as_str);
        let file = file.unwrap_or("/etc/criu/runc.conf");
        if !file.is_empty() {
            opts.text(field::CONFIG_FILE, file);
        }
    }

    /// A mount that is not in the image: its name there, and what it is here.
    pub(crate) fn external_mount(opts: &mut Message, key: &str, value: &str) {
        let mut map = Message::default();
        map.text(1, key).text(2, value);
        opts.message(field::EXT_MOUNT, &map);
    }
}
