//! Files in and out of containers.
