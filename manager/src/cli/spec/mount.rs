//! `--mount`: Docker's long syntax → a mount of the service specification. Pure.

use serde_json::{Value, json};

use super::super::json::{array, object, set};
use super::super::parse;

/// Reads `type=bind,source=/a,target=/b,readonly` and its many relatives.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut mount = json!({"Type": "volume"});
    // Which kind of mount an option belongs to, with the option, for the check at the end.
    let mut bound: Vec<(&str, String)> = Vec::new();
    for field in parse::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value)),
            None => (field.trim().to_lowercase(), None),
        };
        let kind = match key.split_once('-') {
            Some(("bind", _)) => Some("bind"),
            Some(("volume", _)) => Some("volume"),
            Some(("tmpfs", _)) => Some("tmpfs"),
            _ => None,
        };
        if let Some(kind) = kind {
            bound.push((kind, key.clone()));
        }
        let needed = || value.ok_or_else(|| format!("--mount: {key} needs a value ({key}=…)"));
        match key.as_str() {
            "type" => match needed()?.to_lowercase().as_str() {
                kind @ ("bind" | "volume" | "tmpfs") => set(&mut mount, &["Type"], kind),
                other => return Err(format!("--mount: unknown type \"{other}\"; expected bind, volume or tmpfs")),
            },
            "source" | "src" => set(&mut mount, &["Source"], needed()?),
            "target" | "dst" | "destination" => set(&mut mount, &["Target"], needed()?),
            "readonly" | "ro" => match flag(&key, value)? {
                true => set(&mut mount, &["ReadOnly"], true),
                false => object(&mut mount, &[]).retain(|key, _| key != "ReadOnly"),
            },
            "bind-propagation" => match needed()? {
                mode @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => {
                    set(&mut mount, &["BindOptions", "Propagation"], mode);
                }
                other => {
                    return Err(format!(
                        "--mount: unknown propagation \"{other}\"; expected \
                                             private, rprivate, shared, rshared, slave or rslave"
                    ));
                }
            },
            "bind-nonrecursive" => set(&mut mount, &["BindOptions", "NonRecursive"], flag(&key, value)?),
            "volume-nocopy" => set(&mut mount, &["VolumeOptions", "NoCopy"], flag(&key, value)?),
            "volume-subpath" => set(&mut mount, &["VolumeOptions", "Subpath"], needed()?),
            "volume-label" => {
                let (name, value) = parse::label(needed()?)?;
                set(&mut mount, &["VolumeOptions", "Labels", &name], value);
            }
            "volume-driver" => set(&mut mount, &["VolumeOptions", "DriverConfig", "Name"], needed()?),
            "volume-opt" => {
                let (name, value) = parse::label(needed()?)?;
                set(&mut mount, &["VolumeOptions", "DriverConfig", "Options", &name], value);
            }
            "tmpfs-size" => set(&mut mount, &["TmpfsOptions", "SizeBytes"], parse::bytes(needed()?)?),
            "tmpfs-mode" => {
                let octal = needed()?;
                let mode = u32::from_str_radix(octal, 8).ok().filter(|mode| *mode <= 0o7777);
                let mode =
                    mode.ok_or_else(|| format!("--mount: tmpfs-mode \"{octal}\" is not an octal mode such as 1777"))?;
                set(&mut mount, &["TmpfsOptions", "Mode"], mode);
            }
            _ => return Err(format!("--mount: unknown option \"{key}\" in \"{text}\"")),
        }
    }
    judge(&mount, &bound, text)?;
    Ok(mount)
}

fn judge(mount: &Value, bound: &[(&str, String)], text: &str) -> Result<(), String> {
    let kind = mount["Type"].as_str().unwrap_or("");
    let source = mount["Source"].as_str().unwrap_or("");
    if mount["Target"].as_str().unwrap_or("").is_empty() {
        return Err(format!("--mount: target is missing in \"{text}\""));
    }
    if let Some((_, option)) = bound.iter().find(|(owner, _)| *owner != kind) {
        return Err(format!("--mount: {option} does not go with type {kind}"));
    }
    match kind {
        "bind" if !source.starts_with('/') => {
            Err(format!("--mount: the source of a bind mount must be an absolute path of the board, not \"{source}\""))
        }
        "tmpfs" if !source.is_empty() => Err("--mount: a tmpfs has no source".to_owned()),
        "volume" if source.is_empty() && mount["ReadOnly"] == true => {
            Err("--mount: a read-only volume needs a source".to_owned())
        }
        _ => Ok(()),
    }
}

fn flag(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("--mount: {key}={other} is neither true nor false")),
    }
}

/// Adds mounts; one with the same target replaces the old one in its place.
pub(crate) fn add(container: &mut Value, mounts: &[Value]) {
    for mount in mounts {
        let list = array(container, &["Mounts"]);
        match list.iter_mut().find(|old| same_target(&old["Target"], &mount["Target"])) {
            Some(old) => *old = mount.clone(),
            None => list.push(mount.clone()),
        }
    }
}

/// Removes the mount at `target`.
pub(crate) fn remove(container: &mut Value, target: &str) {
    let target = Value::from(target);
    array(container, &["Mounts"]).retain(|mount| !same_target(&mount["Target"], &target));
}

fn same_target(a: &Value, b: &Value) -> bool {
    let path = |value: &Value| value.as_str().unwrap_or("").trim_end_matches('/').to_owned();
    path(a) == path(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<Value, &str>) {
        match (parse(text), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn mounts() {
        check("source=vol1,target=/data", Ok(json!({"Type": "volume", "Source": "vol1", "Target": "/data"})));
        check("type=tmpfs,dst=/t", Ok(json!({"Type": "tmpfs", "Target": "/t"})));
        check(
            "type=bind,src=/tmp,destination=/h,ro",
            Ok(json!({"Type": "bind", "Source": "/tmp", "Target": "/h", "ReadOnly": true})),
        );
        check(
            "type=bind,src=/tmp,dst=/h,readonly=false,bind-propagation=rslave",
            Ok(json!({"Type": "bind", "Source": "/tmp", "Target": "/h", "BindOptions": {"Propagation": "rslave"}})),
        );
        check(
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700",
            Ok(json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 448}})),
        );
        check(
            "src=v,dst=/v,volume-nocopy,volume-label=a=b,volume-driver=local,\"volume-opt=o=rw,nfs\"",
            Ok(json!({"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {
                "NoCopy": true, "Labels": {"a": "b"},
                "DriverConfig": {"Name": "local", "Options": {"o": "rw,nfs"}}}})),
        );
        check("source=vol1", Err("target is missing"));
        check("type=bind,src=here,dst=/h", Err("absolute path"));
        check("type=bind,src=/a,dst=/h,volume-nocopy", Err("volume-nocopy does not go with type bind"));
        check("type=tmpfs,src=/a,dst=/h", Err("no source"));
        check("type=npipe,dst=/h", Err("unknown type"));
        check("type=tmpfs,dst=/h,tmpfs-mode=999", Err("octal"));
        check("dst=/h,readonly", Err("needs a source"));
        check("dst=/h,foo=1", Err("unknown option \"foo\""));
        check("dst=/h,source", Err("needs a value"));
    }

    #[test]
    fn the_target_names_a_mount() {
        let mut container = json!({"Mounts": [{"Target": "/a", "Source": "x"}, {"Target": "/b/"}]});
        add(&mut container, &[json!({"Target": "/a/", "Source": "y"}), json!({"Target": "/c"})]);
        remove(&mut container, "/b");
        assert_eq!(container, json!({"Mounts": [{"Target": "/a/", "Source": "y"}, {"Target": "/c"}]}));
    }
}
