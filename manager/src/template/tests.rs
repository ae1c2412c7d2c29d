//! Templates as Swarm's users write them, and as nobody should.

use proptest::prelude::*;
use racimo_common::object::{ContainerSpec, Mount, MountKind, VolumeOptions};

use super::*;
use crate::limits::{TEMPLATE_DEPTH_MAX, TEMPLATE_FIELD_BYTES_MAX};

fn facts() -> Facts {
    Facts {
        service_id: "serviceID".into(),
        service_name: "web".into(),
        service_labels: [("a".into(), "1".into()), ("b".into(), "2".into()), ("com.x".into(), "3".into())].into(),
        node_id: "nodeID".into(),
        node_hostname: "pi1".into(),
        architecture: "arm64".into(),
        os: "linux".into(),
        task_id: "taskID".into(),
        task_name: "web.10.taskID".into(),
        task_slot: "10".into(),
    }
}

struct Files;

impl Lookup for Files {
    fn secret(&self, target: &str) -> Result<String, String> {
        if target == "key" { Ok("mysecret".into()) } else { Err(format!("secret target {target} not found")) }
    }
    fn config(&self, target: &str) -> Result<String, String> {
        if target == "/etc/c" { Ok("my {{config}}".into()) } else { Err(format!("config target {target} not found")) }
    }
    fn env(&self, name: &str) -> String {
        if name == "foo" { "bar".into() } else { String::new() }
    }
}

fn fill(text: &str) -> Result<String, String> {
    let template = Template::parse(text, Kind::Body).map_err(|e| e.to_string())?;
    template.run(&facts(), Some(&Files), 1000).map_err(|e| e.to_string())
}

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(fill(text).as_deref(), Ok(want), "{text}");
}

#[track_caller]
fn refused(text: &str, want: &str) {
    let error = fill(text).expect_err(text);
    assert!(error.contains(want), "{text}: {error:?} instead of {want:?}");
}

#[test]
fn fields() {
    check("plain } text }}", "plain } text }}");
    check("{{.Service.ID}} {{.Service.Name}} {{.Node.ID}} {{.Node.Hostname}}", "serviceID web nodeID pi1");
    check("{{.Node.Platform.Architecture}}/{{.Node.Platform.OS}}", "arm64/linux");
    check("{{.Task.ID}} {{ .Task.Name }} {{.Task.Slot}}", "taskID web.10.taskID 10");
    check("{{.Service.Labels.a}} {{index .Service.Labels \"com.x\"}}<{{index .Service.Labels \"no\"}}>", "1 3<>");
    check("{{$.Node.Hostname}} {{.Service.Labels}} {{.Node}}", "pi1 map[a:1 b:2 com.x:3] {nodeID pi1 {arm64 linux}}");
    refused("{{.Service.Labels.none}}", "template: 1:1: map has no entry for key");
    refused("ab\n {{.Node.Nme}}", "template: 2:2: there is no such field here");
    refused("{{.Task.Slot.x}}", "there is no such field here");
}

