//! Who the process is: `name`, `uid`, `name:group`, `uid:gid`, looked up in the container's own passwd and group files. Pure.

use crate::error::{Error, Result};

/// The largest id; one more is the kernel's "no change".
const MAX: u32 = i32::MAX as u32;

/// The resolved user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Resolves `text` by the files' contents; `add` are further groups by name or number.
pub(crate) fn resolve(text: &str, passwd: &str, group: &str, add: &[String]) -> Result<User> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group_name)) => (name, group_name),
        None => (text, ""),
    };
    let known = passwd_entry(name, passwd);
    let mut user = User::default();
    let mut login = String::new();
    match (known, name.parse::<i64>()) {
        (Some(entry), _) => {
            user.uid = entry.uid;
            user.gid = entry.gid;
            login = entry.name;
        }
        (None, _) if name.is_empty() => {}
        (None, Ok(number)) => user.uid = id(number)?,
        (None, Err(_)) => {
            return Err(Error::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    }
    if group_name.is_empty() {
        if !login.is_empty() {
            user.groups = memberships(&login, group);
        }
    } else {
        user.gid = group_id(group_name, group)?;
    }
    for name in add {
        let gid = group_id(name, group)?;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(user)
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
}

/// The first line whose name, or failing that whose number, is the one wanted; nobody named means user 0.
fn passwd_entry(wanted: &str, passwd: &str) -> Option<Entry> {
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let number: Option<u32> = wanted.parse().ok();
    passwd.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (name == wanted || number == Some(uid)).then(|| Entry {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

fn memberships(login: &str, group: &str) -> Vec<u32> {
    let lines = group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (_, _, gid, members) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let member = members.split(',').any(|member| member == login);
        member.then(|| gid.parse().ok()).flatten()
    });
    lines.collect()
}

fn group_id(wanted: &str, group: &str) -> Result<u32> {
    let named = group.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        (name == wanted).then(|| gid.parse().ok()).flatten()
    });
    match (named, wanted.parse::<i64>()) {
        (Some(gid), _) => Ok(gid),
        (None, Ok(number)) => id(number),
        (None, Err(_)) => Err(Error::invalid(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))),
    }
}

fn id(number: i64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(id) if id <= MAX => Ok(id),
        _ => Err(Error::invalid(format!(
            "uids and gids must be in range 0-{MAX}: {number} is not"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:101:102::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:root\ndisk:x:6:root,web\nwww:x:102:\nextra:x:7:web\n";

    fn who(text: &str) -> Result<(u32, u32, Vec<u32>)> {
        let user = resolve(text, PASSWD, GROUP, &[])?;
        Ok((user.uid, user.gid, user.groups))
    }

    #[test]
    fn the_forms() {
        assert_eq!(who("").unwrap(), (0, 0, vec![0, 6]));
        assert_eq!(who("web").unwrap(), (101, 102, vec![6, 7]));
        assert_eq!(who("101").unwrap(), (101, 102, vec![6, 7]));
        assert_eq!(who("web:disk").unwrap(), (101, 6, vec![]));
        assert_eq!(who("5000:6000").unwrap(), (5000, 6000, vec![]));
        assert_eq!(who("5000").unwrap(), (5000, 0, vec![]));
        assert!(who("nobody").is_err() && who("0:nope").is_err());
        let added = resolve("5000", PASSWD, GROUP, &["disk".into(), "9".into()]).unwrap();
        assert_eq!(added.groups, [6, 9]);
    }

    #[test]
    fn ids_never_wrap() {
        for bad in ["4294967296", "2147483648", "-1", "0:4294967296"] {
            assert!(who(bad).is_err(), "{bad}");
        }
        assert!(who("2147483647").is_ok());
    }

    proptest! {
        #[test]
        fn no_file_breaks_it(text in ".{0,20}", passwd in ".{0,80}", group in ".{0,80}") {
            let _ = resolve(&text, &passwd, &group, &[]);
        }
    }
}
