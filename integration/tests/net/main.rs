//! Networks, published ports and names, seen from outside of the daemon: in containers, on the wire, in nftables.

mod isolation;
mod names;
mod networks;
mod ports;
mod recovery;
mod rig;
