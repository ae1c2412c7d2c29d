//! Commands that change services, and wait until their tasks have followed.

use serde_json::Value;

use super::super::args::WaitFlags;
use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::json::{Peek, set};
use super::super::progress::run::{converge, vanish};
use super::super::registry_auth;
use super::super::spec::reference::{self, Kind};
use super::super::spec::update::UpdateFlags;
use super::super::url::Url;
use super::super::{network, spec};
use super::{CreateArgs, RegistryFlags, RmArgs, RollbackArgs, ScaleArgs, UpdateArgs, references, resolve};

/// The credentials that the service has stay.
const AUTH_FROM_SPEC: (&str, &str) = ("registryAuthFrom", "spec");

/// `service create`.
pub(super) async fn create(args: CreateArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut files = Vec::new();
    for path in &args.flags.env_file {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| CliError::File { path: path.clone(), source })?;
        files.push((path.clone(), text));
    }
    let wanted = args.flags.image.clone();
    let mut spec = args.flags.spec(&wanted, &files, console.env)?;
    if let Some(Value::Array(attachments)) = spec.pointer_mut("/TaskTemplate/Networks") {
        for attachment in attachments.iter_mut() {
            resolve_network(attachment, client).await?;
        }
        spec::network::sort(attachments);
    }
    for (kind, wanted) in [(Kind::Secret, &args.flags.secret), (Kind::Config, &args.flags.config)] {
        let found = references::find(client, kind, wanted).await?;
        reference::change(&mut spec, kind, &[], found);
    }
    let auth = auth(&args.registry, &wanted, console)?;
    let ask = !args.registry.no_resolve_image;
    let warning = resolve::image(client, &mut spec, &wanted, ask, auth.as_deref()).await?;
    let answer = client.post(&Url::new(&["services", "create"]), &spec, &headers(auth.as_deref())).await?;
    warn(console, warning, &answer)?;
    let id = answer.text("/ID").to_owned();
    if id.is_empty() {
        let reason = "it names no service ID".to_owned();
        return Err(CliError::Answer { request: "POST /services/create".to_owned(), reason });
    }
    console.say(&id)?;
    wait(client, console, &args.wait, &id).await
}

/// `service update`.
pub(super) async fn update(args: UpdateArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    if args.rollback {
        if args.flags != UpdateFlags::default() || args.registry != RegistryFlags::default() {
            return Err(CliError::Usage("other flags may not be combined with --rollback".to_owned()));
        }
        return go_back(&args.service, &[AUTH_FROM_SPEC], &args.wait, client, console).await;
    }
    let service = fetch(client, &args.service).await?;
    let mut spec = service["Spec"].clone();
    let mut warning = None;
    let current = spec.text("/TaskTemplate/ContainerSpec/Image").to_owned();
    let wanted = args.flags.image.as_ref().unwrap_or(&current);
    let auth = auth(&args.registry, wanted, console)?;
    if args.flags.image.is_some() {
        let ask = !args.registry.no_resolve_image;
        warning = resolve::image(client, &mut spec, wanted, ask, auth.as_deref()).await?;
    }
    args.flags.apply(&mut spec, console.env)?;
    attach(&args.flags, &mut spec, client).await?;
    for (kind, remove, add) in [
        (Kind::Secret, &args.flags.secret_rm, &args.flags.secret_add),
        (Kind::Config, &args.flags.config_rm, &args.flags.config_add),
    ] {
        let found = references::find(client, kind, add).await?;
        reference::change(&mut spec, kind, remove, found);
    }
    let source: &[_] = if auth.is_some() { &[] } else { &[AUTH_FROM_SPEC] };
    let answer = store(client, &service, &spec, source, auth.as_deref()).await?;
    warn(console, warning, &answer)?;
    console.say(&args.service)?;
    wait(client, console, &args.wait, service.text("/ID")).await
}

/// `--network-add` and `--network-rm`: specifications hold ids.
async fn attach(flags: &UpdateFlags, spec: &mut Value, client: &mut Client) -> Result<(), CliError> {
    if flags.network_add.is_empty() && flags.network_rm.is_empty() {
        return Ok(());
    }
    let mut remove = Vec::new();
    for name in &flags.network_rm {
        remove.push(network::id(client, name).await?);
    }
    let mut add = Vec::new();
    for attachment in &flags.network_add {
        let mut attachment = attachment.clone();
        add.push((resolve_network(&mut attachment, client).await?, attachment));
    }
    spec::network::change(spec, &remove, add)
}

/// Puts the id in the place of the name, which is returned: specifications hold ids.
async fn resolve_network(attachment: &mut Value, client: &mut Client) -> Result<String, CliError> {
    let name = attachment.text("/Target").to_owned();
    set(attachment, &["Target"], network::id(client, &name).await?);
    Ok(name)
}

