//! `ca`: the cluster's root certificate.

use std::fs::File;
use std::io::{self, Read};

use clap::Args;
use zeroize::Zeroizing;

use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::json::{Peek, set};
use super::limits::ROOT_FILE_BYTES_MAX;
use super::parse::{self, Nanos};
use super::progress::root::Rotation;
use super::progress::run::rotate;
use super::spec::refused::RefusedCa;
use super::swarm::update_cluster;
use super::url::Url;

/// `ca`.
#[derive(Args, Debug)]
pub(crate) struct CaArgs {
    /// Replace the root: by a new one, or by that of --ca-cert
    #[arg(long)]
    rotate: bool,
    /// File with the root certificate to use, PEM
    #[arg(long, value_name = "FILE", requires = "rotate", requires = "ca_key")]
    ca_cert: Option<String>,
    /// File with its private key, PEM, without a passphrase
    #[arg(long, value_name = "FILE", requires = "rotate", requires = "ca_cert")]
    ca_key: Option<String>,
    /// Validity of node certificates from now on, such as 90d: 1h or more
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, requires = "rotate",
          value_parser = parse::cert_expiry)]
    cert_expiry: Option<Nanos>,
    /// Exit at once instead of waiting until the boards have their certificates
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, requires = "rotate",
          default_missing_value = "true")]
    detach: Option<bool>,
    /// Show no progress
    #[arg(short, long, requires = "rotate")]
    quiet: bool,
    #[command(flatten)]
    refused: RefusedCa,
}

/// Shows the root certificate, or rotates it.
pub(crate) async fn run(args: &CaArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let cluster = client.get(&Url::new(&["swarm"])).await?;
    if !args.rotate {
        print(cluster.text("/TLSInfo/TrustRoot"), console)?;
        if cluster["RootRotationInProgress"] == true {
            let nodes = client.get(&Url::new(&["nodes"])).await?;
            if let Some(text) = Rotation::of(&cluster, nodes.list("")).stands() {
                console.warn(text)?;
            }
        }
        return Ok(());
    }
    let mut spec = cluster["Spec"].clone();
    if let Some(Nanos(expiry)) = args.cert_expiry {
        set(&mut spec, &["CAConfig", "NodeCertExpiry"], expiry);
    }
    match (&args.ca_cert, &args.ca_key) {
        (Some(certificate), Some(key)) => {
            set(&mut spec, &["CAConfig", "SigningCACert"], read(certificate)?.as_str());
            set(&mut spec, &["CAConfig", "SigningCAKey"], read(key)?.as_str());
        }
        _ => {
            let asked = cluster.int("/Spec/CAConfig/ForceRotate").unwrap_or(0);
            set(&mut spec, &["CAConfig", "ForceRotate"], asked + 1);
        }
    }
    update_cluster(client, &cluster, &spec, None).await?;
    if args.detach == Some(true) || !rotate(client, console, args.quiet).await? || args.quiet {
        return Ok(());
    }
    let cluster = client.get(&Url::new(&["swarm"])).await?;
    print(cluster.text("/TLSInfo/TrustRoot"), console)?;
    Ok(console.warn("The join tokens are new, too: see `pi-mgr join-token worker`.")?)
}

fn print(root: &str, console: &mut Console) -> Result<(), CliError> {
    Ok(console.say(root.trim_end())?)
}

fn read(path: &str) -> Result<Zeroizing<String>, CliError> {
    let file = |source| CliError::File { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    let most = ROOT_FILE_BYTES_MAX as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(file)?;
    if text.len() > ROOT_FILE_BYTES_MAX {
        return Err(file(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for a certificate or key")));
    }
    if text.trim().is_empty() {
        return Err(file(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_said_to_be_empty() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("root.pem").display().to_string();
        std::fs::write(&path, "\n").expect("written");
        let error = read(&path).expect_err("refused").to_string();
        assert!(error.ends_with("root.pem: the file is empty"), "{error}");
    }
}
