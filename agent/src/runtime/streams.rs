//! What a container's first process has for standard input, output and error.
//!
//! | asked for | input | output |
//! |---|---|---|
//! | nothing | the null device | the log process |
//! | a terminal | the terminal; nobody types | the terminal, to the log process |
//! | open input | a pipe that nobody writes to | the log process |
//!
//! A terminal never ends by itself, so that it needs no more to stay open. containerd's shim gives an input of its own
//! only to a container without a log process; so an open one comes from a script in the place of the OCI runtime, which
//! opens a named pipe for reading and writing and then becomes the runtime. Nothing of the agent's is needed for it to
//! stay open.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use racimo_common::object::ContainerSpec;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

/// How a container's streams are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streams {
    /// No input.
    #[default]
    Plain,
    /// A terminal.
    Terminal,
    /// An input that stays open.
    OpenInput,
}

impl Streams {
    /// What a service asks for.
    pub fn of(spec: &ContainerSpec) -> Self {
        match (spec.tty, spec.open_stdin) {
            (true, _) => Self::Terminal,
            (false, true) => Self::OpenInput,
            (false, false) => Self::Plain,
        }
    }

    /// As a label has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Terminal => "terminal",
            Self::OpenInput => "open-input",
        }
    }

    /// Undoes [`Streams::name`].
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Terminal, Self::OpenInput].into_iter().find(|streams| streams.name() == name)
    }
}

/// The script that stands for the OCI runtime of the task whose files are in `dir`.
pub(super) fn runtime_in(dir: &Path) -> PathBuf {
    dir.join("runtime")
}

/// Makes the pipe and the script in `dir`; `binary` is the OCI runtime.
pub(super) fn write_open_input(dir: &Path, binary: &Path) -> io::Result<()> {
    let (pipe, script) = (dir.join("stdin"), runtime_in(dir));
    match mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let text = [
        b"#!/bin/sh\ncase \" $* \" in *\" create \"*) exec 0<>".as_slice(),
        &quoted(&pipe),
        b" ;; esac\nexec ",
        &quoted(binary),
        b" \"$@\"\n",
    ];
    fs::write(&script, text.concat())?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))
}

/// A path as the shell takes it.
fn quoted(path: &Path) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_come_back() {
        for streams in [Streams::Plain, Streams::Terminal, Streams::OpenInput] {
            assert_eq!(Streams::parse(streams.name()), Some(streams));
        }
        assert_eq!(Streams::parse("other"), None);
    }

    #[test]
    fn the_runtime_gets_its_arguments_and_an_input() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("it's a task");
        fs::create_dir(&dir).unwrap();
        let binary = dir.join("a runtime");
        fs::write(&binary, "#!/bin/sh\nfor a; do echo \"<$a>\"; done; readlink /proc/$$/fd/0\n").unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        for _ in 0..2 {
            write_open_input(&dir, &binary).unwrap();
        }
        let run = |arguments: &[&str]| {
            let output = Command::new(runtime_in(&dir)).args(arguments).stdin(Stdio::null()).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(&["--x y", "kill", "1"]), "<--x y>\n<kill>\n<1>\n/dev/null\n");
        let pipe = dir.join("stdin");
        assert_eq!(run(&["--x", "create", "$HOME"]), format!("<--x>\n<create>\n<$HOME>\n{}\n", pipe.display()));
    }
}
