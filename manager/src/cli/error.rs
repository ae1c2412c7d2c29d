//! What can go wrong in a client command, in words for the person at the keyboard.

use std::io;

/// Why a client command failed. `Display` is what the user reads after `Error: `.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A wrong command line that clap cannot judge: a bad combination of flags, or a bad value.
    #[error("{0}")]
    Usage(String),
    /// It cannot be done as things are: no such object, a file that is not what it should be.
    #[error("{0}")]
    Refused(String),
    /// No connection: nobody listens, or we may not open the socket.
    #[error("cannot connect to the manager at {target}: {source}. Is `pi-mgr serve` running there?")]
    Connect {
        /// Where we tried, as the user would write it.
        target: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket is there, and not for us.
    #[error("cannot open {target}: permission denied. It is for root and {group}")]
    Denied {
        /// Where we tried.
        target: String,
        /// Who else may.
        group: String,
    },
    /// No HTTP came back on a connection without TLS.
    #[error(
        "{target} does not speak plain HTTP: it is the port for clients with certificates, or no manager's. Use \
         `pi-mgr --context NAME` with an access of `pi-mgr access create NAME` (beside -H, if the host is another one)"
    )]
    NeedsTls {
        /// Where we asked.
        target: String,
    },
    /// The manager ended an answer that was to go on.
    #[error("the manager ended the stream: it stops, or this reader was too slow")]
    Ended,
    /// The manager took the connection but did not answer in time.
    #[error("no answer from the manager at {target} within {seconds} s; it may be overloaded or stuck")]
    Timeout {
        /// Where we asked.
        target: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The connection broke while we talked.
    #[error("lost the connection to the manager at {target}: {reason}")]
    Transport {
        /// Where we asked.
        target: String,
        /// hyper's reason.
        reason: String,
    },
    /// The manager refused; the text is its own.
    #[error("{message}")]
    Api {
        /// HTTP status code.
        status: u16,
        /// The `message` of the error body.
        message: String,
    },
    /// An answer that is not what the Docker Engine API promises.
    #[error("unexpected answer from the manager to {request}: {reason}")]
    Answer {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS did not come about.
    #[error("no secure connection to the manager at {target}: {reason}")]
    Tls {
        /// Where we tried.
        target: String,
        /// Why, in words.
        reason: String,
    },
    /// A local file that is to be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A `--format` that cannot be run.
    #[error("template: {0}")]
    Template(String),
    /// A local file that a flag names.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Writing to stdout or stderr failed.
    #[error("cannot write output: {0}")]
    Output(#[from] io::Error),
    /// A service did not come up: paused, rolled back, or unknown mode.
    #[error("{0}")]
    Progress(String),
    /// A board that was to become a node: which step failed, the last it said, what to try.
    #[error("{0}")]
    Board(String),
    /// Several objects failed one by one; each is reported on its own line.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Many(Vec<CliError>),
}

impl CliError {
    /// What the process ends with: 2 after a wrong command line, as clap does.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, CliError::Usage(_)) { 2 } else { 1 }
    }

    /// The reader of our output went away (`pi-mgr node ls | head -1`): not a failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, CliError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The manager does not know the object.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, CliError::Api { status: 404, .. })
    }

    /// The name is taken.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, CliError::Api { status: 409, .. })
    }

    /// Another change of the object came first. Docker's API has no status of its own for it.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(self, CliError::Api { message, .. } if message.contains("update out of sequence"))
    }

    /// `Ok` for none, the error itself for one, `Many` for more.
    pub(crate) fn collect(mut errors: Vec<CliError>) -> Result<(), CliError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(CliError::Many(errors)),
        }
    }

    /// One line per separate failure.
    pub(crate) fn lines(&self) -> Vec<String> {
        if let CliError::Many(errors) = self {
            return errors.iter().flat_map(CliError::lines).collect();
        }
        vec![self.to_string()]
    }
}
