//! The manager daemon and command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    racimo_manager::cli::main()
}
