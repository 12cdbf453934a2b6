//! `google.protobuf.Any` as containerd uses it.
//!
//! JSON values carry the prefix `types.containerd.io/`; protobuf values carry the bare full name. A value that is only
//! passed on (spec, extensions, options) is never decoded and encoded again.

use prost::Name;
use prost_types::Any;

/// Type URL of an OCI runtime spec in JSON.
pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Type URL of an OCI process in JSON.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Type URL of OCI Linux resources in JSON.
pub const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Packs a message under its bare full name.
pub fn pack<M: Name>(message: &M) -> Any {
    Any {
        type_url: M::full_name(),
        value: message.encode_to_vec(),
    }
}

/// Unpacks a message if the type URL names it, with or without a prefix; an error if its bytes are malformed.
pub fn unpack<M: Name + Default>(any: &Any) -> Option<Result<M, prost::DecodeError>> {
    is::<M>(any).then(|| M::decode(any.value.as_slice()))
}

/// Whether the type URL names the message, with or without a prefix.
pub fn is<M: Name>(any: &Any) -> bool {
    any.type_url.rsplit('/').next() == Some(M::full_name().as_str())
}

/// A JSON value under `type_url`.
pub fn json(type_url: &str, value: Vec<u8>) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::TaskExit;

    #[test]
    fn a_message_travels_under_its_bare_name() {
        let exit = TaskExit {
            container_id: "c".into(),
            exit_status: 7,
            ..TaskExit::default()
        };
        let mut any = pack(&exit);
        assert_eq!(any.type_url, "containerd.events.TaskExit");
        assert_eq!(unpack::<TaskExit>(&any), Some(Ok(exit.clone())));
        any.type_url = "type.googleapis.com/containerd.events.TaskExit".into();
        assert_eq!(unpack::<TaskExit>(&any), Some(Ok(exit)));
        any.type_url = SPEC.into();
        assert_eq!(unpack::<TaskExit>(&any), None);
    }
}
