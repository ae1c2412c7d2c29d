//! Whole files: what they mean beside what Docker makes of them, what is wrong with them, and anything at all.

use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::convert;
use super::node::Node;
use super::{Source, World, load, print};
use crate::cli::format::image;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stack")
}

fn env(name: &str) -> Option<String> {
    match name {
        "FROM_CALLER" => Some("caller".to_owned()),
        "HOME" => Some("/root".to_owned()),
        _ => None,
    }
}

/// Runs with files as if they were in `/stack`.
fn in_stack<T>(use_it: impl FnOnce(&World<'_>) -> T) -> T {
    let read = |path: &Path| match path.strip_prefix("/stack") {
        Ok(name) => std::fs::read(golden().join(name)),
        Err(_) => Err(io::ErrorKind::NotFound.into()),
    };
    use_it(&World { folder: Path::new("/stack"), env: &env, read: &read })
}

fn sources(names: &[&str]) -> Vec<Source> {
    let read = |name: &&str| Source {
        name: (*name).to_owned(),
        text: std::fs::read_to_string(golden().join(name)).expect("a golden file"),
    };
    names.iter().map(read).collect()
}

/// What is sent for these files: path and body, sorted, as the golden files have it.
fn bodies(sources: &[Source]) -> Value {
    in_stack(|world| {
        let (file, _) = load(sources, world, true).unwrap_or_else(|fault| panic!("{fault}"));
        let stack = convert::stack("st", &file, world).unwrap_or_else(|fault| panic!("{fault}"));
        let mut rows: Vec<(String, Value)> = Vec::new();
        for (kind, list) in [
            ("networks", stack.networks),
            ("secrets", stack.secrets),
            ("configs", stack.configs),
            ("services", stack.services),
        ] {
            rows.extend(list.into_iter().map(|body| (format!("/{kind}/create"), body)));
        }
        for (_, body) in &mut rows {
            let container = &mut body["TaskTemplate"]["ContainerSpec"];
            if let Some(name) = container["Image"].as_str().map(image::tagged) {
                container["Image"] = name.into();
            } else {
                body.as_object_mut().expect("a body").shift_remove("TaskTemplate");
                continue;
            }
            for (list, name, id) in [("Secrets", "SecretName", "SecretID"), ("Configs", "ConfigName", "ConfigID")] {
                for reference in container[list].as_array_mut().into_iter().flatten() {
                    reference[id] = format!("id-{}", reference[name].as_str().expect("a name")).into();
                }
                if container[list].is_null() {
                    container.as_object_mut().expect("a container").shift_remove(list);
                }
            }
        }
        rows.sort_by(|a, b| (&a.0, a.1["Name"].as_str()).cmp(&(&b.0, b.1["Name"].as_str())));
        rows.into_iter().map(|(path, body)| json!([path, body])).collect()
    })
}

#[track_caller]
fn same(got: &Value, want: &Value) {
    let empty = Vec::new();
    let (got, want) = (got.as_array().unwrap_or(&empty), want.as_array().unwrap_or(&empty));
    // Docker keeps no order among ports that have the same number outside, or none.
    let sorted = |one: &Value| {
        let mut one = one.clone();
        if let Some(Value::Array(ports)) = one.pointer_mut("/1/EndpointSpec/Ports") {
            ports.sort_by_key(Value::to_string);
        }
        one
    };
    for (got, want) in got.iter().zip(want) {
        let (got, want) = (sorted(got), sorted(want));
        assert_eq!(got, want, "\nours:   {got}\ndocker: {want}");
    }
    assert_eq!(got.len(), want.len());
}

#[track_caller]
fn check_golden(names: &[&str], golden_name: &str) {
    let text = std::fs::read_to_string(golden().join(golden_name)).expect("a golden file");
    let sources = sources(names);
    same(&bodies(&sources), &serde_json::from_str(&text).expect("JSON"));
    // What `config` prints says the same.
    let printed = in_stack(|world| print::yaml(&load(&sources, world, true).expect("it loads").0));
    let printed = printed.replace('$', "$$");
    same(&bodies(&[Source { name: "printed".to_owned(), text: printed }]), &serde_json::from_str(&text).expect("JSON"));
}

/// The JSON is what docker 28.2 sent for the same files in `/stack`, with `FROM_CALLER=caller`.
#[test]
fn bodies_are_docker_s() {
    check_golden(&["full.yml"], "full.json");
    check_golden(&["base.yml", "override.yml"], "merged.json");
    check_golden(&["net.yml"], "net.json");
}

/// A value without its places, and without what docker leaves out.
fn plain(node: &Node) -> Value {
    use super::node::{Data, scalar};
    match &node.data {
        Data::Null => Value::Null,
        Data::Bool(flag) => json!(flag),
        Data::Int(_) | Data::Float(_) | Data::Text { .. } => scalar(&node.data).into(),
        Data::List(items) => items.iter().map(plain).collect(),
        Data::Map(entries) => {
            let entries = entries.iter().filter(|e| !e.key.starts_with("x-") && e.key != "version");
            let full = |value: &Value| {
                !value.is_null() && value.as_object().is_none_or(|m| !m.is_empty()) && value != &json!([])
            };
            entries.map(|e| (e.key.clone(), plain(&e.value))).filter(|(_, value)| full(value)).collect()
        }
    }
}

/// `stack config` says what docker's says; what docker does not use (env files, ignored options) apart.
#[test]
fn config_is_docker_s() {
    for (names, docker) in [
        (&["full.yml"][..], "full.config.yml"),
        (&["base.yml", "override.yml"], "merged.config.yml"),
        (&["net.yml"], "net.config.yml"),
    ] {
        let ours = in_stack(|world| plain(&load(&sources(names), world, true).expect("it loads").0));
        let text = std::fs::read_to_string(golden().join(docker)).expect("a golden file");
        let docker = plain(&super::yaml::read(docker, &text).expect("docker's YAML"));
        for (name, service) in docker["services"].as_object().expect("services") {
            for (key, value) in service.as_object().expect("a service") {
                if !["container_name", "env_file", "expose", "links"].contains(&key.as_str()) {
                    assert_eq!(&ours["services"][name][key], value, "{name}.{key}");
                }
            }
        }
        for section in ["networks", "volumes", "secrets", "configs"] {
            assert_eq!(ours[section], docker[section], "{section}");
        }
    }
}

/// The first fault of a file, or that there is none.
#[track_caller]
fn check(text: &str, want: Option<&str>) {
    let source = Source { name: "st.yml".to_owned(), text: text.to_owned() };
    let fault = in_stack(|world| {
        let (file, _) = load(&[source], world, true)?;
        convert::stack("st", &file, world)
    });
    match (fault, want) {
        (Ok(_), None) => {}
        (Err(fault), Some(want)) => assert!(fault.to_string().starts_with(want), "{fault}\nnot:\n{want}"),
        (got, want) => panic!("{got:?} instead of {want:?}\n{text}"),
    }
}

/// `LINES` of a service `a` that is right but for them; they begin on line 4.
fn service(lines: &str) -> String {
    format!("services:\n  a:\n    image: i\n    {}\n", lines.replace('\n', "\n    "))
}

#[test]
fn mistakes_are_told_with_file_line_and_key() {
    for (text, want) in [
        ("", "st.yml:1: expected a mapping (services, networks, …) at the top, found nothing"),
        ("- a", "st.yml:1: expected a mapping (services, networks, …) at the top, found a list"),
        ("services:\n  a: [", "st.yml:3: YAML: "),
        ("services: {}", "st.yml:1: services: a stack needs at least one service"),
        ("networks:\n  a:\n", "st.yml:1: services: a stack needs at least one service"),
        (
            "services: {a: {image: i, networks: [\"\\n\"]}}",
            "st.yml:1: services.a.networks[0]: a name has only letters, digits, '.', '_' and '-'",
        ),
        ("version: '2.4'\nservices: {a: {image: i}}", "st.yml:1: version: unsupported compose file version 2.4"),
        ("version: 3.8\nservices: {a: {image: i}}", "st.yml:1: version: expected a string, found a number"),
        ("include: [x]\nservices: {a: {image: i}}", "st.yml:1: include: including other files is not supported"),
        ("servces:\n  a: {}", "st.yml:1: servces: there is no such option"),
        ("services:\n  a:\n    foo: 1", "st.yml:3: services.a.foo: there is no such option"),
        ("services:\n  a:\n    command: x", "st.yml:3: services.a.image: an image is needed"),
        ("services:\n  a b: {image: i}", "st.yml:2: services.a b: a name has only letters"),
        ("services: [a]", "st.yml:1: services: expected a mapping, found a list"),
        ("services:\n  a:", "st.yml:2: services.a: expected a mapping, found nothing"),
    ] {
        check(text, Some(want));
    }
    for (lines, want) in [
        ("deploy:\n  replicas: three", "5: services.a.deploy.replicas: expected a whole number, found a string"),
        ("deploy: {replicas: -1}", "4: services.a.deploy.replicas: a number from 0 is expected"),
        ("deploy: {replicas: 1.5}", "4: services.a.deploy.replicas: expected a whole number"),
        ("deploy: {mode: some}", "4: services.a.deploy.mode: \"some\" is not one of replicated, global"),
        ("deploy: {mode: global, replicas: 2}", "4: services.a.deploy.replicas: replicas can only be used with"),
        ("deploy:\n  update_config: {order: x}", "5: services.a.deploy.update_config.order: \"x\" is not one of"),
        ("deploy:\n  update_config:\n    delay: 5", "6: services.a.deploy.update_config.delay: expected a duration"),
        (
            "deploy:\n  update_config:\n    delay: 5x",
            "6: services.a.deploy.update_config.delay: \"5x\" is not a duration",
        ),
        ("deploy: {resources: {limits: {memory: lots}}}", "4: services.a.deploy.resources.limits.memory: "),
        ("deploy: {resources: {limits: {cpus: half}}}", "4: services.a.deploy.resources.limits.cpus: "),
        ("deploy: {resources: {limits: {gpu: 1}}}", "4: services.a.deploy.resources.limits.gpu: there is no such"),
        ("deploy: {placement: {constraints: a==b}}", "4: services.a.deploy.placement.constraints: expected a list"),
        ("deploy: {restart_policy: {condition: x}}", "4: services.a.deploy.restart_policy.condition: \"x\" is not"),
        ("restart: sometimes", "4: services.a.restart: \"sometimes\" is not one of"),
        ("restart: on-failure:x", "4: services.a.restart: \"x\" is not a number of attempts"),
        ("environment: text", "4: services.a.environment: expected a mapping, or a list of key=value"),
        ("environment:\n  A: [1]", "5: services.a.environment.A: expected a string or a number, found a list"),
        ("environment:\n  A: true", "5: services.a.environment.A: expected a string or a number, found true or false"),
        ("environment: [=x]", "4: services.a.environment[0]: \"=x\" has no name"),
        ("environment:\n  A: 1\n  A: 2", "6: the key A is there already, on line 5"),
        ("env_file: [missing.env]", "4: services.a.env_file[0]: cannot read missing.env: "),
        ("env_file: [full.yml]", "4: services.a.env_file[0]: full.yml, line 2: \"version: …\" is not"),
        ("env_file: [{path: no.env, required: true}]", "4: services.a.env_file[0]: cannot read no.env"),
        ("command: 'a", "4: YAML: "),
        ("command: \"sh -c 'a\"", "4: services.a.command: a ' is never closed in: sh -c 'a"),
        ("image: ${X:?must be set}", "4: the key image is there already, on line 3"),
        ("hostname: ${X:?must be set}", "4: services.a.hostname: required variable X is missing a value: must be set"),
        ("hostname: $", "4: services.a.hostname: invalid template: \"$\""),
        ("healthcheck: {test: a, disable: true}", "4: services.a.healthcheck: test and disable can't be set"),
        ("healthcheck: {retries: -1, test: a}", "4: services.a.healthcheck.retries: a number from 0"),
        ("volumes: [data:/x]", "4: services.a.volumes[0].source: undefined volume \"data\""),
        ("volumes:\n  - a:b:c:d", "5: services.a.volumes[0]: invalid volume \"a:b:c:d\": too many colons"),
        ("volumes: [{type: x, target: /t}]", "4: services.a.volumes[0]: unknown type \"x\""),
        ("volumes: [{type: bind, target: /t}]", "4: services.a.volumes[0]: a bind mount needs a source"),
        ("volumes: [{type: volume}]", "4: services.a.volumes[0]: a mount needs a target"),
        ("volumes: [{type: tmpfs, target: /t, source: s}]", "4: services.a.volumes[0]: a tmpfs has no source"),
        ("volumes: [{type: tmpfs, target: /t, bind: {}}]", "4: services.a.volumes[0]: bind options are incompatible"),
        ("tmpfs: /run:x", "4: services.a.tmpfs[0]: unknown option \"x\""),
        ("ports: ['80:x']", "4: services.a.ports[0]: invalid port \"80:x\""),
        ("ports: [{published: 80}]", "4: services.a.ports[0].target: the port of the container is missing"),
        ("ports: ['127.0.0.1:80:80']", "4: services.a.ports[0]: invalid port \"127.0.0.1:80:80\": hostip is not"),
        ("ports: [{target: 80, mode: x}]", "4: services.a.ports[0].mode: \"x\" is not one of ingress, host"),
        ("deploy: {endpoint_mode: dns}", "4: services.a.deploy.endpoint_mode: \"dns\" is not one of vip, dnsrr"),
        (
            "deploy: {endpoint_mode: dnsrr}\nports: [80]",
            "5: services.a.ports[0]: port published with ingress mode can't be used with dnsrr mode",
        ),
        ("ports: [{target: 99999}]", "4: services.a.ports[0].target: expected a port from 1 to 65535"),
        ("secrets: [s]", "4: services.a.secrets[0]: undefined secret \"s\""),
        ("configs: [{source: c}]", "4: services.a.configs[0]: undefined config \"c\""),
        ("configs: [{source: c, mode: 999}]", "4: services.a.configs[0]: undefined config"),
        ("configs: [{source: c, mode: 99999}]", "4: services.a.configs[0].mode: expected an octal mode"),
        ("networks: [n]", "4: services.a.networks.n: undefined network \"n\""),
        ("networks: [n, n]", "4: services.a.networks[1]: n is there twice"),
        ("networks: {n: {ipv4_address: 1.2.3.4}}", "4: services.a.networks.n.ipv4_address: fixed addresses are not"),
        ("ulimits: {nofile: {soft: 1}}", "4: services.a.ulimits.nofile: soft and hard are both needed"),
        ("extra_hosts: [x]", "4: services.a.extra_hosts[0]: \"x\" is not NAME:ADDRESS"),
        ("extends: {service: b}", "4: services.a.extends: extending services is not supported"),
        ("mem_limit: 5m", "4: services.a.mem_limit: set resource limits using deploy.resources"),
        ("tty: 1", "4: services.a.tty: expected true or false, found a number"),
        ("cap_add: [1]", "4: services.a.cap_add[0]: expected a string, found a number"),
        ("user: 1000", "4: services.a.user: expected a string, found a number"),
    ] {
        check(&service(lines), Some(&format!("st.yml:{want}")));
    }
    for (top, want) in [
        ("secrets:\n  s: {}", "6: secrets.s: one of file, content, environment and external is needed"),
        ("secrets:\n  s: {file: a, content: b}", "6: secrets.s: file and content exclude each other"),
        ("secrets:\n  s: {file: no.txt}", "6: secrets.s.file: cannot read /stack/no.txt"),
        ("secrets:\n  s: {environment: NOT_THERE}", "6: secrets.s.environment: the variable NOT_THERE is not set"),
        ("secrets:\n  s: {external: true, file: a}", "6: secrets.s.external: what is external is made elsewhere"),
        ("secrets:\n  s: {external: {name: x}, name: y}", "6: secrets.s.external: external.name and name exclude"),
        ("secrets:\n  s: {driver: x}", "6: secrets.s.driver: secret drivers are not supported"),
        ("networks:\n  n: {drver: x}", "6: networks.n.drver: there is no such option"),
        ("volumes:\n  v: {external: maybe}", "6: volumes.v.external: expected true or false, found a string"),
    ] {
        check(&format!("{}{top}\n", service("")), Some(&format!("st.yml:{want}")));
    }
    for (network, want) in [
        ("ipam: {config: [{subnet: x}]}", "6: networks.n.ipam.config[0].subnet: invalid subnet \"x\""),
        ("ipam: {config: [{subnet: 10.9.0.0/24}, {}]}", "6: networks.n.ipam.config[1].subnet: invalid subnet \"\""),
        (
            "ipam: {config: [{subnet: 10.9.0.5/24}]}",
            "6: networks.n.ipam.config[0].subnet: invalid subnet 10.9.0.5/24: it",
        ),
        ("ipam: {config: [{gateway: 10.9.0.1}]}", "6: networks.n.ipam.config[0].gateway: there is no such option"),
    ] {
        check(&format!("{}networks:\n  n: {{{network}}}\n", service("networks: [n]")), Some(&format!("st.yml:{want}")));
    }
}

#[test]
fn what_is_newer_than_docker_s_reader() {
    let text = "name: shop\nx-note: costs $5 ${\nservices:\n  a:\n    image: i\n    env_file: [{path: no.env, required: false}]\n    \
                tmpfs: ['/run:size=1m,mode=0755', /tmp]\n    group_add: [audio, 44]\n    secrets: [s, t]\n    \
                depends_on: {b: {condition: service_healthy}}\n    hostname: ${X:-${FROM_CALLER}}-$FROM_CALLER-x\n    \
                x-note: any\nsecrets:\n  s: {content: body}\n  t: {environment: FROM_CALLER}\n";
    let rows = bodies(&[Source { name: "f".to_owned(), text: text.to_owned() }]);
    let container = &rows[3][1]["TaskTemplate"]["ContainerSpec"];
    let mounts = json!([
        {"Type": "tmpfs", "Target": "/run", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o755}},
        {"Type": "tmpfs", "Target": "/tmp"}]);
    assert_eq!(container["Mounts"], mounts);
    assert_eq!(container["Groups"], json!(["audio", "44"]));
    assert_eq!(container["Hostname"], "caller-caller-x");
    assert_eq!((&rows[1][1]["Data"], &rows[2][1]["Data"]), (&json!("Ym9keQ=="), &json!("Y2FsbGVy")));
    let source = Source { name: "f".to_owned(), text: text.to_owned() };
    let ignored = in_stack(|world| load(&[source], world, true).expect("it loads").1);
    assert_eq!(ignored.unsupported, ["depends_on", "name"]);
}

