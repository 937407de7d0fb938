//! The command `bootpress`.

fn main() {}
