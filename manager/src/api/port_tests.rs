//! How services are reached: what is sent, what is shown.

use serde_json::{Value, json};

use super::testing::Lab;

const WEB: &str = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest"}},"Mode":{"Replicated":{"Replicas":1}}}"#;

#[track_caller]
fn check(answer: (u16, Value), status: u16, want: &str) {
    let message = answer.1["message"].as_str().unwrap_or_default();
    assert!(answer.0 == status && message.contains(want), "{answer:?} instead of {status} {want:?}");
}

/// The service `web` with this `EndpointSpec`.
fn reached(endpoint: &Value) -> String {
    let mut spec: Value = serde_json::from_str(WEB).expect("JSON");
    spec["EndpointSpec"] = endpoint.clone();
    spec.to_string()
}

fn update(lab: &Lab, query: &str, body: &str) -> (u16, Value) {
    let version = lab.get("/services/web").1["Version"]["Index"].clone();
    lab.post(&format!("/services/web/update?version={version}{query}"), body)
}

#[test]
fn what_is_sent_comes_back() {
    let lab = Lab::active();
    let ports = json!([
        {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "ingress"},
        {"Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"},
        {"Protocol": "sctp", "TargetPort": 9, "PublishMode": "ingress"},
    ]);
    let spec = json!({"Mode": "vip", "Ports": ports});
    let (status, answer) = lab.post("/services/create", &reached(&spec));
    assert_eq!(status, 201, "{answer}");
    assert_eq!(lab.get("/services/web").1["Spec"]["EndpointSpec"], spec);
    assert_eq!(lab.get("/services/web?insertDefaults=true").1["Spec"]["EndpointSpec"], spec);
    // Sent back as it was read, nothing changes for the tasks.
    let shown = lab.get("/services/web").1["Spec"].to_string();
    assert_eq!(update(&lab, "", &shown).0, 200);
    let view = lab.store.view();
    let web = view.state.services().next().expect("web");
    assert!(web.revision < web.meta.version);
    // Another mode is another revision, and what was before can be gone back to.
    let dnsrr = json!({"Mode": "dnsrr"});
    assert_eq!(update(&lab, "", &reached(&dnsrr)).0, 200);
    let (_, service) = lab.get("/services/web");
    assert_eq!((&service["Spec"]["EndpointSpec"], &service["PreviousSpec"]["EndpointSpec"]), (&dnsrr, &spec));
    let view = lab.store.view();
    let web = view.state.services().next().expect("web");
    assert_eq!(web.revision, web.meta.version);
    assert_eq!(update(&lab, "&rollback=previous", "{}").0, 200);
    assert_eq!(lab.get("/services/web").1["Spec"]["EndpointSpec"], spec);
}

#[test]
fn what_is_left_out_is_filled_in() {
    let lab = Lab::active();
    assert_eq!(lab.post("/services/create", WEB).0, 201);
    assert_eq!(lab.get("/services/web").1["Spec"]["EndpointSpec"], json!({"Mode": "vip"}));
    let sent = json!({"Ports": [{"TargetPort": 80}, {"TargetPort": 81, "Protocol": "UDP", "PublishMode": "HOST"}]});
    assert_eq!(update(&lab, "", &reached(&sent)).0, 200);
    let want = json!({"Mode": "vip", "Ports": [
        {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"},
        {"Protocol": "udp", "TargetPort": 81, "PublishMode": "host"},
    ]});
    assert_eq!(lab.get("/services/web").1["Spec"]["EndpointSpec"], want);
}

#[test]
fn refusals() {
    let lab = Lab::active();
    let port = |port: Value| json!({"Ports": [port]});
    for (spec, want) in [
        (json!({"Mode": "VIP"}), "EndpointSpec.Mode: \"VIP\" is not vip or dnsrr"),
        (json!({"Mode": "vip", "X": 1}), "EndpointSpec.X is not supported yet"),
        (port(json!({"TargetPort": 80, "HostIP": "::1"})), "EndpointSpec.Ports[0].HostIP is not supported yet"),
        (port(json!({"TargetPort": 80, "Protocol": "icmp"})), "Ports[0].Protocol: \"icmp\" is not tcp, udp or sctp"),
        (port(json!({"TargetPort": 80, "PublishMode": "x"})), "Ports[0].PublishMode: \"x\" is not ingress or host"),
        (port(json!({"TargetPort": 65_536})), "Ports[0].TargetPort: 65536 is not a port: expected 1 to 65535"),
        (
            port(json!({"TargetPort": 80, "PublishedPort": -1})),
            "PublishedPort: -1 is not a port: expected 1 to 65535, or 0 for any",
        ),
        (port(json!({"PublishedPort": 80})), "EndpointSpec: a port without TargetPort"),
        (
            json!({"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}),
            "rpc error: code = InvalidArgument desc = EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            json!({"Ports": [{"TargetPort": 80, "PublishedPort": 80}, {"TargetPort": 81, "PublishedPort": 80, "PublishMode": "host"}]}),
            "rpc error: code = InvalidArgument desc = EndpointSpec: duplicate published ports provided",
        ),
    ] {
        check(lab.post("/services/create", &reached(&spec)), 400, want);
    }
}
