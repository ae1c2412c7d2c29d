//! Stacks: docker's own client and `pi-mgr`, one beside the other.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cluster::{SOON, get, live, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{Inside, Said, all, busybox, docker, has, pi_mgr, running};

/// One of the two clients.
type Client = fn(&Lab, &[&str]) -> Result<Said>;

#[test]
#[ignore = "needs root"]
fn stacks() -> Result<()> {
    let lab = Guard::cluster(2)?;
    all(
        &lab,
        &[
            ("docker's stack", |lab| life(lab, docker, "dock")),
            ("pi-mgr's stack", |lab| life(lab, pi_mgr, "pi")),
            ("both clients", both),
            ("networks", networks),
            ("refusals", refusals),
        ],
    );
    Ok(())
}

/// Writes a file into a folder of this case.
fn write(lab: &Lab, case: &str, name: &str, text: &str) -> Result<PathBuf> {
    let folder = lab.directory.join(format!("stack-{case}"));
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn say(lab: &Lab, client: Client, line: &str) -> Result<String> {
    client(lab, &line.split(' ').collect::<Vec<_>>())?.good().with_context(|| line.to_owned())
}

fn stack_file(lab: &Lab, replicas: u32, level: &str, more: &str) -> String {
    let image = busybox(lab);
    format!(
        "
x-common: &common
  image: {image}
  stop_grace_period: 1s
services:
  web:
    <<: *common
    command: sh -c 'exec sleep 100000'
    environment: {{LEVEL: {level}}}
    env_file: [web.env]
    healthcheck: {{test: 'test -f /run/secrets/key', interval: 1s, retries: 3}}
    secrets: [key]
    configs: [{{source: conf, target: /etc/web.conf}}]
    networks: {{front: {{aliases: [www]}}}}
    deploy: {{replicas: {replicas}, labels: {{tier: front}}, update_config: {{parallelism: 0, monitor: 1s}}}}
{more}
networks: {{front: {{labels: {{side: front}}}}}}
secrets: {{key: {{file: ./key.txt}}}}
configs: {{conf: {{file: ./conf.txt}}}}
"
    )
}

/// Waits until a removed service's tasks are forgotten.
#[track_caller]
fn gone(lab: &Lab, service: &str) {
    wait(lab, &format!("{service} to be gone"), SOON, || {
        let left = get(lab, &format!("/tasks?filters=%7B%22name%22:%5B%22{service}%22%5D%7D"))?;
        Ok((left == Value::Array(Vec::new())).then_some(()))
    });
}

/// Deploys, changes, prunes and removes a stack.
fn life(lab: &Lab, client: Client, name: &str) -> Result<()> {
    let image = busybox(lab);
    let other =
        format!("  other:\n    <<: *common\n    command: sleep 100000\n    deploy: {{mode: global}}\n# {image}\n");
    let path = write(lab, name, "stack.yml", &stack_file(lab, 2, "one", &other))?;
    write(lab, name, "web.env", "FROM_FILE=yes\nLEVEL=zero\nMORE=1\n")?;
    write(lab, name, "key.txt", "the key\n")?;
    write(lab, name, "conf.txt", "the conf\n")?;
    let deploy = format!("stack deploy --detach=true -c {} {name}", path.display());
    let said = say(lab, client, &deploy)?;
    for made in
        ["network NAME_front", "network NAME_default", "secret NAME_key", "config NAME_conf", "service NAME_web"]
    {
        has(&said, &format!("Creating {}", made.replace("NAME", name)));
    }
    let (web, others) = (format!("{name}_web"), format!("{name}_other"));
    running(lab, &web, 2);
    let boards = get(lab, "/nodes")?.as_array().map_or(0, Vec::len) - 1;
    running(lab, &others, boards);
    has(&say(lab, client, "stack ls")?, name);
    has(&say(lab, client, &format!("stack services {name}"))?, &web);
    has(&say(lab, client, &format!("stack ps {name}"))?, &format!("{web}.1"));

    // Nothing changes: nothing is replaced.
    let before = running(lab, &web, 2);
    say(lab, client, &deploy)?;
    let again = format!("stack deploy --detach=true --resolve-image changed -c {} {name}", path.display());
    has(&say(lab, client, &again)?, &format!("Updating service {web}"));
    assert_eq!(running(lab, &web, 2), before, "the tasks were replaced");

    // One task, another variable, and a service less.
    fs::write(&path, stack_file(lab, 1, "two", ""))?;
    say(lab, client, &deploy.replace("deploy", "deploy --prune"))?;
    gone(lab, &others);
    wait(lab, &format!("{web} to be changed"), SOON, || {
        let rows = live(lab, &web)?;
        Ok((rows.len() == 1 && before.iter().all(|old| old.id != rows[0].id)).then_some(()))
    });
    let inside = Inside::of(lab, &web)?;
    let environ = inside.process("environ")?;
    for variable in ["LEVEL=two", "FROM_FILE=yes", "MORE=1"] {
        has(&environ, variable);
    }
    assert_eq!(fs::read_to_string(format!("/proc/{}/root/run/secrets/key", inside.pid))?, "the key\n");
    assert_eq!(fs::read_to_string(format!("/proc/{}/root/etc/web.conf", inside.pid))?, "the conf\n");

    // What a stack is made of goes, networks too, though tasks still stop.
    let said = say(lab, client, &format!("stack rm --detach=true {name}"))?;
    for gone in
        ["service NAME_web", "secret NAME_key", "config NAME_conf", "network NAME_front", "network NAME_default"]
    {
        has(&said, &format!("Removing {}", gone.replace("NAME", name)));
    }
    gone(lab, &web);
    for section in ["services", "networks", "secrets", "configs"] {
        let label = format!("com.docker.stack.namespace={name}");
        let left = get(lab, &format!("/{section}?filters=%7B%22label%22:%5B%22{label}%22%5D%7D"))?;
        assert_eq!(left, Value::Array(Vec::new()), "{section}");
    }
    has(&client(lab, &["stack", "rm", name])?.err, "Nothing found in stack");
    Ok(())
}

/// A stack that docker deployed is the same to `pi-mgr`: no task is replaced, whoever deploys it.
fn both(lab: &Lab) -> Result<()> {
    let path = write(lab, "both", "stack.yml", &stack_file(lab, 1, "one", ""))?;
    for (file, text) in [("web.env", "FROM_FILE=yes\n"), ("key.txt", "k"), ("conf.txt", "c")] {
        write(lab, "both", file, text)?;
    }
    let deploy = format!("stack deploy --detach=true -c {} both", path.display());
    say(lab, docker, &deploy)?;
    let first = running(lab, "both_web", 1);
    say(lab, pi_mgr, &deploy)?;
    say(lab, docker, &deploy)?;
    assert_eq!(running(lab, "both_web", 1), first, "the task was replaced");
    // What one prints the other reads.
    let config = say(lab, pi_mgr, &format!("stack config -c {}", path.display()))?;
    let printed = write(lab, "both", "printed.yml", &config)?;
    say(lab, docker, &format!("stack deploy --detach=true -c {} both", printed.display()))?;
    assert_eq!(running(lab, "both_web", 1), first, "the task was replaced");
    // Waiting: the stack converges, and is gone.
    has(&say(lab, pi_mgr, &format!("stack deploy -c {} both", path.display()))?, "converged");
    has(&say(lab, pi_mgr, "stack rm both")?, "Removing service both_web");
    gone(lab, "both_web");
    Ok(())
}

fn networks(lab: &Lab) -> Result<()> {
    for (client, name) in [(docker as Client, "netd"), (pi_mgr as Client, "netp")] {
        let made = client(lab, &["network", "create", "-d", "overlay", "--label", "a=b", name])?;
        assert_eq!(made.code, Some(0), "{made:?}");
        has(&client(lab, &["network", "create", "-d", "overlay", name])?.bad()?.1, "already exists");
        has(&say(lab, client, "network ls --filter driver=overlay")?, name);
        let image = busybox(lab);
        let service = format!("{name}-s");
        let create = format!("service create -d --name {service} --network {name} {image} sleep 100000");
        say(lab, client, &create)?;
        running(lab, &service, 1);
        // The way out, and the network.
        let inside = Inside::of(lab, &service)?;
        let devices = inside.process("net/dev")?;
        let devices: Vec<&str> =
            devices.lines().filter_map(|line| line.split_once(':')).map(|(d, _)| d.trim()).collect();
        assert_eq!(devices, ["lo", "eth0", "eth1"]);
        has(&say(lab, client, &format!("network inspect --verbose {name}"))?, &service);
        has(&client(lab, &["network", "rm", name])?.bad()?.1, "is in use by service");
        say(lab, client, &format!("service update -d --network-rm {name} {service}"))?;
        say(lab, client, &format!("service update -d --network-add {name} {service}"))?;
        say(lab, client, &format!("service rm {service}"))?;
        say(lab, client, &format!("network rm {name}"))?;
        has(&client(lab, &["network", "inspect", name])?.bad()?.1, "not found");
    }
    Ok(())
}

fn refusals(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let ports = format!("services: {{a: {{image: {image}, ports: ['80:80'], deploy: {{endpoint_mode: dnsrr}}}}}}");
    let path = write(lab, "bad", "ports.yml", &ports)?.display().to_string();
    for client in [docker as Client, pi_mgr] {
        let (_, said) = client(lab, &["stack", "deploy", "--detach=true", "-c", &path, "bad"])?.bad()?;
        has(&said, "port published with ingress mode can't be used with dnsrr mode");
        client(lab, &["stack", "rm", "bad"])?.good()?;
    }
    let path = write(lab, "bad", "mistake.yml", "services:\n  a:\n    image: x\n    deploy: {replicas: many}\n")?;
    let path = path.display().to_string();
    let (code, said) = pi_mgr(lab, &["stack", "deploy", "-c", &path, "bad"])?.bad()?;
    assert_eq!(code, 1);
    has(&said, "mistake.yml:4: services.a.deploy.replicas: expected a whole number, found a string");
    let (code, said) = pi_mgr(lab, &["stack", "deploy", "-c", &path, " "])?.bad()?;
    assert_eq!(code, 2);
    has(&said, "invalid stack name");
    Ok(())
}
