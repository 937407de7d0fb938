//! Independent readers and the real tools as witnesses of every format that bootpress writes. One module a format.

#[path = "../support/tool.rs"]
mod tool;

mod bootloader;
mod composefs;
mod selinux;
