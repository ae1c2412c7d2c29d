//! Published ports, overlay networks and virtual addresses, seen from everywhere: a client, each board, tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{SOON, get, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::image::{File, Image, Layer, Platform};
use crate::lab::process::run;
use crate::support::{Inside, all, docker, has, inspect, remove, running};

/// How long a client waits for an answer before it counts as none.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs root"]
fn every_way_to_a_service() -> Result<()> {
    let lab = Guard::cluster(3)?;
    push_server(&lab)?;
    all(
        &lab,
        &[
            ("a published port answers everywhere", published),
            ("a service reaches itself", hairpin),
            ("networks are apart", apart),
            ("names stand for addresses", names),
            ("a task reaches the world", egress),
            ("a port of one board", host_mode),
            ("clients' addresses are kept", keep_source),
            ("connections are spread evenly", spread),
        ],
    );
    Ok(())
}

/// The image `server`: the program beside this file, and busybox.
pub(crate) fn push_server(lab: &Lab) -> Result<()> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/mesh/server.c");
    let program = lab.directory.join("server");
    run(&["cc", "-static", "-O1", "-o", &program.to_string_lossy(), source])?;
    let bytes = std::fs::read(&program).context("read the server")?;
    let layer = Layer::new([("bin/server".to_owned(), File::Regular(0o755, &bytes))])?;
    let command = json!({"Cmd": ["server", "8080"], "Env": ["PATH=/bin"]});
    let image = Image::new(Platform::host(), &[Layer::busybox()?, layer], &command)?;
    lab.registry().push("server", "latest", &image).map(drop)
}

/// `docker service create` of the server; its host name is `NAME-SLOT`.
pub(crate) fn serve(lab: &Lab, name: &str, options: &str) -> Result<()> {
    let image = format!("{}/server:latest", lab.registry().host());
    let hostname = format!("{name}-{{{{.Task.Slot}}}}");
    let mut line = vec!["service", "create", "-d", "-q", "--name", name, "--hostname", &hostname];
    line.extend(options.split(' ').filter(|word| !word.is_empty()));
    line.push(&image);
    docker(lab, &line)?.good().map(drop).with_context(|| format!("create {name} {options}"))
}

/// One request on a connection of its own: who answered, and which client's address it saw.
pub(crate) fn ask(address: impl Into<SocketAddr>, path: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address.into(), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    said(&answer)
}

fn said(answer: &str) -> Result<(String, String)> {
    let line = answer.lines().last().unwrap_or_default();
    let (name, client) = line.split_once(' ').with_context(|| format!("no answer of the server: {answer:?}"))?;
    Ok((name.to_owned(), client.to_owned()))
}

fn ask_udp(address: SocketAddr) -> Result<(String, String)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.send_to(b"?", address)?;
    let mut answer = [0; 512];
    let bytes = socket.recv(&mut answer)?;
    said(std::str::from_utf8(&answer[..bytes])?)
}

/// The same by a program, somewhere else.
fn fetch(url: &str) -> Vec<String> {
    let within = ANSWER_WITHIN.as_secs().to_string();
    ["curl", "-s", "-m", &within, "--noproxy", "*", url].map(str::to_owned).to_vec()
}

fn from_board(lab: &Lab, board: u8, url: &str) -> Result<String> {
    let command = fetch(url);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let line = lab.board(board)?.on_its_network(&words);
    run(&line.iter().map(String::as_str).collect::<Vec<_>>())
}