/// `service scale`.
pub(super) async fn scale(args: &ScaleArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let (mut changed, mut errors) = (Vec::new(), Vec::new());
    for (name, replicas) in &args.targets {
        match scale_one(client, name, *replicas).await {
            Ok(service) => {
                console.say(format!("{name} scaled to {replicas}"))?;
                changed.push((name, service));
            }
            Err(error) => errors.push(error),
        }
    }
    for (name, service) in &changed {
        if changed.len() > 1 && !args.wait.detach && !args.wait.quiet {
            console.say(name)?;
        }
        if let Err(error) = wait(client, console, &args.wait, service.text("/ID")).await {
            errors.push(error);
        }
    }
    CliError::collect(errors)
}

async fn scale_one(client: &mut Client, name: &str, replicas: u64) -> Result<Value, CliError> {
    let service = fetch(client, name).await?;
    let mut spec = service["Spec"].clone();
    if spec.has("/Mode/Replicated") {
        set(&mut spec, &["Mode", "Replicated", "Replicas"], replicas);
    } else if spec.has("/Mode/ReplicatedJob") {
        set(&mut spec, &["Mode", "ReplicatedJob", "TotalCompletions"], replicas);
    } else {
        let text = format!("{name}: scale can only be used with replicated or replicated-job mode");
        return Err(CliError::Refused(text));
    }
    store(client, &service, &spec, &[], None).await?;
    Ok(service)
}

/// `service rollback`.
pub(super) async fn rollback(args: &RollbackArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    go_back(&args.service, &[], &args.wait, client, console).await
}

async fn go_back(
    name: &str,
    query: &[(&str, &str)],
    flags: &WaitFlags,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), CliError> {
    let service = fetch(client, name).await?;
    let query = [query, &[("rollback", "previous")]].concat();
    let answer = store(client, &service, &service["Spec"], &query, None).await?;
    warn(console, None, &answer)?;
    console.say(name)?;
    wait(client, console, flags, service.text("/ID")).await
}

/// `service rm`.
pub(super) async fn remove(args: &RmArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let (mut gone, mut errors) = (Vec::new(), Vec::new());
    for name in &args.services {
        match remove_one(client, name).await {
            Ok(service) => {
                console.say(name)?;
                gone.push(service);
            }
            Err(error) => errors.push(error),
        }
    }
    if !args.wait.detach && !gone.is_empty() {
        vanish(client, console, &gone, args.wait.quiet).await?;
    }
    CliError::collect(errors)
}

/// Removes a service; its id and name.
async fn remove_one(client: &mut Client, name: &str) -> Result<(String, String), CliError> {
    let service = fetch(client, name).await?;
    client.delete(&Url::new(&["services", service.text("/ID")])).await?;
    Ok((service.text("/ID").to_owned(), service.text("/Spec/Name").to_owned()))
}

async fn fetch(client: &mut Client, name: &str) -> Result<Value, CliError> {
    client.get(&Url::new(&["services", name]).query("insertDefaults", "false")).await
}

async fn store(
    client: &mut Client,
    service: &Value,
    spec: &Value,
    query: &[(&str, &str)],
    auth: Option<&str>,
) -> Result<Value, CliError> {
    let version = service.int("/Version/Index").unwrap_or(0).to_string();
    let mut url = Url::new(&["services", service.text("/ID"), "update"]).query("version", &version);
    for (key, value) in query {
        url = url.query(key, value);
    }
    client.post(&url, spec, &headers(auth)).await
}

fn auth(flags: &RegistryFlags, image: &str, console: &Console) -> Result<Option<String>, CliError> {
    if flags.with_registry_auth { registry_auth::header(image, console.env) } else { Ok(None) }
}

fn headers(auth: Option<&str>) -> Vec<(&'static str, &str)> {
    auth.map(|auth| ("X-Registry-Auth", auth)).into_iter().collect()
}

/// Tells what the image's resolution and the manager warn of.
pub(crate) fn warn(console: &mut Console, image: Option<String>, answer: &Value) -> Result<(), CliError> {
    if let Some(text) = image {
        console.warn(text)?;
    }
    let single = Some(answer.text("/Warning")).filter(|text| !text.is_empty());
    for text in answer.list("/Warnings").iter().filter_map(Value::as_str).chain(single) {
        console.warn(text)?;
    }
    Ok(())
}

async fn wait(client: &mut Client, console: &mut Console, flags: &WaitFlags, id: &str) -> Result<(), CliError> {
    if flags.detach { Ok(()) } else { converge(client, console, id, flags.quiet).await }
}
