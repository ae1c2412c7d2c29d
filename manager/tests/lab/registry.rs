//! The lab's image registry: Debian's docker-registry, spoken to over HTTP.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::group::Group;
use super::http::{Response, Target, request};
use super::image::{Blob, INDEX, Image, MANIFEST, index};
use super::process::{Process, Start, log_tail, start, wait_for};

/// How long it may take to answer after its start.
const READY_MAX: Duration = Duration::from_secs(30);

/// A registry that may or may not be running.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(super) address: SocketAddr,
    pub(super) directory: PathBuf,
    pub(super) netns: String,
    pub(super) pid_file: PathBuf,
}

impl Registry {
    /// `HOST:PORT` as it stands in image names.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Starts it and waits until it answers. What was pushed before is there.
    pub(crate) fn start(&self, group: &Group) -> Result<()> {
        let config = self.directory.join("config.yml");
        let log = self.directory.join("registry.log");
        fs::create_dir_all(self.directory.join("data"))?;
        fs::write(&config, self.config()).with_context(|| format!("write {}", config.display()))?;
        let argv = ["docker-registry", "serve", &config.to_string_lossy()].map(str::to_owned);
        let process = start(&Start {
            group: group.path(),
            netns: &self.netns,
            pid_file: &self.pid_file,
            log: &log,
            argv: &argv,
        })?;
        wait_for("the registry to answer", READY_MAX, || {
            ensure!(process.alive(), "docker-registry ended\n{}", log_tail(&log));
            let answer = request(&self.target(), "GET", "/v2/", "", &[]);
            Ok(answer.is_ok_and(|answer| matches!(answer.status, 200 | 401)).then_some(()))
        })
    }

    /// Kills it: pulls now fail.
    pub(crate) fn kill(&self) -> Result<()> {
        let process = Process::from_file(&self.pid_file).context("the registry is not running")?;
        process.kill()
    }

    /// From its next start on it wants to know who asks: `USER:BCRYPT`, as htpasswd(1) writes it.
    pub(crate) fn lock(&self, line: &str) -> Result<()> {
        fs::write(self.htpasswd(), format!("{line}\n")).context("write the registry's users")
    }

    fn htpasswd(&self) -> PathBuf {
        self.directory.join("htpasswd")
    }

    fn config(&self) -> String {
        let users = self.htpasswd();
        let auth = if users.exists() {
            format!("auth:\n  htpasswd:\n    realm: lab\n    path: {}\n", users.display())
        } else {
            String::new()
        };
        auth + &format!(
            "version: 0.1\n\
             log:\n  level: warn\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: {}\n",
            self.directory.join("data").display(),
            self.address
        )
    }

    fn target(&self) -> Target {
        Target::Tcp(self.address)
    }

    /// Pushes an image as `REPOSITORY:TAG`; returns its manifest's digest.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<String> {
        self.push_blobs(repository, image)?;
        self.put_manifest(repository, tag, MANIFEST, &image.manifest)
    }

    /// Pushes images of several platforms as one `REPOSITORY:TAG`; returns the
    /// index's digest.
    pub(crate) fn push_index(&self, repository: &str, tag: &str, images: &[Image]) -> Result<String> {
        for image in images {
            self.push_blobs(repository, image)?;
            self.put_manifest(repository, &image.manifest.digest, MANIFEST, &image.manifest)?;
        }
        self.put_manifest(repository, tag, INDEX, &index(images)?)
    }

    fn push_blobs(&self, repository: &str, image: &Image) -> Result<()> {
        for blob in &image.blobs {
            self.push_blob(repository, blob).with_context(|| format!("push {} to {repository}", blob.digest))?;
        }
        Ok(())
    }

    fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        if request(&self.target(), "HEAD", &path, "", &[])?.status == 200 {
            return Ok(());
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let begun = request(&self.target(), "POST", &uploads, "", &[])?;
        expect(&begun, 202)?;
        let location = begun.header("location").context("an upload without a location")?;
        let path = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(location);
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}digest={}", blob.digest);
        let done = request(&self.target(), "PUT", &path, "application/octet-stream", &blob.bytes)?;
        expect(&done, 201)
    }

    fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, manifest: &Blob) -> Result<String> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let done = request(&self.target(), "PUT", &path, media_type, &manifest.bytes)?;
        expect(&done, 201).with_context(|| format!("push {repository}:{reference}"))?;
        Ok(manifest.digest.clone())
    }
}

fn expect(answer: &Response, status: u16) -> Result<()> {
    ensure!(answer.status == status, "the registry answered {} instead of {status}: {}", answer.status, answer.text());
    Ok(())
}
