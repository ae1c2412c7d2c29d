//! The packages that `make dist` has written: which there are, and their bytes.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::super::error::CliError;
use super::super::limits::PROVISION_PACKAGE_BYTES_MAX;
use super::plan::Package;

/// Packages of the agent in one directory, one for each architecture.
#[derive(Debug)]
pub(super) struct Debs {
    directory: PathBuf,
    /// What there is.
    pub(super) packages: Vec<Package>,
}

impl Debs {
    /// Looks at the names of the files in a directory.
    pub(super) fn open(directory: &Path) -> Result<Debs, CliError> {
        let cannot = |source| CliError::File { path: directory.display().to_string(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(cannot)? {
            names.extend(entry.map_err(cannot)?.file_name().into_string());
        }
        names.sort();
        let packages = packages(&names);
        let packages =
            packages.map_err(|fault| CliError::Refused(format!("--debs {}: {fault}", directory.display())))?;
        Ok(Debs { directory: directory.to_owned(), packages })
    }

    /// A package's bytes.
    pub(super) fn read(&self, package: &Package) -> Result<Vec<u8>, CliError> {
        let path = self.directory.join(file_name(package));
        let cannot = |source| CliError::File { path: path.display().to_string(), source };
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(cannot)?;
        file.take(PROVISION_PACKAGE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > PROVISION_PACKAGE_BYTES_MAX {
            let text = format!("{} has more than {} MiB", path.display(), PROVISION_PACKAGE_BYTES_MAX >> 20);
            return Err(CliError::Refused(text));
        }
        Ok(bytes)
    }
}

/// The agent's packages among these files, at most one for an architecture.
fn packages(names: &[String]) -> Result<Vec<Package>, String> {
    let mut found: Vec<Package> = Vec::new();
    for package in names.iter().filter_map(|name| package(name)) {
        if let Some(other) = found.iter().find(|other| other.arch == package.arch) {
            let (one, two) = (file_name(other), file_name(&package));
            return Err(format!("there is more than one for {}: {one}, {two}; leave the right one", package.arch));
        }
        found.push(package);
    }
    if found.is_empty() {
        return Err("no package of the agent there (pi-agent_VERSION_ARCH.deb); `make dist` writes them".to_owned());
    }
    Ok(found)
}

/// `pi-agent_VERSION_ARCH.deb`.
fn package(name: &str) -> Option<Package> {
    let (version, arch) = name.strip_prefix("pi-agent_")?.strip_suffix(".deb")?.split_once('_')?;
    let is_word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.~".contains(c));
    (is_word(version) && is_word(arch)).then(|| Package { version: version.to_owned(), arch: arch.to_owned() })
}

fn file_name(package: &Package) -> String {
    format!("pi-agent_{}_{}.deb", package.version, package.arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], want: Result<&[&str], &str>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match (packages(&names), want) {
            (Ok(found), Ok(want)) => assert_eq!(found.iter().map(file_name).collect::<Vec<_>>(), want),
            (Err(said), Err(want)) => assert!(said.contains(want), "{said}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn packages_are_known_by_their_names() {
        let (arm64, armhf) = ("pi-agent_0.1.0_arm64.deb", "pi-agent_0.1.0+x~1_armhf.deb");
        check(&["SHA256SUMS", "pi-mgr_0.1.0_arm64.deb", arm64, armhf], Ok(&[arm64, armhf]));
        check(&[arm64, "pi-agent_0.2.0_arm64.deb"], Err("more than one for arm64"));
        check(&["pi-mgr_0.1.0_arm64.deb"], Err("make dist"));
        check(&["pi-agent_0.1_$(x)_arm64.deb", "pi-agent_.deb", "pi-agent_1_.deb"], Err("make dist"));
    }
}
