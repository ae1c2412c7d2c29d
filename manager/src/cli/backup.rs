//! `backup` and `restore`: all that brings a manager back, as one file.
//!
//! A passphrase comes from a file or from the terminal, never from the command line, which others on the machine see. It
//! stays here: the manager never hears it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use racimo_common::error::chain;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::url::Url;
use crate::app::restore::{self, Restored};
use crate::backup::{Backup, Header, ITERATIONS};
use crate::config::Config;
use crate::limits::{BACKUP_BYTES_MAX, PASSPHRASE_BYTES_MAX, PASSPHRASE_CHARS_MIN};

const STDIO: &str = "-";

/// `backup`.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// Encrypt it with a passphrase, which is asked for
    #[arg(short, long)]
    encrypt: bool,
    /// Encrypt it with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
    /// Say nothing but what went wrong
    #[arg(short, long)]
    quiet: bool,
    /// File to write; -: standard output
    file: PathBuf,
}

/// `restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// Directory of the manager's data
    #[arg(
        long,
        value_name = "DIR",
        env = "RACIMO_DATA_DIR",
        help = "Directory of the manager's data [default: /var/lib/racimo/manager]"
    )]
    data_dir: Option<PathBuf>,
    /// Configuration file of the manager
    #[arg(
        long,
        value_name = "FILE",
        env = "RACIMO_CONFIG",
        help = "Configuration file of the manager [default: /etc/racimo/manager.toml]"
    )]
    config: Option<PathBuf>,
    /// Address to listen on for boards: ADDRESS[:PORT] [default: as before]
    #[arg(long, value_name = "ADDR")]
    listen_addr: Option<String>,
    /// Address that boards reach this manager at: ADDRESS[:PORT] [default: as before, if this machine has it]
    #[arg(long, value_name = "ADDR")]
    advertise_addr: Option<String>,
    /// The passphrase of an encrypted backup is in this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Say nothing but what went wrong
    #[arg(short, long)]
    quiet: bool,
    /// The backup; -: standard input
    file: PathBuf,
}

/// Writes a backup.
pub(crate) async fn backup(args: &BackupArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let to_stdout = args.file == Path::new(STDIO);
    if to_stdout && console.is_shown {
        return Err(CliError::Usage("a backup is not for a terminal: name a file, or redirect the output".to_owned()));
    }
    if !to_stdout && !args.force && fs::symlink_metadata(&args.file).is_ok() {
        return Err(there(&args.file));
    }
    let passphrase = match &args.passphrase_file {
        Some(file) => Some(passphrase_of(file)?),
        None if args.encrypt => Some(ask_twice(console)?),
        None => None,
    };
    if passphrase.as_ref().is_some_and(|passphrase| passphrase.chars().count() < PASSPHRASE_CHARS_MIN) {
        let text = format!("a passphrase must have at least {PASSPHRASE_CHARS_MIN} characters");
        return Err(CliError::Refused(text));
    }
    let url = Url::new(&["racimo", "backup"]);
    let bytes = Zeroizing::new(client.download(&url, BACKUP_BYTES_MAX).await?);
    let answer = |reason: String| CliError::Answer { request: "GET /racimo/backup".to_owned(), reason };
    let mut backup = Backup::read(bytes).map_err(|error| answer(error.to_string()))?;
    if let Some(passphrase) = &passphrase {
        say_slow(args.quiet, console)?;
        backup = backup.seal(passphrase, ITERATIONS).map_err(|error| answer(error.to_string()))?;
    }
    if to_stdout {
        console.out.write_all(backup.bytes())?;
        console.out.flush()?;
    } else {
        write(&args.file, backup.bytes(), args.force)?;
    }
    if args.quiet {
        return Ok(());
    }
    let Header { autolock, .. } = backup.header();
    if passphrase.is_none() {
        console.warn(
            "Warning: the backup is not encrypted. It holds the cluster's keys: whoever reads it can join boards, read all\n\
             secrets and act as the manager. Keep it as you would keep a private key, or use --encrypt.",
        )?;
    }
    if *autolock {
        console.warn(
            "The manager's key in it is locked: who restores it needs the unlock key of now (pi-mgr unlock-key).",
        )?;
    }
    let size = backup.bytes().len().div_ceil(1024);
    Ok(console.warn(format!("Backed up {}, {size} KiB.", what(backup.header())))?)
}

