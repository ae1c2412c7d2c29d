//! Networks and what services have of them, beside Docker 20.10 as recorded ([`super::recorded_tests`]).

use racimo_common::id::IdSource;
use serde_json::{Value, json};

use super::recorded_tests::{check, plain, recorded};
use super::testing::Lab;

/// A body that docker sent.
fn sent(from: &str) -> Value {
    let recorded = recorded();
    let all = recorded["networks"].as_array().expect("a list");
    all.iter().find(|entry| entry["from"] == from).expect("it is there")["body"].clone()
}

fn made(lab: &Lab, path: &str, body: &Value) -> String {
    let (status, answer) = lab.post(path, &body.to_string());
    assert_eq!(status, 201, "{answer}");
    answer["ID"].as_str().or(answer["Id"].as_str()).expect("an id").to_owned()
}

/// Networks have had a choice of IPv4 since 1.47; options of the address management are always null.
const NETWORK: &[&str] = &["+EnableIPv4 bool", "-IPAM.Options null"];

#[test]
fn networks_have_docker_s_shape() {
    let lab = Lab::active();
    made(&lab, "/networks/create", &sent("058-network-create-overlay"));
    made(&lab, "/networks/create", &sent("059-network-create-overlay-enc"));
    // What nothing runs on says null there, and an empty map later.
    let empty = ["-Containers null", "+Containers {}", "-Labels null", "+Labels {}"];
    let unused = [NETWORK, &empty].concat();
    check("network", &lab.get("/networks/ovl1").1, &unused);
    // Every board is on the mesh.
    check("network ingress", &lab.get("/networks/ingress").1, &[&unused[..], &["+Peers"]].concat());
    check("network encrypted", &lab.get("/networks/ovl2").1, &[NETWORK, &empty[..2]].concat());
    check("network host", &lab.get("/networks/host").1, NETWORK);

    let service = |name: &str, mode: &str| {
        json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "a"}, "Networks": [{"Target": "ovl1"}]},
            "EndpointSpec": {"Mode": mode}})
    };
    made(&lab, "/services/create", &service("full", "dnsrr"));
    made(&lab, "/services/create", &service("web2", "vip"));
    lab.run_tasks(&mut IdSource::seeded(1));
    // Containers are an engine's own; there is none here.
    let engine = [NETWORK, &["-Containers."]].concat();
    check("network verbose", &lab.get("/networks/ovl1?verbose=true").1, &engine);
}

#[test]
fn networks_come_back_as_they_were_sent() {
    for entry in recorded()["networks"].as_array().expect("a list") {
        let (body, from) = (&entry["body"], entry["from"].as_str().expect("a name"));
        let lab = Lab::active();
        let (status, answer) = lab.post("/networks/create", &body.to_string());
        let refused = match from {
            "061-network-create-bridge" => Some("networks of driver bridge are not supported, only overlay"),
            "api150/004-network-create-v6" => Some("EnableIPv6: networks have IPv4 addresses only"),
            _ => None,
        };
        if let Some(why) = refused {
            assert!(status == 400 && answer["message"].as_str().is_some_and(|said| said.contains(why)), "{answer}");
            continue;
        }
        assert_eq!((status, &answer["Warning"]), (201, &json!("")), "{from}: {answer}");
        let (_, shown) = lab.get(&format!("/networks/{}", body["Name"].as_str().expect("a name")));
        for key in ["Name", "Driver", "Internal", "Attachable", "Ingress", "ConfigOnly", "Labels"] {
            assert_eq!(shown[key], body[key], "{from}: {key}");
        }
        for (key, value) in body["Options"].as_object().into_iter().flatten() {
            assert_eq!(&shown["Options"][key], value, "{from}: {key}");
        }
        if let Some(subnet) = body["IPAM"]["Config"][0]["Subnet"].as_str() {
            assert_eq!(shown["IPAM"]["Config"][0]["Subnet"], subnet, "{from}");
            assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], subnet.replace("0/24", "1"), "{from}");
        }
        let text = format!("network with name {} already exists", body["Name"].as_str().expect("a name"));
        assert_eq!(lab.post("/networks/create", &body.to_string()), (409, json!({ "message": text })));
    }
}

#[test]
fn what_services_have_of_networks_has_docker_s_shape() {
    let recorded = recorded();
    let lab = Lab::active();
    let published = &recorded["shapes"]["service published"];
    made(&lab, "/services/create", &published["Spec"]);
    let (_, shown) = lab.get("/services/pref");
    // No address stands for published ports.
    check("service published", &shown, &["-Endpoint.VirtualIPs"]);
    assert_eq!(plain(&shown["Spec"]), plain(&published["Spec"]));
    assert_eq!(shown["Endpoint"]["Ports"], published["Endpoint"]["Ports"]);
    assert_eq!(shown["Endpoint"]["Spec"], published["Endpoint"]["Spec"]);

    let lab = Lab::active();
    let bodies = recorded["bodies"].as_array().expect("a list");
    let hp1 = bodies.iter().find(|entry| entry["from"] == "117-service-create-host-port").expect("it is there");
    made(&lab, "/services/create", &hp1["body"]);
    lab.run_tasks(&mut IdSource::seeded(1));
    let (_, tasks) = lab.get("/tasks");
    check("task published", &tasks[0], &[]);
    // Docker tells each port twice.
    let ports = recorded["shapes"]["task published"]["Status"]["PortStatus"]["Ports"].as_array().expect("ports");
    assert_eq!(tasks[0]["Status"]["PortStatus"]["Ports"], json!(ports[..1]));

    let lab = Lab::active();
    let ours = |spec: &Value| -> Value {
        let name = &spec["TaskTemplate"]["Networks"][0]["Target"];
        serde_json::from_str(&spec.to_string().replace(name.as_str().expect("an id"), "st1_default")).expect("JSON")
    };
    made(&lab, "/networks/create", &sent("201-stack-deploy"));
    let on = &recorded["shapes"]["service on network"];
    made(&lab, "/services/create", &ours(&on["Spec"]));
    // What a stack leaves out is filled in here, and what says nothing is not told; it had been updated there.
    let service = [
        "-PreviousSpec",
        "-Spec.TaskTemplate.ContainerSpec.Privileges",
        "+Spec.TaskTemplate.ContainerSpec.DNSConfig",
        "+Spec.TaskTemplate.Resources.Limits",
        "+Spec.TaskTemplate.Resources.Reservations",
    ];
    check("service on network", &lab.get("/services").1[0], &service);
    lab.run_tasks(&mut IdSource::seeded(1));
    let task = [
        "-Spec.ContainerSpec.Privileges",
        "+Spec.ContainerSpec.DNSConfig",
        "+Spec.Resources.Limits",
        "+Spec.Resources.Reservations",
    ];
    check("task on network", &lab.get("/tasks").1[0], &task);
}
