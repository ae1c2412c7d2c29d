//! `/networks`, and services on networks.

use serde_json::{Value, json};

use super::testing::Lab;

const WEB: &str = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest"}},"Mode":{"Replicated":{"Replicas":1}}}"#;

#[track_caller]
fn check(answer: (u16, Value), status: u16, want: &str) {
    let message = answer.1["message"].as_str().unwrap_or_default();
    assert!(answer.0 == status && message.contains(want), "{answer:?} instead of {status} {want:?}");
}

/// The service `web` on these networks.
fn on(networks: Value) -> String {
    let mut spec: Value = serde_json::from_str(WEB).expect("JSON");
    spec["TaskTemplate"]["Networks"] = networks;
    spec.to_string()
}

fn made(lab: &Lab, name: &str, labels: Value) -> String {
    let body = json!({"Name": name, "Driver": "overlay", "CheckDuplicate": true, "Scope": "", "Labels": labels,
        "IPAM": {"Driver": "default", "Options": {}, "Config": []}, "Internal": false, "ConfigFrom": null, "Options": {}});
    let (status, answer) = lab.post("/networks/create", &body.to_string());
    assert_eq!((status, &answer["Warning"]), (201, &json!("")), "{answer}");
    answer["Id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_network_s_life() {
    let lab = Lab::active();
    let id = made(&lab, "front", json!({"a": "b"}));
    check(
        lab.post("/networks/create", r#"{"Name":"front","Driver":"overlay"}"#),
        409,
        "network with name front already exists",
    );
    let (_, network) = lab.get("/networks/front?scope=swarm");
    for (key, want) in [
        ("Id", json!(id)),
        ("Name", json!("front")),
        ("Scope", json!("swarm")),
        ("Driver", json!("overlay")),
        ("Labels", json!({"a": "b"})),
        ("Attachable", json!(false)),
    ] {
        assert_eq!(network[key], want, "{key}");
    }
    assert_eq!(lab.get(&format!("/networks/{}", &id[..12])).1, network);
    check(lab.get("/networks/front?scope=local"), 404, "network front not found");
    check(lab.get("/networks/nosuch"), 404, "network nosuch not found");

    let (status, answer) = lab.post("/services/create", &on(json!([{"Target": "front", "Aliases": ["www", "web"]}])));
    assert_eq!(status, 201, "{answer}");
    let (_, service) = lab.get("/services/web");
    assert_eq!(service["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": id, "Aliases": ["www", "web"]}]));
    lab.run_tasks(&mut racimo_common::id::IdSource::seeded(3));
    let (_, verbose) = lab.get("/networks/front?verbose=true");
    let tasks = &verbose["Services"]["web"]["Tasks"];
    assert!(tasks[0]["Name"].as_str().is_some_and(|name| name.starts_with("web.1.")), "{verbose}");
    let by = service["ID"].as_str().expect("an id");
    let in_use = format!("rpc error: code = FailedPrecondition desc = network {id} is in use by service {by}");
    check(lab.ask("DELETE", "/networks/front", ""), 400, &in_use);
    assert_eq!(lab.post("/networks/prune", "").1, json!({"NetworksDeleted": []}));
    // As `docker stack rm` does it: tasks still run.
    assert_eq!(lab.ask("DELETE", "/services/web", "").0, 200);
    assert_eq!(lab.ask("DELETE", "/networks/front", ""), (204, Value::Null));
    check(lab.ask("DELETE", "/networks/front", ""), 404, "network front not found");
    check(lab.ask("DELETE", "/networks/host", ""), 403, "operation is not permitted on predefined host network");
}

