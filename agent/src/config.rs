//! The agent's configuration: flags over environment over `/etc/racimo/agent.toml`, read once.
//!
//! All faults are reported together.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use racimo_common::object::{Generics, parse_generics};
use racimo_common::{config_file, registry};
use serde::Deserialize;

use crate::limits::{OFFLINE_AFTER, OFFLINE_AFTER_MAX, TASKS_MAX};
use crate::{images, runtime};

/// Where the configuration file is if nobody says otherwise.
pub const FILE: &str = "/etc/racimo/agent.toml";

/// A week.
const IMAGE_KEEP_HOURS: usize = 7 * 24;
/// Ten years: who wants more wants 0.
const IMAGE_KEEP_HOURS_MAX: usize = 10 * 365 * 24;

/// What the agent shall do and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// Identity, volumes and files of tasks.
    pub data: PathBuf,
    /// Files that need not survive a reboot.
    pub run: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// The OCI runtime; none: crun where it works, else runc.
    pub runtime: Option<PathBuf>,
    /// Number of shim groups.
    pub groups: u8,
    /// The init program for services that ask for one; none: where distributions put it.
    pub init: Option<PathBuf>,
    /// Engine labels.
    pub labels: BTreeMap<String, String>,
    /// Generic resources it offers.
    pub generic: Generics,
    /// The board's name in the cluster; none: its host name.
    pub hostname: Option<String>,
    /// The address by which other boards reach this one; none: the one that the manager sees.
    pub data_path_addr: Option<Ipv4Addr>,
    /// Most tasks at once.
    pub tasks_max: usize,
    /// When images that nobody needs are removed.
    pub images: images::Settings,
    /// Where images come from.
    pub registry: registry::Config,
    /// The socket of this board's own manager; none: the managers of the board's identity.
    pub manager_socket: Option<PathBuf>,
    /// Whether to ask the local network for managers when the known ones do not answer.
    pub discover: bool,
    /// How long after its start the agent waits for a manager before it goes by its journal; none: for ever.
    pub offline_after: Option<Duration>,
    /// This program, which a container's log mode is: as it was called when it started, as its file may be replaced.
    pub program: PathBuf,
    /// What is logged.
    pub log_level: log::LevelFilter,
}

/// The file's keys; the same names as the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    containerd: Option<PathBuf>,
    runtime: Option<PathBuf>,
    shim_groups: Option<u8>,
    init_path: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    node_generic_resources: Vec<String>,
    hostname: Option<String>,
    data_path_addr: Option<String>,
    max_tasks: Option<usize>,
    image_keep_hours: Option<usize>,
    disk_high_percent: Option<u8>,
    disk_low_percent: Option<u8>,
    insecure_registries: Vec<String>,
    registry_mirrors: Vec<String>,
    registry_ca: Option<PathBuf>,
    manager_socket: Option<PathBuf>,
    discover: Option<bool>,
    offline_after: Option<u64>,
    log_level: Option<String>,
}

/// Values as they were given, before they are checked.
#[derive(Debug, Default)]
pub struct Given {
    /// By flag name, in order.
    values: Vec<(String, String)>,
    /// The file to read; none: [`FILE`] if it is there.
    file: Option<PathBuf>,
}

/// Where this program is; the kernel marks the name of a file that has been replaced.
fn program(found: io::Result<PathBuf>) -> PathBuf {
    let Ok(found) = found else { return "/usr/bin/pi-agent".into() };
    match found.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(name) => OsStr::from_bytes(name).into(),
        None => found,
    }
}

