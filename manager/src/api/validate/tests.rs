//! Specifications, and what is said of them.

use std::sync::Arc;

use racimo_common::object::{EndpointMode, EndpointSpec, Mount, NetworkMode, Protocol};

use super::*;

fn spec() -> ServiceSpec {
    let container = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    ServiceSpec {
        name: "web".into(),
        labels: Default::default(),
        task: Arc::new(TaskSpec { container, ..TaskSpec::default() }),
        mode: Mode::Replicated { replicas: 1 },
        update: None,
        rollback: None,
        credentials: None,
    }
}

#[track_caller]
fn check(edit: impl FnOnce(&mut ServiceSpec, &mut TaskSpec), want: &str) {
    let mut spec = spec();
    let mut task = (*spec.task).clone();
    edit(&mut spec, &mut task);
    spec.task = Arc::new(task);
    let got = service(&spec).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{got:?} instead of {want:?}");
}

fn mount(target: &str, kind: MountKind) -> Mount {
    Mount { target: target.into(), read_only: false, kind }
}

fn tmpfs(target: &str) -> Mount {
    mount(target, MountKind::Tmpfs { options: Default::default() })
}

fn volume(name: &str) -> Mount {
    mount("/v", MountKind::Volume { source: Some(name.into()), options: Default::default() })
}

#[test]
fn names() {
    for good in ["a", "Web_1", "a-b", "a__b", &"x".repeat(63)] {
        check(|s, _| s.name = good.into(), "");
    }
    check(|s, _| s.name = String::new(), "name must be provided");
    for bad in ["bad_name!", "-a", "a-", "_a", "a.b", "ä", "a b"] {
        check(|s, _| s.name = bad.into(), "name must be valid as a DNS name component");
    }
    check(|s, _| s.name = "x".repeat(64), "63 characters or fewer");
}

#[test]
fn amounts() {
    assert_eq!(cpu(0), Ok(None));
    assert_eq!(cpu(1_000_000), Ok(Some(CPU_MIN)));
    assert_eq!(cpu(999_999).unwrap_err().to_string(), "invalid cpu value 0.000999999: Must be at least 0.001");
    assert_eq!(cpu(-5_000_000_000).unwrap_err().to_string(), "invalid cpu value -5: Must be at least 0.001");
    assert_eq!(memory(0), Ok(None));
    assert_eq!(memory(4 << 20), Ok(Some(MEMORY_MIN)));
    for bad in [1, -1, i64::MIN, (4 << 20) - 1] {
        assert_eq!(memory(bad), Err(Invalid::Memory(bad)));
    }
}

#[test]
fn limits_and_reservations() {
    check(|_, t| t.resources.limits.memory = Some(Bytes::mib(10)), "");
    check(
        |_, t| {
            t.resources.limits.memory = Some(Bytes::mib(10));
            t.resources.reservations.memory = Bytes::mib(20);
        },
        "the memory limit (10MiB) is below the reservation (20MiB)",
    );
    check(
        |_, t| {
            t.resources.limits.cpu = Some(NanoCpus::new(100_000_000));
            t.resources.reservations.cpu = NanoCpus::new(500_000_000);
        },
        "the CPU limit (0.1) is below the reservation (0.5)",
    );
}

#[test]
fn restarts() {
    let policy = |attempts, window: bool| RestartPolicy {
        attempts_max: Some(attempts),
        window: window.then(|| Duration::from_secs(1)),
        ..RestartPolicy::default()
    };
    check(|_, t| t.restart = policy(1000, true), "");
    check(|_, t| t.restart = policy(5000, false), "");
    check(|_, t| t.restart = policy(1001, true), "at most 1000");
}

#[test]
fn containers() {
    check(|_, t| t.container.image = String::new(), "image reference must be provided");
    check(
        |_, t| t.container.image = "UPPER CASE".into(),
        r#"ContainerSpec: "UPPER CASE" is not a valid repository/tag"#,
    );
    check(|_, t| t.container.env = vec!["=x".into()], "is not KEY or KEY=value");
    check(|_, t| t.container.env = vec!["A={{.Node.ID}}".into()], "");
    check(|_, t| t.container.args = vec!["a\0b".into()], "ContainerSpec.Args must not contain a NUL");
    check(|_, t| t.container.args = vec!["{{.Task}}".into()], "");
    check(|_, t| t.container.hostname = Some("h-{{.Task.Slot}}".into()), "");
    check(|_, t| t.container.hostname = Some("h-{{.Task}}".into()), "is not a host name");
    check(|_, t| t.container.hostname = Some("{{.Nope}}".into()), "expanding hostname failed: template: 1:1");
    check(|_, t| t.container.env = vec!["A={{secret \"x\"}}".into()], "function \"secret\" not defined");
    check(|_, t| t.container.env = vec!["A={{.Service.Labels.l}}".into()], "map has no entry for key \"l\"");
    check(|_, t| t.container.hostname = Some("a..b".into()), "is not a host name");
    check(|_, t| t.container.dir = Some("tmp".into()), "must be an absolute path");
    for good in ["SIGINT", "TERM", "9", "SIGRTMIN+3"] {
        check(|_, t| t.container.stop_signal = Some(good.into()), "");
    }
    for bad in ["0", "65", "S T", "-9", "SIGFOO"] {
        check(|_, t| t.container.stop_signal = Some(bad.into()), "is not a signal");
    }
    check(|_, t| t.container.args = vec!["x".repeat(FRAME_TO_AGENT_MAX)], "make it smaller");
}