#[test]
fn what_may_not_be_made() {
    let lab = Lab::active();
    let there = lab.get("/networks").1;
    let config = |config: Value| json!({"Name": "n", "Driver": "overlay", "IPAM": {"Config": [config]}});
    let options = |options: Value| json!({"Name": "n", "Driver": "overlay", "Options": options});
    for (body, status, want) in [
        (json!({}), 400, "meta: name must be provided"),
        (json!({"Name": "a b", "Driver": "overlay"}), 400, "name must be valid as a DNS name component"),
        (json!({"Name": "host", "Driver": "overlay"}), 403, "predefined host network"),
        (json!({"Name": "ingress", "Driver": "overlay"}), 400, "ingress is reserved"),
        (json!({"Name": "n"}), 400, "networks of driver bridge are not supported, only overlay"),
        (json!({"Name": "n", "Driver": "macvlan"}), 400, "networks of driver macvlan are not supported"),
        (json!({"Name": "n", "Driver": "overlay", "Scope": "local"}), 400, "overlay networks are not local"),
        (
            json!({"Name": "n", "Driver": "overlay", "Ingress": true, "Attachable": true}),
            501,
            "rpc error: code = Unimplemented desc = ingress network cannot be attachable",
        ),
        (json!({"Name": "n", "Driver": "overlay", "ConfigOnly": true}), 400, "ConfigOnly is not supported yet"),
        (json!({"Name": "n", "Driver": "overlay", "ConfigFrom": {"Network": "x"}}), 400, "ConfigFrom.Network is not"),
        (
            json!({"Name": "n", "Driver": "overlay", "EnableIPv6": true}),
            400,
            "EnableIPv6: networks have IPv4 addresses only",
        ),
        (
            json!({"Name": "n", "Driver": "overlay", "EnableIPv4": false}),
            400,
            "EnableIPv4: networks have IPv4 addresses only",
        ),
        (json!({"Name": "n", "Driver": "overlay", "IPAM": {"Driver": "x"}}), 400, "IPAM.Driver is not supported yet"),
        (json!({"Name": "n", "Driver": "overlay", "IPAM": {"Options": {"a": ""}}}), 400, "IPAM.Options.a is not"),
        (options(json!({"encrypted": "false"})), 400, "Options.encrypted: \"false\" is neither empty nor true"),
        (
            options(json!({"com.docker.network.driver.mtu": "9001"})),
            400,
            "mtu: \"9001\" is not a number from 576 to 9000",
        ),
        (options(json!({"com.docker.network.driver.mtu": "x"})), 400, "is not a number from 576 to 9000"),
        (
            options(json!({"com.docker.network.driver.overlay.vxlanid_list": "5000"})),
            400,
            "Options.com.docker.network.driver.overlay.vxlanid_list is not supported yet",
        ),
        (config(json!({"Gateway": "10.9.0.1"})), 400, "IPAM.Config[0].Subnet: a subnet is needed here"),
        (config(json!({"Subnet": "10.9.0.0"})), 400, "IPAM.Config[0].Subnet: \"10.9.0.0\": invalid subnet"),
        (config(json!({"Subnet": "10.9.0.7/24"})), 400, "invalid subnet 10.9.0.7/24: it should be 10.9.0.0/24"),
        (config(json!({"Subnet": "fd00:9::/64"})), 400, "fd00:9::/64 is IPv6: networks have IPv4 addresses only"),
        (config(json!({"Subnet": "10.9.0.0/24", "Gateway": "fd00::1"})), 400, "Config[0].Gateway: fd00::1 is IPv6"),
        (config(json!({"Subnet": "10.9.0.0/24", "Gateway": "x"})), 400, "IPAM.Config[0].Gateway: \"x\": invalid IPv4"),
        (
            config(json!({"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.0"})),
            400,
            "Config[0].IPRange: \"10.9.0.0\": invalid",
        ),
        (
            config(json!({"Subnet": "10.9.0.0/24", "AuxiliaryAddresses": {"a": "b"}})),
            400,
            "IPAM.Config[0].AuxiliaryAddresses.a: \"b\": invalid IPv4",
        ),
        (config(json!({"Subnet": "10.9.0.0/24", "X": 1})), 400, "IPAM.Config[0].X is not supported yet"),
        (
            json!({"Name": "n", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}, {"Subnet": "10.8.0.0/24"}]}}),
            400,
            "IPAM.Config[1]: a network has one subnet",
        ),
    ] {
        check(lab.post("/networks/create", &body.to_string()), status, want);
    }
    assert_eq!(lab.get("/networks").1, there);
}

