//! `service inspect --pretty`: a service for people, in Docker's layout.

use std::fmt::Write;

use serde_json::Value;
use time::OffsetDateTime;

use super::super::format::human;
use super::super::json::Peek;
use super::super::spec::generic;

/// The whole text, an empty line at its end. `network` names a network by its id.
pub(super) fn text(service: &Value, network: &dyn Fn(&str) -> String, now: OffsetDateTime) -> String {
    let mut page = Page(String::new());
    let spec = &service["Spec"];
    page.line(format_args!("\nID:\t\t{}", service.text("/ID")));
    page.line(format_args!("Name:\t\t{}", spec.text("/Name")));
    page.map("Labels:", spec, "/Labels");
    mode(&mut page, spec);
    update_status(&mut page, service, now);
    placement(&mut page, &spec["TaskTemplate"]["Placement"]);
    update_config(&mut page, spec, "UpdateConfig", "Update order:      ");
    update_config(&mut page, spec, "RollbackConfig", "Rollback order:    ");
    container(&mut page, &spec["TaskTemplate"]["ContainerSpec"]);
    log_driver(&mut page, &spec["TaskTemplate"]["LogDriver"]);
    resources(&mut page, &spec["TaskTemplate"]["Resources"]);
    let targets = spec.list("/TaskTemplate/Networks").iter().map(|n| network(n.text("/Target")));
    let networks: Vec<String> = targets.collect();
    if !networks.is_empty() {
        page.line(format_args!("Networks: {} ", networks.join(" ")));
    }
    page.field("Endpoint Mode:\t", spec.text("/EndpointSpec/Mode"));
    if service.has("/Endpoint/Ports") {
        page.line(format_args!("Ports:"));
        let ports = service.list("/Endpoint/Ports");
        for (i, port) in ports.iter().enumerate() {
            // Docker has a blank behind the last one.
            let end = if i + 1 == ports.len() { " " } else { "" };
            page.line(format_args!(" PublishedPort = {}", port.int("/PublishedPort").unwrap_or(0)));
            page.line(format_args!("  Protocol = {}", port.text("/Protocol")));
            page.line(format_args!("  TargetPort = {}", port.int("/TargetPort").unwrap_or(0)));
            page.line(format_args!("  PublishMode = {}{end}", port.text("/PublishMode")));
        }
    }
    health(&mut page, &spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"]);
    page.line(format_args!(""));
    page.0
}

/// Text that grows line by line.
struct Page(String);

impl Page {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("writing to a String cannot fail");
    }

    /// A line, unless the value is empty.
    fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.line(format_args!("{label}{value}"));
        }
    }

    fn map(&mut self, heading: &str, root: &Value, pointer: &str) {
        let mut entries: Vec<_> = root.entries(pointer).collect();
        entries.sort_by_key(|(key, _)| *key);
        if !entries.is_empty() {
            self.line(format_args!("{heading}"));
        }
        for (key, value) in entries {
            self.line(format_args!(" {key}={}", value.as_str().unwrap_or("")));
        }
    }
}

fn mode(page: &mut Page, spec: &Value) {
    if spec.has("/Mode/Global") {
        page.line(format_args!("Service Mode:\tGlobal"));
    } else if spec.has("/Mode/Replicated") {
        page.line(format_args!("Service Mode:\tReplicated"));
        page.line(format_args!(" Replicas:\t{}", spec.int("/Mode/Replicated/Replicas").unwrap_or(1)));
    } else if spec.has("/Mode/ReplicatedJob") {
        let count = |key: &str| spec.int(&format!("/Mode/ReplicatedJob/{key}")).unwrap_or(1);
        page.line(format_args!("Service Mode:\tReplicated Job"));
        page.line(format_args!(" Completions:\t{}", count("TotalCompletions")));
        page.line(format_args!(" Concurrent:\t{}", count("MaxConcurrent")));
    } else if spec.has("/Mode/GlobalJob") {
        page.line(format_args!("Service Mode:\tGlobal Job"));
    }
}

fn update_status(page: &mut Page, service: &Value, now: OffsetDateTime) {
    if service.text("/UpdateStatus/State").is_empty() {
        return;
    }
    page.line(format_args!("UpdateStatus:"));
    page.line(format_args!(" State:\t\t{}", service.text("/UpdateStatus/State")));
    let completed = service.text("/UpdateStatus/State") == "completed";
    for (label, pointer, is_shown) in
        [("Started:\t", "/UpdateStatus/StartedAt", true), ("Completed:\t", "/UpdateStatus/CompletedAt", completed)]
    {
        if let Some(then) = service.time(pointer).filter(|_| is_shown) {
            page.line(format_args!(" {label}{}", human::ago(now - then)));
        }
    }
    page.line(format_args!(" Message:\t{}", service.text("/UpdateStatus/Message")));
}

