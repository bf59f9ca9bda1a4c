//! Parse, dispatch, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    mepulse::cli::run(mepulse::cli::Cli::parse())
}
