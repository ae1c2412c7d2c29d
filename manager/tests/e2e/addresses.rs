//! Addresses and ports through the real API: a full subnet, ports that clash and ports that stay, address pools.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::{SOON, get, live, scale, tasks, wait};
use crate::lab::Lab;

use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::support::{create, docker, has, inspect, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];
const FULL: &str = "network db (10.61.9.0/29) has no free address: 5 of 5 are in use";

#[test]
#[ignore = "needs root"]
fn addresses_and_ports_are_given_once_and_come_back() -> Result<()> {
    let lab = Guard::cluster(2)?;
    a_full_subnet(&lab)?;
    published_ports(&lab)?;
    ports_of_boards(&lab)?;
    pools(&lab)
}

/// One virtual address and four tasks fill a /29.
fn a_full_subnet(lab: &Lab) -> Result<()> {
    let db = ["network", "create", "--driver", "overlay", "--subnet", "10.61.9.0/29", "db"];
    docker(lab, &db)?.good()?;
    has(&docker(lab, &[&db[..6], &["again"]].concat())?.bad()?.1, "Pool overlaps with other one on this address space");
    create(lab, "web", &["--network", "db", "--replicas", "6", "--stop-grace-period", "300ms"], &SLEEP)?;
    running(lab, "web", 4);
    waits(lab, "web", &format!("no suitable node ({FULL})"));
    let page = docker(lab, &["service", "ps", "--no-trunc", "web"])?.good()?;
    assert_eq!(page.matches(FULL).count(), 2, "{page}");
    let refused = docker(lab, &["service", "create", "-d", "--network", "db", "--name", "api", "x:1"])?.bad()?;
    has(&refused.1, FULL);
    // Two addresses come back; the new service takes one as its own and one for its task.
    scale(lab, "web", 2)?;
    wait(lab, "the other tasks to end", SOON, || {
        let rows = tasks(lab, "web")?;
        Ok((rows.iter().filter(|row| row.state == "running").count() == 2).then_some(()))
    });
    create(lab, "api", &["--network", "db", "--stop-grace-period", "300ms"], &SLEEP)?;
    running(lab, "api", 1);
    let mut given = Vec::new();
    for service in ["web", "api"] {
        let vips = inspect(lab, service)?["Endpoint"]["VirtualIPs"].clone();
        given.push(vips[0]["Addr"].as_str().context("a virtual address")?.to_owned());
        for row in live(lab, service)? {
            let task = get(lab, &format!("/tasks/{}", row.id))?;
            let networks = task["NetworksAttachments"].as_array().context("networks")?;
            let on = networks.iter().find(|one| one["Network"]["Spec"]["Name"] == "db").context("it is on db")?;
            given.push(on["Addresses"][0].as_str().context("an address")?.to_owned());
        }
    }
    let count = given.len();
    given.sort();
    given.dedup();
    assert_eq!((count, given.len()), (5, 5), "{given:?}");
    assert!(given.iter().all(|address| address.starts_with("10.61.9.") && address.ends_with("/29")), "{given:?}");
    has(&docker(lab, &["network", "rm", "db"])?.bad()?.1, "is in use by service");
    remove(lab, &["web", "api"])?;
    docker(lab, &["network", "rm", "db"])?.good().map(drop)
}

#[track_caller]
fn waits(lab: &Lab, service: &str, why: &str) {
    wait(lab, &format!("a task of {service} to wait"), SOON, || {
        Ok(tasks(lab, service)?.iter().any(|row| row.state == "pending" && row.err.starts_with(why)).then_some(()))
    });
}

/// What is published: target and number.
fn ports(lab: &Lab, service: &str) -> Result<Vec<(u64, u64)>> {
    let endpoint = inspect(lab, service)?["Endpoint"].clone();
    let ports = endpoint["Ports"].as_array().cloned().unwrap_or_default();
    let number = |port: &serde_json::Value, key: &str| port[key].as_u64().with_context(|| format!("{key} in {port}"));
    ports.iter().map(|port| Ok((number(port, "TargetPort")?, number(port, "PublishedPort")?))).collect()
}