/// Restores a backup.
pub(crate) fn restore(args: RestoreArgs, console: &mut Console) -> Result<(), CliError> {
    let data = Config::data_dir(args.data_dir, args.config.as_deref()).map_err(CliError::Refused)?;
    let failed = |error: &dyn std::error::Error| CliError::Refused(chain(error).to_string());
    let backup = Backup::read(read(&args.file)?).map_err(|error| failed(&error))?;
    if !args.quiet {
        console.warn(format!("The backup is of {}.", what(backup.header())))?;
    }
    let passphrase = match &args.passphrase_file {
        Some(file) => Some(passphrase_of(file)?),
        None if backup.header().sealing.is_none() => None,
        None if args.file == Path::new(STDIO) => {
            let text = "the backup is encrypted: name the file of its passphrase with --passphrase-file";
            return Err(CliError::Refused(text.to_owned()));
        }
        None => Some(asked("Passphrase: ", "no passphrase came on standard input", console)?),
    };
    if passphrase.is_some() {
        say_slow(args.quiet, console)?;
    }
    let checked = restore::check(&backup, passphrase.as_ref().map(|passphrase| passphrase.as_str()));
    let checked = checked.map_err(|error| failed(&error))?;
    let restored = checked.restore(&data, args.listen_addr.as_deref(), args.advertise_addr.as_deref());
    let restored = restored.map_err(|error| failed(&error))?;
    if args.quiet { Ok(()) } else { Ok(console.say(report(&restored, &data))?) }
}

/// `cluster x, made 2026-…: 3 nodes, 2 services, …`.
fn what(header: &Header) -> String {
    let counts = &header.counts;
    let made = header.made.rfc3339();
    let made = String::from_utf8_lossy(&made);
    let made = made.split('.').next().unwrap_or_default();
    format!(
        "cluster {}, made {made}Z by version {}: {} nodes, {} services, {} tasks, {} secrets and configs",
        header.cluster, header.version, counts.nodes, counts.services, counts.tasks, counts.dependencies
    )
}

fn report(restored: &Restored, data: &Path) -> String {
    let told = restored.managers.join(", ");
    let mut text = format!(
        "Restored into {}. Start the manager (systemctl start pi-mgr, or pi-mgr serve).\n\
         It listens on {}; boards are told to dial {told}.\n",
        data.display(),
        restored.listen,
    );
    if restored.managers != restored.managers_before {
        let before = restored.managers_before.join(", ");
        text += &format!(
            "Boards know the manager at {before}. They look for it by name and on the local network; in another network\n\
             give this machine the old address or name.\n"
        );
    }
    if restored.is_locked {
        text += "The manager starts locked: `pi-mgr unlock` with the unlock key of the time of the backup.\n";
    }
    text += "\nThe cluster is as it was at the time of the backup:\n\
         - Services made later are gone, and boards remove their tasks; what was removed later is back.\n\
         - Boards that joined later are no members: they stop their tasks and must join again.\n\
         - Nodes, accesses and join tokens that were removed or replaced later are valid again: remove or replace them\n  \
         again (pi-mgr node rm, pi-mgr access revoke, pi-mgr join-token --rotate).\n\
         - If the root was rotated later, boards refuse this manager: they must join again.\n\
         The manager before must never run again: two of them give boards contradicting orders.";
    text
}

fn say_slow(quiet: bool, console: &mut Console) -> Result<(), CliError> {
    if quiet {
        Ok(())
    } else {
        Ok(console.warn("Making the key from the passphrase (some seconds on a slow board) …")?)
    }
}

fn there(path: &Path) -> CliError {
    CliError::Refused(format!("{} is there already: use --force to replace it", path.display()))
}

