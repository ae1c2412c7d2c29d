//! The real docker CLI and docker-py: networks and ports. Each is left out where it is not there.

use std::process::{Command, Stdio};

use racimo_common::id::IdSource;
use serde_json::{Value, json};

use super::docker_tests::{Served, there_is_docker};
use super::testing::Lab;

/// What `inspect` shows of one object.
#[track_caller]
fn shown(served: &Served, args: &str) -> Value {
    let text = served.good(args);
    let list: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args}: {error}: {text}"));
    list[0].clone()
}

/// `Protocol Published>Target Mode` of each port.
fn ports(list: &Value) -> Vec<String> {
    let port = |port: &Value| {
        let number = |key: &str| port[key].as_u64().unwrap_or_default();
        let (published, target) = (number("PublishedPort"), number("TargetPort"));
        let word = |key: &str| port[key].as_str().unwrap_or_default().to_owned();
        format!("{} {published}>{target} {}", word("Protocol"), word("PublishMode"))
    };
    list.as_array().into_iter().flatten().map(port).collect()
}

#[test]
fn docker_s_network_commands() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::active());
    let create = "network create -d overlay --subnet 10.9.0.0/24 --gateway 10.9.0.9 --ip-range 10.9.0.128/25 \
                  --aux-address router=10.9.0.200 --internal --attachable --opt encrypted \
                  --opt com.docker.network.driver.mtu=1300 --label a=b --scope swarm full";
    assert_eq!(served.good(create).trim().len(), 25);
    let full = shown(&served, "network inspect full");
    let config = json!([{"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "Gateway": "10.9.0.9",
        "AuxiliaryAddresses": {"router": "10.9.0.200"}}]);
    assert_eq!(full["IPAM"]["Config"], config);
    assert_eq!((&full["Internal"], &full["Attachable"]), (&json!(true), &json!(true)));
    for (args, want) in [
        ("create -d overlay full", "network with name full already exists"),
        ("create br", "networks of driver bridge are not supported, only overlay"),
        ("create -d overlay --ipv6 n", "EnableIPv6: networks have IPv4 addresses only"),
        ("create -d overlay --subnet fd00:9::/64 n", "is IPv6: networks have IPv4 addresses only"),
        ("create -d overlay --opt x=y n", "Options.x is not supported yet"),
        ("create -d overlay --ipam-driver x n", "IPAM.Driver is not supported yet"),
        ("create -d overlay --ipam-opt a=b n", "IPAM.Options.a is not supported yet"),
        ("create -d overlay --config-from full n", "ConfigFrom.Network is not supported yet"),
        ("create -d overlay --subnet 10.9.0.128/25 n", "Pool overlaps with other one on this address space"),
        ("create -d overlay --subnet 10.8.0.0/24 --subnet 10.7.0.0/24 n", "a network has one subnet"),
        ("create -d overlay --ingress n", "is already present"),
        ("rm nosuch", "network nosuch not found"),
        ("rm host", "operation is not permitted on predefined host network"),
        ("inspect nosuch", "network nosuch not found"),
        ("ls --filter x=y", "nvalid filter"),
        ("connect full c", "connecting containers to networks is not supported"),
    ] {
        served.bad(&format!("network {args}"), want);
    }
    served.good("network create -d overlay --label a=c small");
    let names = |filter: &str| served.good(&format!("network ls --format {{{{.Name}}}} {filter}"));
    assert_eq!(names("--filter driver=overlay"), "full\ningress\nsmall\n");
    assert_eq!(names("--filter label=a=c"), "small\n");
    assert_eq!(names("--filter dangling=true"), "full\nsmall\n");
    assert_eq!(names("--filter type=builtin"), "bridge\nhost\nnone\n");
    let host = "network ls --filter name=host --format {{.Driver}}-{{.Scope}}-{{.IPv6}}";
    assert_eq!(served.good(host), "host-swarm-false\n");

    served.good("service create -d --no-resolve-image --name web --network name=full,alias=www --replicas 2 busybox");
    served.bad("service create -d --no-resolve-image --network ingress busybox", "cannot be explicitly attached");
    served.lab.run_tasks(&mut IdSource::seeded(1));
    let full = shown(&served, "network inspect --verbose full");
    let tasks = full["Services"]["web"]["Tasks"].as_array().expect("tasks");
    // The gateway and the reserved address are nobody's, the rest is from the range.
    let mut addresses: Vec<&str> = tasks.iter().filter_map(|task| task["EndpointIP"].as_str()).collect();
    addresses.sort();
    assert_eq!(full["Services"]["web"]["VIP"], "10.9.0.128");
    assert_eq!(addresses, ["10.9.0.129", "10.9.0.130"]);
    assert_eq!(full["Peers"], json!([{"Name": "node0", "IP": "127.0.0.1"}]));
    served.bad("network rm full", "is in use by service");
    assert!(served.good("network prune -f").contains("small"));
    served.good("service rm web");
    assert_eq!(served.good("network prune -f --filter until=1h"), "");
    assert_eq!(served.good("network rm full"), "full\n");
}

