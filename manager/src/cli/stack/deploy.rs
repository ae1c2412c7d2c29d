//! `stack deploy`, in Docker's order and words.

use super::super::service::warn;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::json::{Peek, set};
use super::super::progress::run::converge;
use super::super::registry_auth;
use super::super::service::resolve;
use super::super::url::{Filters, Url};
use super::convert::{self, IMAGE, Stack};
use super::{DeployArgs, Input, ResolveImage, of_stack, remove};

/// Brings a stack to what its files say.
pub(super) async fn run(args: &DeployArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let input = Input::open(&args.compose_file)?;
    let file = input.load(true, console)?;
    let stack = input.world(console, |world| convert::stack(&args.stack, &file, world));
    let mut stack = stack.map_err(|fault| CliError::Refused(fault.to_string()))?;
    if args.prune {
        prune(&args.stack, &stack, client, console).await?;
    }
    for (name, fault) in &stack.external_networks {
        match client.get(&Url::new(&["networks", name])).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Err(CliError::Refused(fault.to_string())),
            Err(error) => return Err(error),
        }
    }
    networks(&args.stack, &stack, client, console).await?;
    objects("secret", &stack.secrets, client, console).await?;
    objects("config", &stack.configs, client, console).await?;
    for (kind, list, name, id) in
        [("secret", "Secrets", "SecretName", "SecretID"), ("config", "Configs", "ConfigName", "ConfigID")]
    {
        identify(&mut stack.services, [kind, list, name, id], client).await?;
    }
    let services = services(args, stack.services, client, console).await?;
    if args.wait.detach {
        return Ok(());
    }
    let mut errors = Vec::new();
    for (name, id) in &services {
        if services.len() > 1 && !args.wait.quiet {
            console.say(name)?;
        }
        if let Err(error) = converge(client, console, id, args.wait.quiet).await {
            errors.push(failed(format!("service {name}"), error));
        }
    }
    CliError::collect(errors)
}

/// An error with what could not be done; a refusal's text is the manager's.
fn failed(what: impl std::fmt::Display, error: CliError) -> CliError {
    match error {
        CliError::Api { status, message } => CliError::Api { status, message: format!("{what}: {message}") },
        CliError::Progress(text) => CliError::Progress(format!("{what}: {text}")),
        other => other,
    }
}

async fn prune(name: &str, stack: &Stack, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let kept: BTreeSet<&str> = stack.services.iter().map(|service| service.text("/Name")).collect();
    let all = client.get(&Url::new(&["services"]).filters(&of_stack(name))).await?;
    let gone: Vec<Value> =
        all.list("").iter().filter(|service| !kept.contains(service.text("/Spec/Name"))).cloned().collect();
    CliError::collect(remove::all("service", gone, client, console).await?)
}

async fn networks(name: &str, stack: &Stack, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let there = client.get(&Url::new(&["networks"]).filters(&of_stack(name))).await?;
    let there: BTreeSet<&str> = there.list("").iter().map(|network| network.text("/Name")).collect();
    for network in stack.networks.iter().filter(|network| !there.contains(network.text("/Name"))) {
        let name = network.text("/Name");
        console.say(format!("Creating network {name}"))?;
        let answer = client.post(&Url::new(&["networks", "create"]), network, &[]).await;
        let answer = answer.map_err(|error| failed(format!("failed to create network {name}"), error))?;
        if !answer.text("/Warning").is_empty() {
            console.warn(answer.text("/Warning"))?;
        }
    }
    Ok(())
}