/// Flags that take a value, and what each means.
pub const FLAGS: [(&str, &str); 22] = [
    ("config", "configuration file [default: /etc/racimo/agent.toml]"),
    ("data-dir", "identity and volumes [default: /var/lib/racimo/agent]"),
    ("run-dir", "files that need not survive a reboot [default: /run/racimo]"),
    ("containerd", "containerd's socket [default: /run/containerd/containerd.sock]"),
    ("runtime", "OCI runtime [default: crun where it works, else runc]"),
    ("shim-groups", "containers share this many shims [default: 4]"),
    ("init-path", "init program for services with --init [default: /usr/bin/tini-static, docker-init]"),
    ("label", "engine label KEY=VALUE; may be repeated"),
    ("node-generic-resource", "KIND=COUNT or KIND=NAME that services can reserve; may be repeated"),
    ("hostname", "name in the cluster [default: the host name]"),
    ("data-path-addr", "IPv4 address by which other boards reach this one [default: the one the manager sees]"),
    ("max-tasks", "most tasks at once [default: 128]"),
    ("image-keep-hours", "unused images are removed after that, 0: not by age [default: 168]"),
    ("disk-high-percent", "with more of the disk in use, unused images are removed at once [default: 85]"),
    ("disk-low-percent", "until no more than that is in use [default: 80]"),
    ("insecure-registry", "HOST:PORT without (checked) TLS; may be repeated"),
    ("registry-mirror", "URL that is asked first for Docker Hub's images; may be repeated"),
    ("registry-ca", "PEM file with certificate authorities beside the system's"),
    ("manager-socket", "on the manager's own board: its socket for the local agent"),
    ("discover", "true or false: ask the local network for managers when the known ones are silent [default: true]"),
    (
        "offline-after",
        "seconds after the start without a manager until tasks are started by what it said last; 0: never [default: 15]",
    ),
    ("log-level", "error, warn, info or debug [default: info]"),
];

impl Given {
    /// A flag's value.
    ///
    /// # Errors
    /// There is no such flag, or the value is no text.
    pub fn flag(
        &mut self,
        name: &str,
        value: impl FnOnce() -> Result<OsString, lexopt::Error>,
    ) -> Result<(), lexopt::Error> {
        if !FLAGS.iter().any(|(flag, _)| *flag == name) {
            return Err(lexopt::Error::UnexpectedOption(format!("--{name}")));
        }
        let value = value()?.into_string()?;
        if name == "config" {
            self.file = Some(value.into());
        } else {
            self.values.push((name.to_owned(), value));
        }
        Ok(())
    }

    /// Takes `RACIMO_…` variables for flags that were not given; lists are separated by commas.
    pub fn environment(&mut self, variable: impl Fn(&str) -> Option<String>) {
        for (flag, _) in FLAGS {
            let name = format!("RACIMO_{}", flag.to_uppercase().replace('-', "_"));
            let Some(text) = variable(&name).filter(|text| !text.is_empty()) else { continue };
            if flag == "config" {
                self.file.get_or_insert_with(|| text.into());
            } else if !self.values.iter().any(|(given, _)| given == flag) {
                let list = matches!(flag, "label" | "node-generic-resource" | "insecure-registry" | "registry-mirror");
                let parts: Vec<&str> = if list { text.split(',').collect() } else { vec![&text] };
                self.values.extend(parts.into_iter().map(|part| (flag.to_owned(), part.to_owned())));
            }
        }
    }

