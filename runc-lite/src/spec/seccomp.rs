//! `linux.seccomp` of config.json: which system calls a container may make.

use serde::{Deserialize, Serialize};

use super::nil;

/// A seccomp profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxSeccomp {
    /// What happens to a call that no rule names.
    pub default_action: String,
    /// The errno of the default action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_*`; the machine's own is always among them.
    #[serde(deserialize_with = "nil", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*`. Absent is not the same as empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// The unix socket of the agent that answers notified calls.
    #[serde(deserialize_with = "nil", skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// Opaque data for the agent.
    #[serde(deserialize_with = "nil", skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(deserialize_with = "nil", skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<LinuxSyscall>,
}

/// One rule: what happens to these calls under these conditions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxSyscall {
    /// System call names.
    #[serde(deserialize_with = "nil")]
    pub names: Vec<String>,
    /// `SCMP_ACT_*`.
    pub action: String,
    /// The errno of the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions on arguments.
    #[serde(deserialize_with = "nil", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<LinuxSeccompArg>,
}

/// A condition on one argument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxSeccompArg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What to compare with; the mask of `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// What the masked argument must equal.
    pub value_two: u64,
    /// `SCMP_CMP_*`.
    pub op: String,
}
