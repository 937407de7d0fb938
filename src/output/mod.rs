//! SparseMap → disk file: raw, qcow2.