/// Makes secrets or configs, or brings their labels up to date: their content never changes.
async fn objects(kind: &str, bodies: &[Value], client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let section = format!("{kind}s");
    for body in bodies {
        let name = body.text("/Name");
        match client.get(&Url::new(&[&section, name])).await {
            Ok(there) => {
                let version = there.int("/Version/Index").unwrap_or(0).to_string();
                let url = Url::new(&[&section, there.text("/ID"), "update"]).query("version", &version);
                let answer = client.post(&url, body, &[]).await;
                answer.map_err(|error| failed(format!("failed to update {kind} {name}"), error))?;
            }
            Err(error) if error.is_not_found() => {
                console.say(format!("Creating {kind} {name}"))?;
                let answer = client.post(&Url::new(&[&section, "create"]), body, &[]).await;
                answer.map_err(|error| failed(format!("failed to create {kind} {name}"), error))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts the ids of secrets or configs beside their names.
async fn identify(
    services: &mut [Value],
    [kind, list, name_field, id_field]: [&str; 4],
    client: &mut Client,
) -> Result<(), CliError> {
    let mut names = BTreeSet::new();
    for service in services.iter() {
        let references = service.list(&format!("/TaskTemplate/ContainerSpec/{list}"));
        names.extend(references.iter().map(|reference| reference[name_field].as_str().unwrap_or_default().to_owned()));
    }
    if names.is_empty() {
        return Ok(());
    }
    let filters = names.iter().fold(Filters::default(), |filters, name| filters.with("name", name));
    let found = client.get(&Url::new(&[&format!("{kind}s")]).filters(&filters)).await?;
    let ids: BTreeMap<&str, &str> =
        found.list("").iter().map(|object| (object.text("/Spec/Name"), object.text("/ID"))).collect();
    for service in services {
        let own = service.text("/Name").to_owned();
        let references = service.pointer_mut(&format!("/TaskTemplate/ContainerSpec/{list}"));
        for reference in references.and_then(Value::as_array_mut).into_iter().flatten() {
            let name = reference[name_field].as_str().unwrap_or_default().to_owned();
            match ids.get(name.as_str()) {
                Some(id) => set(reference, &[id_field], *id),
                None => return Err(CliError::Refused(format!("service {own}: {kind} not found: {name}"))),
            }
        }
    }
    Ok(())
}

/// Makes or updates services; their names and ids.
async fn services(
    args: &DeployArgs,
    bodies: Vec<Value>,
    client: &mut Client,
    console: &mut Console,
) -> Result<Vec<(String, String)>, CliError> {
    let there = client.get(&Url::new(&["services"]).filters(&of_stack(&args.stack))).await?;
    let there: BTreeMap<&str, &Value> = there.list("").iter().map(|s| (s.text("/Spec/Name"), s)).collect();
    let mut done = Vec::new();
    for mut body in bodies {
        let name = body.text("/Name").to_owned();
        let image = body.text("/TaskTemplate/ContainerSpec/Image").to_owned();
        let auth = if args.with_registry_auth { registry_auth::header(&image, console.env)? } else { None };
        let headers: Vec<(&'static str, &str)> =
            auth.as_deref().map(|auth| ("X-Registry-Auth", auth)).into_iter().collect();
        let Some(old) = there.get(name.as_str()) else {
            console.say(format!("Creating service {name}"))?;
            let ask = args.resolve_image != ResolveImage::Never;
            let warning = resolve::image(client, &mut body, &image, ask, auth.as_deref()).await?;
            let answer = client.post(&Url::new(&["services", "create"]), &body, &headers).await;
            let answer = answer.map_err(|error| failed(format!("failed to create service {name}"), error))?;
            warn(console, warning, &answer)?;
            done.push((name, answer.text("/ID").to_owned()));
            continue;
        };
        let id = old.text("/ID").to_owned();
        console.say(format!("Updating service {name} (id: {id})"))?;
        let same = old["Spec"]["Labels"][IMAGE].as_str() == Some(image.as_str());
        let warning = match (args.resolve_image, same) {
            (ResolveImage::Changed | ResolveImage::Never, true) => {
                keep_image(&mut body, &old["Spec"]);
                None
            }
            (how, _) => {
                let ask = how != ResolveImage::Never;
                resolve::image(client, &mut body, &image, ask, auth.as_deref()).await?
            }
        };
        // A forced update of the service is not undone.
        let forced = old["Spec"]["TaskTemplate"]["ForceUpdate"].clone();
        set(&mut body, &["TaskTemplate", "ForceUpdate"], if forced.is_null() { Value::from(0) } else { forced });
        let version = old.int("/Version/Index").unwrap_or(0).to_string();
        let url = Url::new(&["services", &id, "update"]).query("version", &version);
        let answer = client.post(&url, &body, &headers).await;
        let answer = answer.map_err(|error| failed(format!("failed to update service {name}"), error))?;
        warn(console, warning, &answer)?;
        done.push((name, id));
    }
    Ok(done)
}

/// The image as it was resolved before, so that no task is replaced.
fn keep_image(body: &mut Value, old: &Value) {
    let task = &old["TaskTemplate"];
    set(body, &["TaskTemplate", "ContainerSpec", "Image"], task["ContainerSpec"]["Image"].clone());
    if !task["Placement"]["Platforms"].is_null() {
        set(body, &["TaskTemplate", "Placement", "Platforms"], task["Placement"]["Platforms"].clone());
    }
}