#[test]
fn the_mesh_is_made_anew() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::active());
    served.good("service create -d --no-resolve-image --name web -p 80 busybox");
    let remove = |want: Option<&str>| {
        // docker asks whether it is meant.
        let mut child = Command::new("docker")
            .args(["-H", &format!("unix://{}", served.socket().display()), "network", "rm", "ingress"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker runs");
        std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), b"y\n").expect("writes");
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        match want {
            Some(want) => assert!(!output.status.success() && said.contains(want), "{said}"),
            None => assert!(output.status.success(), "{said}"),
        }
    };
    remove(Some("ingress network cannot be removed because service"));
    served.good("service rm web");
    remove(None);
    assert_eq!(served.good("network ls --filter driver=overlay --format {{.Name}}"), "");
    for (args, want) in [
        ("--attachable", "ingress network cannot be attachable"),
        ("--internal", "ingress network cannot be internal"),
        ("--opt encrypted", "ingress network cannot be encrypted"),
        ("--subnet 10.60.0.0/25", "the length of the mask must be from 8 to 24"),
    ] {
        served.bad(&format!("network create -d overlay --ingress {args} mesh"), want);
    }
    let create =
        "network create -d overlay --ingress --subnet 10.60.0.0/16 --opt com.docker.network.driver.mtu=1200 mesh";
    served.good(create);
    let mesh = shown(&served, "network inspect mesh");
    assert_eq!((&mesh["Ingress"], &mesh["IPAM"]["Config"][0]["Subnet"]), (&json!(true), &json!("10.60.0.0/16")));
    served.good("service create -d --no-resolve-image --name web -p 80 busybox");
    served.lab.run_tasks(&mut IdSource::seeded(1));
    let task = &served.lab.get("/tasks").1[0];
    let address = task["NetworksAttachments"][0]["Addresses"][0].as_str().expect("an address");
    assert!(address.starts_with("10.60.") && address.ends_with("/16"), "{task}");
    assert_eq!(task["NetworksAttachments"][0]["Network"]["Spec"]["Ingress"], true);
}