fn placement(page: &mut Page, placement: &Value) {
    page.line(format_args!("Placement:"));
    let constraints: Vec<&str> = placement.list("/Constraints").iter().filter_map(Value::as_str).collect();
    if !constraints.is_empty() {
        page.line(format_args!(" Constraints:\t[{}]", constraints.join(" ")));
    }
    let spread = |preference: &Value| format!("spread={}", preference.text("/Spread/SpreadDescriptor"));
    let preferences: Vec<String> = placement.list("/Preferences").iter().map(spread).collect();
    if !preferences.is_empty() {
        page.line(format_args!(" Preferences:   [{}]", preferences.join(" ")));
    }
    if let Some(max) = placement.int("/MaxReplicas").filter(|max| *max > 0) {
        page.line(format_args!(" Max Replicas Per Node:   {max}"));
    }
}

fn update_config(page: &mut Page, spec: &Value, key: &str, order: &str) {
    let config = &spec[key];
    if config.is_null() {
        return;
    }
    page.line(format_args!("{key}:"));
    page.line(format_args!(" Parallelism:\t{}", config.int("/Parallelism").unwrap_or(0)));
    if let Some(delay) = config.int("/Delay").filter(|delay| *delay > 0) {
        page.line(format_args!(" Delay:\t\t{}", human::nanos(delay)));
    }
    page.line(format_args!(" On failure:\t{}", config.text("/FailureAction")));
    if let Some(monitor) = config.int("/Monitor").filter(|monitor| *monitor > 0) {
        page.line(format_args!(" Monitoring Period: {}", human::nanos(monitor)));
    }
    let ratio = config["MaxFailureRatio"].as_f64().unwrap_or(0.0);
    page.line(format_args!(" Max failure ratio: {ratio}"));
    page.line(format_args!(" {order}{}", config.text("/Order")));
}

fn container(page: &mut Page, container: &Value) {
    let joined = |pointer: &str| -> String {
        container.list(pointer).iter().filter_map(Value::as_str).flat_map(|word| [word, " "]).collect()
    };
    page.line(format_args!("ContainerSpec:"));
    page.line(format_args!(" Image:\t\t{}", container.text("/Image")));
    page.field(" Command:\t", &joined("/Command"));
    page.field(" Args:\t\t", &joined("/Args"));
    page.field(" Env:\t\t", &joined("/Env"));
    page.field(" Dir:\t\t", container.text("/Dir"));
    if let Some(init) = container["Init"].as_bool() {
        page.line(format_args!(" Init:\t\t{init}"));
    }
    page.field(" User: ", container.text("/User"));
    page.field(" Groups:\t", &joined("/Groups"));
    page.field(" Hostname:\t", container.text("/Hostname"));
    page.field(" StopSignal:\t", container.text("/StopSignal"));
    for (label, pointer) in [(" TTY:\t\t", "/TTY"), (" ReadOnly:\t", "/ReadOnly")] {
        page.field(label, if container.pointer(pointer) == Some(&Value::Bool(true)) { "true" } else { "" });
    }
    if let Some(score) = container.int("/OomScoreAdj").filter(|score| *score != 0) {
        page.line(format_args!(" OomScoreAdj:\t{score}"));
    }
    page.field(
        " Hosts:\t\t",
        &container.list("/Hosts").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
    );
    page.field(" DNS:\t\t", &joined("/DNSConfig/Nameservers"));
    page.field(" DNSSearch:\t", &joined("/DNSConfig/Search"));
    page.field(" DNSOptions:\t", &joined("/DNSConfig/Options"));
    page.map(" Labels:", container, "/Labels");
    capabilities(page, container);
    kernel(page, container);
    if !container.list("/Mounts").is_empty() {
        page.line(format_args!("Mounts:"));
    }
    for mount in container.list("/Mounts") {
        page.line(format_args!(" Target:\t{}", mount.text("/Target")));
        page.line(format_args!("  Source:\t{}", mount.text("/Source")));
        page.line(format_args!("  ReadOnly:\t{}", mount["ReadOnly"] == true));
        page.line(format_args!("  Type:\t\t{}", mount.text("/Type")));
    }
    for (heading, pointer, name) in [("Configs:", "/Configs", "/ConfigName"), ("Secrets:", "/Secrets", "/SecretName")] {
        if !container.list(pointer).is_empty() {
            page.line(format_args!("{heading}"));
        }
        for used in container.list(pointer) {
            page.line(format_args!(" Target:\t{}", used.text("/File/Name")));
            page.line(format_args!("  Source:\t{}", used.text(name)));
        }
    }
}