#[test]
fn control() {
    check("{{if eq .Task.Slot \"10\"}}ten{{else}}other{{end}}", "ten");
    check("{{if .Service.Labels.a | eq \"2\"}}2{{else if eq 1 1}}1{{else}}0{{end}}", "1");
    check("{{if false}}x{{end}}{{with .Node}}{{.Hostname}}{{end}}{{with \"\"}}x{{else}}y{{end}}", "pi1y");
    check("{{range .Service.Labels}}<{{.}}>{{end}}", "<1><2><3>");
    check("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;com.x=3;");
    check("{{$x := \"a\"}}{{if true}}{{$x = \"b\"}}{{$y := 1}}{{end}}{{$x}}", "b");
    check("a {{- /* no */ -}} b{{/* c */}} {{- \"x\" -}} \n c", "abxc");
    refused("{{if true}}{{$y := 1}}{{end}}{{$y}}", "undefined variable");
    for (text, want) in [
        ("{{if true}}", "{{if}} without {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{if true}}{{else}}{{else}}{{end}}", "expected {{end}}"),
        ("{{", "unclosed action"),
        ("{{.Node.Hostname", "unclosed action"),
        ("{{}}", "missing value"),
        ("{{\"x}}", "unterminated"),
        ("{{(.Node}}", "unclosed left parenthesis"),
        ("{{.Node)}}", "unexpected right parenthesis"),
        ("{{.Node.ID .Node.ID}}", "only a function"),
        ("{{nope .Node}}", "this function is not defined"),
        ("{{template \"x\"}}", "{{template}} is not supported"),
        ("{{define \"x\"}}{{end}}", "{{define}} is not supported"),
        ("{{range .Node}}{{end}}", "range can only go over labels"),
        ("{{/* x", "unclosed comment"),
        ("{{1.5}}", "bad number"),
        ("{{eq 1 \"1\"}}", "incompatible types"),
        ("{{.Node.Hostname | }}", "missing value"),
        ("{{ä:}}", "unexpected"),
    ] {
        refused(text, want);
    }
}

#[test]
fn errors_about_bodies_repeat_nothing_of_them() {
    for text in [
        "{{hunter2}}",
        "{{if true}}{{else hunter2}}{{end}}",
        "{{end hunter2}}",
        "{{.hunter2}}",
        "{{.Service.Labels.hunter2}}",
        "{{$hunter2}}",
        "{{$hunter2 = 1}}",
        "{{\"hunter2\"x}}",
        "{{hunter2\"}}",
        "{{eq 1 \"hunter2\"}}",
        "{{range \"hunter2\"}}{{end}}",
        "{{printf \"hunter2%d\"}}",
        "{{9hunter2}}",
    ] {
        let error = fill(text).expect_err(text);
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
    assert!(fill("{{\u{1F511}}}").is_err_and(|error| !error.contains('\u{1F511}')));
    // A field of a service is no secret.
    let error = field("{{$x}}", &facts()).expect_err("refused").to_string();
    assert_eq!(error, "template: 1:1: undefined variable $x");
    let error = field("{{x}}", &facts()).expect_err("refused").to_string();
    assert_eq!(error, "template: 1:1: function \"x\" not defined");
}

#[test]
fn functions() {
    check("{{and 1 0}} {{or \"\" \"x\"}} {{not true}} {{and false (index 1 2)}}", "0 x false false");
    check(
        "{{len .Service.Name}} {{len .Service.Labels}} {{ge 2 1}} {{lt \"a\" \"b\"}} {{ne 1 1}}",
        "3 3 true true false",
    );
    check("{{print 1 2 \"a\" 3}}|{{println \"a\" 1}}|{{join \"-\" \"a\" .Task.Slot}}", "1 2a3|a 1\n|a-10");
    check("{{printf \"%s-%03d|%-4s|%5v|%q%%\" .Service.Name 7 \"ab\" true \"x\"}}", "web-007|ab  | true|\"x\"%");
    check("{{(.Node).Hostname | printf \"%s!\"}} {{urlquery \"a b&c\"}}", "pi1! a+b%26c");
    check("{{secret \"key\"}} {{config \"/etc/c\"}} {{env \"foo\"}}<{{env \"none\"}}>", "mysecret my {{config}} bar<>");
    refused("{{secret \"nope\"}}", "secret target nope not found");
    refused("{{printf \"%99999d\" 1}}", "bad format");
    refused("{{printf \"%s\"}}", "an argument is missing");
    // Only bodies may look at the task's files.
    assert!(Template::parse("{{secret \"key\"}}", Kind::Field).is_err());
}

#[test]
fn bombs() {
    let deep = TEMPLATE_DEPTH_MAX + 1;
    refused(&format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000)), "levels of nesting");
    refused(&"{{if true}}".repeat(100_000), "levels of nesting");
    refused(&format!("{}{}", "{{if true}}x{{else if true}}".repeat(deep), "{{end}}".repeat(deep)), "levels of nesting");
    let doubling = "{{$a := \"xxxxxxxx\"}}".to_owned() + &"{{$a = print $a $a}}".repeat(60);
    refused(&doubling, "longer than 1000 bytes");
    let ranges = "{{range $.Service.Labels}}".repeat(20) + &"{{end}}".repeat(20);
    refused(&ranges, "longer than 1000 bytes");
    refused(&"{{if false}}{{end}}".repeat(200_000), "it takes more than");
    refused(&"x".repeat(1001), "longer than 1000 bytes");
    // Copies of one text count, and so does each piece of what is made, before there is the next one.
    let long = "x".repeat(500);
    refused(&format!("{{{{$x := \"{long}\"}}}}{{{{eq{}}}}}", " $x".repeat(20)), "longer than 1000 bytes");
    refused(&format!("{{{{with \"{long}\"}}}}{{{{eq{}}}}}{{{{end}}}}", " .".repeat(20)), "longer than 1000 bytes");
    refused("{{printf \"%1000d%1000d%1000d%1000d%1000d%s\" 1 1 1 1 1}}", "longer than 1000 bytes");
    let long = field(&format!("{{{{.Node.ID}}}}{}", "x".repeat(TEMPLATE_FIELD_BYTES_MAX)), &facts());
    assert!(long.is_err());
    assert!(fill(&"{{1}}".repeat(200_000)).is_err());
}

