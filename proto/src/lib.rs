//! What two programs of the chain must agree on, and nothing else.
//!
//! ```text
//!  docker-lite ──REST (engine)──▶ dockerd-lite ──gRPC (containerd::services, rpc)──▶ containerd-lite
//!       └────────gRPC (lite::control)────┘                                               │ ▲
//!                                              ttrpc (containerd::task, v2 and v3)       ▼ │ ttrpc (events)
//!                                                                        containerd-shim-lite-v2 ──command line──▶ runc-lite
//! ```
//!
//! The `.proto` files beside this folder name containerd's packages as they are on the wire; `generated/` is made from
//! them by `make proto` and checked in. Features keep it cheap: `rpc` (gRPC by tonic) for the daemons and the CLI, `ttrpc`
//! for containerd-lite and the shim, `engine` (Docker's REST types) for the CLI and dockerd-lite.
//! No behaviour beyond parsing and conversion, and no disk access, lives here.

#![forbid(unsafe_code)]

pub mod any;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod exit;
pub mod ids;
pub mod layout;
pub mod trace;
#[cfg(feature = "ttrpc")]
pub mod ttrpc;

pub use prost;
pub use prost_types;

/// Declares a module from a generated file.
macro_rules! generated {
    ($file:literal) => {
        include!(concat!("generated/", $file, ".rs"));
    };
}

/// containerd's packages.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    rustdoc::all
)]
pub mod containerd {
    pub mod events {
        generated!("containerd.events");
    }
    pub mod runc {
        pub mod v1 {
            generated!("containerd.runc.v1");
        }
    }
    pub mod runtime {
        pub mod bootstrap {
            pub mod v1 {
                generated!("containerd.runtime.bootstrap.v1");
            }
        }
        pub mod sandbox {
            pub mod v1 {
                generated!("containerd.runtime.sandbox.v1");
            }
        }
    }
    pub mod services {
        pub mod containers {
            pub mod v1 {
                generated!("containerd.services.containers.v1");
            }
        }
        pub mod content {
            pub mod v1 {
                generated!("containerd.services.content.v1");
            }
        }
        pub mod diff {
            pub mod v1 {
                generated!("containerd.services.diff.v1");
            }
        }
        pub mod events {
            pub mod ttrpc {
                pub mod v1 {
                    generated!("containerd.services.events.ttrpc.v1");
                }
            }
            pub mod v1 {
                generated!("containerd.services.events.v1");
            }
        }
        pub mod images {
            pub mod v1 {
                generated!("containerd.services.images.v1");
            }
        }
        pub mod introspection {
            pub mod v1 {
                generated!("containerd.services.introspection.v1");
            }
        }
        pub mod leases {
            pub mod v1 {
                generated!("containerd.services.leases.v1");
            }
        }
        pub mod namespaces {
            pub mod v1 {
                generated!("containerd.services.namespaces.v1");
            }
        }
        pub mod sandbox {
            pub mod v1 {
                generated!("containerd.services.sandbox.v1");
            }
        }
        pub mod snapshots {
            pub mod v1 {
                generated!("containerd.services.snapshots.v1");
            }
        }
        pub mod streaming {
            pub mod v1 {
                generated!("containerd.services.streaming.v1");
            }
        }
        pub mod tasks {
            pub mod v1 {
                generated!("containerd.services.tasks.v1");
            }
        }
        pub mod transfer {
            pub mod v1 {
                generated!("containerd.services.transfer.v1");
            }
        }
        pub mod version {
            pub mod v1 {
                generated!("containerd.services.version.v1");
            }
        }
    }
    pub mod task {
        pub mod v2 {
            generated!("containerd.task.v2");
        }
        pub mod v3 {
            generated!("containerd.task.v3");
        }
    }
    pub mod types {
        generated!("containerd.types");
        pub mod transfer {
            generated!("containerd.types.transfer");
        }
    }
    pub mod v1 {
        pub mod types {
            generated!("containerd.v1.types");
        }
    }
}

/// Packages of Google's that the wire uses.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod google {
    pub mod rpc {
        generated!("google.rpc");
    }
}

/// The standard health service.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    rustdoc::all
)]
pub mod grpc {
    pub mod health {
        pub mod v1 {
            generated!("grpc.health.v1");
        }
    }
}

/// The metrics messages of both cgroup versions.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod io {
    pub mod containerd {
        pub mod cgroups {
            pub mod v1 {
                generated!("io.containerd.cgroups.v1");
            }
            pub mod v2 {
                generated!("io.containerd.cgroups.v2");
            }
        }
    }
}

/// Our own packages.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    rustdoc::all
)]
pub mod lite {
    pub mod control {
        pub mod v1 {
            generated!("lite.control.v1");
        }
    }
}
