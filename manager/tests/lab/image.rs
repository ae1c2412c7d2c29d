//! OCI images made from nothing but this machine's static busybox.
//!
//! In: a description. Out: blobs and a manifest, the same bytes each time.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// Media type of an image's manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a multi-platform index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const BUSYBOX: &str = "/bin/busybox";

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    /// In Go's spelling: `amd64`, `arm64`, `arm`.
    pub(crate) architecture: String,
    /// `v7` and the like.
    pub(crate) variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub(crate) fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            other => (other, None),
        };
        Self::of(architecture, variant)
    }

    /// One that this machine surely cannot run.
    pub(crate) fn foreign() -> Self {
        Self::of("s390x", None)
    }

    fn of(architecture: &str, variant: Option<&str>) -> Self {
        Self { architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    fn json(&self) -> Value {
        let mut platform = json!({"architecture": self.architecture, "os": "linux"});
        if let Some(variant) = &self.variant {
            platform["variant"] = json!(variant);
        }
        platform
    }
}

/// Bytes known by their digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// `sha256:…`.
    pub(crate) digest: String,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// `sha256:` and the hex digest of some bytes.
fn digest(bytes: &[u8]) -> String {
    let sum = ring::digest::digest(&ring::digest::SHA256, bytes);
    sum.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One layer of files.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    diff_id: String,
    blob: Blob,
}

/// A file of a layer.
pub(crate) enum File<'a> {
    /// A directory and its mode.
    Directory(u32),
    /// A file, its mode and content.
    Regular(u32, &'a [u8]),
    /// A symbolic link and its target.
    Symlink(&'a str),
}

impl Layer {
    /// A layer of `(path, file)`; directories before what is in them.
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (String, File<'a>)>) -> Result<Self> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, file) in files {
            append(&mut archive, &path, file).with_context(|| format!("put {path} in a layer"))?;
        }
        let plain = archive.into_inner()?;
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(&plain)?;
        Ok(Self { diff_id: digest(&plain), blob: Blob::new(packer.finish()?) })
    }

    /// Busybox with a name for each of its applets, and the few files that
    /// programs expect.
    ///
    /// # Errors
    /// When this machine has no static busybox.
    pub(crate) fn busybox() -> Result<Self> {
        let missing = "the package busybox-static is missing: run `make deps`";
        let program = std::fs::read(BUSYBOX).context(missing)?;
        let listed = Command::new(BUSYBOX).arg("--list").output().context(missing)?;
        ensure!(listed.status.success(), "{BUSYBOX} --list: {}", listed.status);
        let applets = String::from_utf8(listed.stdout).context("busybox --list")?;

        let mut files: Vec<(String, File<'_>)> = Vec::new();
        for directory in ["bin", "dev", "etc", "proc", "root", "sys", "var"] {
            files.push((directory.to_owned(), File::Directory(0o755)));
        }
        files.push(("tmp".to_owned(), File::Directory(0o1777)));
        files.push(("etc/passwd".to_owned(), File::Regular(0o644, PASSWD)));
        files.push(("etc/group".to_owned(), File::Regular(0o644, GROUP)));
        files.push(("bin/busybox".to_owned(), File::Regular(0o755, &program)));
        for applet in applets.lines().filter(|&name| name != "busybox") {
            files.push((format!("bin/{applet}"), File::Symlink("busybox")));
        }
        Self::new(files)
    }
}

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &[u8] = b"root:x:0:\nnobody:x:65534:\n";

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, file: File<'_>) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match file {
        File::Directory(mode) => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(mode);
            archive.append_data(&mut header, path, std::io::empty())?;
        }
        File::Regular(mode, bytes) => {
            header.set_mode(mode);
            header.set_size(u64::try_from(bytes.len())?);
            archive.append_data(&mut header, path, bytes)?;
        }
        File::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

/// An image, ready to be pushed.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// What it says it runs on.
    pub(crate) platform: Platform,
    /// Layers and configuration.
    pub(crate) blobs: Vec<Blob>,
    /// The manifest.
    pub(crate) manifest: Blob,
}

impl Image {
    /// An image of layers; `run` is the configuration's `config` object
    /// (`{"Cmd": […], "Env": […], …}`).
    pub(crate) fn new(platform: Platform, layers: &[Layer], run: &Value) -> Result<Self> {
        let mut config = platform.json();
        config["config"] = run.clone();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = Blob::new(serde_json::to_vec(&config)?);
        let descriptors: Vec<Value> = layers.iter().map(|layer| layer.blob.descriptor(LAYER)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": descriptors,
        });
        let blobs = layers.iter().map(|layer| layer.blob.clone()).chain([config]).collect();
        Ok(Self { platform, blobs, manifest: Blob::new(serde_json::to_vec(&manifest)?) })
    }

    /// Busybox that runs a command.
    pub(crate) fn busybox(command: &[&str]) -> Result<Self> {
        Self::busybox_for(Platform::host(), command)
    }

    /// The same, saying that it is for `platform`.
    pub(crate) fn busybox_for(platform: Platform, command: &[&str]) -> Result<Self> {
        Self::new(platform, &[Layer::busybox()?], &json!({"Cmd": command, "Env": [PATH]}))
    }

    /// A web server on port 8080 whose page tells its host's name.
    pub(crate) fn web() -> Result<Self> {
        let layer = Layer::new([
            ("www".to_owned(), File::Directory(0o755)),
            ("www/cgi-bin".to_owned(), File::Directory(0o755)),
            // httpd runs this for a directory without an index.html.
            ("www/cgi-bin/index.cgi".to_owned(), File::Regular(0o755, INDEX_CGI)),
        ])?;
        let run = json!({
            "Cmd": ["httpd", "-f", "-p", "8080"],
            "Env": [PATH],
            "WorkingDir": "/www",
            "ExposedPorts": {"8080/tcp": {}},
        });
        Self::new(Platform::host(), &[Layer::busybox()?, layer], &run)
    }

    /// Busybox with one more layer of `bytes` that do not compress, to see a
    /// pull in progress.
    pub(crate) fn big(bytes: usize) -> Result<Self> {
        let layer = Layer::new([("noise".to_owned(), File::Regular(0o644, &noise(bytes)))])?;
        let run = json!({"Cmd": ["sleep", "1000000"], "Env": [PATH]});
        Self::new(Platform::host(), &[Layer::busybox()?, layer], &run)
    }
}

/// What the file `/noise` of [`Image::big`] has in it.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    noise
}

const PATH: &str = "PATH=/bin";
const INDEX_CGI: &[u8] =
    b"#!/bin/sh\nprintf 'Content-Type: text/html\\r\\n\\r\\n'\necho \"<h1>Hello from $(hostname)</h1>\"\n";

/// A multi-platform index of images.
pub(crate) fn index(images: &[Image]) -> Result<Blob> {
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut descriptor = image.manifest.descriptor(MANIFEST);
            descriptor["platform"] = image.platform.json();
            descriptor
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    Ok(Blob::new(serde_json::to_vec(&index)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_digest() {
        let make = || {
            let layer = Layer::new([("a".to_owned(), File::Regular(0o644, b"x"))])?;
            Image::new(Platform::host(), &[layer], &json!({"Cmd": ["a"]}))
        };
        let (one, two) = (make().expect("an image"), make().expect("an image"));
        assert_eq!(one.manifest.digest, two.manifest.digest);
        assert_ne!(one.manifest.digest, one.blobs[0].digest);
    }

    #[test]
    fn known_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}