proptest! {
    #[test]
    fn nothing_panics(parts in proptest::collection::vec(prop::sample::select(vec![
        "{{", "}}", "{{-", "-}}", " ", ".", "Node", ".Task.Slot", "$", "$x", ":=", "=", "|", "(", ")", ",", "\"", "`",
        "if ", "else", "end", "range ", "with ", "index ", "printf ", "\"%s\"", "5", "-", "/*", "*/", "ä", "\n", "\\",
    ]), 0..24)) {
        let _ = fill(&parts.concat());
    }

    #[test]
    fn any_text_without_templates_stays(text in "[^{]{0,60}") {
        prop_assert_eq!(fill(&text), Ok(text));
    }
}

#[test]
fn which_fields_are_filled_in() {
    let volume = |source: &str| MountKind::Volume {
        source: Some(source.into()),
        options: VolumeOptions { no_copy: false, labels: [("{{k}}".into(), "{{.Task.ID}}".into())].into() },
    };
    let mut spec = ContainerSpec {
        image: "{{.Node.ID}}".into(),
        args: vec!["{{.Node.ID}}".into()],
        env: vec!["A={{.Node.Hostname}}".into(), "{{x}}=1".into(), "B".into()],
        hostname: Some("{{.Service.Name}}-{{.Task.Slot}}".into()),
        mounts: vec![Mount { target: "/d/{{.Task.Slot}}".into(), read_only: false, kind: volume("v{{.Task.Slot}}") }],
        ..ContainerSpec::default()
    };
    container(&mut spec, &facts()).expect("filled in");
    assert_eq!((spec.image.as_str(), spec.args[0].as_str()), ("{{.Node.ID}}", "{{.Node.ID}}"));
    assert_eq!(spec.env, ["A=pi1", "{{x}}=1", "B"]);
    assert_eq!((spec.hostname.as_deref(), spec.mounts[0].target.as_str()), (Some("web-10"), "/d/10"));
    let MountKind::Volume { source, options } = &spec.mounts[0].kind else { panic!("a volume") };
    assert_eq!((source.as_deref(), options.labels["{{k}}"].as_str()), (Some("v10"), "taskID"));
    spec.hostname = Some("{{.Nope}}".into());
    let error = container(&mut spec, &facts()).expect_err("refused");
    assert_eq!(error, "expanding hostname failed: template: 1:1: there is no field .Nope here");
}
