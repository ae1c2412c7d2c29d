//! Names: programs with glibc's and musl's resolvers in real tasks, on several boards.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::cluster::{SOON, get, live, scale, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::process::run;
use crate::support::{Inside, busybox, create, docker, has, inspect, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];
const LIBCS: [(&str, &str); 2] = [("glibc", "cc"), ("musl", "musl-gcc")];

#[test]
#[ignore = "needs root"]
fn tasks_find_each_other_and_the_world() -> Result<()> {
    let lab = Guard::cluster(3)?;
    compile(&lab)?;
    let server = upstream(&lab)?;
    for network in ["front", "back"] {
        docker(&lab, &["network", "create", "-d", "overlay", network])?.good()?;
    }
    create(&lab, "web", &["--network", "name=front,alias=www", "--replicas", "2"], &SLEEP)?;
    create(&lab, "db", &["--network", "front", "--endpoint-mode", "dnsrr", "--replicas", "3"], &SLEEP)?;
    create(&lab, "hidden", &["--network", "back", "--hostname", "cellar"], &SLEEP)?;
    create(&lab, "both", &["--network", "front", "--network", "back", "--hostname", "desk"], &SLEEP)?;
    create(&lab, "alone", &[], &SLEEP)?;
    running(&lab, "web", 2);
    running(&lab, "db", 3);
    let (hidden, both, alone) = (Inside::of(&lab, "hidden")?, Inside::of(&lab, "both")?, Inside::of(&lab, "alone")?);

    let web = addresses(&lab, "web", "front")?;
    let db = addresses(&lab, "db", "front")?;
    let cellar = addresses(&lab, "hidden", "back")?;
    ensure!(web.len() == 2 && db.len() == 3 && cellar.len() == 1, "{web:?} {db:?} {cellar:?}");
    let vip = BTreeSet::from([vip(&lab, "web")?]);
    finds(&lab, &both, "web", &vip);
    finds(&lab, &both, "WWW", &vip);
    finds(&lab, &both, "web.front", &vip);
    finds(&lab, &both, "tasks.web", &web);
    finds(&lab, &both, "tasks.www", &web);
    finds(&lab, &both, "db", &db);
    finds(&lab, &both, "tasks.db", &db);
    finds(&lab, &both, "cellar", &cellar);
    finds(&lab, &hidden, "desk", &addresses(&lab, "both", "back")?);
    for task in live(&lab, "web")? {
        let name = format!("web.{}.{}", get(&lab, &format!("/tasks/{}", task.id))?["Slot"], task.id);
        finds(&lab, &both, &name, &address(&lab, &task.id, "front")?.into_iter().collect());
        finds(&lab, &both, &task.id[..12], &address(&lab, &task.id, "front")?.into_iter().collect());
    }
    // Networks are apart.
    for (inside, name) in [(&hidden, "web"), (&hidden, "db"), (&alone, "web"), (&both, "nobody")] {
        misses(&lab, inside, name);
    }
    for query in ["web 6", "db 6"] {
        misses(&lab, &both, query);
    }
    let said = resolver(&lab, &both, "dig web AAAA")?;
    has(&said, "status: NOERROR");
    has(&said, "ANSWER: 0");
    has(&resolver(&lab, &both, "dig nobody AAAA")?, "status: NXDOMAIN");
    has(&resolver(&lab, &both, "dig +tcp +short web")?, vip.first().context("an address")?);
    // Itself, from the file.
    let hosts = both.enter(&["-m", "-n"], &["/bin/cat", "/etc/hosts"])?;
    for network in ["front", "back"] {
        for address in addresses(&lab, "both", network)? {
            has(&hosts, &format!("{address}\tdesk\n"));
        }
    }

    // Others' names, through the board's server.
    if server {
        for inside in [&both, &alone] {
            finds(&lab, inside, "good.example", &BTreeSet::from(["192.0.2.1".to_owned()]));
        }
    }
    stack(&lab)?;

    // Services come and go.
    scale(&lab, "db", 1)?;
    let one =
        wait(&lab, "one task of db", SOON, || Ok(Some(addresses(&lab, "db", "front")?).filter(|all| all.len() == 1)));
    finds(&lab, &both, "db", &one);
    remove(&lab, &["web"])?;
    wait(&lab, "web to be unknown", SOON, || {
        Ok(resolver(&lab, &both, "./resolve-musl web")?.starts_with("error").then_some(()))
    });
    create(&lab, "new", &["--network", "back"], &SLEEP)?;
    running(&lab, "new", 1);
    finds(&lab, &hidden, "tasks.new", &addresses(&lab, "new", "back")?);
    Ok(())
}

/// Services of a stack know each other by their short names.
fn stack(lab: &Lab) -> Result<()> {
    let path = lab.directory.join("names.yaml");
    let image = busybox(lab);
    let service = |name: &str| format!("  {name}: {{image: {image}, command: sleep 100000}}\n");
    fs::write(&path, format!("services:\n{}{}", service("shop"), service("till")))?;
    docker(lab, &["stack", "deploy", "-d", "-c", &path.to_string_lossy(), "st"])?.good()?;
    running(lab, "st_till", 1);
    let shop = Inside::of(lab, "st_shop")?;
    let till = BTreeSet::from([vip(lab, "st_till")?]);
    for name in ["till", "st_till", "till.st_default"] {
        finds(lab, &shop, name, &till);
    }
    docker(lab, &["stack", "rm", "st"])?.good().map(drop)
}

