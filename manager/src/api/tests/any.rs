//! Whatever is sent, nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::options::with;

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "[A-Z][a-z]{0,6}",
        prop::sample::select(vec![
            "Name",
            "Labels",
            "TaskTemplate",
            "ContainerSpec",
            "Image",
            "Mounts",
            "Type",
            "Target",
            "Source",
            "Mode",
            "Replicated",
            "Replicas",
            "Global",
            "Resources",
            "Limits",
            "NanoCPUs",
            "MemoryBytes",
            "RestartPolicy",
            "Delay",
            "Placement",
            "Constraints",
            "Preferences",
            "Spread",
            "UpdateConfig",
            "Parallelism",
            "MaxFailureRatio",
            "RollbackConfig",
            "FailureAction",
            "Order",
            "ReplicatedJob",
            "MaxConcurrent",
            "TotalCompletions",
            "GlobalJob",
            "Healthcheck",
            "Test",
            "Interval",
            "Retries",
            "Ulimits",
            "Soft",
            "Hard",
            "Sysctls",
            "DNSConfig",
            "Nameservers",
            "Hosts",
            "CapabilityAdd",
            "Privileges",
            "Seccomp",
            "LogDriver",
            "Options",
            "Spec",
            "EndpointSpec",
            "Networks",
            "Env",
            "StopGracePeriod",
            "Role",
            "Availability",
            "Raft",
            "CAConfig",
            "Platforms",
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("busybox")),
        Just(json!("bind")),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bodies_never_panic(body in any_json(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = crate::api::convert::service_in::service(&crate::store::State::default(), &body, String::new);
        let _ = crate::api::convert::swarm::init(&body);
        let _ = crate::api::fields::parse(&bytes);
        let _ = crate::api::filter::Filters::parse(&body.to_string(), &["Name", "Labels"]);
    }

    /// A body that is nearly right, with one place replaced by anything.
    #[test]
    fn wrong_places_never_panic(place in 0usize..24, value in any_json()) {
        let places = [
            "Name", "Labels", "TaskTemplate", "TaskTemplate.ContainerSpec", "TaskTemplate.ContainerSpec.Image",
            "TaskTemplate.ContainerSpec.Mounts", "TaskTemplate.ContainerSpec.Env", "TaskTemplate.Resources",
            "TaskTemplate.RestartPolicy", "TaskTemplate.Placement", "TaskTemplate.Networks", "Mode", "UpdateConfig",
            "EndpointSpec", "RollbackConfig", "TaskTemplate.LogDriver", "TaskTemplate.ContainerSpec.Healthcheck",
            "TaskTemplate.ContainerSpec.Ulimits", "TaskTemplate.ContainerSpec.Sysctls",
            "TaskTemplate.ContainerSpec.DNSConfig", "TaskTemplate.ContainerSpec.Hosts",
            "TaskTemplate.ContainerSpec.CapabilityAdd", "TaskTemplate.ContainerSpec.Privileges",
            "TaskTemplate.ContainerSpec.Secrets",
        ];
        let body: Value = serde_json::from_str(&with(places[place], value)).expect("JSON");
        if let Ok(spec) = crate::api::convert::service_in::service(&crate::store::State::default(), &body, String::new) {
            // What is taken can be shown, and taken again as it is shown.
            let shown = crate::api::convert::json(&crate::api::convert::service_out::task(&spec.task, true));
            let mut again = body;
            again["TaskTemplate"] = shown;
            prop_assert!(crate::api::convert::service_in::service(&crate::store::State::default(), &again, String::new).is_ok());
        }
    }

    #[test]
    fn paths_never_panic(path in "(/[a-z{}*%0-9.]{0,9}){0,5}", query in "\\PC{0,30}") {
        let _ = crate::api::route::find(&hyper::Method::GET, &path);
        let _ = crate::api::request::query(&query);
    }
}