#[test]
fn what_is_asked_for_is_shown() {
    let lab = Lab::active();
    let body = json!({
        "Name": "full", "Driver": "overlay", "Internal": true, "Attachable": true, "Labels": {"a": "b"},
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25",
            "Gateway": "10.9.0.9", "AuxiliaryAddresses": {"router": "10.9.0.200"}}]},
        "Options": {"encrypted": "true", "com.docker.network.driver.mtu": "1300"},
    });
    let (status, answer) = lab.post("/networks/create", &body.to_string());
    assert_eq!(status, 201, "{answer}");
    let (_, network) = lab.get("/networks/full");
    let options = json!({"com.docker.network.driver.mtu": "1300", "encrypted": "",
        "com.docker.network.driver.overlay.vxlanid_list": "4097"});
    for (key, want) in [
        ("Internal", json!(true)),
        ("Attachable", json!(true)),
        ("Ingress", json!(false)),
        ("EnableIPv6", json!(false)),
        ("IPAM", json!({"Driver": "default", "Config": body["IPAM"]["Config"]})),
        ("Options", options),
        ("Labels", body["Labels"].clone()),
    ] {
        assert_eq!(network[key], want, "{key}");
    }
}

#[test]
fn attachments() {
    let lab = Lab::active();
    let front = made(&lab, "front", json!({}));
    let back = made(&lab, "back", json!({}));
    let host = "racimo0network0host000000";
    let long = vec!["a".repeat(253); 64];
    let aliases = |names: Vec<String>| json!([{"Target": "front", "Aliases": names}]);
    for (networks, status, want) in [
        (json!([{"Target": "ovl1"}]), 404, "network ovl1 not found"),
        (json!([{"Target": "front"}, {"Target": "host"}]), 400, "Networks[1]: the host network goes with no other"),
        (json!([{"Target": "none"}, {"Target": "front"}]), 400, "Networks[0]: the none network goes with no other"),
        (json!([{"Target": "host", "Aliases": ["x"]}]), 400, "the host network has no aliases"),
        (json!([{"Target": "front"}, {"Target": front}]), 400, "is named twice"),
        (json!([{"Target": "front", "DriverOpts": {"a": ""}}]), 400, "DriverOpts.a is not supported yet"),
        (
            json!([{"Target": "ingress"}]),
            400,
            "Service cannot be explicitly attached to the ingress network \"ingress\"",
        ),
        (json!([{"Target": "front", "X": 1}]), 400, "Networks[0].X is not supported yet"),
        (aliases(vec!["a b".into()]), 400, "is not a name"),
        (aliases(vec![String::new()]), 400, "is not a name"),
        (aliases(vec!["a".repeat(254)]), 400, "is not a name"),
        (
            json!([{"Target": "front", "Aliases": long}, {"Target": "back", "Aliases": long}]),
            400,
            "aliases of 32384 bytes on all networks are more than the 16384",
        ),
        (aliases(vec!["a".into(); 65]), 400, "65 aliases on one network are more than the 64"),
    ] {
        check(lab.post("/services/create", &on(networks)), status, want);
    }
    for name in (0..31).map(|n| format!("n{n}")) {
        made(&lab, &name, json!({}));
    }
    let many: Vec<Value> =
        (0..31).map(|n| format!("n{n}")).chain(["front".into(), "back".into()]).map(|n| json!({"Target": n})).collect();
    check(lab.post("/services/create", &on(many.into())), 400, "33 networks are more than the 32");
    // The older place for networks, and the newer one.
    let mut spec: Value = serde_json::from_str(&on(json!([{"Target": front}]))).expect("JSON");
    spec["Networks"] = json!([{"Target": "back"}]);
    assert_eq!(lab.post("/services/create", &spec.to_string()).0, 201);
    let (_, service) = lab.get("/services/web");
    assert_eq!(service["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": back}, {"Target": front}]));
    // As it is shown it can be sent back, and nothing changes for the tasks.
    let update = format!("/services/web/update?version={}", service["Version"]["Index"]);
    assert_eq!(lab.post(&update, &service["Spec"].to_string()).0, 200);
    let view = lab.store.view();
    let web = view.state.services().next().expect("web");
    assert!(web.revision < web.meta.version);
    assert_eq!(lab.post("/services/create", &on(json!([{"Target": host}])).replace("\"web\"", "\"h\"")).0, 201);
    let (_, shown) = lab.get("/services/h");
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{ "Target": host }]));
}

