//! Networks, published ports and names, seen from outside of the daemon: in containers, on the wire, in nftables.

mod compose;
mod isolation;
mod names;
mod networks;
mod options;
mod ports;
mod recovery;
mod rig;
