//! From a container's configuration to the OCI runtime spec.