#[test]
fn mount_rules() {
    check(|_, t| t.container.mounts = vec![tmpfs("/a"), tmpfs("/b")], "");
    check(|_, t| t.container.mounts = vec![tmpfs("/a"), tmpfs("/a/")], "duplicate mount point: /a");
    check(|_, t| t.container.mounts = vec![tmpfs("a")], "invalid mount target");
    check(|_, t| t.container.mounts = vec![tmpfs("/")], "invalid mount target");
    let bind = MountKind::Bind { source: "tmp".into(), options: Default::default() };
    check(|_, t| t.container.mounts = vec![mount("/a", bind)], "invalid bind mount source");
    check(|_, t| t.container.mounts = vec![volume("data.1")], "");
    check(|_, t| t.container.mounts = vec![volume("../x")], "invalid volume name");
    check(|_, t| t.container.mounts = vec![volume("a")], "expected 2 to 255 characters");
    check(|_, t| t.container.mounts = vec![volume("/srv")], "use a mount of type bind");
}

#[test]
fn ports() {
    let port = |published, target| Port { published, target, ..Port::default() };
    let host = |published| Port { mode: PortMode::Host, ..port(published, 80) };
    check(|_, t| t.endpoint.ports = vec![port(80, 8080), port(0, 80), port(0, 80)], "");
    let udp = Port { protocol: Protocol::Udp, ..port(53, 53) };
    check(|_, t| t.endpoint.ports = vec![port(53, 53), udp], "");
    check(|_, t| t.endpoint.ports = vec![port(80, 0)], "a port without TargetPort");
    let twice = "EndpointSpec: duplicate published ports provided";
    check(|_, t| t.endpoint.ports = vec![port(80, 1), port(80, 2)], twice);
    check(|_, t| t.endpoint.ports = vec![port(80, 1), host(80)], twice);
    let dnsrr = |port| EndpointSpec { mode: EndpointMode::Dnsrr, ports: vec![port] };
    check(|_, t| t.endpoint = dnsrr(host(80)), "");
    let ingress = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
    check(|_, t| t.endpoint = dnsrr(port(80, 80)), ingress);
    check(|_, t| t.endpoint.ports = vec![port(0, 80); SERVICE_PORTS_MAX], "");
    check(|_, t| t.endpoint.ports = vec![port(0, 80); SERVICE_PORTS_MAX + 1], "129 ports are more than the 128");
    for (network, want) in [
        (NetworkMode::Unset, ""),
        (NetworkMode::Bridge, ""),
        (NetworkMode::Host, "on the network host: its ports are the board's already"),
        (NetworkMode::None, "on the network none: nothing reaches its ports"),
    ] {
        check(
            |_, t| {
                t.container.network = network;
                t.endpoint.ports = vec![host(80)];
            },
            want,
        );
    }
    let label = |value: &str| [(KEEP_SOURCE_LABEL.to_owned(), value.to_owned())].into();
    check(|s, _| s.labels = label("true"), "");
    check(|s, _| s.labels = label("yes"), "label io.racimo.mesh.keep-source: \"yes\" is not true or false");
    let label = |value: &str| [(ISOLATE_SHIM_LABEL.to_owned(), value.to_owned())].into();
    check(|s, t| (s.labels, t.container.labels) = (label("true"), label("false")), "");
    check(|s, _| s.labels = label("1"), "label io.racimo.isolate-shim: \"1\" is not true or false");
    check(|_, t| t.container.labels = label(""), "label io.racimo.isolate-shim: \"\" is not true or false");
}

#[test]
fn placements() {
    check(|_, t| t.placement.preferences = vec!["node.labels.zone".into()], "");
    check(|_, t| t.placement.preferences = vec!["node.labels.".into()], "is not node.labels.KEY");
    check(|_, t| t.placement.preferences = vec!["node.id".into()], "is not node.labels.KEY");
    check(|s, _| s.mode = Mode::Replicated { replicas: limits::REPLICAS_MAX + 1 }, "more than the");
    check(|_, t| t.placement.constraints = vec!["node.role==worker".into()], "");
    check(|_, t| t.placement.constraints = vec!["node.role=worker".into()], "expected one operator");
}
