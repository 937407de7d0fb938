//! Container image → layers: finding, verifying and unpacking OCI images.
