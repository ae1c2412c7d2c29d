//! `info`: the manager and its cluster.

use std::fmt::Write;
use std::io;

use clap::Args;
use serde_json::Value;

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::human;
use super::super::format::template::Template;
use super::super::json::Peek;
use super::super::url::Url;

/// `info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// json, or a Go template such as '{{.Swarm.Nodes}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Prints what the manager says about itself.
pub(crate) async fn info(args: &InfoArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let info = client.get(&Url::new(&["info"])).await?;
    match args.format.as_deref() {
        None => {
            console.say(format!("Manager: {}", client.target()))?;
            console.out.write_all(plain(&info).as_bytes())?;
        }
        Some("json") => console.say(info.to_string())?,
        Some(text) => console.say(Template::parse(text)?.value(&info)?)?,
    }
    Ok(warnings(&info, console)?)
}

/// Prints what a person should know, to standard error.
pub(crate) fn warnings(info: &Value, console: &mut Console) -> io::Result<()> {
    info.list("/Warnings").iter().filter_map(Value::as_str).try_for_each(|warning| console.warn(warning))
}

fn plain(info: &Value) -> String {
    let mut page = String::new();
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            writeln!(page, " {label}: {value}").expect("writing to a String cannot fail");
        }
    };
    let text = |pointer: &str| info.text(pointer).to_owned();
    let number = |pointer: &str| info.int(pointer).map_or(String::new(), |n| n.to_string());
    line("Server Version", text("/ServerVersion"));
    line("Swarm", text("/Swarm/LocalNodeState"));
    line(" Error", text("/Swarm/Error"));
    if info.text("/Swarm/LocalNodeState") == "active" {
        let spec = "/Swarm/Cluster/Spec";
        let at = |rest: &str| format!("{spec}{rest}");
        let duration = |rest: &str| info.int(&at(rest)).map_or(String::new(), human::nanos);
        line(" NodeID", text("/Swarm/NodeID"));
        line(" Is Manager", (info["Swarm"]["ControlAvailable"] == true).to_string());
        line(" ClusterID", text("/Swarm/Cluster/ID"));
        if info["Swarm"]["Cluster"]["RootRotationInProgress"] == true {
            line(" Root Rotation", "in progress".to_owned());
        }
        line(" Managers", number("/Swarm/Managers"));
        line(" Nodes", number("/Swarm/Nodes"));
        line(" Task History Retention Limit", number(&at("/Orchestration/TaskHistoryRetentionLimit")));
        line(" Heartbeat Period", duration("/Dispatcher/HeartbeatPeriod"));
        line(" Certificate Validity", duration("/CAConfig/NodeCertExpiry"));
        line(" Node Address", text("/Swarm/NodeAddr"));
        let managers: Vec<&str> = info.list("/Swarm/RemoteManagers").iter().map(|m| m.text("/Addr")).collect();
        line(" Manager Addresses", managers.join(", "));
    }
    line("Kernel Version", text("/KernelVersion"));
    line("Operating System", text("/OperatingSystem"));
    line("OSType", text("/OSType"));
    line("Architecture", text("/Architecture"));
    line("CPUs", number("/NCPU"));
    line("Total Memory", info.int("/MemTotal").map_or(String::new(), human::bytes));
    line("Name", text("/Name"));
    page
}
