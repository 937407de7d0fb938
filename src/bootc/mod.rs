//! What the image itself configures: install configuration, kernel arguments, prepare-root.
