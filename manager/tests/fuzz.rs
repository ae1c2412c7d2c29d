//! Random bytes never harm the log, the state or the API. See `fuzz/` for the coverage-guided form of this.

#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "../../common/fuzz/mutate.rs"]
mod mutate;

use fastrand::Rng;
use serde_json::{Value, json};

#[test]
fn fuzz_log() {
    let corpus: Vec<Vec<u8>> =
        (0..8).flat_map(|file| [vec![file, 0, 0], vec![file, 1, 2, 3], vec![file, 9, 9, 0, 0, 0, 0]]).collect();
    mutate::run(&corpus, mutate::cases(1500), checks::log);
}

#[test]
fn fuzz_state() {
    let corpus =
        [checks::entry(3), racimo_manager::store::log::Machine::snapshot(&racimo_manager::store::State::default())];
    mutate::run(&corpus, mutate::cases(20_000), checks::state);
}

/// A service with everything that is supported.
fn service() -> Value {
    json!({
        "Name": "web",
        "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1", "Command": ["/bin/sh"], "Args": ["-c", "true"], "Env": ["A=b"], "Dir": "/tmp",
                "Labels": {"c": "d"}, "User": "1:1", "Hostname": "h", "StopSignal": "SIGINT",
                "StopGracePeriod": 5_000_000_000_i64,
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000, "Timeout": 1_000_000_000,
                    "Retries": 2, "StartPeriod": 3_000_000_000_i64, "StartInterval": 1_000_000},
                "Init": true, "TTY": true, "OpenStdin": true, "ReadOnly": true, "Groups": ["video"],
                "CapabilityAdd": ["CAP_NET_ADMIN"], "CapabilityDrop": ["ALL"],
                "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}], "Sysctls": {"kernel.shmmax": "65536"},
                "DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["lan"], "Options": ["ndots:2"]},
                "Hosts": ["1.2.3.4 a"], "OomScoreAdj": -500,
                "Privileges": {"Seccomp": {"Mode": "unconfined"}, "NoNewPrivileges": true},
                "Mounts": [
                    {"Type": "volume", "Source": "vol", "Target": "/v", "VolumeOptions": {"NoCopy": true, "Labels": {"x": "y"}}},
                    {"Type": "bind", "Source": "/etc", "Target": "/e", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}},
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 511}},
                ],
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 10},
                "Reservations": {"NanoCPUs": 100_000_000, "MemoryBytes": 33_554_432},
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 3, "Window": 9_000_000_000_i64},
            "Placement": {
                "Constraints": ["node.labels.a==b"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
                "MaxReplicas": 2, "Platforms": [{"Architecture": "arm64", "OS": "linux"}],
            },
            "Networks": [{"Target": "bridge"}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m", "max-file": "3"}},
            "ForceUpdate": 1,
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback", "Monitor": 2_000_000_000,
            "MaxFailureRatio": 0.2, "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 0, "FailureAction": "continue", "MaxFailureRatio": 1, "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishMode": "host"},
        ]},
    })
}

fn corpus() -> Vec<Value> {
    let small = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "b"}}, "Mode": {"Global": {}}});
    let job = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "b"}},
        "Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}});
    let swarm = json!({
        "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1:2377", "Availability": "active",
        "Spec": {"Name": "default", "Labels": {}, "Orchestration": {"TaskHistoryRetentionLimit": 5},
            "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64}, "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_i64}},
    });
    let node = json!({"Role": "worker", "Availability": "drain", "Name": "n", "Labels": {"a": "b"}});
    let network = json!({
        "Name": "n", "Driver": "overlay", "Scope": "swarm", "CheckDuplicate": true, "Labels": {"a": "b"},
        "EnableIPv4": true, "Internal": true, "Attachable": true,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25",
            "Gateway": "10.9.0.1", "AuxiliaryAddresses": {"router": "10.9.0.2"}}]},
        "Options": {"encrypted": "", "com.docker.network.driver.mtu": "1300"},
    });
    let mesh = json!({"Name": "mesh", "Driver": "overlay", "Ingress": true,
        "IPAM": {"Config": [{"Subnet": "10.60.0.0/16"}]}});
    vec![service(), small, job, swarm["Spec"].clone(), swarm, node, network, mesh]
}

#[test]
fn the_corpus_is_taken() {
    let spec = racimo_manager::api::convert::service_in::service(
        &racimo_manager::store::State::default(),
        &service(),
        String::new,
    )
    .map_err(|error| error.to_string());
    assert_eq!(spec.map(|spec| spec.task.placement.replicas_max), Ok(2));
    let networks = corpus().iter().filter(|body| racimo_manager::api::convert::network::spec(body).is_ok()).count();
    assert_eq!(networks, 2);
}

#[test]
fn fuzz_api_bytes() {
    let corpus: Vec<Vec<u8>> = corpus().iter().map(|body| body.to_string().into_bytes()).collect();
    mutate::run(&corpus, mutate::cases(5000), checks::api);
}

/// Odd values that JSON can hold.
fn odd(rng: &mut Rng) -> Value {
    let values = json!([
        null, true, false, 0, 1, -1, 9_223_372_036_854_775_807_i64, 18_446_744_073_709_551_615_u64, -9_223_372_036_854_775_808_i64, 1e300,
        0.5, "", "x", " ", "\u{0}", "é\u{202e}", "a=b", "/", "..", "host", "none", "0", "-1", "any", "sha256:", "web.1",
        [], {}, [null], [{}], [[]], {"": ""}, {"a": null}, {"Target": "/"}, [""], ["a", "a"], "node.id==x", "!=",
        0.3333333333, ["NONE"], ["CMD"], ["CMD-SHELL", ""], "net.core.somaxconn", "1.2.3.4 a", "CAP_CHOWN", "all", "pause", "rollback",
        65_535, 65_536, "dnsrr", "sctp", "bridge", "10.9.0.0/24", "10.9.0.1", "fd00::/64",
    ]);
    let values = values.as_array().expect("a list");
    values[rng.usize(0..values.len())].clone()
}

/// Changes something somewhere below `value`.
fn edit(rng: &mut Rng, value: &mut Value) {
    let deeper = rng.u8(0..6) > 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let number = rng.usize(0..fields.len());
            let key = fields.keys().nth(number).expect("it is there").clone();
            match rng.u8(0..12) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(key.to_lowercase(), odd(rng))),
                2 => drop(fields.insert("Unknown".to_owned(), odd(rng))),
                _ => edit(rng, &mut fields[&key]),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let number = rng.usize(0..items.len());
            match rng.u8(0..8) {
                0 => drop(items.remove(number)),
                1 => items.push(items[number].clone()),
                2 => items.push(odd(rng)),
                _ => edit(rng, &mut items[number]),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            *value = odd(rng);
        }
    }
}

#[test]
fn fuzz_api_values() {
    let corpus = corpus();
    let seeds: Vec<Vec<u8>> = (0..16_u8).map(|seed| vec![seed; 8]).collect();
    // The bytes are the chance, so that a failure is told like every other.
    mutate::run(&seeds, mutate::cases(20_000), |bytes: &[u8]| {
        let seed = bytes.iter().fold(0_u64, |seed, byte| seed.wrapping_mul(257).wrapping_add(u64::from(*byte)));
        let mut rng = Rng::with_seed(seed);
        let mut body = corpus[rng.usize(0..corpus.len())].clone();
        for _ in 0..=rng.u8(0..3) {
            edit(&mut rng, &mut body);
        }
        checks::body_is_read(&body);
    });
}