#[test]
fn variables_stand_for_numbers_and_flags() {
    let text = "services: {a: {image: i, tty: \"${T:-yes}\", deploy: {replicas: \"${N:-3}\"}}}";
    let rows = bodies(&[Source { name: "f".to_owned(), text: text.to_owned() }]);
    let service = &rows[1][1];
    assert_eq!(service["Mode"], json!({"Replicated": {"Replicas": 3}}));
    assert_eq!(service["TaskTemplate"]["ContainerSpec"]["TTY"], true);
    check("services: {a: {image: i, deploy: {replicas: '3'}}}", Some("st.yml:1: services.a.deploy.replicas: expected"));
}

/// Values that are nearly those of a compose file.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z:/$.0-9-]{0,8}",
        Just("'${A:-b}'".to_owned()),
        Just("5".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("1m30s".to_owned()),
        Just("\"\\n\"".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..4).prop_map(|entries| {
                let entries = entries.into_iter().map(|(key, value)| format!("{key}: {value}"));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\\n\\t\u{e4}]{0,200}") {
        let source = Source { name: "f".to_owned(), text };
        in_stack(|world| {
            if let Ok((file, _)) = load(&[source], world, true) {
                let _ = convert::stack("st", &file, world);
                let _ = print::yaml(&file);
            }
        });
    }

    /// A right file with anything in one place.
    #[test]
    fn any_value_of_any_option_is_read_or_refused(place in 0usize..200, value in any_value()) {
        let key = super::schema::SERVICE[place % super::schema::SERVICE.len()].name;
        let text = format!("services: {{a: {{image: i, '{key}': {value}}}}}").replace("image: i, 'image'", "image");
        let source = Source { name: "f".to_owned(), text };
        in_stack(|world| {
            if let Ok((file, _)) = load(&[source], world, true) {
                // Its variables are filled in already.
                let printed = print::yaml(&file);
                let (again, _) = load(&[Source { name: "p".to_owned(), text: printed.clone() }], world, false)
                    .unwrap_or_else(|fault| panic!("{fault}\n{printed}"));
                assert_eq!(plain(&again), plain(&file), "{printed}");
                let _ = convert::stack("st", &file, world);
            }
        });
    }
}

/// Every key is in the document, and the document has no other.
#[test]
fn the_document_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose.md");
    let document = std::fs::read_to_string(path).expect("docs/compose.md");
    for key in super::schema::SERVICE.iter().chain(super::schema::FILE) {
        assert!(document.contains(&format!("`{}`", key.name)), "docs/compose.md does not name {}", key.name);
    }
}
