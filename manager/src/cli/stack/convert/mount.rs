//! A service's volumes and tmpfs ─▶ mounts.

use serde_json::Value;

use super::super::compose::node::{Fault, Node, join};
use super::{Body, dict, labels, name_of};
use crate::cli::parse;

/// The mounts of a service.
pub(super) fn all(stack: &str, service: &Node, file: &Node, path: &str) -> Result<Vec<Value>, Fault> {
    let mut mounts = Vec::new();
    for (i, mount) in service.get("volumes").map(Node::items).unwrap_or_default().iter().enumerate() {
        mounts.push(one(stack, mount, file, &format!("{path}.volumes[{i}]"))?);
    }
    for (i, line) in service.get("tmpfs").map(Node::items).unwrap_or_default().iter().enumerate() {
        mounts.push(tmpfs(line, &format!("{path}.tmpfs[{i}]"))?);
    }
    Ok(mounts)
}

fn one(stack: &str, mount: &Node, file: &Node, path: &str) -> Result<Value, Fault> {
    let (kind, source) = (mount.text("type"), mount.text("source"));
    if mount.text("target").is_empty() {
        return Err(mount.fault(path, "a mount needs a target"));
    }
    for (owner, options) in [("bind", "bind"), ("volume", "volume"), ("tmpfs", "tmpfs")] {
        if kind != owner && mount.get(options).is_some() && !kind.is_empty() {
            return Err(mount.fault(path, format!("{options} options are incompatible with type {kind}")));
        }
    }
    let mut body = Body::default();
    body.put("Type", kind).put("Source", source).set("Target", mount.text("target"));
    body.put("ReadOnly", mount.flag("read_only")).put("Consistency", mount.text("consistency"));
    match kind {
        "bind" => {
            if let Some(bind) = mount.get("bind") {
                body.set("BindOptions", Body::default().put("Propagation", bind.text("propagation")).take());
            }
        }
        "tmpfs" => {
            if !source.is_empty() {
                return Err(mount.fault(path, "a tmpfs has no source"));
            }
            if let Some(tmpfs) = mount.get("tmpfs") {
                let mut options = Body::default();
                options.put("SizeBytes", tmpfs.int("size").unwrap_or_default());
                options.put("Mode", tmpfs.int("mode").unwrap_or_default());
                body.set("TmpfsOptions", options.take());
            }
        }
        "volume" if source.is_empty() => {}
        "volume" => named(stack, mount, source, file, path, &mut body)?,
        "" => return Err(mount.fault(path, "a mount needs a type: volume, bind or tmpfs")),
        other => return Err(mount.fault(path, format!("unknown type {other:?}: expected volume, bind or tmpfs"))),
    }
    Ok(body.take())
}

fn named(stack: &str, mount: &Node, source: &str, file: &Node, path: &str, body: &mut Body) -> Result<(), Fault> {
    let volume = file.get("volumes").and_then(|volumes| volumes.get(source));
    let Some(volume) = volume else {
        let what = format!("undefined volume {source:?}: name it in the top-level volumes");
        return Err(mount.get("source").unwrap_or(mount).fault(&join(path, "source"), what));
    };
    body.set("Source", name_of(stack, source, Some(volume)));
    let mut options = Body::default();
    options.put("NoCopy", mount.get("volume").is_some_and(|options| options.flag("nocopy")));
    if !volume.flag("external") {
        options.set("Labels", labels(stack, Some(volume)));
        let driver_options = dict(Some(volume), "driver_opts");
        if !volume.text("driver").is_empty() || !driver_options.is_empty() {
            let driver = Body::default().put("Name", volume.text("driver")).put("Options", driver_options).take();
            options.set("DriverConfig", driver);
        }
    }
    body.set("VolumeOptions", options.take());
    Ok(())
}

/// `/run`, `/run:size=64m,mode=1777`.
fn tmpfs(line: &Node, path: &str) -> Result<Value, Fault> {
    let text = line.as_text().unwrap_or_default();
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut body = Body::default();
    body.set("Type", "tmpfs").set("Target", target);
    let mut given = Body::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let value = match option.split_once('=') {
            Some(("size", size)) => parse::bytes(size).map(|bytes| ("SizeBytes", bytes)),
            Some(("mode", mode)) => i64::from_str_radix(mode, 8)
                .map(|mode| ("Mode", mode))
                .map_err(|_| format!("{mode:?} is not an octal mode such as 1777")),
            _ => Err(format!("unknown option {option:?}: expected size=… or mode=…")),
        };
        let (key, value) = value.map_err(|why| line.fault(path, why))?;
        given.put(key, value);
    }
    body.put("TmpfsOptions", given.take());
    Ok(body.take())
}