#[test]
fn docker_s_ports() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::active());
    let create = "service create -d --no-resolve-image --name web -p 80:8080 -p 7000-7002:7000-7002/udp \
                  --publish published=90,target=9,protocol=sctp --publish mode=host,target=5432,published=5432 \
                  -p 1234 busybox";
    served.good(create);
    let web = shown(&served, "service inspect web");
    let sent = [
        "tcp 80>8080 ingress",
        "udp 7000>7000 ingress",
        "udp 7001>7001 ingress",
        "udp 7002>7002 ingress",
        "sctp 90>9 ingress",
        "tcp 5432>5432 host",
        "tcp 0>1234 ingress",
    ];
    let mut stored = ports(&web["Spec"]["EndpointSpec"]["Ports"]);
    stored.sort();
    let mut want = sent.map(str::to_owned);
    want.sort();
    assert_eq!(stored, want);
    assert!(ports(&web["Endpoint"]["Ports"]).contains(&"tcp 30000>1234 ingress".to_owned()), "{web}");
    let listed = served.good("service ls --format {{.Ports}}");
    for part in ["*:80->8080/tcp", "*:7000-7002->7000-7002/udp", "*:90->9/sctp", "*:30000->1234/tcp"] {
        assert!(listed.contains(part), "{listed}");
    }
    let pretty = served.good("service inspect --pretty web");
    for part in ["Endpoint Mode:\tvip", "PublishedPort = 80", "Protocol = sctp", "PublishMode = host"] {
        assert!(pretty.contains(part), "{pretty}");
    }
    let create = "service create -d --no-resolve-image";
    served.bad(&format!("{create} -p 80:1 busybox"), "port '80' is already in use by service 'web'");
    served.bad(
        &format!("{create} --publish mode=host,target=1,published=80 busybox"),
        "port '80' is already in use by service 'web'",
    );
    served.good(&format!("{create} --name host2 --publish mode=host,target=1,published=5432 busybox"));
    served.bad(&format!("{create} --network host -p 81:1 busybox"), "by a service on the network host");
    served.bad(&format!("{create} --endpoint-mode dnsrr -p 81:1 busybox"), "can't be used with dnsrr mode");
    served.bad(&format!("{create} --endpoint-mode sideways busybox"), "\"sideways\" is not vip or dnsrr");

    // The dynamic port stays when others change.
    served.good("service update -d --no-resolve-image --publish-add 81:81 --publish-rm 8080 --publish-rm 9/sctp web");
    let web = shown(&served, "service inspect web");
    let given = ports(&web["Endpoint"]["Ports"]);
    for (port, there) in [("tcp 80>8080 ingress", false), ("tcp 81>81 ingress", true), ("tcp 30000>1234 ingress", true)]
    {
        assert_eq!(given.contains(&port.to_owned()), there, "{given:?}");
    }
    served.good(&format!("{create} --name next -p 80:1 busybox"));
    served.bad("service rollback -d web", "port '80' is already in use by service 'next'");
    served.bad("service update -d --endpoint-mode dnsrr web", "can't be used with dnsrr mode");
    served.good("service rm next");
    served.good("service rollback -d web");
    let mut back = ports(&shown(&served, "service inspect web")["Spec"]["EndpointSpec"]["Ports"]);
    back.sort();
    assert_eq!(back, want);

    served.good("service rm host2");
    served.lab.run_tasks(&mut IdSource::seeded(1));
    let ps = served.good("service ps --format {{.Ports}} web");
    assert!(ps.contains("*:5432->5432/tcp"), "{ps}");
}

/// The commands of a network's life with docker-py, which sends and reads them in its own way.
const PYTHON: &str = r#"
import docker, sys
client = docker.DockerClient(base_url="unix://" + sys.argv[1])
pool = docker.types.IPAMPool(subnet="10.9.0.0/24", iprange="10.9.0.128/25", gateway="10.9.0.9",
    aux_addresses={"router": "10.9.0.200"})
front = client.networks.create("front", driver="overlay", attachable=True, labels={"a": "b"},
    ipam=docker.types.IPAMConfig(pool_configs=[pool]), options={"encrypted": ""}, scope="swarm")
assert front.attrs["IPAM"]["Config"][0]["IPRange"] == "10.9.0.128/25", front.attrs
assert [n.name for n in client.networks.list(filters={"label": "a=b"})] == ["front"]
assert [n.name for n in client.networks.list(names=["front"])] == ["front"]
spec = docker.types.EndpointSpec(mode="vip", ports={8080: 80, 5353: (53, "udp"), 90: (9, "tcp", "host")})
web = client.services.create("busybox", name="web", networks=["front"], endpoint_spec=spec)
web.reload()
ports = {(p["Protocol"], p["PublishedPort"], p["TargetPort"], p["PublishMode"]) for p in web.attrs["Endpoint"]["Ports"]}
assert ports == {("tcp", 8080, 80, "ingress"), ("udp", 5353, 53, "ingress"), ("tcp", 90, 9, "host")}, ports
assert web.attrs["Endpoint"]["VirtualIPs"][0]["Addr"] == "10.9.0.128/24", web.attrs
assert web.update(networks=["front"], endpoint_spec=docker.types.EndpointSpec(mode="dnsrr"))["Warnings"] is None
web.reload()
assert web.attrs["Spec"]["EndpointSpec"] == {"Mode": "dnsrr"}, web.attrs
try:
    front.remove()
    raise SystemExit("removed although it is in use")
except docker.errors.APIError as error:
    assert "is in use by service" in error.explanation, error
web.remove()
assert client.networks.prune(filters={"label": ["a=b"]}) == {"NetworksDeleted": ["front"]}
try:
    client.networks.get("front")
    raise SystemExit("still there")
except docker.errors.NotFound:
    pass
"#;

#[test]
fn docker_py_s_networks() {
    let there = Command::new("python3").args(["-c", "import docker"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return;
    }
    let served = Served::new(Lab::active());
    let socket = served.socket();
    let output = Command::new("timeout").args(["30", "python3", "-c", PYTHON]).arg(&socket).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
