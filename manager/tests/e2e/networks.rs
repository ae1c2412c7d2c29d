//! Networks and ports through docker's client, with what containers then have and reach.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{SOON, get, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{Inside, all, create, docker, has, inspect, remove, running};

#[test]
#[ignore = "needs root"]
fn networks() -> Result<()> {
    let lab = Guard::cluster(2)?;
    all(
        &lab,
        &[
            ("a network's life", life),
            ("what is isolated", isolation),
            ("networks and ports of an update", updates),
            ("a port of the board", host_port),
            ("a full subnet", full),
        ],
    );
    Ok(())
}

fn say(lab: &Lab, line: &str) -> Result<String> {
    docker(lab, &line.split(' ').collect::<Vec<_>>())?.good().with_context(|| line.to_owned())
}

/// A web server that says its name on port 8080.
fn serve(lab: &Lab, name: &str, options: &[&str]) -> Result<()> {
    let script = format!("mkdir -p /www; echo {name} > /www/index.html; exec httpd -f -p 8080 -h /www");
    create(lab, name, options, &["sh", "-c", &script])
}

/// The address of a service's one task on a network, as the API tells it.
fn address(lab: &Lab, service: &str, network: &str) -> Result<Ipv4Addr> {
    let inside = Inside::of(lab, service)?;
    let task = get(lab, &format!("/tasks/{}", inside.task))?;
    let attachments = task["NetworksAttachments"].as_array().context("no attachments")?;
    let on = |attachment: &&Value| attachment["Network"]["Spec"]["Name"] == network;
    let found = attachments.iter().find(on).with_context(|| format!("{service} is not on {network}: {task}"))?;
    let text = found["Addresses"][0].as_str().context("no address")?;
    Ok(text.split('/').next().unwrap_or_default().parse()?)
}

fn vip(lab: &Lab, service: &str) -> Result<Ipv4Addr> {
    let shown = inspect(lab, service)?;
    let text = shown["Endpoint"]["VirtualIPs"][0]["Addr"].as_str().context("no virtual address")?;
    Ok(text.split('/').next().unwrap_or_default().parse()?)
}

