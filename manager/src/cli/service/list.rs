//! `service ls`.

use std::fmt;

use serde_json::{Value, json};

use super::super::args::ListFlags;
use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::sort::natural;
use super::super::format::table::{Column, Table, column};
use super::super::format::{human, image};
use super::super::json::Peek;
use super::super::url::{Filters, Url};

const COLUMNS: &[Column] = &[
    column("ID", "ID"),
    column("Name", "NAME"),
    column("Mode", "MODE"),
    column("Replicas", "REPLICAS"),
    column("Image", "IMAGE"),
    column("Ports", "PORTS"),
];

/// Lists services by name.
pub(super) async fn run(flags: &ListFlags, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    print(flags.filters(), flags, client, console).await.map(drop)
}

/// Lists the services that pass the filters; how many.
pub(crate) async fn print(
    filters: Filters,
    flags: &ListFlags,
    client: &mut Client,
    console: &mut Console,
) -> Result<usize, CliError> {
    let mut url = Url::new(&["services"]).filters(&filters);
    if !flags.quiet {
        url = url.query("status", "true");
    }
    let services = client.get(&url).await?;
    let mut services: Vec<&Value> = services.list("").iter().collect();
    services.sort_by(|a, b| natural(a.text("/Spec/Name"), b.text("/Spec/Name")));
    let count = services.len();
    let rows = services.into_iter().map(|service| row(service, flags.no_trunc)).collect();
    Table { columns: COLUMNS, rows, cell: |_, _| None }.print(&flags.format(), !flags.no_trunc, console)?;
    Ok(count)
}

fn row(service: &Value, full: bool) -> Value {
    let id = service.text("/ID");
    let picture = service.text("/Spec/TaskTemplate/ContainerSpec/Image");
    json!({
        "ID": if full { id.to_owned() } else { human::short_id(id) },
        "Name": service.text("/Spec/Name"),
        "Mode": mode(service),
        "Replicas": replicas(service),
        "Image": if full { picture } else { image::familiar(picture) },
        "Ports": ports(service),
    })
}

fn mode(service: &Value) -> &'static str {
    let mode = &service["Spec"]["Mode"];
    match () {
        () if mode.has("/Replicated") => "replicated",
        () if mode.has("/Global") => "global",
        () if mode.has("/ReplicatedJob") => "replicated job",
        () if mode.has("/GlobalJob") => "global job",
        () => "",
    }
}

/// "2/3", with what bounds or completes it.
fn replicas(service: &Value) -> String {
    let count = |pointer| service.int(pointer).unwrap_or(0);
    let (running, desired) = (count("/ServiceStatus/RunningTasks"), count("/ServiceStatus/DesiredTasks"));
    let completed = count("/ServiceStatus/CompletedTasks");
    match mode(service) {
        "replicated" => match count("/Spec/TaskTemplate/Placement/MaxReplicas") {
            0 => format!("{running}/{desired}"),
            max => format!("{running}/{desired} (max {max} per node)"),
        },
        "replicated job" => {
            let total = count("/Spec/Mode/ReplicatedJob/TotalCompletions");
            format!("{running}/{desired} ({completed}/{total} completed)")
        }
        "global job" => format!("{running}/{desired} ({completed}/{} completed)", desired + completed),
        _ => format!("{running}/{desired}"),
    }
}

/// Ports that every node answers on, those that follow each other as one range, as Docker joins them.
fn ports(service: &Value) -> String {
    let ingress = |port: &&Value| port.text("/PublishMode") == "ingress";
    let one = |port: &Value| {
        let number = |key| port.int(key).unwrap_or(0);
        (port.text("/Protocol").to_owned(), number("/PublishedPort"), number("/TargetPort"))
    };
    let mut ports: Vec<_> = service.list("/Endpoint/Ports").iter().filter(ingress).map(one).collect();
    ports.sort();
    let mut ranges: Vec<Range> = Vec::new();
    for (protocol, published, target) in ports {
        match ranges.last_mut().filter(|last| last.goes_on_with(&protocol, published, target)) {
            Some(last) => (last.published.1, last.target.1) = (published, target),
            None => ranges.push(Range { protocol, published: (published, published), target: (target, target) }),
        }
    }
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Ports that follow each other: their first and last.
struct Range {
    protocol: String,
    published: (i64, i64),
    target: (i64, i64),
}

impl Range {
    /// The next port outside, to the next port inside or to the same one.
    fn goes_on_with(&self, protocol: &str, published: i64, target: i64) -> bool {
        let several_inside = self.target.0 != self.target.1;
        protocol == self.protocol
            && (0..=1).contains(&(published - self.published.1))
            && (0..=1).contains(&(target - self.target.1))
            && !(several_inside && target <= self.target.1)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range =
            |(first, last): (i64, i64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        write!(f, "*:{}->{}/{}", range(self.published), range(self.target), self.protocol)
    }
}
