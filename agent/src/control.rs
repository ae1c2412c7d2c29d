//! What commands on this board ask of its running agent: one socket, which only root may use.
//!
//! ```text
//! <run>/pi-agent.sock (0600)      command ─ "leave\n" ─▶ agent
//!                                         ◀─ "+" what was done, or "-" why nothing was ─ and the end
//! ```
//! One command at a time; the next one waits.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_channel::Sender;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::Timer;
use smol::net::unix::{UnixListener, UnixStream};

use crate::leave::Ask;
use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_COMMAND_MAX, CONTROL_WITHIN, LEAVE_WITHIN};
use crate::within::within;

const LEAVE: &[u8] = b"leave\n";

/// Where the socket is.
pub fn path(run: &Path) -> PathBuf {
    run.join("pi-agent.sock")
}

/// Listens; what an agent of before left is replaced. Only one agent works on a directory.
///
/// # Errors
/// The directory is not there, or the path is longer than sockets may have.
pub fn listen(run: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(run)?;
    let path = path(run);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves commands until the agent is gone.
pub async fn serve(listener: UnixListener, asks: Sender<Ask>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => answer(stream, &asks).await,
            Err(error) => {
                log::warn!("accept a command: {error}");
                Timer::after(CONTROL_WITHIN).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, asks: &Sender<Ask>) {
    let said = match within(CONTROL_WITHIN, command(&mut stream)).await {
        Ok(command) if command == LEAVE => {
            let (answer, answered) = async_channel::bounded(1);
            let asked = asks.send(Ask { tells: true, answer }).await.is_ok();
            let stops = || Err("the agent stops".to_owned());
            if asked { answered.recv().await.unwrap_or_else(|_| stops()) } else { stops() }
        }
        Ok(_) => Err("the agent does not know this command: is it of the same version?".to_owned()),
        Err(_) => return,
    };
    let text = match said {
        Ok(text) => format!("+{text}"),
        Err(text) => format!("-{text}"),
    };
    let write = async {
        stream.write_all(text.as_bytes()).await?;
        stream.close().await
    };
    // Who asked may have gone.
    let _ = within(CONTROL_WITHIN, write).await;
}

/// One line.
async fn command(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < CONTROL_COMMAND_MAX && line.last() != Some(&b'\n') && stream.read(&mut byte).await? == 1 {
        line.push(byte[0]);
    }
    Ok(line)
}

/// Asks the running agent to leave; what it did, or why it did nothing.
///
/// # Errors
/// It cannot be reached, or does not answer.
pub async fn leave(run: &Path) -> io::Result<Result<String, String>> {
    let mut stream = within(CONTROL_WITHIN, UnixStream::connect(path(run))).await?;
    let ask = async {
        stream.write_all(LEAVE).await?;
        let mut text = String::new();
        (&mut stream).take(CONTROL_ANSWER_BYTES_MAX).read_to_string(&mut text).await?;
        Ok(text)
    };
    let text = within(LEAVE_WITHIN, ask).await?;
    match text.split_at_checked(1) {
        Some(("+", said)) => Ok(Ok(said.to_owned())),
        Some(("-", why)) => Ok(Err(why.to_owned())),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it gave no answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_answered() {
        let run = tempfile::tempdir().expect("a directory");
        let run = run.path();
        let (asks, asked) = async_channel::bounded(1);
        let executor = smol::LocalExecutor::new();
        smol::block_on(executor.run(async {
            assert!(leave(run).await.is_err(), "nobody listens");
            let serving = executor.spawn(serve(listen(run).expect("a socket"), asks.clone()));
            let mode = fs::metadata(path(run)).expect("a socket").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            for said in [Ok("gone".to_owned()), Err("not in".to_owned())] {
                let agent = async {
                    let Ask { tells, answer } = asked.recv().await.expect("a question");
                    assert!(tells);
                    answer.send(said.clone()).await.expect("somebody listens");
                };
                let (heard, ()) = smol::future::zip(leave(run), agent).await;
                assert_eq!(heard.expect("an answer"), said);
            }
            // Nonsense, and who says nothing and goes.
            for nonsense in [&b"levae\n"[..], &[b'x'; 200], b""] {
                let mut stream = UnixStream::connect(path(run)).await.expect("a connection");
                stream.write_all(nonsense).await.expect("sent");
                stream.shutdown(std::net::Shutdown::Write).expect("said");
                let mut text = String::new();
                // The rest of a long line was not read.
                let _ = stream.read_to_string(&mut text).await;
                assert!(text.is_empty() || text.starts_with("-the agent does not know"), "{text}");
            }
            assert!(asked.is_empty());
            // An agent that stops lets nobody wait; the next one takes the socket over.
            drop(asked);
            assert_eq!(leave(run).await.expect("an answer"), Err("the agent stops".to_owned()));
            drop(serving);
            listen(run).expect("a socket in place of the old one");
        }));
    }
}
