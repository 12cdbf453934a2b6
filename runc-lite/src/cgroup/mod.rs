//! cgroups of a container.
