//! Extended attributes by path, the last component not followed.

use std::ffi::CString;
use std::io;
use std::path::Path;

/// Longest list of names or value that the kernel hands out.
const MAX: usize = 64 << 10;

/// Names of the attributes; none where the file system has none.
pub(crate) fn list(path: &Path) -> io::Result<Vec<CString>> {
    let size = match rustix::fs::llistxattr_query(path) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(size) => size.min(MAX),
        Err(errno) => return Err(errno.into()),
    };
    let mut names = vec![0u8; size];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    names.truncate(length);
    Ok(names
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .filter_map(|n| CString::new(n).ok())
        .collect())
}

/// The value of an attribute; none if there is no such one.
pub(crate) fn get(path: &Path, name: &CString) -> io::Result<Option<Vec<u8>>> {
    let none = |errno| match errno {
        rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP => Ok(None),
        errno => Err(io::Error::from(errno)),
    };
    let size = match rustix::fs::lgetxattr_query(path, name) {
        Ok(0) => return Ok(Some(Vec::new())),
        Ok(size) => size.min(MAX),
        Err(errno) => return none(errno),
    };
    let mut value = vec![0u8; size];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(errno) => none(errno),
    }
}
