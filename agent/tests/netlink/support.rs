//! Network namespaces for one test, and other programs' view of them.

use std::path::PathBuf;
use std::process::Command;

use racimo_agent::net::ns::{Namespace, Namespaces};

/// Namespaces that go with the test, also when it fails.
pub(crate) struct Lab {
    pub(crate) all: Namespaces,
    _dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("racimo-nl-").tempdir_in("/run").unwrap();
        Self { all: Namespaces::new(dir.path().join("netns")), _dir: dir }
    }

    pub(crate) fn make(&self, name: &str) -> Namespace {
        self.all.make(name).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.all.path(name)
    }

    /// What a program prints inside; it must succeed.
    pub(crate) fn inside(&self, name: &str, command: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path(name).display()))
            .args(["sh", "-c", command])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.all.list().unwrap_or_default() {
            if let Err(error) = self.all.remove(&name) {
                eprintln!("remove namespace {name}: {error}");
            }
        }
    }
}
