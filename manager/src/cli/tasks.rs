//! The task list of `service ps` and `node ps`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::args::ListFlags;
use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::format::sort::natural;
use super::format::table::{Column, Table, column};
use super::format::{human, image};
use super::json::Peek;
use super::ours::ours;
use super::url::{Filters, Url};

/// Longest error text in a table, in characters.
const ERROR_CHARS_MAX: usize = 30;

const COLUMNS: &[Column] = &[
    column("ID", "ID"),
    column("Name", "NAME"),
    column("Image", "IMAGE"),
    column("Node", "NODE"),
    column("DesiredState", "DESIRED STATE"),
    column("CurrentState", "CURRENT STATE"),
    column("Error", "ERROR"),
    column("Ports", "PORTS"),
];

/// Names of the services and nodes that tasks mention.
#[derive(Default)]
struct Names {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

/// Fetches the tasks that `filters` describe and prints them; how many.
pub(crate) async fn list(
    client: &mut Client,
    console: &mut Console,
    filters: &Filters,
    flags: &ListFlags,
    resolve: bool,
) -> Result<usize, CliError> {
    let tasks = client.get(&Url::new(&["tasks"]).filters(filters)).await?;
    let tasks = tasks.list("");
    let names = if resolve { look_up(client, tasks).await? } else { Names::default() };
    // Ids alone are for other commands, which want them whole.
    let full = flags.no_trunc || flags.quiet;
    let (rows, count) = (rows(tasks, &names, full, console.now()), tasks.len());
    Table { columns: COLUMNS, rows, cell }.print(&flags.format(), !flags.no_trunc, console)?;
    Ok(count)
}

/// The newest of several tasks in one slot is named, the older ones hang below it.
fn cell(row: &Value, key: &str) -> Option<String> {
    (key == "Name" && row["Older"] == true).then(|| format!(" \\_ {}", row.text("/Name")))
}

async fn look_up(client: &mut Client, tasks: &[Value]) -> Result<Names, CliError> {
    let mut names = Names::default();
    for task in tasks {
        for (kind, id, map) in [
            ("services", task.text("/ServiceID"), &mut names.services),
            ("nodes", task.text("/NodeID"), &mut names.nodes),
        ] {
            if id.is_empty() || map.contains_key(id) {
                continue;
            }
            // What is gone keeps its id as its name.
            let name = match client.get(&Url::new(&[kind, id])).await {
                Ok(object) => [object.text("/Spec/Name"), object.text("/Description/Hostname"), id]
                    .into_iter()
                    .find(|name| !name.is_empty())
                    .unwrap_or(id)
                    .to_owned(),
                Err(error) if error.is_not_found() => id.to_owned(),
                Err(error) => return Err(error),
            };
            map.insert(id.to_owned(), name);
        }
    }
    Ok(names)
}

/// One row per task: by name, the newest first.
fn rows(tasks: &[Value], names: &Names, full: bool, now: OffsetDateTime) -> Vec<Value> {
    let mut named: Vec<(String, &Value)> = tasks.iter().map(|task| (name(task, names), task)).collect();
    named.sort_by(|(a, x), (b, y)| natural(a, b).then_with(|| y.time("/CreatedAt").cmp(&x.time("/CreatedAt"))));
    let mut previous = String::new();
    named
        .into_iter()
        .map(|(name, task)| {
            let older = name == previous;
            previous.clone_from(&name);
            row(task, &name, older, names, full, now)
        })
        .collect()
}

fn row(task: &Value, name: &str, older: bool, names: &Names, full: bool, now: OffsetDateTime) -> Value {
    let (id, node) = (task.text("/ID"), task.text("/NodeID"));
    let since = task.time("/Status/Timestamp").map_or(String::new(), |then| format!(" {}", human::ago(now - then)));
    let mut error = ours(task.text("/Status/Err")).replace(['\n', '\r', '\t'], " ");
    if !full {
        error = human::ellipsis(&error, ERROR_CHARS_MAX);
    }
    let picture = task.text("/Spec/ContainerSpec/Image");
    json!({
        "ID": if full { id.to_owned() } else { human::short_id(id) },
        "Name": name,
        "Older": older,
        "Image": if full { picture } else { image::familiar(picture) },
        "Node": names.nodes.get(node).map_or(node, String::as_str),
        "DesiredState": human::title(task.text("/DesiredState")),
        "CurrentState": format!("{}{since}", human::title(task.text("/Status/State"))),
        "Error": if error.is_empty() { error } else { format!("\"{error}\"") },
        "Ports": ports(task.list("/Status/PortStatus/Ports")),
    })
}

/// `service.slot`, or `service.node` for a task without slot.
fn name(task: &Value, names: &Names) -> String {
    let id = task.text("/ServiceID");
    let service = names.services.get(id).map_or(id, String::as_str);
    // Slot 0 is the first one of a job.
    match task.int("/Slot") {
        None => format!("{service}.{}", task.text("/NodeID")),
        Some(slot) => format!("{service}.{slot}"),
    }
}

/// `*:8080->80/tcp`, comma-separated.
pub(crate) fn ports(ports: &[Value]) -> String {
    let one = |port: &Value| {
        let number = |key| port.int(key).unwrap_or(0);
        format!("*:{}->{}/{}", number("/PublishedPort"), number("/TargetPort"), port.text("/Protocol"))
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}
