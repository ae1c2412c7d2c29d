//! `/secrets` and `/configs`, against what Docker was recorded to answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::testing::Lab;
use crate::limits::{CONFIG_BYTES_MAX, SECRET_BYTES_MAX};

#[track_caller]
fn check(answer: (u16, Value), status: u16, message: &str) {
    assert_eq!((answer.0, answer.1["message"].as_str()), (status, Some(message)));
}

fn create(lab: &Lab, kind: &str, name: &str, data: &[u8]) -> (u16, Value) {
    let body = json!({ "Name": name, "Labels": {}, "Data": STANDARD.encode(data) });
    lab.post(&format!("/{kind}/create"), &body.to_string())
}

#[track_caller]
fn made(lab: &Lab, kind: &str, name: &str, data: &[u8]) -> String {
    let (status, answer) = create(lab, kind, name, data);
    assert_eq!(status, 201, "{answer}");
    answer["ID"].as_str().expect("an id").to_owned()
}

const INVALID: &str = "rpc error: code = InvalidArgument desc = ";

/// Recordings 042 to 057.
#[test]
fn as_recorded() {
    let lab = Lab::active();
    let (status, answer) = lab.post("/configs/create", r#"{"Name":"cfg1","Labels":{"a":"b"},"Data":"aGVsbG8K"}"#);
    assert_eq!(status, 201);
    let id = answer["ID"].clone();
    let (_, config) = lab.get("/configs/cfg1");
    let version = &config["Version"]["Index"];
    let times = (&config["CreatedAt"], &config["UpdatedAt"]);
    assert_eq!(times.0, times.1);
    let want = json!({
        "ID": id, "Version": { "Index": version }, "CreatedAt": times.0, "UpdatedAt": times.1,
        "Spec": { "Name": "cfg1", "Labels": { "a": "b" }, "Data": "aGVsbG8K" },
    });
    assert_eq!(config.to_string(), want.to_string());
    let exists = "rpc error: code = AlreadyExists desc = config cfg1 already exists";
    check(create(&lab, "configs", "cfg1", b"x"), 409, exists);
    let exists = "rpc error: code = AlreadyExists desc = config CFG1 already exists";
    check(create(&lab, "configs", "CFG1", b"x"), 409, exists);
    // A secret may have the same name. Its data is not given back.
    made(&lab, "secrets", "cfg1", b"s3cret\n");
    let (_, secret) = lab.get("/secrets/cfg1");
    assert_eq!(secret["Spec"].to_string(), r#"{"Name":"cfg1","Labels":{}}"#);
    let (_, list) = lab.get("/secrets");
    assert_eq!(list, json!([secret]));
    let body = r#"{"Name":"cfg2","Labels":{},"Data":"e3suTm9kZS5Ib3N0bmFtZX19Cg==","Templating":{"Name":"golang"}}"#;
    assert_eq!(lab.post("/configs/create", body).0, 201);
    assert_eq!(lab.get("/configs/cfg2").1["Spec"].to_string(), body);
    check(lab.get("/configs/nosuch"), 404, "config nosuch not found");
    check(lab.ask("DELETE", "/secrets/nosuch", ""), 404, "secret nosuch not found");
    check(
        create(&lab, "secrets", "bad name!", b"x"),
        400,
        &format!(
            "{INVALID}invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
        ),
    );
    assert_eq!(lab.ask("DELETE", "/configs/cfg1", ""), (204, Value::Null));
    check(lab.get("/configs/cfg1"), 404, "config cfg1 not found");
}

#[test]
fn found_by_id_name_prefix_and_filters() {
    let lab = Lab::active();
    let (a, b) = (made(&lab, "secrets", "app.key", b"1"), made(&lab, "secrets", "app.key2", b"2"));
    made(&lab, "configs", "app.key", b"3");
    for name in [a.as_str(), "app.key", &a[..12]] {
        assert_eq!(lab.get(&format!("/secrets/{name}")).1["ID"], a.as_str(), "{name}");
    }
    let found = |filters: &str| {
        let (_, list) = lab.get(&format!("/secrets?filters={filters}"));
        list.as_array().expect("a list").iter().map(|s| s["ID"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(r#"{"name":["app"]}"#).len(), 2);
    assert_eq!(found(r#"{"names":["app.key"]}"#), std::slice::from_ref(&a));
    assert_eq!(found(&format!(r#"{{"id":["{}"]}}"#, &b[..20])), std::slice::from_ref(&b));
    assert_eq!(found(r#"{"label":["x"]}"#), Vec::<String>::new());
    check(lab.get(r#"/secrets?filters={"driver":["x"]}"#), 400, "Invalid filter 'driver'");
}

#[test]
fn only_labels_can_be_updated() {
    let lab = Lab::active();
    let update = |kind: &str, body: Value| {
        let version = lab.get(&format!("/{kind}/us1")).1["Version"]["Index"].clone();
        lab.post(&format!("/{kind}/us1/update?version={version}"), &body.to_string())
    };
    for kind in ["secrets", "configs"] {
        made(&lab, kind, "us1", b"x");
        // What `stack deploy` sends again.
        let labels = json!({ "Name": "us1", "Labels": { "l": "1" }, "Data": "eA==" });
        assert_eq!(update(kind, labels), (200, Value::Null));
        assert_eq!(lab.get(&format!("/{kind}/us1")).1["Spec"]["Labels"], json!({ "l": "1" }));
        let only = format!("{INVALID}only updates to Labels are allowed");
        check(update(kind, json!({ "Name": "us1", "Data": "eQ==" })), 400, &only);
        check(update(kind, json!({ "Name": "us2" })), 400, &only);
        assert_eq!(update(kind, json!({ "Name": "us1" })).0, 200);
        assert_eq!(lab.get(&format!("/{kind}/us1")).1["Spec"]["Labels"], json!({}));
        let old = lab.post(&format!("/{kind}/us1/update?version=1"), r#"{"Name":"us1"}"#);
        check(old, 500, "rpc error: code = Unknown desc = update out of sequence");
    }
}

#[test]
fn sizes_and_bad_bodies() {
    let lab = Lab::active();
    let secret_size = format!("{INVALID}secret data must be larger than 0 and less than 512000 bytes");
    let config_size = format!("{INVALID}config data must be larger than 0 and less than 1024000 bytes");
    check(lab.post("/secrets/create", r#"{"Name":"x"}"#), 400, &secret_size);
    check(create(&lab, "secrets", "x", &vec![7; SECRET_BYTES_MAX + 1]), 400, &secret_size);
    check(create(&lab, "configs", "x", &vec![7; CONFIG_BYTES_MAX + 1]), 400, &config_size);
    check(create(&lab, "configs", "x", b""), 400, &config_size);
    made(&lab, "secrets", "x", &vec![7; SECRET_BYTES_MAX]);
    let largest = vec![7; CONFIG_BYTES_MAX];
    made(&lab, "configs", "x", &largest);
    assert_eq!(lab.get("/configs/x").1["Spec"]["Data"], STANDARD.encode(&largest));
    for (body, want) in [
        (r#"{"Name":"y","Data":"%%%"}"#, "invalid JSON: Data must be base64"),
        (r#"{"Name":"y","Data":7}"#, "invalid JSON: Data must be a string, not a number"),
        (r#"{"Data":"eA=="}"#, "rpc error: code = InvalidArgument desc = meta: name must be provided"),
        (
            r#"{"Name":"y","Data":"eA==","Driver":{"Name":"aws"}}"#,
            "invalid argument: Driver: secrets of external drivers are not supported: give the secret's data",
        ),
        (
            r#"{"Name":"y","Data":"eA==","Templating":{"Name":"jinja"}}"#,
            "invalid argument: Templating.Name \"jinja\" is not supported: expected golang",
        ),
        // {{
        (
            r#"{"Name":"y","Data":"YXt7","Templating":{"Name":"golang"}}"#,
            "rpc error: code = InvalidArgument desc = secret data: template: 1:4: unclosed action",
        ),
        (
            r#"{"Name":"y","Data":"/w==","Templating":{"Name":"golang"}}"#,
            "rpc error: code = InvalidArgument desc = secret data: a template must be UTF-8 text",
        ),
        (r#"{"Name":"y","Data":"eA==","Wat":1}"#, "invalid argument: Wat is not supported yet"),
    ] {
        check(lab.post("/secrets/create", body), 400, want);
    }
}

fn service(secrets: &Value, configs: &Value) -> String {
    let container = json!({ "Image": "busybox:1", "Secrets": secrets, "Configs": configs });
    json!({ "Name": "full", "TaskTemplate": { "ContainerSpec": container } }).to_string()
}

fn secret(id: &str, name: &str, target: &str) -> Value {
    json!({ "File": { "Name": target, "UID": "0", "GID": "7", "Mode": 256 }, "SecretID": id, "SecretName": name })
}

fn config(id: &str, name: &str, target: &str) -> Value {
    json!({ "File": { "Name": target, "UID": "1", "GID": "0", "Mode": 292 }, "ConfigID": id, "ConfigName": name })
}

/// Recordings 112, 165 and 166.
#[test]
fn a_service_names_them_and_protects_them() {
    let lab = Lab::active();
    let (sec, cfg) = (made(&lab, "secrets", "sec1", b"1"), made(&lab, "configs", "cfg1", b"2"));
    let (secrets, configs) = (json!([secret(&sec, "sec1", "sec")]), json!([config(&cfg, "cfg1", "/etc/cfg1")]));
    let (status, answer) = lab.post("/services/create", &service(&secrets, &configs));
    assert_eq!(status, 201, "{answer}");
    let container = lab.get("/services/full").1["Spec"]["TaskTemplate"]["ContainerSpec"].clone();
    assert_eq!((&container["Secrets"], &container["Configs"]), (&secrets, &configs));
    let in_use = format!("{INVALID}secret 'sec1' is in use by the following service: full");
    check(lab.ask("DELETE", "/secrets/sec1", ""), 400, &in_use);
    let in_use = format!("{INVALID}config 'cfg1' is in use by the following service: full");
    check(lab.ask("DELETE", "/configs/cfg1", ""), 400, &in_use);
    lab.ask("DELETE", "/services/full", "");
    assert_eq!(lab.ask("DELETE", "/secrets/sec1", "").0, 204);
    assert_eq!(lab.ask("DELETE", "/configs/cfg1", "").0, 204);
}

#[test]
fn bad_references() {
    let lab = Lab::active();
    let (a, b) = (made(&lab, "secrets", "a", b"1"), made(&lab, "secrets", "b", b"2"));
    let cfg = made(&lab, "configs", "c", b"3");
    let refused = |secrets: Value, configs: Value, want: &str| {
        check(lab.post("/services/create", &service(&secrets, &configs)), 400, want);
    };
    let none = || json!([]);
    let rpc = |text: &str| format!("{INVALID}{text}");
    refused(json!([secret("", "a", "t")]), none(), &rpc("malformed secret reference"));
    refused(
        json!([secret(&a, "a", "")]),
        none(),
        &rpc("malformed file secret reference, invalid target file name provided"),
    );
    let no_file = json!([{ "SecretID": a, "SecretName": "a" }]);
    refused(no_file, none(), &rpc("malformed secret reference, no target provided"));
    refused(json!([secret(&a, "b", "t")]), none(), &rpc("secret not found: b"));
    refused(json!([secret("nosuch", "n", "t")]), none(), &rpc("secret not found: n"));
    refused(json!([secret(&cfg, "c", "t")]), none(), &rpc("secret not found: c"));
    refused(none(), json!([config(&a, "a", "t")]), &rpc("config not found: a"));
    let twice = rpc("secret references 'a' and 'b' have a conflicting target: 't'");
    refused(json!([secret(&a, "a", "t"), secret(&b, "b", "t")]), none(), &twice);
    let twice = rpc("config references 'a' and 'c' have a conflicting target: '/run//secrets/t'");
    refused(json!([secret(&a, "a", "t")]), json!([config(&cfg, "c", "/run//secrets/t")]), &twice);
    let many = |count: usize| (0..count).map(|n| secret(&a, "a", &format!("t{n}"))).collect::<Vec<_>>();
    let too_many = rpc("129 secrets and configs are more than the 128 a service may refer to");
    refused(json!(many(128)), json!([config(&cfg, "c", "t")]), &too_many);
    assert_eq!(lab.post("/services/create", &service(&json!(many(128)), &none())).0, 201);
    lab.ask("DELETE", "/services/full", "");
    let outside = rpc("malformed file secret reference, invalid target file name provided: \"../x\"");
    refused(json!([secret(&a, "a", "../x")]), none(), &outside);
    let runtime = json!([{ "Runtime": {}, "ConfigID": cfg, "ConfigName": "c" }]);
    refused(none(), runtime, "invalid argument: TaskTemplate.ContainerSpec.Configs[0].Runtime is not supported yet");
    let mut named = secret(&a, "a", "t");
    named["File"]["UID"] = json!("root");
    let text =
        "invalid argument: TaskTemplate.ContainerSpec.Secrets[0].File.UID: \"root\" is not a user or group number";
    refused(json!([named]), none(), text);
}
