//! Hardware addresses. Pure, but for the randomness.

use crate::error::{Error, Result};

/// A locally administered address.
pub(super) fn random() -> String {
    let hex = crate::random::hex(4);
    format!(
        "02:42:{}:{}:{}:{}",
        &hex[..2],
        &hex[2..4],
        &hex[4..6],
        &hex[6..8]
    )
}

/// Reads an address that an interface can have.
pub(super) fn parse(text: &str) -> Result<[u8; 6]> {
    let wrong = || Error::invalid(format!("invalid MAC address {text:?}"));
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let mut mac = [0u8; 6];
    if parts.len() != mac.len() {
        return Err(wrong());
    }
    for (byte, part) in mac.iter_mut().zip(parts) {
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    // The lowest bit marks a group, which no interface can be.
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(wrong());
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(
            parse("02:42:ac:11:00:02").unwrap(),
            [2, 0x42, 0xac, 0x11, 0, 2]
        );
        assert!(parse(&random()).is_ok());
        for bad in [
            "",
            "02:42",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "zz:42:ac:11:00:02",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
