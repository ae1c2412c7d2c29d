//! Tables for [`super`]; the whole document is in `tests/golden/spec.json`.

use racimo_common::{
    id::IdSource,
    object::{BindOptions, Limits, Mount, MountKind, Reservations},
    units::{Bytes, NanoCpus},
};

use super::*;
use crate::runtime::{cgroup::Version, mount};

/// A board of last year's.
const CONFINE: Confinement = Confinement { no_seccomp: None, capabilities: (1 << 41) - 1, no_runtime: None };
const V2: Cgroups = Cgroups { version: Version::V2, memory: true, swap: true, cpu: true, pids: true };

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn nginx() -> RunConfig {
    RunConfig {
        entrypoint: Some(texts(&["/entry.sh"])),
        cmd: Some(texts(&["nginx", "-g"])),
        env: Some(texts(&["PATH=/opt/bin", "NGINX=1.27"])),
        user: Some("www".into()),
        working_dir: Some("srv".into()),
        stop_signal: Some("SIGQUIT".into()),
        ..RunConfig::default()
    }
}

fn document(spec: &ContainerSpec, resources: &Resources, cgroups: &Cgroups) -> Result<Value, BadSpec> {
    document_on(spec, resources, cgroups, &CONFINE)
}

fn document_on(
    spec: &ContainerSpec,
    resources: &Resources,
    cgroups: &Cgroups,
    confine: &Confinement,
) -> Result<Value, BadSpec> {
    let task = IdSource::seeded(1).draw();
    let mounts = mount::plan(&spec.mounts, Path::new("/data"), task).unwrap();
    let user = User { uid: 33, gid: 34, groups: vec![44] };
    let hostname = hostname(spec, task, "berry");
    let files = mount::task_dir(Path::new("/data"), task);
    let facts = Facts {
        netns: None,
        task,
        user: &user,
        mounts: &mounts,
        files: &files,
        hostname: &hostname,
        group: "racimo-0",
        cgroups,
        confine,
        init: spec.init.unwrap_or_default().then_some(Path::new("/usr/bin/tini-static")),
        architecture: "aarch64",
    };
    build(spec, &nginx(), resources, &facts).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

#[track_caller]
fn check_args(command: &[&str], args_given: &[&str], want: &[&str]) {
    let spec = ContainerSpec { command: texts(command), args: texts(args_given), ..ContainerSpec::default() };
    assert_eq!(args(&spec, &nginx(), None), Ok(texts(want)));
    let with_init = [&["/sbin/docker-init", "--"], want].concat();
    assert_eq!(args(&spec, &nginx(), Some(Path::new("/tini"))), Ok(texts(&with_init)));
}

#[test]
fn arguments_follow_dockers_rules() {
    check_args(&[], &[], &["/entry.sh", "nginx", "-g"]);
    check_args(&[], &["sh"], &["/entry.sh", "sh"]);
    check_args(&["sh"], &[], &["sh"]);
    check_args(&["sh"], &["-c", "x"], &["sh", "-c", "x"]);
    assert_eq!(args(&ContainerSpec::default(), &RunConfig::default(), None), Err(BadSpec::NoCommand));
}

#[test]
fn variables_replace_and_remove() {
    let spec = ContainerSpec { env: texts(&["NGINX=2", "HOSTNAME", "NEW=a=b", "GONE"]), ..ContainerSpec::default() };
    assert_eq!(env(&spec, &nginx(), "web"), texts(&["PATH=/opt/bin", "NGINX=2", "NEW=a=b"]));
    assert_eq!(env(&spec, &RunConfig::default(), "web"), texts(&[PATH_DEFAULT, "NGINX=2", "NEW=a=b"]));
}

#[test]
fn services_override_images() {
    let spec = ContainerSpec { dir: Some("/x".into()), user: Some("7".into()), ..ContainerSpec::default() };
    assert_eq!((cwd(&spec, &nginx()), user_text(&spec, &nginx())), ("/x".into(), "7"));
    let spec = ContainerSpec::default();
    assert_eq!((cwd(&spec, &nginx()), user_text(&spec, &nginx())), ("/srv".into(), "www"));
    assert_eq!(stop_signal(&spec, &nginx()), Ok(3));
    assert_eq!(stop_signal(&spec, &RunConfig::default()), Ok(15));
    let spec = ContainerSpec { stop_signal: Some("SIGFOO".into()), ..ContainerSpec::default() };
    assert_eq!(stop_signal(&spec, &nginx()), Err(BadSignal("SIGFOO".into())));
}

#[test]
fn host_names() {
    let task = IdSource::seeded(1).draw();
    let mut spec = ContainerSpec::default();
    assert_eq!(hostname(&spec, task, "berry"), task.to_string()[..12]);
    spec.network = NetworkMode::Host;
    assert_eq!(hostname(&spec, task, "berry"), "berry");
    spec.hostname = Some("web".into());
    assert_eq!(hostname(&spec, task, "berry"), "web");
}

#[track_caller]
fn check_limits(limits: Limits, reservations: Reservations, cgroups: &Cgroups, want: Value) {
    let found =
        document(&ContainerSpec::default(), &Resources { limits, reservations, ..Resources::default() }, cgroups)
            .unwrap();
    let mut resources = found["linux"]["resources"].clone();
    resources.as_object_mut().unwrap().remove("devices");
    assert_eq!(resources, want);
}

#[test]
fn limits_and_reservations() {
    let bare = Cgroups { version: Version::V2, memory: false, swap: false, cpu: false, pids: false };
    let none = Reservations::default();
    let reserved = Reservations { cpu: NanoCpus::new(500_000_000), memory: Bytes::mib(32) };
    check_limits(Limits::default(), none, &V2, json!({}));
    let all = Limits { cpu: Some(NanoCpus::new(1_500_000_000)), memory: Some(Bytes::mib(64)), pids: Some(10) };
    let cpu = json!({"quota": 150_000, "period": 100_000, "shares": 512});
    let memory = json!({"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432});
    check_limits(all, reserved, &V2, json!({"cpu": cpu, "memory": memory, "pids": {"limit": 10}}));
    check_limits(Limits::default(), reserved, &bare, json!({}));
    let tiny = Limits { cpu: Some(NanoCpus::new(1)), memory: Some(Bytes::ZERO), pids: Some(0) };
    check_limits(tiny, none, &V2, json!({"cpu": {"quota": 1000, "period": 100_000}}));
    let no_swap = Cgroups { swap: false, ..V2 };
    let memory = Limits { memory: Some(Bytes::new(1)), ..Limits::default() };
    check_limits(memory.clone(), none, &no_swap, json!({"memory": {"limit": 1}}));
    let resources = Resources { limits: memory, reservations: none, ..Resources::default() };
    assert_eq!(document(&ContainerSpec::default(), &resources, &bare), Err(BadSpec::Limit(Degraded::NoMemory)));
}

#[test]
fn the_network_decides_namespaces_and_sysctls() {
    let has = |network, cgroups: &Cgroups| {
        let spec = ContainerSpec { network, ..ContainerSpec::default() };
        let found = document(&spec, &Resources::default(), cgroups).unwrap();
        let kinds = found["linux"]["namespaces"].to_string();
        (kinds.contains("network"), kinds.contains("cgroup"), found["linux"]["sysctl"].is_object())
    };
    let v1 = Cgroups { version: Version::V1, ..V2 };
    assert_eq!(has(NetworkMode::Host, &V2), (false, true, false));
    assert_eq!(has(NetworkMode::None, &V2), (true, true, true));
    assert_eq!(has(NetworkMode::Unset, &v1), (true, false, true));
}

/// What one changed option makes of the document: the value at `at`.
#[track_caller]
fn check_option(change: impl FnOnce(&mut ContainerSpec), at: &str, want: Value) {
    let mut spec = ContainerSpec::default();
    change(&mut spec);
    let found = document(&spec, &Resources::default(), &V2).unwrap();
    assert_eq!(found.pointer(at).unwrap_or(&Value::Null), &want, "{at}");
}

#[test]
fn options_and_their_place() {
    check_option(|_| {}, "/process/terminal", Value::Null);
    check_option(|spec| spec.tty = true, "/process/terminal", json!(true));
    check_option(|spec| spec.tty = true, "/process/env/2", json!("TERM=xterm"));
    check_option(|_| {}, "/root", json!({"path": "rootfs"}));
    check_option(|spec| spec.read_only = true, "/root/readonly", json!(true));
    check_option(|spec| spec.read_only = true, "/mounts/9/options", json!(["rbind", "rprivate", "ro"]));
    let init = json!({"destination": "/sbin/docker-init", "type": "bind", "source": "/usr/bin/tini-static",
        "options": ["bind", "ro"]});
    check_option(|spec| spec.init = Some(true), "/mounts/10", init);
    check_option(|spec| spec.init = Some(true), "/process/args/0", json!("/sbin/docker-init"));
    check_option(|spec| spec.init = Some(false), "/process/args/0", json!("/entry.sh"));
    check_option(|_| {}, "/process/rlimits", Value::Null);
    let nofile = racimo_common::object::Ulimit { name: "nofile".into(), soft: 5, hard: -1 };
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": u64::MAX}]);
    check_option(|spec| spec.ulimits = vec![nofile], "/process/rlimits", limit);
    check_option(|spec| spec.oom_score_adj = Some(300), "/process/oomScoreAdj", json!(300));
    check_option(|spec| spec.privileges.no_new_privileges = true, "/process/noNewPrivileges", json!(true));
    let shmmax = || [("kernel.shmmax".to_owned(), "7".to_owned())].into();
    check_option(|spec| spec.sysctls = shmmax(), "/linux/sysctl/kernel.shmmax", json!("7"));
    check_option(|spec| spec.cap_drop = texts(&["ALL"]), "/process/capabilities", json!({"bounding": []}));
    let bounding = json!(["CAP_KILL"]);
    let only_kill = |spec: &mut ContainerSpec| (spec.cap_drop, spec.cap_add) = (texts(&["ALL"]), texts(&["kill"]));
    check_option(only_kill, "/process/capabilities/bounding", bounding);
}

#[test]
fn the_shims_out_of_memory_bias_is_not_inherited() {
    let bias = |wanted| {
        let spec = ContainerSpec { oom_score_adj: wanted, ..ContainerSpec::default() };
        document(&spec, &Resources::default(), &V2).unwrap()["process"]["oomScoreAdj"].clone()
    };
    assert_eq!([bias(None), bias(Some(0)), bias(Some(-5))], [200, 200, -5]);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |change: &dyn Fn(&mut ContainerSpec)| {
        let mut spec = ContainerSpec::default();
        change(&mut spec);
        let early = check(&spec, &Resources::default(), &V2, &CONFINE).map_err(|error| error.to_string());
        let late = document(&spec, &Resources::default(), &V2).map(drop).map_err(|error| error.to_string());
        assert_eq!(early, late);
        late.unwrap_err()
    };
    assert!(refused(&|spec| spec.cap_add = texts(&["SYS_FOO"])).contains("unknown capability"));
    assert!(refused(&|spec| spec.oom_score_adj = Some(-1001)).contains("-1000 to 1000"));
    assert!(refused(&|spec| drop(spec.sysctls.insert("vm.swappiness".into(), "1".into()))).contains("the board"));
    let limit = racimo_common::object::Ulimit { name: "files".into(), soft: 5, hard: 5 };
    assert!(refused(&|spec| spec.ulimits = vec![limit.clone()]).contains("ulimit"));
}

#[test]
fn system_calls_are_filtered_where_that_is_possible_and_wanted() {
    let rules = |spec: &ContainerSpec, confine: &Confinement| {
        let found = document_on(spec, &Resources::default(), &V2, confine).unwrap();
        found["linux"]["seccomp"]["syscalls"].as_array().map(Vec::len)
    };
    let without = Confinement { no_seccomp: Some(crate::runtime::confine::NoSeccomp::Kernel), ..CONFINE };
    let plain = ContainerSpec::default();
    let unconfined = racimo_common::object::Privileges { seccomp_unconfined: true, no_new_privileges: false };
    assert_eq!(rules(&plain, &without), None);
    assert_eq!(rules(&ContainerSpec { privileges: unconfined, ..plain.clone() }, &CONFINE), None);
    let few = rules(&plain, &CONFINE).unwrap();
    // Each of them brings calls of its own.
    let more = ContainerSpec { cap_add: texts(&["SYS_TIME", "SYS_BOOT"]), ..plain };
    assert_eq!(rules(&more, &CONFINE), Some(few + 2));
}

#[test]
fn a_whole_document_is_as_recorded() {
    let bind = |source: &str, target: &str| Mount {
        target: target.into(),
        read_only: true,
        kind: MountKind::Bind { source: source.into(), options: BindOptions::default() },
    };
    let spec = ContainerSpec {
        mounts: vec![bind("/srv/www", "/www"), bind("/my/hosts", "/etc/hosts")],
        hostname: Some("web".into()),
        ..ContainerSpec::default()
    };
    let limits = Limits { memory: Some(Bytes::mib(64)), ..Limits::default() };
    let found = document(&spec, &Resources { limits, ..Resources::default() }, &V2).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/spec.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(found, golden, "run with UPDATE_GOLDEN=1 after an intended change");
}