#[test]
fn lists_and_pruning() {
    let lab = Lab::active();
    let id = made(&lab, "front", json!({"tier": "1"}));
    made(&lab, "backend", json!({"tier": "2", "keep": ""}));
    assert_eq!(lab.post("/services/create", &on(json!([{"Target": "front"}]))).0, 201);
    let names = |filters: &str| -> Vec<String> {
        let (status, list) = lab.get(&format!("/networks?filters={filters}"));
        assert_eq!(status, 200, "{filters}: {list}");
        let mut names: Vec<String> =
            list.as_array().expect("list").iter().map(|n| n["Name"].as_str().expect("name").to_owned()).collect();
        names.sort();
        names
    };
    let id_filter = format!(r#"{{"id":["{}"]}}"#, &id[..8]);
    for (filters, want) in [
        ("", &["backend", "bridge", "front", "host", "ingress", "none"][..]),
        (r#"{"driver":["overlay"]}"#, &["backend", "front", "ingress"]),
        (r#"{"driver":{"host":true}}"#, &["host"]),
        (r#"{"scope":["swarm"],"type":["custom"]}"#, &["backend", "front", "ingress"]),
        (r#"{"scope":["local"]}"#, &[]),
        (r#"{"type":["builtin"]}"#, &["bridge", "host", "none"]),
        (r#"{"name":["ront"]}"#, &["front"]),
        (&id_filter, &["front"]),
        (r#"{"label":["tier=2"]}"#, &["backend"]),
        (r#"{"label":["tier"]}"#, &["backend", "front"]),
        (r#"{"dangling":["true"]}"#, &["backend"]),
        (r#"{"dangling":["false"]}"#, &["bridge", "front", "host", "ingress", "none"]),
    ] {
        assert_eq!(names(filters), want, "{filters}");
    }
    check(lab.get(r#"/networks?filters={"foo":["x"]}"#), 400, "Invalid filter 'foo'");
    check(lab.get(r#"/networks?filters={"type":["x"]}"#), 400, "Invalid filter 'type=x'");
    assert_eq!(lab.post(r#"/networks/prune?filters={"label!":["keep"]}"#, "").1, json!({"NetworksDeleted": []}));
    assert_eq!(
        lab.post(r#"/networks/prune?filters={"label":["tier"]}"#, "").1,
        json!({"NetworksDeleted": ["backend"]})
    );
    let prune = |until: &str| lab.post(&format!(r#"/networks/prune?filters={{"until":{until}}}"#), "");
    made(&lab, "old", json!({}));
    assert_eq!(prune(r#"["1h"]"#).1, json!({"NetworksDeleted": []}));
    check(prune(r#"["x"]"#), 400, "Invalid filter 'until=x': expected for example 24h");
    check(prune(r#"["1h","2h"]"#), 400, "more than one until filter specified");
    assert_eq!(prune(r#"["2200-01-01T00:00:00Z"]"#).1, json!({"NetworksDeleted": ["old"]}));
}

#[test]
fn without_a_cluster_there_are_the_predefined_ones() {
    let lab = Lab::new();
    let (_, list) = lab.get("/networks");
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    let (_, host) = lab.get("/networks/host?scope=swarm");
    assert_eq!(lab.get(&format!("/networks/{}", host["Id"].as_str().expect("id"))).1, host);
    let not = "This node is not a swarm manager";
    check(lab.post("/networks/create", r#"{"Name":"n","Driver":"overlay"}"#), 503, not);
    check(lab.ask("DELETE", "/networks/n", ""), 503, not);
    check(lab.get("/networks/n"), 404, "network n not found");
}
