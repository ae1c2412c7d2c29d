//! Runs `tests/golden/orchestrator/*.txt`: `== name` begins a scenario, a line is a command, the indented lines
//! below it are what must come of it.

use std::fmt::Write as _;
use std::path::Path;

use super::script;
use super::world::World;

#[test]
fn scenarios() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/orchestrator");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let want = std::fs::read_to_string(&file).unwrap();
        let have = play(&want);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &have).unwrap();
        } else if have != want {
            wrong.push(format!("{}:\n{}", file.display(), first_difference(&want, &have)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn play(text: &str) -> String {
    let mut out = String::new();
    let mut world = World::new(1);
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if line.starts_with("==") {
            world = World::new(1);
        } else if !line.is_empty() && !line.starts_with('#') {
            for said in script::run(&mut world, line) {
                writeln!(out, "  {said}").unwrap();
            }
        }
    }
    out
}

fn first_difference(want: &str, have: &str) -> String {
    let (mut want_lines, mut have_lines) = (want.lines(), have.lines());
    let (mut number, mut context) = (0, Vec::new());
    loop {
        number += 1;
        match (want_lines.next(), have_lines.next()) {
            (None, None) => return "no difference".to_owned(),
            (want, have) if want == have => context.extend(have),
            (want, have) => {
                let before = context.iter().rev().take(6).rev().copied().collect::<Vec<_>>().join("\n");
                return format!("line {number}:\n{before}\n- {}\n+ {}", want.unwrap_or(""), have.unwrap_or(""));
            }
        }
    }
}
