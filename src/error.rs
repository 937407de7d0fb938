//! The two kinds of failure that somebody acts on; everything else is an `anyhow` error with context.
//!
//! Attach them with `anyhow!(Unsupported { .. })` or `.context(..)`, find them with `error.is::<Unsupported>()` or
//! `downcast_ref`; `error.chain()` misses a type that was attached as context.

use thiserror::Error;

/// The input is sound, but bootpress cannot make of it what was asked. Exit code 3.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct Unsupported {
    /// What cannot be done, with the object named.
    pub what: String,
    /// The way out, when there is one.
    pub hint: Option<String>,
}

/// The input's bytes are not what they claim to be, or would do harm. Exit code 4.
#[derive(Debug, Error)]
#[error("{subject} is corrupt: {reason}")]
pub struct Corrupt {
    /// What is corrupt: a blob's digest, a path in a layer.
    pub subject: String,
    /// How it shows.
    pub reason: String,
}

/// An `anyhow` error that carries [`Unsupported`].
pub fn unsupported(what: impl Into<String>, hint: Option<&str>) -> anyhow::Error {
    Unsupported { what: what.into(), hint: hint.map(str::to_owned) }.into()
}

/// An `anyhow` error that carries [`Corrupt`].
pub fn corrupt(subject: impl Into<String>, reason: impl Into<String>) -> anyhow::Error {
    Corrupt { subject: subject.into(), reason: reason.into() }.into()
}
