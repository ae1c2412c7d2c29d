//! Small OCI images made by hand, and how to get them into a registry.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use racimo_common::registry::Digest;
use racimo_common::registry::media::{OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::board::{run, tar};

/// Blobs and documents of one image, in the order in which they must be pushed.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    /// With an entry for the board's platform, one for another and an attestation.
    pub(crate) index: Vec<u8>,
}

/// The platform that test images are built for, and the boards of these tests are.
pub(crate) const PLATFORM: &str = "linux/arm/v7";

impl TestImage {
    /// busybox below `filler` random bytes.
    pub(crate) fn new(filler: usize) -> Self {
        Self::with(filler, |_| {})
    }

    /// `twist` may spoil the list of diff ids.
    pub(crate) fn with(filler: usize, twist: impl FnOnce(&mut Vec<Digest>)) -> Self {
        let top = TempDir::new().unwrap();
        let mut bytes = Vec::new();
        std::fs::File::open("/dev/urandom").unwrap().take(filler as u64).read_to_end(&mut bytes).unwrap();
        std::fs::write(top.path().join("filler"), bytes).unwrap();

        Self::over(&base(), &tar(top.path()), twist)
    }

    /// Two archives, one over the other.
    pub(crate) fn over(base: &[u8], top: &[u8], twist: impl FnOnce(&mut Vec<Digest>)) -> Self {
        let tars = [base, top];
        let mut diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        twist(&mut diff_ids);
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let config = document(&json!({
            "architecture": "arm", "variant": "v7", "os": "linux",
            "config": {"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }));
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = document(&json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|bytes| descriptor(layer, bytes)).collect::<Vec<_>>(),
        }));
        let mut ours = descriptor(OCI_MANIFEST, &manifest);
        ours["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
        let mut other = descriptor(OCI_MANIFEST, b"elsewhere");
        other["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let mut attestation = descriptor(OCI_MANIFEST, b"attestation");
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let index = document(&json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other, ours, attestation],
        }));
        Self { layers, config, manifest, index }
    }

    /// Every blob: what is asked for under `blobs/`.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().chain([&self.config])
    }

    /// Pushes to `repository` at `address`, with the tags `single` and (only the manifest that
    /// we have is there, so some registries would refuse it) nothing else.
    pub(crate) fn push(&self, address: &str, repository: &str) {
        for blob in self.blobs() {
            let started = http(address, &format!("POST /v2/{repository}/blobs/uploads/"), "", b"");
            let location = started.lines().find_map(|line| line.strip_prefix("Location: ")).expect("an upload");
            let path = location.trim().split_once(address).map_or(location.trim(), |(_, path)| path);
            let put =
                http(address, &format!("PUT {path}&digest={}", Digest::of(blob)), "application/octet-stream", blob);
            assert!(put.starts_with("HTTP/1.1 201"), "{put}");
        }
        let path = format!("PUT /v2/{repository}/manifests/single");
        let put = http(address, &path, OCI_MANIFEST, &self.manifest);
        assert!(put.starts_with("HTTP/1.1 201"), "{put}");
    }

    /// The image as an OCI archive for `ctr images import`.
    pub(crate) fn archive(&self, name: &str) -> Vec<u8> {
        let dir = TempDir::new().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in self.blobs().chain([&self.manifest]) {
            std::fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
        }
        let mut entry = descriptor(OCI_MANIFEST, &self.manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name});
        let index = document(&json!({"schemaVersion": 2, "manifests": [entry]}));
        std::fs::write(dir.path().join("index.json"), index).unwrap();
        std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        tar(dir.path())
    }
}

/// An archive of busybox.
pub(crate) fn base() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).expect("busybox-static is installed");
    tar(dir.path())
}

/// An archive of a hard link to what is not there.
pub(crate) fn dangling() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    std::fs::hard_link(dir.path().join("file"), dir.path().join("link")).unwrap();
    run(
        "tar",
        &[
            "-C",
            &dir.path().display().to_string(),
            "-cf",
            &dir.path().join("a.tar").display().to_string(),
            "file",
            "link",
        ],
    );
    run("tar", &["-f", &dir.path().join("a.tar").display().to_string(), "--delete", "file"]);
    std::fs::read(dir.path().join("a.tar")).unwrap()
}

fn document(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new("gzip").args(["-1", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// One request with `Connection: close`; the whole answer.
fn http(address: &str, line: &str, content_type: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
