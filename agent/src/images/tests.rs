use racimo_common::registry::Digest;

use super::*;

/// `NAME=DIGEST`, then labels: `ours`, `unused=7`, `web=3` (a service's turn).
fn record(text: &str) -> Record {
    let mut words = text.split(' ');
    let (name, digest) = words.next().unwrap().split_once('=').unwrap();
    let labels = words.map(|word| match word.split_once('=') {
        None => (PULLED.to_owned(), "true".to_owned()),
        Some(("unused", hours)) => (UNUSED.to_owned(), hours.to_owned()),
        Some((service, turn)) => (format!("{TURN}{service}"), turn.to_owned()),
    });
    Record { name: name.into(), digest: digest.into(), labels: labels.collect() }
}

fn records(texts: &[&str]) -> Vec<Record> {
    texts.iter().map(|text| record(text)).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn wanted(names: &[&str], digests: &[&str], services: &[&str]) -> Wanted {
    Wanted { names: set(names), digests: set(digests), services: set(services) }
}

#[track_caller]
fn check(texts: &[&str], wanted: &Wanted, expected: &[&str]) {
    let found: Vec<String> = unused(&records(texts), wanted)
        .iter()
        .map(|u| format!("{} {} {}", u.digest, u.names.join(","), u.hours))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_needed_stays() {
    let all = ["a:1=A ours", "b:1=B ours unused=6", "c:1=C"];
    check(&all, &Wanted::default(), &["B b:1 6", "A a:1 0"]);
    // By name, by digest; what people imported is theirs.
    check(&all, &wanted(&["a:1"], &["B"], &[]), &[]);
    // One name of several is enough, also an imported one.
    check(&["a:1=A ours", "a@A=A ours", "z=A"], &wanted(&["z"], &[], &[]), &[]);
    check(&["a:1=A ours unused=6", "a@A=A ours unused=12", "z=A"], &Wanted::default(), &["A a:1,a@A 6"]);
    // One of its names was used since.
    check(&["a:1=A ours", "a@A=A ours unused=12"], &Wanted::default(), &["A a:1,a@A 0"]);
    check(&[], &Wanted::default(), &[]);
}

#[test]
fn the_previous_version_of_each_service_stays() {
    let all = ["v1=A ours web=1", "v2=B ours web=2", "v3=C ours web=3", "db1=D ours db=1", "db2=E ours db=2"];
    check(&all, &wanted(&["v3", "db2"], &[], &["web", "db"]), &["A v1 0"]);
    // Rolled back: the version that failed stays, as one may go forward again.
    let back = ["v1=A ours web=1", "v2=B ours web=4", "v3=C ours web=3"];
    check(&back, &wanted(&["v2"], &[], &["web"]), &["A v1 0"]);
    // Services that left the board need nothing.
    check(&all, &wanted(&["v3"], &[], &["web"]), &["A v1 0", "D db1 0", "E db2 0"]);
    // Two names of one image are one version.
    let names = ["v1=A ours web=1", "v2=B ours web=2", "v2@B=B ours web=3"];
    check(&names, &wanted(&[], &["B"], &["web"]), &[]);
    // A label that somebody wrote by hand is none.
    check(&["v1=A ours web=x"], &wanted(&[], &[], &["web"]), &["A v1 0"]);
}

#[test]
fn those_unused_longest_go_first() {
    let all = ["a=A ours unused=6 w=9", "b=B ours unused=12 w=8", "c=C ours unused=6 w=7", "d=D ours unused=6"];
    check(&all, &Wanted::default(), &["B b 12", "D d 6", "C c 6", "A a 6"]);
}

#[track_caller]
fn check_aged(text: &str, is_unused: bool, services: &[&str], hours: u32, expected: Option<&str>) {
    let record_ = record(text);
    let labels = aged(&record_, is_unused, &set(services), hours);
    assert_eq!(labels, expected.map(|text| record(&format!("x=X {text}")).labels));
}

#[test]
fn ages_count_looks_and_no_clock() {
    check_aged("a=A ours", false, &[], 6, None);
    check_aged("a=A", true, &[], 6, None);
    // It may have been used until a moment ago.
    check_aged("a=A ours", true, &[], 6, Some("ours unused=0"));
    check_aged("a=A ours unused=0", true, &[], 6, Some("ours unused=6"));
    check_aged("a=A ours unused=6", false, &[], 6, Some("ours"));
    check_aged("a=A ours unused=4294967295", true, &[], 6, None);
    check_aged("a=A ours unused=x", true, &[], 6, Some("ours unused=0"));
    check_aged("a=A ours web=1 db=2", false, &["web"], 6, Some("ours web=1"));
}

#[track_caller]
fn check_used(texts: &[&str], name: &str, expected: Option<&str>) {
    let labels = used(&records(texts), name, "web");
    assert_eq!(labels, expected.map(|text| record(&format!("x=X {text}")).labels));
}

#[test]
fn a_restart_writes_nothing() {
    check_used(&["a=A ours"], "a", Some("ours web=1"));
    check_used(&["a=A ours web=1"], "a", None);
    check_used(&["a=A ours web=1 unused=6"], "a", Some("ours web=1"));
    check_used(&["a=A ours web=1", "b=B ours"], "b", Some("ours web=2"));
    check_used(&["a=A ours web=1", "b=B ours web=2"], "b", None);
    check_used(&["a=A ours web=1", "b=B ours web=2"], "a", Some("ours web=3"));
    check_used(&["a=A"], "a", None);
    check_used(&["a=A ours"], "b", None);
}

#[test]
fn percents_are_those_of_df() {
    for (size, free, percent) in [(100, 100, 0), (100, 15, 85), (1000, 149, 86), (100, 0, 100), (0, 0, 0), (10, 20, 0)]
    {
        assert_eq!(Room { size, free, files: None }.percent(), percent, "{size} {free}");
    }
    assert_eq!(Room { size: u64::MAX, free: 0, files: None }.percent(), 100);
}

#[test]
fn tasks_name_their_images() {
    let mut ids = racimo_common::id::IdSource::seeded(1);
    let digest = Digest::of(b"x").to_string();
    let work = |image: &str, service| Work {
        net: None,
        service,
        service_name: "web".into(),
        slot_name: "web.1".into(),
        container: racimo_common::object::ContainerSpec { image: image.into(), ..Default::default() },
        resources: Default::default(),
        log: Default::default(),
        files: Vec::new(),
        credentials: None,
        fault: None,
        offline: Default::default(),
    };
    let works =
        [work("nginx", ids.draw()), work(&format!("a.b/c:1@{digest}"), ids.draw()), work("Not an image", ids.draw())];
    let wanted = Wanted::of(works.iter());
    let pulled = format!("a.b/c:1@{digest}");
    assert_eq!(wanted.names, set(&["docker.io/library/nginx:latest", &pulled]));
    assert_eq!(wanted.digests, set(&[&digest]));
    assert_eq!(wanted.services.len(), 3);
    assert!(wanted.names_one(&digest, &[]) && wanted.names_one("", &["docker.io/library/nginx:latest".into()]));
    assert!(!wanted.names_one("sha256:0", &["b".into()]));
    // Its tag may mean another image by now.
    assert!(!wanted.names_one("sha256:0", &["a.b/c:1".into(), "a.b/c@sha256:0".into()]));
}

#[test]
fn images_go_by_age_and_by_room() {
    const TIME: Look = Look::Time { hours: 0 };
    let settings = Settings { keep_hours: Some(168), high: 85, low: 80 };
    let by_room = Settings { keep_hours: None, ..settings };
    let at_once = Settings { keep_hours: Some(0), ..settings };
    let unused = |hours| format!("nobody has needed it for {hours} h");
    let full = |percent| format!("the disk is {percent} % full");
    let no_room = "there is no room for another".to_owned();
    for (settings, hours, look, was_full, percent, expected) in [
        (settings, 167, TIME, false, 10, None),
        (settings, 168, TIME, false, 10, Some(unused(168))),
        (settings, 169, Look::Time { hours: 6 }, false, 10, Some(unused(169))),
        (by_room, u32::MAX, TIME, false, 10, None),
        (at_once, 0, TIME, false, 10, Some(unused(0))),
        // Between the marks only what began above the high one goes on.
        (settings, 0, TIME, false, 84, None),
        (settings, 0, TIME, true, 86, Some(full(86))),
        (settings, 0, TIME, true, 81, Some(full(81))),
        (settings, 0, TIME, true, 80, None),
        (settings, 168, TIME, true, 80, Some(unused(168))),
        (by_room, 0, Look::NoRoom, false, 10, Some(no_room.clone())),
        (settings, 0, Look::NoRoom, true, 79, Some(no_room)),
    ] {
        let room = Room { size: 100, free: 100 - percent, files: None };
        let found = settings.reason(hours, look, was_full, room);
        assert_eq!(found, expected, "{settings:?} {hours} h {look:?} {was_full} {percent} %");
    }
    for (percent, expected) in [(84, false), (85, true), (100, true)] {
        assert_eq!(settings.is_full(Room { size: 100, free: 100 - percent, files: None }), expected);
    }
}

#[test]
fn room_is_bytes_or_files() {
    let before = Room { size: 100, free: 10, files: Some(0) };
    for (free, files, expected) in [(10, 0, false), (9, 0, false), (11, 0, true), (10, 1, true)] {
        assert_eq!(Room { size: 100, free, files: Some(files) }.is_more_than(before), expected, "{free} {files}");
    }
}