/// A first line, without its end.
fn line(text: Zeroizing<String>) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}

/// A passphrase that is asked for; `nothing`: what to say where none comes.
fn asked(question: &str, nothing: &str, console: &mut Console) -> Result<Zeroizing<String>, CliError> {
    let text = console.secret(question)?;
    if text.is_empty() {
        return Err(CliError::Refused(format!("{nothing}: name a file that has it with --passphrase-file")));
    }
    Ok(line(text))
}

fn ask_twice(console: &mut Console) -> Result<Zeroizing<String>, CliError> {
    let first = asked("Passphrase: ", "no passphrase came on standard input", console)?;
    let again = asked("The same again: ", "standard input has the passphrase once; it is asked for twice", console)?;
    if *first == *again { Ok(first) } else { Err(CliError::Refused("these are two passphrases".to_owned())) }
}

fn passphrase_of(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let file = |source| CliError::File { path: path.display().to_string(), source };
    let bytes = bounded(File::open(path).map_err(file)?, PASSPHRASE_BYTES_MAX).map_err(file)?;
    let text = String::from_utf8(bytes.to_vec())
        .map_err(|_| file(io::Error::new(io::ErrorKind::InvalidData, "a passphrase is text")))?;
    let text = line(Zeroizing::new(text));
    if text.is_empty() {
        return Err(file(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty")));
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let file = |source| CliError::File { path: path.display().to_string(), source };
    if path == Path::new(STDIO) {
        return bounded(io::stdin().lock(), BACKUP_BYTES_MAX).map_err(file);
    }
    bounded(File::open(path).map_err(file)?, BACKUP_BYTES_MAX).map_err(file)
}

/// All there is, if it is not too much.
fn bounded(from: impl Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let text = format!("it is larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// Writes beside and renames: there is the old file, or none, or the whole new one.
fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<(), CliError> {
    let fault = |source| CliError::Write { path: path.display().to_string(), source };
    let mut name = path.file_name().ok_or_else(|| fault(io::ErrorKind::IsADirectory.into()))?.to_owned();
    name.push(".part");
    let beside = path.with_file_name(name);
    // Somebody else's, or of a run that was cut short.
    match fs::remove_file(&beside) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(fault(source)),
        Ok(()) | Err(_) => {}
    }
    let written = write_beside(&beside, path, bytes, replace);
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(|source| {
        let is_there = !replace && source.kind() == io::ErrorKind::AlreadyExists;
        if is_there { there(path) } else { fault(source) }
    })
}

fn write_beside(beside: &Path, path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if replace {
        fs::rename(beside, path)?;
    } else {
        match renameat_with(CWD, beside, CWD, path, RenameFlags::NOREPLACE) {
            // A file system that cannot: looked at before, so the moment in between is all that is left.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if fs::symlink_metadata(path).is_err() => {
                fs::rename(beside, path)?;
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Err(io::ErrorKind::AlreadyExists.into()),
            other => other?,
        }
    }
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_whole_and_never_replaced_by_accident() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("b");
        fs::write(folder.path().join("b.part"), "left behind").expect("written");
        write(&path, b"one", false).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let error = write(&path, b"two", false).expect_err("refused").to_string();
        assert!(error.contains("use --force"), "{error}");
        assert_eq!(fs::read(&path).expect("there"), b"one");
        write(&path, b"two", true).expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("a list").count(), 1, "nothing is left");
        assert!(write(&folder.path().join("no/b"), b"x", false).is_err());
    }

    #[test]
    fn passphrases_of_files() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("p");
        for (text, want) in
            [("correct horse\n", Some("correct horse")), ("a b\r\nc", Some("a b")), ("", None), ("\nx", None)]
        {
            fs::write(&path, text).expect("written");
            assert_eq!(passphrase_of(&path).ok().as_ref().map(|text| text.as_str()), want, "{text:?}");
        }
        fs::write(&path, vec![b'a'; PASSPHRASE_BYTES_MAX + 1]).expect("written");
        assert!(passphrase_of(&path).is_err());
    }
}
