//! Registries: pull and push.
