//! Push: the blobs that the registry does not have, then the manifest under its tag.
