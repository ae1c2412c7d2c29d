//! Golden bodies: what Docker's command line (28.2.2, API 1.47) sends for the same flags.
//!
//! Docker keeps no order in `Env` and sorts `Mounts` by its own rule; both are compared as sets.

use clap::Parser;
use serde_json::Value;

use super::super::format::image;
use super::super::json::{Peek, set, unset};
use super::create::CreateFlags;
use super::update::UpdateFlags;

#[derive(Parser)]
struct Create {
    #[command(flatten)]
    flags: CreateFlags,
}

#[derive(Parser)]
struct Update {
    #[command(flatten)]
    flags: UpdateFlags,
}

fn lookup(name: &str) -> Option<String> {
    (name == "CLI_TEST").then(|| "from-env".to_owned())
}

fn normal(mut spec: Value) -> Value {
    for list in ["/TaskTemplate/ContainerSpec/Env", "/TaskTemplate/ContainerSpec/Mounts"] {
        if let Some(Value::Array(items)) = spec.pointer_mut(list) {
            items.sort_by_key(Value::to_string);
        }
    }
    spec
}

fn args(case: &Value) -> Vec<&str> {
    std::iter::once("x").chain(case.list("/args").iter().filter_map(Value::as_str)).collect()
}

#[test]
fn create_bodies_are_dockers() {
    let cases: Value = serde_json::from_str(include_str!("../../../tests/golden/cli/create.json")).expect("JSON");
    for case in cases.list("") {
        let args = args(case);
        let flags = Create::try_parse_from(&args).unwrap_or_else(|e| panic!("{args:?}: {e}")).flags;
        let spec = flags.spec(&image::tagged(&flags.image), &[], lookup).expect("good flags");
        assert_eq!(normal(spec), normal(case["body"].clone()), "{args:?}");
    }
}

#[test]
fn update_bodies_are_dockers() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/cli/update.json")).expect("JSON");
    for case in golden.list("/cases") {
        let args = args(case);
        let flags = Update::try_parse_from(&args).unwrap_or_else(|e| panic!("{args:?}: {e}")).flags;
        let base = &golden["bases"][case.text("/base")];
        let mut spec = base.clone();
        if let Some(image) = &flags.image {
            set(&mut spec, &["TaskTemplate", "ContainerSpec", "Image"], image::tagged(image));
        }
        flags.apply(&mut spec, lookup).expect("good flags");
        let mut want = base.clone();
        for (pointer, value) in case.entries("/changes") {
            let path: Vec<&str> = pointer.split('/').skip(1).collect();
            if value.is_null() {
                unset(&mut want, &path);
            } else {
                set(&mut want, &path, value.clone());
            }
        }
        assert_eq!(normal(spec), normal(want), "{} {args:?}", case.text("/base"));
    }
}

#[track_caller]
fn refused(args: &[&str], want: &str) {
    let args: Vec<&str> = std::iter::once("x").chain(args.iter().copied()).collect();
    let error = match Create::try_parse_from(&args) {
        Ok(create) => create.flags.spec("i", &[], lookup).expect_err("refused flags").to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(want), "{error}");
}

#[test]
fn bad_flags_are_refused_in_words() {
    refused(
        &["--mode", "global", "--replicas", "2", "i"],
        "replicas can only be used with replicated or replicated-job mode",
    );
    refused(&["--mode", "global", "--replicas-max-per-node", "2", "i"], "replicas-max-per-node can only");
    refused(&["--replicas", "-1", "i"], "unexpected argument '-1'");
    refused(&["--limit-memory", "lots", "i"], "invalid size");
    refused(&["--limit-cpu", "half", "i"], "invalid number of CPUs");
    refused(&["--restart-delay", "5", "i"], "not a duration");
    refused(
        &["--restart-delay", "-5s", "i"],
        "'-5s' for '--restart-delay <DURATION>': \"-5s\": a duration cannot be negative",
    );
    refused(&["--restart-delay=-5s", "i"], "\"-5s\": a duration cannot be negative");
    refused(&["--health-interval", "--tty", "i"], "\"--tty\" is not a duration");
    refused(&["--entrypoint", "'open", "i"], "--entrypoint: a ' is never closed");
    refused(&["--mount", "type=bind", "i"], "target is missing");
    refused(&["--placement-pref", "zone", "i"], "expected spread=");
    refused(&["--label", "=x", "i"], "expected KEY=VALUE");
    // Docker's flags that we do not have.
    refused(&["--publish", "127.0.0.1:80:80", "i"], "hostip is not supported");
    refused(&["--credential-spec", "file://x", "i"], "credential specs are for Windows");
    refused(&["--isolation", "hyperv", "i"], "boards run Linux");
    refused(&["--network", "alias=x", "i"], "name is missing");
}
