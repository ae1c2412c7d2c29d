//! Options of a service: what is taken, what is refused, and how it comes back.

use serde_json::{Value, json};

use super::super::testing::Lab;
use super::{WEB, check};

/// A body with one more field; the field's place and value.
pub(super) fn with(path: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(WEB).expect("JSON");
    let mut place = &mut body;
    for part in path.split('.') {
        place = &mut place[part];
    }
    *place = value;
    body.to_string()
}

#[track_caller]
fn check_option(lab: &Lab, path: &str, value: Value, want: Option<&str>) {
    let answer = lab.post("/services/create", &with(path, value.clone()));
    match want {
        None => {
            assert_eq!(answer.0, 201, "{path} = {value}: {}", answer.1);
            lab.ask("DELETE", "/services/web", "");
        }
        Some(want) => check(answer, 400, want),
    }
}

#[test]
fn what_is_not_implemented_is_refused() {
    let lab = Lab::active();
    let c = "TaskTemplate.ContainerSpec";
    let unsupported = [
        ("Privileges", json!({"CredentialSpec":{"File":"x"}}), ".CredentialSpec.File"),
        ("Privileges", json!({"SELinuxContext":{"Disable":true}}), ".SELinuxContext.Disable"),
        ("Privileges", json!({"AppArmor":{"Mode":"disabled"}}), ".AppArmor.Mode"),
        ("Privileges", json!({"Seccomp":{"Profile":"e30="}}), ".Seccomp.Profile"),
        ("Isolation", json!("hyperv"), ""),
        ("NoSuchField", json!(1), ""),
    ];
    for (field, value, tail) in unsupported {
        let path = format!("{c}.{field}");
        check_option(&lab, &path, value, Some(&format!("invalid argument: {path}{tail} is not supported yet")));
    }
    let elsewhere = [
        ("TaskTemplate.LogDriver", json!({"Name":"syslog"}), "log driver \"syslog\" is not supported"),
        (
            "TaskTemplate.LogDriver",
            json!({"Name":"none","Options":{"max-size":"1m"}}),
            "log driver none takes no options",
        ),
        ("TaskTemplate.LogDriver", json!({"Options":{"max-size":"x"}}), "TaskTemplate.LogDriver: log option max-size"),
        (
            "TaskTemplate.LogDriver",
            json!({"Name":"local","Options":{"tag":"x"}}),
            "log option \"tag\" is not supported",
        ),
        ("TaskTemplate.Runtime", json!("plugin"), "TaskTemplate.Runtime is not supported"),
        (
            "TaskTemplate.Resources",
            json!({"Reservations":{"GenericResources":[{"NamedResourceSpec":{"Kind":"a","Value":"b"}}]}}),
            "TaskTemplate.Resources.Reservations.GenericResources[0].NamedResourceSpec: named generic",
        ),
        (
            "EndpointSpec",
            json!({"Ports":[{"TargetPort":80,"PublishedPortEnd":81}]}),
            "PublishedPortEnd is not supported",
        ),
        ("Mode", json!({"Global":{},"Replicated":{}}), "must specify only one service mode"),
        ("Mode", json!({"Replicated":{"Replicas":-1}}), "Number of replicas must be non-negative"),
        ("Mode", json!({"GlobalJob":{},"ReplicatedJob":{}}), "must specify only one service mode"),
        ("Mode", json!({"ReplicatedJob":{"MaxConcurrent":-1}}), "Maximum concurrent jobs must not be negative"),
        ("Mode", json!({"ReplicatedJob":{"TotalCompletions":-1}}), "Total completed jobs must not be negative"),
        ("Mode", json!({"ReplicatedJob":{"TotalCompletions":100_001}}), "more than the 100000"),
        ("UpdateConfig", json!({"Parallelism":-1}), "UpdateConfig.Parallelism cannot be negative"),
        ("UpdateConfig", json!({"Order":"x"}), "unrecognized update order x"),
        ("UpdateConfig", json!({"FailureAction":"x"}), "unrecognized update failure action x"),
        ("UpdateConfig", json!({"Delay":-1}), "TaskSpec: update-delay cannot be negative"),
        ("UpdateConfig", json!({"Monitor":-1}), "TaskSpec: update-monitor cannot be negative"),
        (
            "UpdateConfig",
            json!({"MaxFailureRatio":1.1}),
            "update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        ("UpdateConfig", json!({"MaxFailureRatio":-0.1}), "update-maxfailureratio cannot be"),
        ("RollbackConfig", json!({"FailureAction":"rollback"}), "a rollback cannot be rolled back"),
        ("RollbackConfig", json!({"FailureAction":"x"}), "unrecognized rollback failure action x"),
        ("RollbackConfig", json!({"Order":"x"}), "unrecognized rollback order x"),
        ("RollbackConfig", json!({"Delay":-1}), "TaskSpec: rollback-delay cannot be negative"),
        ("RollbackConfig", json!({"Monitor":-1}), "TaskSpec: rollback-monitor cannot be negative"),
        ("RollbackConfig", json!({"MaxFailureRatio":2}), "rollback-maxfailureratio cannot be"),
        ("Networks", json!([{"Target":"host"},{"Target":"none"}]), "goes with no other network"),
        ("Networks", json!([{"Target":"host","Aliases":["a"]}]), "the host network has no aliases"),
        ("TaskTemplate.RestartPolicy", json!({"Condition":"x"}), "invalid RestartCondition"),
        ("TaskTemplate.RestartPolicy", json!({"Delay":-1}), "restart-delay cannot be negative"),
        (
            "TaskTemplate.Resources",
            json!({"Limits":{"MemoryBytes":1024}}),
            "invalid memory value 1024: Must be at least 4MiB",
        ),
        ("TaskTemplate.Resources", json!({"Limits":{"NanoCPUs":1}}), "Must be at least 0.001"),
        ("TaskTemplate.Placement", json!({"Constraints":["a=b"]}), "Placement.Constraints"),
        ("TaskTemplate", json!({}), "mismatched Runtime and *Spec fields"),
        ("TaskTemplate", json!({"PluginSpec":{"Name":"x"}}), "TaskTemplate.PluginSpec.Name is not supported"),
        ("Name", json!("bad_name!"), "name must be valid as a DNS name component"),
        ("Name", json!(5), "Name must be a string"),
    ];
    for (path, value, want) in elsewhere {
        check_option(&lab, path, value, Some(want));
    }
    let in_container = [
        ("Healthcheck", json!({"Test":["x"]}), "unknown health check type \"x\""),
        ("Healthcheck", json!({"Interval":1}), "Interval in HealthConfig cannot be less than 1ms"),
        ("Healthcheck", json!({"Timeout":-1}), "Timeout in HealthConfig cannot be less than 1ms"),
        ("Healthcheck", json!({"StartPeriod":5}), "StartPeriod in HealthConfig cannot be less than 1ms"),
        ("Healthcheck", json!({"StartInterval":5}), "StartInterval in HealthConfig cannot be less than 1ms"),
        ("Healthcheck", json!({"Retries":-1}), "Retries in HealthConfig cannot be negative"),
        ("Healthcheck", json!({"Disable":true}), "Healthcheck.Disable is not supported yet"),
        ("Hosts", json!(["a:1.2.3.4"]), "is not an IP address with one name or more"),
        ("DNSConfig", json!({"Nameservers":["x"]}), "x is not an ip address"),
        ("DNSConfig", json!({"Search":["a b"]}), "a b is not a valid domain"),
        ("DNSConfig", json!({"Options":[""]}), "is not an option of resolv.conf"),
        ("Sysctls", json!({"vm.swappiness":"1"}), "sysctl 'vm.swappiness' is not allowed"),
        ("CapabilityAdd", json!(["FLY"]), "invalid CapAdd: unknown capability: \"CAP_FLY\""),
        ("CapabilityDrop", json!(["FLY"]), "invalid CapDrop: unknown capability"),
        ("Ulimits", json!([{"Name":"nofiles"}]), "invalid ulimit type: nofiles"),
        ("Ulimits", json!([{"Name":"nofile","Soft":2,"Hard":1}]), "soft limit must be less than or equal to hard"),
        ("Groups", json!(["a:b"]), "is not the name or number of a group"),
        ("OomScoreAdj", json!(1001), "range for oom score adj is [-1000, 1000]"),
        ("Privileges", json!({"Seccomp":{"Mode":"custom","Profile":"e30="}}), "a seccomp profile of one's own"),
        ("Privileges", json!({"Seccomp":{"Mode":"x"}}), "expected default or unconfined"),
        ("Init", json!("yes"), "ContainerSpec.Init must be true or false, not a string"),
    ];
    for (field, value, want) in in_container {
        check_option(&lab, &format!("{c}.{field}"), value, Some(want));
    }
    let mounts = [
        (
            json!({"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"CreateMountpoint":true}}),
            "Mounts[0].BindOptions.CreateMountpoint is not",
        ),
        (
            json!({"Type":"volume","Target":"/b","VolumeOptions":{"DriverConfig":{"Name":"nfs"}}}),
            "VolumeOptions.DriverConfig.Name is not",
        ),
        (
            json!({"Type":"volume","Target":"/b","VolumeOptions":{"DriverConfig":{"Options":{"o":"x"}}}}),
            "DriverConfig.Options.o is not",
        ),
        (json!({"Type":"tmpfs","Target":"/b","Source":"/c"}), "Source must be empty"),
        (json!({"Type":"tmpfs","Target":"/b","TmpfsOptions":{"Mode":99999}}), "is no file mode"),
        (json!({"Type":"bind","Target":"/b"}), "Source is required"),
        (json!({"Type":"npipe","Target":"/b"}), "expected bind, volume or tmpfs"),
        (json!({"Target":"/b"}), "Type is required"),
        (json!({"Type":"bind","Source":"a","Target":"/b"}), "invalid bind mount source"),
    ];
    for (mount, want) in mounts {
        check_option(&lab, "TaskTemplate.ContainerSpec.Mounts", json!([mount]), Some(want));
    }
}

#[test]
fn what_says_nothing_new_is_taken() {
    let lab = Lab::active();
    let fine = [
        ("TaskTemplate.ContainerSpec.DNSConfig", json!({})),
        ("TaskTemplate.ContainerSpec.Init", json!(false)),
        ("TaskTemplate.ContainerSpec.Isolation", json!("default")),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            json!({"CredentialSpec":null,"SELinuxContext":null,"NoNewPrivileges":false}),
        ),
        ("TaskTemplate.ForceUpdate", json!(0)),
        ("TaskTemplate.Runtime", json!("container")),
        ("TaskTemplate.LogDriver", Value::Null),
        ("EndpointSpec", json!({"Mode":"vip"})),
        ("EndpointSpec", json!({})),
        ("Networks", Value::Null),
        ("Mode", json!({"Replicated":{}})),
        ("Mode", json!({"Global":{}})),
        ("Mode", json!({"GlobalJob":{}})),
        ("Mode", Value::Null),
        ("TaskTemplate.ContainerSpec.Healthcheck", json!({"Test":["NONE"]})),
        ("TaskTemplate.ContainerSpec.Privileges", json!({"Seccomp":{"Mode":"default"},"AppArmor":{"Mode":"default"}})),
        ("TaskTemplate.LogDriver", json!({"Name":"none"})),
        ("TaskTemplate.LogDriver", json!({"Options":{"max-size":"1m"}})),
        (
            "UpdateConfig",
            json!({"Parallelism":1,"FailureAction":"pause","Monitor":5_000_000_000_u64,"MaxFailureRatio":0,"Order":"stop-first"}),
        ),
        (
            "RollbackConfig",
            json!({"Parallelism":1,"FailureAction":"pause","Monitor":5_000_000_000_u64,"MaxFailureRatio":0,"Order":"stop-first"}),
        ),
    ];
    for (path, value) in fine {
        check_option(&lab, path, value, None);
    }
}

/// Every supported option comes back as it was given.
#[test]
fn a_full_specification_survives() {
    let lab = Lab::active();
    let spec = json!({
        "Name": "full",
        "Labels": {"l1": "v1"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "127.0.0.1:5000/bb:1",
                "Labels": {"cl": "cv"},
                "Command": ["sh"],
                "Args": ["-c", "true"],
                "Hostname": "h",
                "Env": ["A=1", "B"],
                "Dir": "/tmp",
                "User": "root",
                "Mounts": [
                    {"Target": "/data", "Source": "vol1", "Type": "volume", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}},
                    {"Target": "/anon", "Type": "volume"},
                    {"Target": "/t", "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o700}},
                    {"Target": "/hosttmp", "Source": "/tmp", "Type": "bind", "ReadOnly": true, "BindOptions": {"Propagation": "rslave", "NonRecursive": true}},
                ],
                "StopSignal": "SIGINT",
                "StopGracePeriod": 3_000_000_000_u64,
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "true"],
                    "Interval": 2_000_000_000_u64,
                    "Timeout": 1_000_000_000,
                    "Retries": 2,
                    "StartPeriod": 3_000_000_000_u64,
                    "StartInterval": 1_000_000,
                },
                "Hosts": ["1.2.3.4 a"],
                "DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["lan"], "Options": ["ndots:2"]},
                "Isolation": "default",
                "Init": true,
                "TTY": true,
                "OpenStdin": true,
                "ReadOnly": true,
                "Groups": ["video", "44"],
                "CapabilityAdd": ["CAP_NET_ADMIN"],
                "CapabilityDrop": ["CAP_MKNOD"],
                "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
                "Sysctls": {"kernel.shmmax": "65536"},
                "OomScoreAdj": -500,
                "Privileges": {"Seccomp": {"Mode": "unconfined"}, "NoNewPrivileges": true},
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 50},
                "Reservations": {"NanoCPUs": 100_000_000, "MemoryBytes": 16_777_216},
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 2_000_000_000_u64, "MaxAttempts": 3, "Window": 10_000_000_000_u64},
            "Placement": {
                "Constraints": ["node.role==manager"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "MaxReplicas": 5,
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
            },
            "Networks": [{"Target": "racimo0network0host000000"}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
            "ForceUpdate": 2,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {
            "Parallelism": 2,
            "Delay": 1_000_000_000,
            "FailureAction": "rollback",
            "Monitor": 2_000_000_000_u64,
            "MaxFailureRatio": 0.2,
            "Order": "start-first",
        },
        "RollbackConfig": {
            "Parallelism": 0,
            "FailureAction": "continue",
            "Monitor": 1_000_000_000,
            "MaxFailureRatio": 0.0,
            "Order": "stop-first",
        },
        "EndpointSpec": {"Mode": "vip"},
    });
    let (status, answer) = lab.post("/services/create", &spec.to_string());
    assert_eq!(status, 201, "{answer}");
    assert_eq!(lab.get("/services/full").1["Spec"], spec);
    // And can be sent back, with all defaults filled in, without changing a task.
    let (_, service) = lab.get("/services/full?insertDefaults=true");
    let update = format!("/services/full/update?version={}", service["Version"]["Index"]);
    assert_eq!(lab.post(&update, &service["Spec"].to_string()).0, 200);
    let view = lab.store.view();
    let service = view.state.services().next().expect("a service");
    assert!(service.revision < service.meta.version, "the tasks would be replaced");
}

/// What a job says of itself, and what it is when it says nothing.
#[test]
fn jobs_survive() {
    let lab = Lab::active();
    let modes = [
        (json!({"ReplicatedJob":{}}), json!({"ReplicatedJob":{"MaxConcurrent":1,"TotalCompletions":1}})),
        (
            json!({"ReplicatedJob":{"MaxConcurrent":3}}),
            json!({"ReplicatedJob":{"MaxConcurrent":3,"TotalCompletions":3}}),
        ),
        (
            json!({"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":5}}),
            json!({"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":5}}),
        ),
        (json!({"GlobalJob":{}}), json!({"GlobalJob":{}})),
    ];
    for (sent, shown) in modes {
        let (status, answer) = lab.post("/services/create", &with("Mode", sent.clone()));
        assert_eq!(status, 201, "{sent}: {answer}");
        let (_, service) = lab.get("/services/web?insertDefaults=true");
        assert_eq!(service["Spec"]["Mode"], shown);
        // Shown in full, it can still be sent back.
        let update = format!("/services/web/update?version={}", service["Version"]["Index"]);
        assert_eq!(lab.post(&update, &service["Spec"].to_string()).0, 200);
        lab.ask("DELETE", "/services/web", "");
    }
    let mut body: Value = serde_json::from_str(&with("Mode", json!({"ReplicatedJob":{}}))).expect("JSON");
    body["UpdateConfig"] = json!({});
    check(lab.post("/services/create", &body.to_string()), 400, "desc = Jobs may not have an update config");
}

/// As in Docker, an update config that is there but empty means: all at once.
#[test]
fn an_update_config_says_everything_or_nothing() {
    let lab = Lab::active();
    lab.post("/services/create", &with("UpdateConfig", json!({})));
    let (_, service) = lab.get("/services/web");
    let shown = json!({"Parallelism":0,"FailureAction":"pause","MaxFailureRatio":0.0,"Order":"stop-first"});
    assert_eq!((&service["Spec"]["UpdateConfig"], service["Spec"].get("RollbackConfig")), (&shown, None));
    lab.ask("DELETE", "/services/web", "");
    lab.post("/services/create", WEB);
    assert_eq!(lab.get("/services/web").1["Spec"].get("UpdateConfig"), None);
}

/// Names of capabilities come back in the kernel's spelling.
#[test]
fn capabilities_are_normalized() {
    let lab = Lab::active();
    lab.post("/services/create", &with("TaskTemplate.ContainerSpec.CapabilityAdd", json!(["net_admin", "all"])));
    let (_, service) = lab.get("/services/web");
    assert_eq!(service["Spec"]["TaskTemplate"]["ContainerSpec"]["CapabilityAdd"], json!(["CAP_NET_ADMIN", "ALL"]));
}