fn capabilities(page: &mut Page, container: &Value) {
    let names = |pointer| -> Vec<&str> { container.list(pointer).iter().filter_map(Value::as_str).collect() };
    let (add, drop) = (names("/CapabilityAdd"), names("/CapabilityDrop"));
    if !add.is_empty() || !drop.is_empty() {
        page.line(format_args!("Capabilities:"));
        page.field(" Add: ", &add.join(", "));
        page.field(" Drop: ", &drop.join(", "));
    }
}

/// Kernel settings and limits of processes.
fn kernel(page: &mut Page, container: &Value) {
    let mut settings: Vec<_> = container.entries("/Sysctls").collect();
    settings.sort_by_key(|(key, _)| *key);
    if !settings.is_empty() {
        page.line(format_args!("SysCtls:"));
    }
    for (key, value) in settings {
        page.line(format_args!(" {key}: {}", value.as_str().unwrap_or("")));
    }
    let mut limits: Vec<&Value> = container.list("/Ulimits").iter().collect();
    limits.sort_by_key(|limit| limit.text("/Name"));
    if !limits.is_empty() {
        page.line(format_args!("Ulimits:"));
    }
    for limit in limits {
        let number = |pointer| limit.int(pointer).unwrap_or(0);
        page.line(format_args!(" {}: {}:{}", limit.text("/Name"), number("/Soft"), number("/Hard")));
    }
}

fn log_driver(page: &mut Page, driver: &Value) {
    if driver.is_null() {
        return;
    }
    page.line(format_args!("Log Driver:"));
    page.field(" Name:\t\t", driver.text("/Name"));
    let mut options: Vec<_> = driver.entries("/Options").collect();
    options.sort_by_key(|(key, _)| *key);
    if !options.is_empty() {
        page.line(format_args!(" LogOpts:"));
    }
    for (key, value) in options {
        page.line(format_args!("  {key}:       {}", value.as_str().unwrap_or("")));
    }
    page.line(format_args!(""));
}

fn health(page: &mut Page, check: &Value) {
    if check.is_null() {
        return;
    }
    let span = |pointer| human::nanos(check.int(pointer).unwrap_or(0));
    page.line(format_args!(" Healthcheck:"));
    page.line(format_args!("  Interval = {}", span("/Interval")));
    page.line(format_args!("  Retries = {}", check.int("/Retries").unwrap_or(0)));
    page.line(format_args!("  StartPeriod =\t{}", span("/StartPeriod")));
    if check.int("/StartInterval").is_some_and(|nanos| nanos > 0) {
        page.line(format_args!("  StartInterval =\t{}", span("/StartInterval")));
    }
    page.line(format_args!("  Timeout =\t{}", span("/Timeout")));
    let test: Vec<&str> = check.list("/Test").iter().filter_map(Value::as_str).collect();
    if !test.is_empty() {
        page.line(format_args!("  Tests:"));
    }
    for (i, word) in test.iter().enumerate() {
        let end = if i + 1 == test.len() { " " } else { "" };
        page.line(format_args!("\t Test = {word}{end}"));
    }
}

fn resources(page: &mut Page, resources: &Value) {
    page.line(format_args!("Resources:"));
    for (heading, key) in [(" Reservations:", "Reservations"), (" Limits:", "Limits")] {
        let group = &resources[key];
        let amount = |pointer| group.int(pointer).filter(|amount| *amount > 0);
        let (cpu, memory, pids) = (amount("/NanoCPUs"), amount("/MemoryBytes"), amount("/Pids"));
        let generic = generic::text(group);
        if cpu.is_none() && memory.is_none() && pids.is_none() && generic.is_empty() {
            continue;
        }
        page.line(format_args!("{heading}"));
        if let Some(cpu) = cpu {
            page.line(format_args!("  CPU:\t\t{}", human::billionths(cpu)));
        }
        if let Some(memory) = memory {
            page.line(format_args!("  Memory:\t{}", human::bytes(memory)));
        }
        if let Some(pids) = pids {
            page.line(format_args!("  PIDs:\t\t{pids}"));
        }
        if !generic.is_empty() {
            page.line(format_args!("  Generic:\t{generic}"));
        }
    }
}
