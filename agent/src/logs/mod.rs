//! What containers say: written by one small process per container, read by the agent when somebody asks.
//!
//! ```text
//! container ─ pipes ─▶ log process (`pi-agent log`) ─ lines ─▶ writer ─▶ DATA/logs/TASK/00000001.log, …2.log
//! ```
//! The log process is started by containerd's shim, so it lives and ends with the container, whatever becomes of the
//! agent. A file is text, one [`record`] a line. Files are numbered, written to their end and never touched again, and
//! the oldest goes when there are too many: a reader that knows a number and an offset never meets anything half done.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use racimo_common::id::TaskId;

pub mod keep;
pub mod lines;
pub mod process;
pub mod read;
pub mod record;
pub mod serve;
pub mod writer;

/// Where the logs of all tasks are.
pub fn root(data: &Path) -> PathBuf {
    data.join("logs")
}

/// Where the log of one task is.
pub fn dir(data: &Path, task: TaskId) -> PathBuf {
    root(data).join(task.to_string())
}

/// A log file's name.
pub fn file_name(number: u64) -> String {
    format!("{number:08}.log")
}

/// The number in a log file's name; none for other files.
pub fn number(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name.to_str()?).then_some(number)
}

/// What containerd's shim starts for a container: `program`'s log mode, with the one argument it takes
/// ([`process::Order`]). containerd hands several arguments over in no particular order.
pub fn address(program: &Path, order: &process::Order) -> String {
    let mut text = "binary://".to_owned();
    escape(&mut text, program.as_os_str(), b"/");
    text.push_str("?log=");
    escape(&mut text, &order.argument(), b"");
    text
}

fn escape(out: &mut String, text: &OsStr, keep: &[u8]) {
    for byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) || keep.contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for number in [0, 1, 99_999_999, 100_000_000, u64::MAX] {
            assert_eq!(super::number(file_name(number).as_ref()), Some(number));
        }
        for other in ["", "1.log", "+0000001.log", "00000001.log.gz", "00000001", "000000001.log", "x.log"] {
            assert_eq!(super::number(other.as_ref()), None, "{other}");
        }
    }

    #[test]
    fn containerd_takes_the_address_apart() {
        let order = process::Order { dir: "/var/lib/a b&c=d/é".into(), size_max: 5, files_max: 2 };
        let want = "binary:///usr/bin/pi%20agent?log=5%2C2%2C%2Fvar%2Flib%2Fa%20b%26c%3Dd%2F%C3%A9";
        assert_eq!(address(Path::new("/usr/bin/pi agent"), &order), want);
    }
}
