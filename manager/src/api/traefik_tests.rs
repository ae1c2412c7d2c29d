//! The API as Traefik's swarm provider reads it (`pkg/provider/docker/pswarm.go`): which servers it would find.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use racimo_common::id::IdSource;
use racimo_common::net::Subnet;
use serde_json::{Value, json};

use super::testing::Lab;

/// `NAME network address`, as Traefik gathers them.
type Servers = Vec<String>;

/// An address with a mask, as `netip.ParsePrefix` takes it.
#[track_caller]
fn address(text: &Value) -> Ipv4Addr {
    let (address, prefix) = text.as_str().and_then(|text| text.split_once('/')).expect("an address and a mask");
    assert!(prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 32), "{text}");
    address.parse().expect("an address")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn servers(lab: &Lab, version: &str, network_filter: &str) -> Servers {
    let get = |target: &str| {
        let (status, answer) = lab.get(&format!("/{version}{target}"));
        assert_eq!(status, 200, "{target}: {answer}");
        answer
    };
    let all = get(&format!("/networks?filters={network_filter}"));
    let networks: BTreeMap<String, String> = items(&all).map(|n| (text(&n["Id"]), text(&n["Name"]))).collect();
    let mut found = Vec::new();
    for service in items(&get("/services")) {
        let name = text(&service["Spec"]["Name"]);
        // Without a mode the service's own addresses are not looked at.
        let mode = service["Spec"]["EndpointSpec"]["Mode"].as_str().expect("a mode");
        if service["Spec"]["Labels"]["traefik.swarm.lbswarm"] == "true" {
            for vip in items(&service["Endpoint"]["VirtualIPs"]).filter(|_| mode == "vip") {
                if let Some(network) = networks.get(&text(&vip["NetworkID"])) {
                    found.push(format!("{name} {network} {}", address(&vip["Addr"])));
                }
            }
            continue;
        }
        let id = text(&service["ID"]);
        let filter = format!(r#"{{"desired-state":{{"running":true}},"service":{{"{id}":true}}}}"#);
        for task in items(&get(&format!("/tasks?filters={filter}"))) {
            if task["Status"]["State"] != "running" {
                continue;
            }
            let place = match service["Spec"]["Mode"]["Global"].is_object() {
                true => text(&task["ID"]),
                false => task["Slot"].to_string(),
            };
            let node = get(&format!("/nodes/{}", text(&task["NodeID"])));
            assert!(node["Status"]["Addr"].as_str().is_some_and(|addr| addr.parse::<Ipv4Addr>().is_ok()), "{node}");
            for attachment in items(&task["NetworksAttachments"]) {
                if let Some(network) = networks.get(&text(&attachment["Network"]["ID"])) {
                    let address = items(&attachment["Addresses"]).map(address).next().expect("an address");
                    found.push(format!("{name}.{place} {network} {address}"));
                }
            }
        }
    }
    found
}

fn create(lab: &Lab, name: &str, networks: Value, endpoint: Value, labels: Value) {
    let body = json!({
        "Name": name, "Labels": labels, "Mode": {"Replicated": {"Replicas": 2}}, "EndpointSpec": endpoint,
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}, "Networks": networks},
    });
    let (status, answer) = lab.post("/services/create", &body.to_string());
    assert_eq!(status, 201, "{answer}");
}

#[test]
fn traefik_finds_the_servers() {
    let lab = Lab::active();
    let subnet = json!({"Config": [{"Subnet": "10.9.0.0/24"}]});
    let body = json!({"Name": "front", "Driver": "overlay", "IPAM": subnet});
    assert_eq!(lab.post("/networks/create", &body.to_string()).0, 201);
    let front = || json!([{"Target": "front"}]);
    let published = json!({"Mode": "vip", "Ports": [{"TargetPort": 80, "PublishedPort": 8080}]});
    create(&lab, "both", front(), published.clone(), json!({}));
    create(&lab, "names", front(), json!({"Mode": "dnsrr"}), json!({}));
    create(&lab, "own", front(), json!({"Mode": "vip"}), json!({"traefik.swarm.lbswarm": "true"}));
    create(&lab, "alone", json!([{"Target": "host"}]), json!({}), json!({}));
    create(&lab, "out", json!([]), json!({}), json!({}));
    lab.run_tasks(&mut IdSource::seeded(3));

    // New versions ask for the scope, old ones for the driver; `host` is in the first list, and does no harm.
    let scope = servers(&lab, "v1.47", r#"{"scope":{"swarm":true}}"#);
    assert_eq!(servers(&lab, "v1.24", r#"{"driver":{"overlay":true}}"#), scope);
    let found = |name: &str, network: &str, subnet: &str| {
        let subnet: Subnet = subnet.parse().expect("a subnet");
        let mut addresses: Vec<Ipv4Addr> = scope
            .iter()
            .filter_map(|server| {
                server.strip_prefix(name)?.trim_start().strip_prefix(network)?.trim_start().parse().ok()
            })
            .collect();
        addresses.dedup();
        assert!(addresses.iter().all(|address| subnet.contains(*address)), "{name}: {scope:?}");
        addresses.len()
    };
    for name in ["both.1", "both.2", "names.1", "names.2", "own"] {
        assert_eq!(found(name, "front", "10.9.0.0/24"), 1, "{name}: {scope:?}");
    }
    for name in ["both.1", "both.2"] {
        assert_eq!(found(name, "ingress", "10.200.0.0/16"), 1, "{name}: {scope:?}");
    }
    assert_eq!(scope.len(), 7, "{scope:?}");
}

/// Newer clients of Docker read addresses as addresses, not as text: an empty one is none, anything else must be one.
#[test]
fn addresses_are_addresses() {
    let lab = Lab::active();
    assert_eq!(lab.post("/networks/create", r#"{"Name":"front","Driver":"overlay"}"#).0, 201);
    let front = || json!([{"Target": "front"}]);
    create(&lab, "vip", front(), json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}), json!({}));
    create(&lab, "names", front(), json!({"Mode": "dnsrr"}), json!({}));
    lab.run_tasks(&mut IdSource::seeded(3));
    let good = |value: &Value| value == "" || value.as_str().is_some_and(|text| text.parse::<Ipv4Addr>().is_ok());
    for name in ["front", "ingress"] {
        let (_, network) = lab.get(&format!("/networks/{name}?verbose=true"));
        for config in items(&network["IPAM"]["Config"]) {
            text(&config["Subnet"]).parse::<Subnet>().expect("a subnet");
            assert!(good(&config["Gateway"]), "{network}");
        }
        assert_eq!(
            items(&network["Peers"]).filter(|peer| good(&peer["IP"]) && peer["IP"] != "").count(),
            1,
            "{network}"
        );
        let services = network["Services"].as_object().expect("services");
        assert_eq!(services.len(), if name == "front" { 2 } else { 1 }, "{network}");
        for service in services.values() {
            assert!(good(&service["VIP"]), "{network}");
            assert_eq!(items(&service["Tasks"]).filter(|task| good(&task["EndpointIP"])).count(), 2, "{network}");
        }
    }
    assert_ne!(lab.get("/networks/front?verbose=true").1["Services"]["vip"]["VIP"], "");
    assert_eq!(lab.get("/networks/front?verbose=true").1["Services"]["names"]["VIP"], "");
    let ports = lab.get("/networks/ingress?verbose=true").1["Services"]["vip"]["Ports"].clone();
    assert_eq!(ports, json!(["Target: 80, Publish: 8080"]));
}
