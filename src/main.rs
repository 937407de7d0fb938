//! The command `bootpress`. The engine is the library; it cannot import this.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