/// Compiles the program that asks, once with each libc.
fn compile(lab: &Lab) -> Result<()> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../agent/tests/dns/resolve.c");
    for (libc, compiler) in LIBCS {
        let program = lab.directory.join(format!("resolve-{libc}"));
        run(&[compiler, "-o", &program.to_string_lossy(), &source.to_string_lossy()])?;
    }
    Ok(())
}

/// What a program of this machine says on a task's network with its resolv.conf.
pub(crate) fn resolver(lab: &Lab, inside: &Inside, command: &str) -> Result<String> {
    let text = inside.enter(&["-m", "-n"], &["/bin/cat", "/etc/resolv.conf"])?;
    has(&text, "nameserver 127.0.0.11\n");
    let conf = lab.directory.join(format!("resolv-{}", inside.task));
    fs::write(&conf, text)?;
    // Programs that find nothing fail.
    let script = format!(
        "mount --bind {} \"$(readlink -f /etc/resolv.conf)\" && cd {} && {command} || true",
        conf.display(),
        lab.directory.display()
    );
    inside.enter(&["-n"], &["unshare", "--mount", "timeout", "20", "sh", "-c", &script])
}

/// Waits until both resolvers find exactly these.
#[track_caller]
fn finds(lab: &Lab, inside: &Inside, name: &str, wanted: &BTreeSet<String>) {
    for (libc, _) in LIBCS {
        let mut last = String::new();
        let what = format!("{libc} to find {wanted:?} as {name}");
        let ask = || {
            last = resolver(lab, inside, &format!("./resolve-{libc} {name}"))?;
            let found: BTreeSet<String> = last.lines().map(str::to_owned).collect();
            Ok((found == *wanted).then_some(()))
        };
        wait(lab, &what, SOON, ask);
    }
}

#[track_caller]
fn misses(lab: &Lab, inside: &Inside, query: &str) {
    for (libc, _) in LIBCS {
        let said = resolver(lab, inside, &format!("./resolve-{libc} {query}")).expect("it runs");
        assert!(said.starts_with("error: "), "{libc} finds {query}: {said}");
    }
}

/// The addresses of a service's tasks on a network.
fn addresses(lab: &Lab, service: &str, network: &str) -> Result<BTreeSet<String>> {
    let rows = live(lab, service)?;
    rows.iter().filter_map(|row| address(lab, &row.id, network).transpose()).collect()
}

fn address(lab: &Lab, task: &str, network: &str) -> Result<Option<String>> {
    let task = get(lab, &format!("/tasks/{task}"))?;
    let attachments = task["NetworksAttachments"].as_array().map_or(&[][..], Vec::as_slice);
    let mine = attachments.iter().find(|attachment| attachment["Network"]["Spec"]["Name"] == network);
    Ok(mine.and_then(|mine| plain(&mine["Addresses"][0])))
}

/// The virtual address of a service on its one network.
fn vip(lab: &Lab, service: &str) -> Result<String> {
    let service = inspect(lab, service)?;
    let all = service["Endpoint"]["VirtualIPs"].as_array().context("no virtual addresses")?;
    // Some services are in the mesh, too.
    all.iter().filter_map(|one| plain(&one["Addr"])).next_back().context("no virtual address")
}

/// `10.0.1.2/24` without its mask.
fn plain(address: &Value) -> Option<String> {
    Some(address.as_str()?.split_once('/')?.0.to_owned())
}

/// A name server where the boards' resolv.conf says that one is: on each board itself. False: it says nothing.
fn upstream(lab: &Lab) -> Result<bool> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<Ipv4Addr>().ok());
    let Some(address) = servers.into_iter().next() else {
        eprintln!("NOT TESTED: other names, as this machine's resolv.conf has no IPv4 name server");
        return Ok(false);
    };
    for board in lab.boards() {
        if !address.is_loopback() {
            run(&["ip", "-n", &board.netns(), "addr", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        let netns = File::open(format!("/run/netns/{}", board.netns()))?;
        let opened = thread::spawn(move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            UdpSocket::bind((address, 53))
        });
        let socket = opened.join().expect("no panic in it").context("open the name server")?;
        thread::spawn(move || serve(&socket));
    }
    Ok(true)
}

/// Knows one name, without IPv6.
fn serve(socket: &UdpSocket) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        let query = &packet[..length];
        let name = b"\x04good\x07example\x00";
        let end = query.iter().skip(12).position(|byte| *byte == 0).map_or(length, |at| 12 + at + 5);
        let is_known = query[12..].starts_with(name);
        let is_address = query.get(end - 4..end) == Some(&[0, 1, 0, 1]);
        let mut answer = query[..end.min(length)].to_vec();
        (answer[2], answer[3]) = (0x81, if is_known { 0x80 } else { 0x83 });
        answer[6..12].fill(0);
        if is_known && is_address {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        }
        // Who asked is gone.
        let _ = socket.send_to(&answer, from);
    }
}
