//! Layers → ostree repository and deployment, as a tree.
