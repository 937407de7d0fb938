//! What was built.
