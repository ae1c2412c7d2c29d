//! What a compose file may say: each key with the shape of its value, in the order in which `config` prints them.
//!
//! One table for reading, merging and printing; `docs/compose.md` is held against it by a test.

use super::node::{Fault, Node};

/// A key of a mapping.
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its value looks like.
    pub(crate) shape: Shape,
}

/// How one item of a list may be written shortly: the long form, or several of them.
pub(crate) type Short = fn(&Node, &str) -> Result<Vec<Node>, Fault>;

/// What a value looks like, and how it is merged with that of a later file.
pub(crate) enum Shape {
    /// A string.
    Text,
    /// A string or a number.
    Scalar,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Int,
    /// A whole number, or the octal text of one: `0440`.
    Mode,
    /// A number.
    Number,
    /// `1m30s`.
    Span,
    /// `50M`, or a number of bytes.
    Size,
    /// `50M`, or a number of bytes, printed as a number.
    Bytes,
    /// A command: a string is split as a shell would. A later file replaces it.
    Command,
    /// A health check's command: a string is for the shell. A later file replaces it.
    Test,
    /// A list of strings. A later file adds to it.
    Texts,
    /// A list of strings. A later file replaces it.
    Aliases,
    /// A string, or a list of them. A later file adds to it.
    TextOrTexts,
    /// A list of strings and numbers. A later file adds to it.
    Scalars,
    /// A list of names, or a mapping whose keys they are. A later file adds to it.
    Names,
    /// A mapping, or a list of `key=value`; `nulls`: a key may have no value.
    Dict {
        /// Whether a key may have no value.
        nulls: bool,
    },
    /// A mapping of strings and numbers.
    Options,
    /// `host:address`, as a list or as a mapping. A later file adds to it.
    Hosts,
    /// A whole number, or `soft` and `hard`. A later file replaces it.
    Ulimit,
    /// `true`, or a mapping with a `name`.
    External,
    /// A mapping with these keys.
    Object(&'static [Key]),
    /// A mapping of a driver and its options: those of one driver are merged, another driver replaces it.
    Logging(&'static [Key]),
    /// As `Object`; nothing at all stands for an empty one.
    Maybe(&'static [Key]),
    /// A mapping from any names.
    Named(&'static Shape),
    /// As `Named`; a list of names stands for a mapping of them to nothing.
    NamedOrNames(&'static Shape),
    /// As `Named`; a later file replaces an entry as a whole.
    Whole(&'static Shape),
    /// A list. A later file adds to it.
    List(&'static Shape),
    /// A list whose items have short forms. In a later file an item with the same value of this key replaces the
    /// earlier one, and the list is sorted by it; `None`: only the same item does.
    Items(Short, &'static [Key], Option<&'static str>),
    /// Names of env files, or mappings with `path` and `required`.
    EnvFiles,
    /// Not looked at: Docker ignores it in stacks, and says so.
    Ignored,
    /// Docker ignores it in stacks, says so, and gives this reason.
    Deprecated(&'static str),
    /// Refused, with this reason.
    Forbidden(&'static str),
}

use Shape::{
    Aliases, Bytes, Command, Deprecated, Dict, EnvFiles, External, Flag, Forbidden, Hosts, Ignored, Int, Items, List,
    Logging, Maybe, Mode, Named, NamedOrNames, Names, Number, Object, Options, Scalar, Scalars, Size, Span, Test, Text,
    TextOrTexts, Texts, Ulimit, Whole,
};

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape }
}

const LIMITS_INSTEAD: &str = "set resource limits using deploy.resources";

/// The top of the file.
pub(crate) const FILE: &[Key] = &[
    key("version", Text),
    key("services", Named(&Object(SERVICE))),
    key("networks", Whole(&Maybe(NETWORK))),
    key("volumes", Whole(&Maybe(VOLUME))),
    key("secrets", Whole(&Object(FILE_OBJECT))),
    key("configs", Whole(&Object(FILE_OBJECT))),
    key("name", Ignored),
    key("include", Forbidden("including other files is not supported: name them with -c")),
];

/// A service.
pub(crate) const SERVICE: &[Key] = &[
    key("build", Ignored),
    key("cap_add", Texts),
    key("cap_drop", Texts),
    key("cgroupns_mode", Ignored),
    key("cgroup_parent", Ignored),
    key("command", Command),
    key("configs", Items(super::short::source, REFERENCE, Some("source"))),
    key("container_name", Deprecated("Setting the container name is not supported.")),
    key("credential_spec", Forbidden("credential specs are for Windows")),
    key("depends_on", Names),
    key("deploy", Maybe(DEPLOY)),
    key("devices", Ignored),
    key("dns", TextOrTexts),
    key("dns_search", TextOrTexts),
    key("domainname", Ignored),
    key("entrypoint", Command),
    key("environment", Dict { nulls: true }),
    key("env_file", EnvFiles),
    key(
        "expose",
        Deprecated(
            "Exposing ports is unnecessary - services on the same network can access each other's containers on any \
             port.",
        ),
    ),
    key("external_links", Ignored),
    key("extra_hosts", Hosts),
    key("group_add", Scalars),
    key("hostname", Text),
    key("healthcheck", Object(HEALTHCHECK)),
    key("image", Text),
    key("init", Flag),
    key("ipc", Ignored),
    key("isolation", Text),
    key("labels", Dict { nulls: false }),
    key("links", Ignored),
    key("logging", Logging(LOGGING)),
    key("mac_address", Ignored),
    key("network_mode", Ignored),
    key("networks", NamedOrNames(&Maybe(ATTACHMENT))),
    key("oom_score_adj", Int),
    key("pid", Ignored),
    key("ports", Items(super::short::ports, PORT, None)),
    key("privileged", Ignored),
    key("read_only", Flag),
    key("restart", Text),
    key("secrets", Items(super::short::source, REFERENCE, Some("source"))),
    key("security_opt", Ignored),
    key("shm_size", Ignored),
    key("stdin_open", Flag),
    key("stop_grace_period", Span),
    key("stop_signal", Text),
    key("sysctls", Dict { nulls: false }),
    key("tmpfs", TextOrTexts),
    key("tty", Flag),
    key("ulimits", Named(&Ulimit)),
    key("user", Text),
    key("userns_mode", Ignored),
    key("volumes", Items(super::short::volume, MOUNT, Some("target"))),
    key("working_dir", Text),
    key("extends", Forbidden("extending services is not supported")),
    key(
        "volume_driver",
        Forbidden("define a volume using the top-level `volumes` option and specify the driver there"),
    ),
    key("volumes_from", Forbidden("define a volume using the top-level `volumes` option and use it in each service")),
    key("cpu_quota", Forbidden(LIMITS_INSTEAD)),
    key("cpu_shares", Forbidden(LIMITS_INSTEAD)),
    key("cpus", Forbidden(LIMITS_INSTEAD)),
    key("cpuset", Forbidden(LIMITS_INSTEAD)),
    key("mem_limit", Forbidden(LIMITS_INSTEAD)),
    key("mem_reservation", Forbidden(LIMITS_INSTEAD)),
    key("memswap_limit", Forbidden(LIMITS_INSTEAD)),
    key("profiles", Forbidden("profiles are not supported: a stack has all of its services")),
    key("scale", Forbidden("set the number of tasks using deploy.replicas")),
];

const DEPLOY: &[Key] = &[
    key("mode", Text),
    key("replicas", Int),
    key("labels", Dict { nulls: false }),
    key("update_config", Object(UPDATE)),
    key("rollback_config", Object(UPDATE)),
    key("resources", Object(RESOURCES)),
    key("restart_policy", Object(RESTART)),
    key("placement", Object(PLACEMENT)),
    key("endpoint_mode", Text),
];

const UPDATE: &[Key] = &[
    key("parallelism", Int),
    key("delay", Span),
    key("failure_action", Text),
    key("monitor", Span),
    key("max_failure_ratio", Number),
    key("order", Text),
];

const RESOURCES: &[Key] = &[key("limits", Object(LIMITS)), key("reservations", Object(RESERVATIONS))];
const LIMITS: &[Key] = &[key("cpus", Scalar), key("memory", Size), key("pids", Int)];
const RESERVATIONS: &[Key] =
    &[key("cpus", Scalar), key("memory", Size), key("generic_resources", List(&Object(GENERIC)))];
const GENERIC: &[Key] = &[key("discrete_resource_spec", Object(&[key("kind", Text), key("value", Int)]))];
const RESTART: &[Key] = &[key("condition", Text), key("delay", Span), key("max_attempts", Int), key("window", Span)];
const PLACEMENT: &[Key] = &[
    key("constraints", Texts),
    key("preferences", List(&Object(&[key("spread", Text)]))),
    key("max_replicas_per_node", Int),
];

const HEALTHCHECK: &[Key] = &[
    key("test", Test),
    key("timeout", Span),
    key("interval", Span),
    key("retries", Int),
    key("start_period", Span),
    key("start_interval", Span),
    key("disable", Flag),
];

const LOGGING: &[Key] = &[key("driver", Text), key("options", Options)];

const ATTACHMENT: &[Key] = &[
    key("aliases", Aliases),
    key("driver_opts", Options),
    key("ipv4_address", Forbidden("fixed addresses are not supported")),
    key("ipv6_address", Forbidden("fixed addresses are not supported")),
];

const PORT: &[Key] = &[key("mode", Text), key("target", Int), key("published", Int), key("protocol", Text)];

const REFERENCE: &[Key] =
    &[key("source", Text), key("target", Text), key("uid", Scalar), key("gid", Scalar), key("mode", Mode)];

const MOUNT: &[Key] = &[
    key("type", Text),
    key("source", Text),
    key("target", Text),
    key("read_only", Flag),
    key("consistency", Text),
    key("bind", Object(&[key("propagation", Text)])),
    key("volume", Object(&[key("nocopy", Flag)])),
    key("tmpfs", Object(&[key("size", Bytes), key("mode", Mode)])),
];

const NETWORK: &[Key] = &[
    key("name", Text),
    key("driver", Text),
    key("driver_opts", Options),
    key("ipam", Object(&[key("driver", Text), key("config", List(&Object(&[key("subnet", Text)])))])),
    key("external", External),
    key("internal", Flag),
    key("attachable", Flag),
    key("labels", Dict { nulls: false }),
];

const VOLUME: &[Key] = &[
    key("name", Text),
    key("driver", Text),
    key("driver_opts", Options),
    key("external", External),
    key("labels", Dict { nulls: false }),
];

const FILE_OBJECT: &[Key] = &[
    key("name", Text),
    key("file", Text),
    key("content", Text),
    key("environment", Text),
    key("external", External),
    key("labels", Dict { nulls: false }),
    key("driver", Forbidden("secret drivers are not supported")),
    key("driver_opts", Forbidden("secret drivers are not supported")),
    key("template_driver", Text),
];
