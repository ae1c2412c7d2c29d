//! `stack rm`, in Docker's order and words.

use serde_json::Value;

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::sort::natural;
use super::super::json::Peek;
use super::super::progress::run::vanish;
use super::super::url::Url;
use super::{RmArgs, of_stack};

/// In the order in which they go; networks last, when nothing is attached any more.
const KINDS: [&str; 4] = ["service", "secret", "config", "network"];

/// Removes stacks.
pub(super) async fn run(args: &RmArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut errors = Vec::new();
    for stack in &args.stacks {
        let mut found = Vec::new();
        for kind in KINDS {
            let list = client.get(&Url::new(&[&format!("{kind}s")]).filters(&of_stack(stack))).await?;
            found.push((kind, list.list("").to_vec()));
        }
        if found.iter().all(|(_, objects)| objects.is_empty()) {
            console.warn(format!("Nothing found in stack: {stack}"))?;
            continue;
        }
        let services = found[0].1.iter().map(|s| (s.text("/ID").to_owned(), s.text("/Spec/Name").to_owned())).collect();
        let mut failed = Vec::new();
        for (kind, objects) in found {
            failed.extend(all(kind, objects, client, console).await?);
        }
        if failed.is_empty() && !args.wait.detach {
            wait(services, args.wait.quiet, client, console).await?;
        }
        if !failed.is_empty() {
            errors.extend(failed);
            errors.push(CliError::Refused(format!("failed to remove some resources from stack: {stack}")));
        }
    }
    CliError::collect(errors)
}

async fn wait(
    services: Vec<(String, String)>,
    quiet: bool,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), CliError> {
    if services.is_empty() { Ok(()) } else { vanish(client, console, &services, quiet).await }
}

/// Removes objects of one kind by name; what could not be removed. Only a manager that is not there stops it.
pub(super) async fn all(
    kind: &str,
    mut objects: Vec<Value>,
    client: &mut Client,
    console: &mut Console,
) -> Result<Vec<CliError>, CliError> {
    let name = |object: &Value| {
        let spec = object.text("/Spec/Name");
        if spec.is_empty() { object.text("/Name").to_owned() } else { spec.to_owned() }
    };
    objects.sort_by(|a, b| natural(&name(a), &name(b)));
    let mut errors = Vec::new();
    for object in &objects {
        console.say(format!("Removing {kind} {}", name(object)))?;
        let id = if object.text("/ID").is_empty() { object.text("/Id") } else { object.text("/ID") };
        match client.delete(&Url::new(&[&format!("{kind}s"), id])).await {
            Ok(()) => {}
            Err(CliError::Api { status, message }) => {
                let message = format!("failed to remove {kind} {}: {message}", name(object));
                errors.push(CliError::Api { status, message });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(errors)
}
