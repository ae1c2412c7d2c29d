//! Ports and networks on the command line: `pi-mgr` and the docker CLI ask for the same and show the same.

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::support::{all, busybox, docker, has, inspect, pi_mgr, remove, running};

#[test]
#[ignore = "needs root"]
fn ports_and_networks_on_the_command_line() -> Result<()> {
    let lab = Guard::cluster(2)?;
    // One after the other: they look at all networks, and prune.
    all(&lab, &[("networks are made and shown alike", networks)]);
    all(&lab, &[("ports are published and shown alike", ports)]);
    all(&lab, &[("stacks publish ports", stacks), ("mistakes", mistakes)]);
    Ok(())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn ours(lab: &Lab, line: &str) -> Result<String> {
    pi_mgr(lab, &words(line))?.good().with_context(|| format!("pi-mgr {line}"))
}

fn theirs(lab: &Lab, line: &str) -> Result<String> {
    docker(lab, &words(line))?.good().with_context(|| format!("docker {line}"))
}

/// Both clients print the same.
fn alike(lab: &Lab, line: &str) -> Result<String> {
    let (ours, theirs) = (ours(lab, line)?, theirs(lab, line)?);
    ensure!(ours == theirs, "{line}:\npi-mgr:\n{ours}\ndocker:\n{theirs}");
    Ok(ours)
}

fn networks(lab: &Lab) -> Result<()> {
    let flags = "--driver overlay --internal --attachable --label side=a --opt com.docker.network.driver.mtu=1400";
    ours(lab, &format!("network create {flags} --subnet 10.9.1.0/24 --gateway 10.9.1.254 ours"))?;
    theirs(lab, &format!("network create {flags} --subnet 10.9.2.0/24 --gateway 10.9.2.254 theirs"))?;
    has(&alike(lab, "network ls")?, "ours");
    alike(lab, "network ls --filter driver=overlay --filter label=side=a -q")?;
    let format = "{{.Driver}} {{.Internal}} {{.Attachable}} {{.Ingress}} {{json .Labels}} {{json .Options}}";
    for name in ["ours", "theirs"] {
        let line = ["network", "inspect", "--format", format, name];
        let (ours, theirs) = (pi_mgr(lab, &line)?.good()?, docker(lab, &line)?.good()?);
        ensure!(ours == theirs, "{name}: {ours} {theirs}");
        has(&ours, "overlay true");
    }
    has(&pi_mgr(lab, &words("network create --subnet 10.9.1.0/25 again"))?.bad()?.1, "overlap");
    assert_eq!(ours(lab, "network rm ours theirs")?, "ours\ntheirs\n");
    has(&pi_mgr(lab, &words("network rm ours"))?.bad()?.1, "not found");
    ours(lab, "network rm -f ours").map(drop)
}

fn ports(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    ours(lab, "network create front")?;
    theirs(lab, "network create -d overlay back")?;
    let create = |publish: &str| {
        format!("service create -d {publish} --network name=front,alias=www --network back {image} sleep 100000")
    };
    let line = create("--name one -p 8000-8003:8000-8003 -p 53:53/udp -p 90");
    ours(lab, &line)?;
    theirs(lab, &create("--name two -p 9000-9001:90 --publish published=9100,target=91,protocol=sctp"))?;
    ours(lab, &create("--name three --endpoint-mode dnsrr -p published=7000,target=70,mode=host"))?;
    for service in ["one", "two", "three"] {
        running(lab, service, 1);
        alike(lab, &format!("service inspect --pretty {service}"))?;
    }
    let list = alike(lab, "service ls --format {{.Name}}:{{.Ports}}")?;
    has(&list, "*:8000-8003->8000-8003/tcp");
    has(&list, "*:9100->91/sctp, *:9000-9001->90/tcp");
    // The one that the manager chose.
    has(&list, ":30000->90/tcp");
    alike(lab, "service ps --format {{.Name}}:{{.Ports}} three")?;
    // A change of ports and networks by one client, and back by the other one.
    let before = inspect(lab, "one")?["Spec"].take();
    ours(lab, "service update -d --publish-rm 53/udp --publish-add 5300:53/udp --network-rm back one")?;
    has(&alike(lab, "service ls --format {{.Name}}:{{.Ports}}")?, "*:5300->53/udp");
    theirs(lab, "service update -d --publish-rm 53/udp --publish-add 53:53/udp --network-add back one")?;
    let after = inspect(lab, "one")?["Spec"].take();
    let sorted = |spec: &serde_json::Value| {
        let mut ports = spec["EndpointSpec"]["Ports"].as_array().cloned().unwrap_or_default();
        ports.sort_by_key(ToString::to_string);
        ports
    };
    assert_eq!(sorted(&before), sorted(&after));
    assert_eq!(before["TaskTemplate"]["Networks"].as_array().map(Vec::len), Some(2), "{before:#}");
    assert_eq!(after["TaskTemplate"]["Networks"].as_array().map(Vec::len), Some(2), "{after:#}");
    let (_, said) = pi_mgr(lab, &words(&format!("service create -d -p 8000:1 {image} sleep 1")))?.bad()?;
    has(&said, "port '8000' is already in use by service 'one'");
    has(&pi_mgr(lab, &words("network rm front"))?.bad()?.1, "in use");
    remove(lab, &["one", "two", "three"])?;
    has(&ours(lab, "network prune --force")?, "Deleted Networks:\n");
    let left = ours(lab, "network ls --filter driver=overlay --format {{.Name}}")?;
    assert_eq!(left.trim(), "ingress", "the mesh stays");
    Ok(())
}

fn stacks(lab: &Lab) -> Result<()> {
    let image = busybox(lab);
    let text = format!(
        "services:\n  web:\n    image: {image}\n    command: sleep 100000\n    ports: ['8080:80', '5000-5001:50-51/udp']\n    \
         networks: {{front: {{aliases: [www]}}}}\nnetworks:\n  front: {{ipam: {{config: [{{subnet: 10.9.9.0/24}}]}}}}\n"
    );
    let path = lab.directory.join("ports.yml");
    std::fs::write(&path, text)?;
    ours(lab, &format!("stack deploy -d -c {} st", path.display()))?;
    running(lab, "st_web", 1);
    has(&alike(lab, "stack services --format {{.Name}}:{{.Ports}} st")?, "*:8080->80/tcp, *:5000-5001->50-51/udp");
    let before = inspect(lab, "st_web")?["Spec"].take();
    theirs(lab, &format!("stack deploy --detach=true -c {} st", path.display()))?;
    let after = inspect(lab, "st_web")?["Spec"].take();
    assert_eq!(before, after, "docker finds nothing to change");
    ours(lab, "stack rm st").map(drop)
}

fn mistakes(lab: &Lab) -> Result<()> {
    for (line, code, wanted) in [
        ("service create -p 127.0.0.1:80:80 b", 2, "hostip is not supported"),
        ("service create -p 80:80/icmp b", 2, "the protocol must be tcp, udp or sctp"),
        ("service create --network nosuch b", 1, "network nosuch not found"),
        ("network create --subnet 10.9.0.5/24 n", 2, "it should be 10.9.0.0/24"),
        ("network create --gateway 10.9.0.1 n", 2, "every ip-range or gateway must have a corresponding subnet"),
        ("network create --driver bridge n", 1, "bridge"),
        ("network create --ipv6 n", 2, "overlay networks carry IPv4"),
        ("network rm host", 1, "host"),
    ] {
        let (got, said) = pi_mgr(lab, &words(line))?.bad().with_context(|| format!("pi-mgr {line}"))?;
        has(&said, wanted);
        assert_eq!(got, code, "{line}: {said}");
    }
    Ok(())
}