    /// Reads the file and checks everything.
    ///
    /// # Errors
    /// Every fault, one a line.
    pub fn resolve(self) -> Result<Config, String> {
        let mut faults = Vec::new();
        let file = config_file::read(self.file.as_deref(), FILE).unwrap_or_else(|fault| {
            faults.push(fault);
            File::default()
        });
        let last = |name: &str| self.values.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.clone());
        let all = |name: &'static str| {
            self.values.iter().filter(move |(flag, _)| flag == name).map(|(_, value)| value.clone())
        };
        let path = |name: &str, file: Option<PathBuf>, default: &str| {
            last(name).map(PathBuf::from).or(file).unwrap_or_else(|| default.into())
        };
        let mut labels = file.labels;
        for text in all("label") {
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => drop(labels.insert(key.to_owned(), value.to_owned())),
                Some(_) | None => faults.push(format!("label {text:?}: expected KEY=VALUE")),
            }
        }
        // As with other lists, flags are added to the file's.
        let generic: Vec<String> =
            file.node_generic_resources.into_iter().chain(all("node-generic-resource")).collect();
        let generic = parse_generics(generic.iter().map(String::as_str)).unwrap_or_else(|error| {
            faults.push(format!("node-generic-resource: {error}"));
            Generics::new()
        });
        let mut insecure = Vec::new();
        for text in file.insecure_registries.into_iter().chain(all("insecure-registry")) {
            match text.parse() {
                Ok(host) => insecure.push(host),
                Err(error) => faults.push(format!("insecure-registry {text:?}: {error}")),
            }
        }
        let mut mirrors = Vec::new();
        for text in file.registry_mirrors.into_iter().chain(all("registry-mirror")) {
            match text.parse() {
                Ok(url) => mirrors.push(url),
                Err(error) => faults.push(format!("registry-mirror {text:?}: {error}")),
            }
        }
        let data_path_addr = last("data-path-addr").or(file.data_path_addr).and_then(|text| {
            let address = text.parse().ok().filter(is_usable);
            if address.is_none() {
                faults.push(format!("data-path-addr {text:?}: expected an IPv4 address of this board"));
            }
            address
        });
        let groups = number(last("shim-groups"), file.shim_groups, 4, 1..=16, "shim-groups", &mut faults);
        let tasks_max = number(last("max-tasks"), file.max_tasks, TASKS_MAX, 1..=TASKS_MAX, "max-tasks", &mut faults);
        let hours = number(
            last("image-keep-hours"),
            file.image_keep_hours,
            IMAGE_KEEP_HOURS,
            0..=IMAGE_KEEP_HOURS_MAX,
            "image-keep-hours",
            &mut faults,
        );
        let high =
            number(last("disk-high-percent"), file.disk_high_percent, 85, 1..=100, "disk-high-percent", &mut faults);
        let low = file.disk_low_percent.or(Some(high.min(80)));
        let low = number(last("disk-low-percent"), low, 80, 1..=high, "disk-low-percent", &mut faults);
        let most = OFFLINE_AFTER_MAX.as_secs();
        let offline_after = number(
            last("offline-after"),
            file.offline_after,
            OFFLINE_AFTER.as_secs(),
            0..=most,
            "offline-after",
            &mut faults,
        );
        let discover = last("discover").map_or(Some(file.discover.unwrap_or(true)), |text| text.parse().ok());
        let discover = discover.unwrap_or_else(|| {
            faults.push("discover: expected true or false".to_owned());
            true
        });
        let level = last("log-level").or(file.log_level).unwrap_or_else(|| "info".to_owned());
        let log_level = level.parse().unwrap_or_else(|_| {
            faults.push(format!("log-level {level:?}: expected error, warn, info or debug"));
            log::LevelFilter::Info
        });
        let config = Config {
            data: path("data-dir", file.data_dir, "/var/lib/racimo/agent"),
            run: path("run-dir", file.run_dir, "/run/racimo"),
            containerd: path("containerd", file.containerd, runtime::SOCKET),
            runtime: last("runtime").map(PathBuf::from).or(file.runtime),
            groups,
            init: last("init-path").map(PathBuf::from).or(file.init_path),
            labels,
            generic,
            hostname: last("hostname").or(file.hostname).filter(|name| !name.is_empty()),
            data_path_addr,
            tasks_max,
            images: images::Settings { keep_hours: u32::try_from(hours).ok().filter(|hours| *hours > 0), high, low },
            registry: registry::Config {
                insecure,
                mirrors,
                extra_ca: last("registry-ca").map(PathBuf::from).or(file.registry_ca),
            },
            manager_socket: last("manager-socket").map(PathBuf::from).or(file.manager_socket),
            discover,
            offline_after: (offline_after > 0).then(|| Duration::from_secs(offline_after)),
            program: program(std::env::current_exe()),
            log_level,
        };
        for (name, path) in [("data-dir", &config.data), ("run-dir", &config.run), ("containerd", &config.containerd)] {
            if !path.is_absolute() {
                faults.push(format!("{name} {:?}: expected an absolute path", path.display()));
            }
        }
        // It is mounted into containers.
        if let Some(path) = config.init.as_ref().filter(|path| !path.is_absolute()) {
            faults.push(format!("init-path {:?}: expected an absolute path", path.display()));
        }
        if faults.is_empty() { Ok(config) } else { Err(faults.join("\n")) }
    }
}

