//! What fails although every program of ours does its part: the reason lies in the real peer.

use integration::rig::parts::Part as _;

use crate::Cell;

/// One known failure: words that all stand in the cell's name, a text in the error, and why.
struct Known {
    cell: &'static [&'static str],
    error: &'static str,
    reason: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        cell: &["| containerd 1.6 |", "Go shim 2.1"],
        error: "start failed: dial unix",
        reason: "containerd 1.6 takes the answer of Go shim 2.1 (JSON, version 3) for an address",
    },
    Known {
        cell: &["| containerd 1.7 |", "Go shim 2.1"],
        error: "unsupported shim version (3)",
        reason: "containerd 1.7 refuses Go shim 2.1: it answers version 3",
    },
    Known {
        cell: &["| crun"],
        error: "unknown version specified",
        reason: "crun 1.8 refuses a spec of OCI 1.1 or later",
    },
];

/// Why this failure is not ours.
pub(crate) fn reason(cell: &Cell, error: &str) -> Option<&'static str> {
    let name = cell.name();
    let fits = |known: &&Known| {
        known.cell.iter().all(|word| name.contains(word)) && error.contains(known.error)
    };
    let all_real = !cell.client.label().contains("lite")
        && !cell.middle.label().contains("lite")
        && !cell.shim.label().contains("our")
        && !cell.runtime.label().contains("lite");
    let found = KNOWN.iter().find(fits).map(|known| known.reason);
    found.or_else(|| all_real.then_some("no program of ours takes part"))
}