/// What a container reads from an address; an error: it reached nobody within two seconds.
fn read(inside: &Inside, address: Ipv4Addr) -> Result<String> {
    let script = format!("exec 3<>/dev/tcp/{address}/8080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
    inside.enter(&["-n"], &["timeout", "2", "bash", "-c", &script])
}

/// Waits until a container reads this from an address.
#[track_caller]
fn reads(lab: &Lab, inside: &Inside, address: Ipv4Addr, wanted: &str) {
    wait(lab, &format!("{wanted:?} from {address}"), SOON, || {
        Ok(read(inside, address).ok().filter(|page| page.contains(wanted)).map(drop))
    });
}

fn life(lab: &Lab) -> Result<()> {
    say(lab, "network create -d overlay --subnet 10.71.0.0/24 --ip-range 10.71.0.128/25 --label a=b life")?;
    has(&docker(lab, &["network", "create", "-d", "overlay", "--subnet", "10.71.0.0/16", "n"])?.bad()?.1, "overlaps");
    serve(lab, "life-web", &["--network", "name=life,alias=www"])?;
    create(lab, "life-client", &["--network", "life"], &["sleep", "100000"])?;
    let (web, client) = (address(lab, "life-web", "life")?, Inside::of(lab, "life-client")?);
    ensure!(web.octets()[3] >= 128, "{web} is not in the range");
    // The container has what the API tells.
    let own = address(lab, "life-client", "life")?;
    has(&client.enter(&["-n"], &["ip", "-4", "-o", "addr"])?, &format!("{own}/24"));
    reads(lab, &client, web, "life-web");
    reads(lab, &client, vip(lab, "life-web")?, "life-web");
    let names = client.enter(&["-n", "-m"], &["/bin/nslookup", "www", "127.0.0.11"])?;
    has(&names, &vip(lab, "life-web")?.to_string());

    let shown: Value = serde_json::from_str(&say(lab, "network inspect --verbose life")?)?;
    assert_eq!(shown[0]["Services"]["life-web"]["Tasks"][0]["EndpointIP"], web.to_string());
    assert_eq!(shown[0]["Services"]["life-web"]["VIP"], vip(lab, "life-web")?.to_string());
    let peers = shown[0]["Peers"].as_array().context("no peers")?;
    ensure!((1..=2).contains(&peers.len()), "{shown}");
    has(&docker(lab, &["network", "rm", "life"])?.bad()?.1, "is in use by service");
    remove(lab, &["life-web", "life-client"])?;
    has(&say(lab, "network prune -f --filter label=a=b")?, "life");
    Ok(())
}

fn isolation(lab: &Lab) -> Result<()> {
    for name in ["apart-a", "apart-b"] {
        say(lab, &format!("network create -d overlay --internal {name}"))?;
        serve(lab, &format!("{name}-web"), &["--network", name])?;
    }
    create(lab, "apart-in", &["--network", "apart-a"], &["sleep", "100000"])?;
    let inside = Inside::of(lab, "apart-in")?;
    reads(lab, &inside, address(lab, "apart-a-web", "apart-a")?, "apart-a-web");
    for address in [address(lab, "apart-b-web", "apart-b")?, vip(lab, "apart-b-web")?] {
        ensure!(read(&inside, address).is_err(), "{address} of another network answers");
    }
    // A service of both reaches both.
    create(lab, "apart-both", &["--network", "apart-a", "--network", "apart-b"], &["sleep", "100000"])?;
    let both = Inside::of(lab, "apart-both")?;
    for name in ["apart-a", "apart-b"] {
        reads(lab, &both, vip(lab, &format!("{name}-web"))?, &format!("{name}-web"));
    }
    remove(lab, &["apart-a-web", "apart-b-web", "apart-in", "apart-both"])
}

fn updates(lab: &Lab) -> Result<()> {
    say(lab, "network create -d overlay moves")?;
    create(lab, "mover", &["--stop-grace-period", "1s"], &["sleep", "100000"])?;
    let first = running(lab, "mover", 1);
    say(lab, "service update -d --network-add name=moves,alias=m --publish-add 18071:80 --publish-add 90/udp mover")?;
    let second = wait(lab, "the task on the network", SOON, || {
        let rows = running(lab, "mover", 1);
        Ok((rows[0].id != first[0].id).then_some(rows))
    });
    address(lab, "mover", "moves")?;
    // A port that is published on every board is reached through the mesh.
    address(lab, "mover", "ingress")?;
    let listed = say(lab, "service ls --filter name=mover --format {{.Ports}}")?;
    has(&listed, "*:18071->80/tcp");
    let shown = inspect(lab, "mover")?;
    let ports = shown["Endpoint"]["Ports"].as_array().context("no ports")?;
    let udp = ports.iter().find(|port| port["TargetPort"] == 90).context("no port 90")?;
    let given = udp["PublishedPort"].as_u64().context("no number")?;
    ensure!((30_000..=32_767).contains(&given), "{given}");
    has(&say(lab, "service inspect --pretty mover")?, "PublishedPort = 18071");
    let taken = ["service", "create", "-d", "-q", "--publish", "18071:1", "busybox"];
    has(&docker(lab, &taken)?.bad()?.1, "port '18071' is already in use by service 'mover'");
    let line = "service update -d --network-rm moves --publish-rm 80 --publish-rm 90/udp --endpoint-mode dnsrr mover";
    say(lab, line)?;
    wait(lab, "the task without the network", SOON, || {
        let rows = running(lab, "mover", 1);
        let task = get(lab, &format!("/tasks/{}", rows[0].id))?;
        Ok((rows[0].id != second[0].id && task["NetworksAttachments"].is_null()).then_some(()))
    });
    say(lab, "service rollback -d mover")?;
    assert_eq!(inspect(lab, "mover")?["Spec"]["EndpointSpec"]["Ports"].as_array().map(Vec::len), Some(2));
    remove(lab, &["mover"])
}

fn host_port(lab: &Lab) -> Result<()> {
    serve(lab, "own", &["--publish", "mode=host,target=8080,published=18072"])?;
    let inside = Inside::of(lab, "own")?;
    let task = wait(lab, "the board's port", SOON, || {
        let task = get(lab, &format!("/tasks/{}", inside.task))?;
        Ok(Some(task).filter(|task| task["Status"]["PortStatus"]["Ports"].is_array()))
    });
    let port = &task["Status"]["PortStatus"]["Ports"][0];
    assert_eq!((&port["PublishedPort"], &port["TargetPort"]), (&18_072.into(), &8080.into()), "{task}");
    has(&say(lab, "service ps --format {{.Ports}} own")?, "*:18072->8080/tcp");
    remove(lab, &["own"])
}

/// A subnet with too few addresses says so.
fn full(lab: &Lab) -> Result<()> {
    say(lab, "network create -d overlay --subnet 10.72.0.0/29 tiny")?;
    create(lab, "many", &["--network", "tiny", "--replicas", "6"], &["sleep", "100000"])?;
    running(lab, "many", 4);
    wait(lab, "the reason of those that wait", SOON, || {
        let said = say(lab, "service ps --no-trunc --format {{.Error}} many")?;
        Ok(said.contains("tiny").then_some(()))
    });
    remove(lab, &["many"])
}
