//! The command: flags in, engine called, results shown, failures told and turned into exit codes.

mod ami;
mod bib;
mod build;
mod cache;
mod cases;
mod chain;
mod check;
mod completions;
mod compose;
#[cfg(test)]
mod documents;
mod events;
mod flags;
mod generate;
mod image_builder;
mod inspect;
mod inspect_image;
mod iso;
mod json;
mod machine_flags;
mod markdown;
mod pull;
mod push;
mod recorded;
mod release;
mod report_flags;
mod run;
mod say;
mod secret;
mod sign;
mod summary;
mod terminal;
mod test;
mod trust_flags;
mod unpacked;
mod verdict_flags;
mod verify;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::process::ExitCode;

use bootpress::error::{Corrupt, Unsupported};
use clap::Parser;

use self::flags::{Command, Flags};
use self::say::say;

/// Exit codes; they are part of the interface and do not change.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const UNSUPPORTED: u8 = 3;
    pub(super) const CORRUPT: u8 = 4;
    /// This machine broke a boot: nothing was learned about the disk.
    pub(super) const HOST: u8 = 5;
}

/// Runs the command that the arguments name.
pub(crate) fn run() -> ExitCode {
    install_panic_message();
    if bib::is_called() {
        return bib::run(std::env::args_os().collect());
    }
    if image_builder::is_called() {
        return image_builder::run(std::env::args_os().collect());
    }
    install_tracing(None);
    let flags = Flags::parse();
    let result = match flags.command {
        Command::Build(flags) => build::run(&flags).map(|()| ExitCode::SUCCESS),
        Command::Test(mut flags) => test::run(&mut flags),
        Command::Run(flags) => run::run(&flags),
        Command::Inspect(flags) => inspect::run(&flags).map(|()| ExitCode::SUCCESS),
        Command::Check(flags) => check::run(&flags),
        Command::Verify(flags) => verify::run(&flags),
        Command::Iso(flags) => iso::run(&flags).map(|()| ExitCode::SUCCESS),
        Command::Pull(flags) => pull::run(&flags).map(|()| ExitCode::SUCCESS),
        Command::Push(flags) => push::run(&flags).map(|()| ExitCode::SUCCESS),
        Command::Compose(flags) => compose::run(&flags),
        Command::Cache(flags) => cache::run(&flags).map(|()| ExitCode::SUCCESS),
        Command::Completions(flags) => generate::completions(&flags).map(|()| ExitCode::SUCCESS),
        Command::Man(flags) => generate::man(&flags).map(|()| ExitCode::SUCCESS),
        Command::BootcImageBuilder(words) => Ok(bib::run(words.named("bootc-image-builder"))),
        Command::ImageBuilder(words) => Ok(image_builder::run(words.named("image-builder"))),
    };
    result.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    say!("error: {error:#}");
    if let Some(Unsupported { hint: Some(hint), .. }) = error.downcast_ref() {
        say!("hint: {hint}");
    }
    ExitCode::from(exit_code(error))
}

/// The exit code that an error becomes.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Unsupported>() {
        exit::UNSUPPORTED
    } else if error.is::<Corrupt>() {
        exit::CORRUPT
    } else {
        exit::FAILED
    }
}

/// A panic is our mistake, so say whose it is and what would reproduce it, but no secret. A second panic in here would abort.
fn install_panic_message() {
    std::panic::set_hook(Box::new(move |panic| {
        say!("{panic}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            say!("{backtrace}");
        }
        say!("This is a bug in bootpress {}, not in your image.", env!("CARGO_PKG_VERSION"));
        say!(
            "Builds depend on nothing but the image and the command line, so these reproduce it; please report"
        );
        let arguments: Vec<_> = std::env::args_os().collect();
        say!("the message above with: {}", secret::command_line(&arguments));
    }));
}

/// Logs what RUST_LOG says, and what `also` does.
fn install_tracing(also: Option<&str>) {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let filter = match also.and_then(|also| also.parse().ok()) {
        Some(directive) => filter.add_directive(directive),
        None => filter,
    };
    // Another subscriber cannot be there before `main`; if one is, it may stay.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| say::Log).try_init();
}
