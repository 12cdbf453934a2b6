//! The processes of a container, as `top` shows them.
//!
//! Docker runs `ps` on the host and picks the lines of the container's pids. So do we where the client names options of ps;
//! its default list (`-ef`) is read from /proc without that program.

use std::collections::BTreeSet;
use std::path::Path;

use proto::containerd::services::tasks::v1::ListPidsRequest;
use proto::engine::TopResponse;

use super::Handle;
use super::state::State;
use crate::App;
use crate::backend::{QUICK, within};
use crate::error::{During, Error, Result};

/// The list.
pub(crate) async fn top(app: &App, handle: &Handle, options: &str) -> Result<TopResponse> {
    let record = handle.record();
    match &record.state {
        State::Running(_) => {}
        State::Restarting(_) => {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                record.id
            )));
        }
        _ => {
            return Err(Error::conflict(format!(
                "container {} is not running",
                record.id
            )));
        }
    }
    let request = ListPidsRequest {
        container_id: record.id.clone(),
    };
    let pids: BTreeSet<u32> = within(QUICK, app.backend.tasks().list_pids(request))
        .await
        .during(|| format!("list the processes of container {}", record.id))?
        .processes
        .into_iter()
        .map(|process| process.pid)
        .collect();
    match options {
        "" | "-ef" => tokio::task::spawn_blocking(move || from_proc(&pids))
            .await
            .map_err(|e| Error::internal(format!("read processes: {e}")))?,
        options => from_ps(options, &pids).await,
    }
}

async fn from_ps(options: &str, pids: &BTreeSet<u32>) -> Result<TopResponse> {
    let output = tokio::process::Command::new("ps")
        .args(options.split_whitespace())
        .output()
        .await
        .during(|| "run ps")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::internal(format!("ps: {}", text.trim())));
    }
    pick(&String::from_utf8_lossy(&output.stdout), pids)
}

/// The lines of `pids`; the last column takes the rest of the line.
fn pick(table: &str, pids: &BTreeSet<u32>) -> Result<TopResponse> {
    let mut lines = table.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or("")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let at = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let ours = fields
            .get(at)
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: u32| pids.contains(&pid));
        if !ours {
            continue;
        }
        if fields.len() > titles.len() {
            let rest = fields.split_off(titles.len() - 1).join(" ");
            fields.push(rest);
        }
        processes.push(fields);
    }
    Ok(TopResponse { processes, titles })
}

/// `ps -ef` of these processes.
fn from_proc(pids: &BTreeSet<u32>) -> Result<TopResponse> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    Ok(TopResponse {
        processes: pids
            .iter()
            .filter_map(|pid| line(*pid, boot, &passwd))
            .collect(),
        titles: titles.iter().map(|title| (*title).to_owned()).collect(),
    })
}

/// Clock ticks a second, as every Linux shows them.
const TICKS: u64 = 100;

/// One line; none for a process that has ended meanwhile.
fn line(pid: u32, boot: i64, passwd: &str) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    let dir = format!("/proc/{pid}");
    let stat = std::fs::read_to_string(Path::new(&dir).join("stat")).ok()?;
    let uid = std::fs::metadata(&dir).ok()?.uid();
    // The name stands in parentheses and may hold any character; what follows the last one is fields from the third on.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<u64>().ok());
    let (parent, tty) = (number(4)?, number(7)?);
    let used = (number(14)? + number(15)?) / TICKS;
    let started = boot + i64::try_from(number(22)? / TICKS).ok()?;
    let command = std::fs::read(Path::new(&dir).join("cmdline")).unwrap_or_default();
    let words: Vec<String> = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let command = match words.is_empty() {
        true => format!("[{name}]"),
        false => words.join(" "),
    };
    let lived = (now() - started).max(1);
    let share = (used * 100) / u64::try_from(lived).ok()?;
    Some(vec![
        user(uid, passwd),
        pid.to_string(),
        parent.to_string(),
        share.min(99).to_string(),
        clock(started),
        terminal(tty),
        format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
        command,
    ])
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

fn clock(moment: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(moment) {
        Ok(t) if now() - moment < 24 * 3600 => format!("{:02}:{:02}", t.hour(), t.minute()),
        Ok(t) => format!("{:.3}{:02}", t.month().to_string(), t.day()),
        Err(_) => "?".into(),
    }
}

fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    match major {
        0 => "?".into(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".into(),
    }
}

fn user(uid: u32, passwd: &str) -> String {
    let wanted = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then_some(name)
    });
    name.map_or(wanted.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_picked_by_pid() {
        let table = "PID USER COMMAND\n  1 root init\n 22 web  sleep 100 x\n";
        let got = pick(table, &BTreeSet::from([22])).unwrap();
        assert_eq!(got.titles, ["PID", "USER", "COMMAND"]);
        assert_eq!(got.processes, [["22", "web", "sleep 100 x"]]);
        assert!(pick("USER\n", &BTreeSet::new()).is_err());
    }

    #[test]
    fn our_own_process() {
        let pid = std::process::id();
        let got = from_proc(&BTreeSet::from([pid])).unwrap();
        assert_eq!(got.processes.len(), 1);
        assert_eq!(got.processes[0][1], pid.to_string());
    }
}