fn from_task(inside: &Inside, url: &str) -> Result<String> {
    let command = fetch(url);
    inside.enter(&["-n"], &command.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Names of tasks in answers.
fn of(answer: &str) -> Result<String> {
    said(answer).map(|(name, _)| name)
}

/// Asks until every one of these has answered.
#[track_caller]
fn all_answer(what: &str, names: &[&str], mut ask: impl FnMut() -> Result<String>) {
    let mut seen = BTreeSet::new();
    let mut failed = None;
    let waited = crate::lab::process::wait_for(what, SOON, || {
        match ask() {
            Ok(name) => drop(seen.insert(name)),
            Err(error) => failed = Some(error),
        }
        Ok(names.iter().all(|name| seen.contains(*name)).then_some(()))
    });
    assert!(waited.is_ok(), "{what}: heard {seen:?}, last failure {failed:?}");
    assert!(seen.iter().all(|name| names.contains(&name.as_str())), "{what}: {seen:?}");
}

fn addresses(lab: &Lab) -> Vec<(u8, Ipv4Addr)> {
    lab.boards().iter().map(|board| (board.number, board.address())).collect()
}

/// The one task of a service with one task, from inside.
fn inside(lab: &Lab, service: &str) -> Result<Inside> {
    Inside::of(lab, service)
}

/// A service's virtual address on a network.
fn vip(lab: &Lab, service: &str, network: &str) -> Result<Ipv4Addr> {
    let network = get(lab, &format!("/networks/{network}"))?["Id"].clone();
    let service = inspect(lab, service)?;
    let all = service["Endpoint"]["VirtualIPs"].as_array().context("no virtual addresses")?;
    let one = all.iter().find(|vip| vip["NetworkID"] == network).context("none on this network")?;
    let text = one["Addr"].as_str().unwrap_or_default();
    text.split('/').next().unwrap_or_default().parse().with_context(|| format!("an address: {text}"))
}

fn network(lab: &Lab, name: &str, options: &[&str]) -> Result<()> {
    let line = [&["network", "create", "--driver", "overlay"], options, &[name]].concat();
    docker(lab, &line)?.good().map(drop)
}

fn published(lab: &Lab) -> Result<()> {
    let on = "--constraint engine.labels.board!=3";
    serve(lab, "pub", &format!("--replicas 2 {on} -p 8081:8080 -p 8082:8080/udp"))?;
    let rows = running(lab, "pub", 2);
    ensure!(rows.iter().all(|row| row.board != 3), "{rows:?}");
    let both = ["pub-1", "pub-2"];
    for (board, address) in addresses(lab) {
        let client = format!("a client of board {board}");
        all_answer(&client, &both, || ask((address, 8081), "").map(|(name, _)| name));
        all_answer(&format!("{client}, UDP"), &both, || ask_udp((address, 8082).into()).map(|(name, _)| name));
        all_answer(&format!("board {board} to itself"), &both, || {
            of(&from_board(lab, board, "http://127.0.0.1:8081")?)
        });
        let own = format!("http://{address}:8081");
        all_answer(&format!("board {board} to its address"), &both, || of(&from_board(lab, board, &own)?));
    }
    // One that does not publish, with a way out.
    serve(lab, "caller", "--constraint engine.labels.board==1")?;
    let caller = inside(lab, "caller")?;
    for (board, address) in addresses(lab) {
        let url = format!("http://{address}:8081");
        all_answer(&format!("a task on board 1 to board {board}"), &both, || of(&from_task(&caller, &url)?));
    }
    // Traefik and others read this.
    let service = inspect(lab, "pub")?;
    let ports = &service["Endpoint"]["Ports"];
    ensure!(ports[0]["PublishedPort"] == 8081 && ports[0]["PublishMode"] == "ingress", "{service:#}");
    remove(lab, &["pub", "caller"])?;
    wait(lab, "the port to be closed", SOON, || {
        Ok(addresses(lab).iter().all(|(_, address)| ask((*address, 8081), "").is_err()).then_some(()))
    });
    Ok(())
}

fn hairpin(lab: &Lab) -> Result<()> {
    network(lab, "own", &[])?;
    serve(lab, "self", "--network own -p 8083:8080 --constraint engine.labels.board==2")?;
    let task = inside(lab, "self")?;
    let vip = vip(lab, "self", "own")?;
    let mut urls = vec![format!("http://{vip}:8080"), "http://127.0.0.1:8080".to_owned()];
    urls.extend(addresses(lab).iter().map(|(_, address)| format!("http://{address}:8083")));
    for url in urls {
        all_answer(&format!("a task to itself by {url}"), &["self-1"], || of(&from_task(&task, &url)?));
    }
    remove(lab, &["self"])
}

fn apart(lab: &Lab) -> Result<()> {
    network(lab, "left", &[])?;
    network(lab, "right", &["--internal"])?;
    serve(lab, "left", "--network left --replicas 2")?;
    serve(lab, "right", "--network right")?;
    running(lab, "left", 2);
    let (vip_left, vip_right) = (vip(lab, "left", "left")?, vip(lab, "right", "right")?);
    let right = inside(lab, "right")?;
    // From each side its own; then the other cannot be because it is closed, not because it has not come yet.
    all_answer("its own network", &["right-1"], || of(&from_task(&right, &format!("http://{vip_right}:8080"))?));
    let tasks = get(lab, "/tasks")?;
    let mut closed = vec![vip_left.to_string()];
    for task in tasks.as_array().into_iter().flatten().filter(|task| task["Status"]["State"] == "running") {
        let attachments = task["NetworksAttachments"].as_array().into_iter().flatten();
        let left = attachments.filter(|at| at["Network"]["Spec"]["Name"] == "left");
        let addresses = left.flat_map(|at| at["Addresses"].as_array().into_iter().flatten().filter_map(Value::as_str));
        closed.extend(addresses.map(|address| address.split('/').next().unwrap_or_default().to_owned()));
    }
    ensure!(closed.len() == 3, "{closed:?}");
    for address in &closed {
        let answer = from_task(&right, &format!("http://{address}:8080"));
        ensure!(answer.is_err(), "right reaches {address}: {answer:?}");
    }
    // An internal network has no way out.
    let out = from_task(&right, &format!("http://{}/v2/", lab.registry().host()));
    ensure!(out.is_err(), "there is a way out of an internal network: {out:?}");
    // Nothing but the mesh's ports is open to the outside.
    for task in &closed[1..] {
        ensure!(ask((task.parse::<Ipv4Addr>()?, 8080), "").is_err(), "a client reaches {task}");
    }
    remove(lab, &["left", "right"])
}

fn names(lab: &Lab) -> Result<()> {
    network(lab, "dns", &[])?;
    serve(lab, "vip", "--network name=dns,alias=shop --replicas 2")?;
    serve(lab, "rr", "--network dns --replicas 2 --endpoint-mode dnsrr")?;
    serve(lab, "asks", "--network dns")?;
    running(lab, "vip", 2);
    running(lab, "rr", 2);
    let asks = inside(lab, "asks")?;
    let get = |host: &str| {
        let url = format!("http://{host}:8080/");
        // With the task's resolver; busybox cannot be asked, since Debian's static one dies of it.
        of(&crate::names::resolver(lab, &asks, &format!("curl -s -m 3 --noproxy '*' {url}"))?)
    };
    for host in ["vip", "shop", "tasks.vip"] {
        all_answer(host, &["vip-1", "vip-2"], || get(host));
    }
    for host in ["rr", "tasks.rr"] {
        all_answer(host, &["rr-1", "rr-2"], || get(host));
    }
    remove(lab, &["vip", "rr", "asks"])
}

fn egress(lab: &Lab) -> Result<()> {
    network(lab, "out", &[])?;
    serve(lab, "plain", "--constraint engine.labels.board==3")?;
    serve(lab, "netted", "--network out --constraint engine.labels.board==3")?;
    let url = format!("http://{}/v2/", lab.registry().host());
    for service in ["plain", "netted"] {
        let task = inside(lab, service)?;
        wait(lab, &format!("{service} to reach the world"), SOON, || {
            Ok(from_task(&task, &url).ok().filter(|answer| answer.trim() == "{}").map(drop))
        });
    }
    remove(lab, &["plain", "netted"])
}

fn host_mode(lab: &Lab) -> Result<()> {
    serve(lab, "hosted", "--publish mode=host,target=8080,published=8084 --constraint engine.labels.board==1")?;
    let row = running(lab, "hosted", 1).into_iter().next().context("a task")?;
    for (board, address) in addresses(lab) {
        if board == 1 {
            all_answer("its board", &["hosted-1"], || ask((address, 8084), "").map(|(name, _)| name));
            all_answer("its board, to itself", &["hosted-1"], || of(&from_board(lab, 1, "http://127.0.0.1:8084")?));
        } else {
            ensure!(ask((address, 8084), "").is_err(), "board {board} answers");
        }
    }
    let task = get(lab, &format!("/tasks/{}", row.id))?;
    ensure!(task["Status"]["PortStatus"]["Ports"][0]["PublishedPort"] == 8084, "{task:#}");
    remove(lab, &["hosted"])
}

fn keep_source(lab: &Lab) -> Result<()> {
    let on = "--constraint engine.labels.board==1";
    serve(lab, "seen", &format!("{on} --label io.racimo.mesh.keep-source=true -p 8085:8080"))?;
    serve(lab, "hidden", &format!("{on} -p 8086:8080"))?;
    for (board, address) in addresses(lab) {
        let client =
            |port| wait(lab, &format!("board {board}'s port {port}"), SOON, || Ok(ask((address, port), "").ok())).1;
        // The address this machine has in the lab.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((address, 1))?;
        let own = socket.local_addr()?.ip().to_string();
        let seen = client(8085);
        ensure!(seen == own, "through board {board} the task sees {seen}, the client is {own}");
        if board != 1 {
            ensure!(client(8086) != own, "board {board} keeps addresses nobody asked for");
        }
    }
    remove(lab, &["seen", "hidden"])
}

/// Connections per board. With chance a share of a third strays by 0.8 % of itself (one standard deviation) in 30,000.
const CONNECTIONS: usize = 10_000;

fn spread(lab: &Lab) -> Result<()> {
    serve(lab, "even", "--mode replicated --replicas 3 -p 8087:8080")?;
    running(lab, "even", 3);
    let all = ["even-1", "even-2", "even-3"];
    let addresses = addresses(lab);
    for (board, address) in &addresses {
        all_answer(&format!("board {board}"), &all, || ask((*address, 8087), "").map(|(name, _)| name));
    }
    let count = |address: Ipv4Addr| -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for number in 0..CONNECTIONS {
            let (name, _) = ask((address, 8087), "").with_context(|| format!("connection {number} to {address}"))?;
            *counts.entry(name).or_default() += 1;
        }
        Ok(counts)
    };
    let parts: Vec<Result<BTreeMap<String, usize>>> = std::thread::scope(|scope| {
        let running: Vec<_> = addresses.iter().map(|(_, address)| scope.spawn(|| count(*address))).collect();
        running.into_iter().map(|part| part.join().expect("no panic")).collect()
    });
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for part in parts {
        part?.into_iter().for_each(|(name, count)| *counts.entry(name).or_default() += count);
    }
    println!("{} connections: {counts:?}", CONNECTIONS * addresses.len());
    for name in all {
        let got = counts.get(name).copied().unwrap_or_default();
        ensure!(got.abs_diff(CONNECTIONS) * 100 <= CONNECTIONS * 3, "{name} got {got} of {counts:?}");
    }
    remove(lab, &["even"])
}

// ---- under load

/// A load of `wrk` on a port of a board.
struct Load(std::process::Child);

impl Load {
    fn start(address: Ipv4Addr, port: u16, seconds: u64, fresh: bool) -> Result<Self> {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c8", "--timeout", "5s", &format!("-d{seconds}s")]);
        if fresh {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{address}:{port}/")).stdout(std::process::Stdio::piped());
        Ok(Self(command.spawn().context("wrk (package wrk)")?))
    }

    /// Requests that were answered, and those that failed.
    fn end(self) -> Result<(u64, u64)> {
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "wrk failed: {text}");
        let number = |word: &str| word.trim_matches(',').parse::<u64>().ok();
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in")?.0.parse().ok());
        let socket = text.lines().find_map(|line| line.trim().strip_prefix("Socket errors:"));
        let failed: u64 = socket.into_iter().flat_map(|line| line.split(' ').filter_map(number)).sum();
        let refused = text.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
        let refused: u64 = refused.and_then(|count| count.parse().ok()).unwrap_or(0);
        println!("{text}");
        Ok((requests.with_context(|| format!("how many requests? {text}"))?, failed + refused))
    }
}

/// Loads every board while something happens; every request has to be answered.
fn none_fails(lab: &Lab, port: u16, seconds: u64, happens: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut loads = Vec::new();
    for (board, address) in addresses(lab) {
        loads.push((board, false, Load::start(address, port, seconds, false)?));
        loads.push((board, true, Load::start(address, port, seconds, true)?));
    }
    let begun = std::time::Instant::now();
    let result = happens();
    let took = begun.elapsed();
    let mut failures = Vec::new();
    for (board, fresh, load) in loads {
        let (requests, failed) = load.end()?;
        ensure!(requests > 100, "board {board} answered {requests} requests only");
        if failed > 0 {
            failures.push(format!("board {board}, new connections {fresh}: {failed} of {requests} failed"));
        }
    }
    result?;
    ensure!(took < Duration::from_secs(seconds), "it took {took:?}, longer than the load");
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn no_request_fails_while_services_change() -> Result<()> {
    let lab = Guard::cluster(3)?;
    push_server(&lab)?;
    let options = "--replicas 3 --update-order start-first --update-parallelism 1 --stop-grace-period 10s \
                   -e START_DELAY=500 -p 80:8080 --health-interval 1s --health-retries 2 --health-start-period 5s";
    let image = format!("{}/server:latest", lab.registry().host());
    let mut line = vec!["service", "create", "-d", "-q", "--name", "web"];
    line.extend(["--health-cmd", "server check 8080"]);
    line.extend(options.split(' ').filter(|word| !word.is_empty()));
    line.push(&image);
    docker(&lab, &line)?.good()?;
    running(&lab, "web", 3);
    for (board, address) in addresses(&lab) {
        wait(&lab, &format!("board {board} to answer"), SOON, || Ok(ask((address, 80), "").ok()));
    }
    none_fails(&lab, 80, 20, || {
        docker(&lab, &["service", "scale", "-d", "web=1"])?.good()?;
        running(&lab, "web", 1);
        docker(&lab, &["service", "scale", "-d", "web=4"])?.good()?;
        running(&lab, "web", 4);
        Ok(())
    })
    .context("scale")?;
    none_fails(&lab, 80, 90, || {
        let said = docker(&lab, &["service", "update", "--env-add", "A=1", "web"])?.good()?;
        has(&said, "converged");
        Ok(())
    })
    .context("update")
}

#[test]
#[ignore = "needs root"]
fn a_lost_board_is_missed_only_until_it_is_down() -> Result<()> {
    let lab = Guard::cluster(3)?;
    push_server(&lab)?;
    serve(&lab, "web", "--replicas 3 -p 80:8080")?;
    running(&lab, "web", 3);
    let address = lab.board(1)?.address();
    wait(&lab, "board 1 to answer", SOON, || Ok(ask((address, 80), "").ok()));
    lab.board(3)?.act(crate::lab::board::Verb::Cut)?;
    let cut = std::time::Instant::now();
    let (mut last_failure, mut down) = (None, None);
    // Until it was down for a while; whoever is asked may be the one that is lost.
    while down.is_none_or(|at: Duration| cut.elapsed() < at + Duration::from_secs(5)) {
        let begun = cut.elapsed();
        ensure!(begun < SOON, "the board is never down");
        if ask((address, 80), "").is_err() {
            last_failure = Some(begun);
        }
        if down.is_none() && crate::cluster::board_state(&lab, 3)? == "down" {
            down = Some(cut.elapsed());
        }
    }
    println!("down after {down:?}, the last failed request began after {last_failure:?}");
    let down = down.context("down")?;
    // What was begun until then may have met the lost one.
    let slack = Duration::from_millis(500);
    ensure!(last_failure.is_none_or(|at| at < down + slack), "a request that began after {last_failure:?} failed");
    Ok(())
}