/// Whether other boards can send to it.
fn is_usable(address: &Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

fn number<T>(
    flag: Option<String>,
    file: Option<T>,
    default: T,
    range: std::ops::RangeInclusive<T>,
    name: &str,
    faults: &mut Vec<String>,
) -> T
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
{
    let (least, most) = (*range.start(), *range.end());
    let value = match flag {
        Some(text) => text.parse().ok(),
        None => file.or(Some(default)),
    };
    value.filter(|value| range.contains(value)).unwrap_or_else(|| {
        faults.push(format!("{name}: expected a number from {least} to {most}"));
        default
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[track_caller]
    fn check(flags: &[(&str, &str)], environment: &[(&str, &str)], want: Result<fn(&Config) -> bool, &[&str]>) {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("agent.toml");
        std::fs::write(&file, "hostname = \"from-file\"\nmax-tasks = 7\n[labels]\nzone = \"a\"\n").expect("a file");
        let mut given = Given::default();
        given.flag("config", || Ok(file.into())).expect("a flag");
        for (name, value) in flags {
            given.flag(name, || Ok(value.into())).expect("a flag");
        }
        given.environment(|name| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()));
        match (given.resolve(), want) {
            (Ok(config), Ok(holds)) => assert!(holds(&config), "{config:?}"),
            (Err(text), Err(words)) => words.iter().for_each(|word| assert!(text.contains(word), "{text}")),
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn flags_beat_the_environment_beats_the_file() {
        check(&[], &[], Ok(|c| c.hostname.as_deref() == Some("from-file") && c.tasks_max == 7));
        check(&[], &[("RACIMO_HOSTNAME", "env")], Ok(|c| c.hostname.as_deref() == Some("env")));
        check(&[("hostname", "flag")], &[("RACIMO_HOSTNAME", "env")], Ok(|c| c.hostname.as_deref() == Some("flag")));
        check(&[("label", "a=b")], &[], Ok(|c| c.labels.len() == 2));
        check(&[], &[("RACIMO_INSECURE_REGISTRY", "a:1,b:2")], Ok(|c| c.registry.insecure.len() == 2));
    }

    fn images(config: &Config) -> (Option<u32>, u8, u8) {
        (config.images.keep_hours, config.images.high, config.images.low)
    }

    #[test]
    fn every_flag_has_an_effect() {
        check(&[("max-tasks", "3"), ("max-tasks", "4")], &[], Ok(|c| c.tasks_max == 4));
        check(&[("shim-groups", "16")], &[], Ok(|c| c.groups == 16));
        check(
            &[("data-dir", "/d")],
            &[("RACIMO_RUN_DIR", "/r")],
            Ok(|c| (&*c.data, &*c.run) == ("/d".as_ref(), "/r".as_ref())),
        );
        check(&[], &[], Ok(|c| images(c) == (Some(168), 85, 80)));
        check(&[("image-keep-hours", "0")], &[], Ok(|c| images(c) == (None, 85, 80)));
        check(&[("disk-high-percent", "70")], &[], Ok(|c| images(c) == (Some(168), 70, 70)));
        let marks = [("disk-high-percent", "95"), ("disk-low-percent", "90"), ("image-keep-hours", "12")];
        check(&marks, &[], Ok(|c| images(c) == (Some(12), 95, 90)));
        let wrong = "disk-low-percent: expected a number from 1 to 85";
        check(&[("disk-low-percent", "86")], &[], Err(&[wrong]));
        check(&[("disk-high-percent", "101")], &[], Err(&["disk-high-percent: expected a number from 1 to 100"]));
        check(&[("containerd", "/c.sock")], &[], Ok(|c| c.containerd == Path::new("/c.sock")));
        check(&[("runtime", "/bin/crun")], &[], Ok(|c| c.runtime.as_deref() == Some("/bin/crun".as_ref())));
        check(&[("init-path", "/i")], &[], Ok(|c| c.init.as_deref() == Some("/i".as_ref())));
        check(&[("init-path", "i")], &[], Err(&["init-path \"i\": expected an absolute path"]));
        check(&[("data-path-addr", "192.168.7.2")], &[], Ok(|c| c.data_path_addr == Some([192, 168, 7, 2].into())));
        check(&[], &[("RACIMO_DATA_PATH_ADDR", "10.1.2.3")], Ok(|c| c.data_path_addr == Some([10, 1, 2, 3].into())));
        for bad in ["fd00::1", "eth0", "127.0.0.1", "0.0.0.0", "224.0.0.1"] {
            check(&[("data-path-addr", bad)], &[], Err(&["expected an IPv4 address of this board", bad]));
        }
        check(&[("manager-socket", "/m")], &[], Ok(|c| c.manager_socket.as_deref() == Some("/m".as_ref())));
        check(&[], &[], Ok(|c| c.discover));
        check(&[("discover", "false")], &[("RACIMO_DISCOVER", "true")], Ok(|c| !c.discover));
        check(&[("discover", "no")], &[], Err(&["discover: expected true or false"]));
        check(&[], &[], Ok(|c| c.offline_after == Some(Duration::from_secs(15))));
        check(&[("offline-after", "0")], &[("RACIMO_OFFLINE_AFTER", "9")], Ok(|c| c.offline_after.is_none()));
        check(&[], &[("RACIMO_OFFLINE_AFTER", "9")], Ok(|c| c.offline_after == Some(Duration::from_secs(9))));
        check(&[("offline-after", "15s")], &[], Err(&["offline-after: expected a number from 0 to 86400"]));
        check(&[("registry-ca", "/ca.pem")], &[], Ok(|c| c.registry.extra_ca.is_some()));
        check(
            &[("registry-mirror", "https://a"), ("registry-mirror", "http://b:5000")],
            &[],
            Ok(|c| c.registry.mirrors.len() == 2),
        );
        let generic = [("node-generic-resource", "gpio=2"), ("node-generic-resource", "modem=/dev/a")];
        check(&generic, &[], Ok(|c| c.generic.len() == 2));
        check(&[], &[("RACIMO_NODE_GENERIC_RESOURCE", "gpio=2,pin=a,pin=b")], Ok(|c| c.generic.len() == 2));
        check(&[("log-level", "debug")], &[], Ok(|c| c.log_level == log::LevelFilter::Debug));
        // A label given replaces the file's of the same name; an empty variable is none.
        check(&[("label", "zone=b=c")], &[], Ok(|c| c.labels["zone"] == "b=c" && c.labels.len() == 1));
        check(
            &[],
            &[("RACIMO_LABEL", "a=1,b=2"), ("RACIMO_HOSTNAME", "")],
            Ok(|c| c.labels.len() == 3 && c.hostname.is_some()),
        );
    }

    #[test]
    fn files_that_cannot_be_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let resolve = |text: Option<&str>| {
            let file = directory.path().join(if text.is_some() { "agent.toml" } else { "missing.toml" });
            if let Some(text) = text {
                std::fs::write(&file, text).expect("a file");
            }
            let mut given = Given::default();
            given.flag("config", || Ok(file.into())).expect("a flag");
            given.resolve().map(drop).expect_err("a fault")
        };
        for (text, words) in [
            (None, "missing.toml"),
            (Some("hostnam = 1"), "hostnam"),
            (Some("max-tasks = 129"), "1 to 128"),
            (Some("shim-groups = 0\ndata-dir = \"d\""), "absolute"),
            (Some("[labels"), "agent.toml"),
            (Some("insecure-registries = [\"a b\"]"), "insecure-registry"),
            (Some("node-generic-resources = [\"gpio=2\", \"gpio\"]"), "incorrect term gpio, missing '='"),
            (Some("node-generic-resources = [\"gpio=a\", \"gpio=a\"]"), "gpio=a is there twice"),
        ] {
            let fault = resolve(text);
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn all_faults_are_told() {
        check(
            &[("label", "x"), ("max-tasks", "0"), ("data-dir", "x"), ("log-level", "loud")],
            &[],
            Err(&["KEY=VALUE", "1 to 128", "absolute", "error, warn"]),
        );
        check(&[("shim-groups", "17")], &[("RACIMO_MAX_TASKS", "many")], Err(&["1 to 16", "1 to 128"]));
        check(&[("label", "=x"), ("registry-mirror", "ftp://x")], &[], Err(&["label", "registry-mirror"]));
        let asked = || -> Result<OsString, lexopt::Error> { panic!("nobody asks for the value of an unknown flag") };
        let refused = Given::default().flag("publish", asked).map_err(|error| error.to_string());
        assert_eq!(refused, Err("invalid option '--publish'".to_owned()));
    }

    #[test]
    fn a_program_that_was_replaced_has_its_old_name() {
        for (found, want) in [("/usr/bin/pi-agent", "/usr/bin/pi-agent"), ("/opt/a (deleted)", "/opt/a")] {
            assert_eq!(program(Ok(found.into())), PathBuf::from(want));
        }
        assert_eq!(program(Err(io::ErrorKind::NotFound.into())), PathBuf::from("/usr/bin/pi-agent"));
    }
}
