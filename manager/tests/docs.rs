//! Documents that must not drift from the code.
//!
//! docs/limits.md: its tables are made from every `limits.rs`.
//! `RACIMO_UPDATE_DOCS=1 cargo test -p racimo-manager --test docs` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- made from ";
const END: &str = "<!-- end -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("manager is a folder of the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `64 << 10` as `64 KiB`, `Duration::from_secs(5)` as `5 s`; anything else as it stands.
fn human(value: &str) -> String {
    for (suffix, unit) in [(" << 10", "KiB"), (" * 1024", "KiB"), (" << 20", "MiB"), (" << 19", "× 512 KiB")] {
        if let Some(number) = value.strip_suffix(suffix) {
            return format!("{number} {unit}");
        }
    }
    let value = value.replace("Duration::from_secs(60 * 60)", "1 h");
    let value = value.replace("Duration::from_secs(", "s(").replace("Duration::from_millis(", "ms(");
    let mut text = value.clone();
    for unit in ["ms", "s"] {
        while let Some(at) = text.find(&format!("{unit}(")) {
            let Some(end) = text[at..].find(')').map(|end| at + end) else { break };
            text = format!("{}{} {unit}{}", &text[..at], &text[at + unit.len() + 1..end], &text[end + 1..]);
        }
    }
    text
}

/// The table of a `limits.rs`: every `const` another module can see, with its documentation.
fn table(source: &str) -> String {
    let mut rows = "\n| limit | value | meaning, reason, what happens when it is reached |\n|---|---|---|\n".to_owned();
    let mut doc = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
            continue;
        }
        let constant = line.strip_prefix("pub const ").or_else(|| line.strip_prefix("pub(crate) const "));
        if let Some((name, rest)) = constant.and_then(|text| text.split_once(": ")) {
            let mut rest = rest.to_owned();
            while !rest.ends_with(';') {
                rest += lines.next().expect("a constant ends").trim();
            }
            let value = rest.trim_end_matches(';').split_once(" = ").expect("a constant has a value").1;
            assert!(!doc.is_empty(), "{name} is not documented");
            let doc = doc.join(" ").replace("[`", "`").replace("`]", "`");
            rows += &format!("| `{name}` | {} | {doc} |\n", human(value));
        }
        doc.clear();
    }
    rows + "\n"
}

#[test]
fn limits_md_tells_every_limit() {
    let old = read("docs/limits.md");
    let mut new = String::new();
    let mut rest = old.as_str();
    while let Some(at) = rest.find(BEGIN) {
        let (before, here) = rest.split_at(at);
        let (mark, here) = here.split_once('\n').expect("a mark is a line");
        let path = mark.trim_start_matches(BEGIN).trim_end_matches(" -->");
        let (_, after) = here.split_once(END).unwrap_or_else(|| panic!("{path}: its table does not end"));
        new += &format!("{before}{mark}\n{}{END}", table(&read(path)));
        rest = after;
    }
    new += rest;
    for path in [
        "common/src/limits.rs",
        "common/src/registry/limits.rs",
        "manager/src/limits.rs",
        "manager/src/cli/limits.rs",
        "agent/src/limits.rs",
    ] {
        assert!(new.contains(&format!("{BEGIN}{path} -->")), "docs/limits.md has no table of {path}");
    }
    if std::env::var_os("RACIMO_UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/limits.md"), &new).unwrap();
    } else if let Some((is, wanted)) = old.lines().zip(new.lines()).find(|(is, wanted)| is != wanted) {
        panic!("docs/limits.md is behind the code (RACIMO_UPDATE_DOCS=1 mends it)\n  has    {is}\n  wanted {wanted}");
    } else {
        assert_eq!(old.len(), new.len(), "docs/limits.md is behind the code (RACIMO_UPDATE_DOCS=1 mends it)");
    }
}

/// Every relative link of a document leads to a file.
#[test]
fn links_lead_somewhere() {
    let root = root();
    let folders = [root.clone(), root.join("docs"), root.join("docs/decisions")];
    let mut broken = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = link.split('#').next().unwrap_or_default();
                if !link.contains("://") && !file.is_empty() && !folder.join(file).exists() {
                    broken.push(format!("{}: {link}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