fn published_ports(lab: &Lab) -> Result<()> {
    create(lab, "pub", &["--publish", "9999:81", "--publish", "80", "--stop-grace-period", "300ms"], &SLEEP)?;
    let id = inspect(lab, "pub")?["ID"].as_str().context("an id")?.to_owned();
    let had = ports(lab, "pub")?;
    assert_eq!(had.len(), 2);
    let dynamic = had.iter().find(|(target, _)| *target == 80).context("port 80")?.1;
    assert!((30_000..=32_767).contains(&dynamic), "{had:?}");
    let clash = docker(lab, &["service", "create", "-d", "--name", "late", "-p", "9999:1", "x:1"])?.bad()?.1;
    has(&clash, &format!("port '9999' is already in use by service 'pub' ({id}) as an ingress port"));
    // It stays over an update that replaces the tasks, and over a restart of the manager.
    docker(lab, &["service", "update", "-d", "--publish-add", "82", "--force", "pub"])?.good()?;
    lab.manager().act(Verb::Kill)?;
    lab.manager().act(Verb::Start)?;
    let now = ports(lab, "pub")?;
    assert!(had.iter().all(|port| now.contains(port)) && now.len() == 3, "{had:?} {now:?}");
    remove(lab, &["pub"])?;
    create(lab, "late", &["--publish", "9999:1", "--publish", "80", "--stop-grace-period", "300ms"], &SLEEP)?;
    let late = ports(lab, "late")?;
    assert!(
        late.contains(&(1, 9999)) && !late.contains(&(80, dynamic)),
        "{late:?}: a number is not given again at once"
    );
    remove(lab, &["late"])
}

/// A port of a board is one task's; the others wait for other boards.
fn ports_of_boards(lab: &Lab) -> Result<()> {
    let publish = "mode=host,published=8099,target=80";
    create(lab, "host", &["--publish", publish, "--replicas", "3", "--stop-grace-period", "300ms"], &SLEEP)?;
    running(lab, "host", 2);
    waits(lab, "host", "no suitable node (host-mode port already in use on 2 nodes; 1 node not available");
    remove(lab, &["host"])
}

/// A new cluster takes its subnets from other pools.
fn pools(lab: &Lab) -> Result<()> {
    docker(lab, &["swarm", "leave", "--force"])?.good()?;
    let init = ["swarm", "init", "--advertise-addr", "127.0.0.1", "--default-addr-pool-mask-length", "26"];
    let refused = docker(lab, &[&init[..], &["--default-addr-pool", "10.60.0.0/27"]].concat())?.bad()?.1;
    has(&refused, "Subnet size is too small for pool: 26");
    let pool = ["--default-addr-pool", "10.60.0.0/25", "--data-path-port", "5000"];
    docker(lab, &[&init[..], &pool].concat())?.good()?;
    let swarm = get(lab, "/swarm")?;
    assert_eq!(
        (&swarm["DefaultAddrPool"], &swarm["SubnetSize"], &swarm["DataPathPort"]),
        (&json!(["10.60.0.0/25"]), &json!(26), &json!(5000))
    );
    for (name, subnet) in [("one", "10.60.0.0/26"), ("two", "10.60.0.64/26")] {
        docker(lab, &["network", "create", "--driver", "overlay", name])?.good()?;
        assert_eq!(get(lab, &format!("/networks/{name}"))?["IPAM"]["Config"][0]["Subnet"], subnet);
    }
    let none = "could not find an available, non-overlapping IPv4 address pool among the defaults";
    has(&docker(lab, &["network", "create", "--driver", "overlay", "three"])?.bad()?.1, none);
    assert_eq!(get(lab, "/networks/ingress")?["IPAM"]["Config"][0]["Subnet"], "10.200.0.0/16");
    Ok(())
}
