//! Random names from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// `bytes` random bytes in hex.
pub(crate) fn hex(bytes: usize) -> String {
    let mut buffer = vec![0u8; bytes];
    let mut at = 0;
    while at < bytes {
        let n = getrandom(&mut buffer[at..], GetRandomFlags::empty())
            .expect("the kernel gives random bytes once it has booted");
        at += n;
    }
    hex::encode(buffer)
}

/// A new container or exec id: 64 hex digits, of which the first twelve are no decimal number.
pub(crate) fn id() -> String {
    loop {
        let id = hex(32);
        if id[..12].bytes().any(|b| !b.is_ascii_digit()) {
            return id;
        }
    }
}
