//! The pipeline, top to bottom. Each step uses only what the steps above made.
