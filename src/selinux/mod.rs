//! Labels for paths, from the `file_contexts` that the image brings.
