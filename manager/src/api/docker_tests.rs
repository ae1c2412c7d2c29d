//! The real docker CLI (28) against the API on a unix socket and on TCP. Left out where there is no docker.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use racimo_common::id::IdSource;

use super::listen::{Address, Listener};
use super::serve::serve;
use super::testing::Lab;
use crate::limits;

/// An API that is served from a thread until it is dropped.
pub(super) struct Served {
    pub(super) lab: Lab,
    dir: tempfile::TempDir,
    tcp: SocketAddr,
    stop: async_channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(super) fn new(lab: Lab) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let unix = Listener::open(&Address::Unix(dir.path().join("api.sock")), Some("racimo")).expect("listens");
        let tcp = Listener::open(&"tcp://127.0.0.1:0".parse().expect("address"), None).expect("listens");
        let address = tcp.tcp_address().expect("TCP");
        let (stop, stopped) = async_channel::bounded(1);
        let context = lab.context.clone();
        let thread = std::thread::spawn(move || {
            smol::block_on(serve(context, vec![unix, tcp], async move {
                let _ = stopped.recv().await;
            }));
        });
        Self { lab, dir, tcp: address, stop, thread: Some(thread) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Runs docker; whether it succeeded, what it printed, and its errors.
    fn docker(&self, args: &str) -> (bool, String) {
        self.docker_at(&format!("unix://{}", self.socket().display()), args)
    }

    fn docker_at(&self, host: &str, args: &str) -> (bool, String) {
        let output = Command::new("timeout")
            .args(["20", "docker", "-H", host])
            .args(args.split(' '))
            .env("DOCKER_CONFIG", self.dir.path())
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_API_VERSION")
            .stdin(Stdio::null())
            .output()
            .expect("docker runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }

    #[track_caller]
    pub(super) fn good(&self, args: &str) -> String {
        let (good, text) = self.docker(args);
        assert!(good, "docker {args}: {text}");
        text
    }

    #[track_caller]
    pub(super) fn bad(&self, args: &str, want: &str) {
        let (good, text) = self.docker(args);
        assert!(!good && text.contains(want), "docker {args}: {text:?} instead of {want:?}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.close();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))));
            assert!(!self.socket().exists());
        }
    }
}

pub(super) fn there_is_docker() -> bool {
    Command::new("docker").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A line's words, so that columns may move.
fn words(text: &str, line: usize) -> Vec<&str> {
    text.lines().nth(line).unwrap_or_default().split_whitespace().collect()
}

#[test]
fn the_docker_cli_works() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::new());
    let version = served.good("version");
    assert!(version.contains("Server: Racimo") && version.contains("1.47 (minimum version 1.24)"), "{version}");
    assert!(served.good("info").contains("Swarm: inactive"));
    served.bad("node ls", "This node is not a swarm manager.");
    served.bad("swarm leave", "This node is not part of a swarm");

    let init = served.good("swarm init --advertise-addr 127.0.0.1");
    assert!(init.contains("docker swarm join --token SWMTKN-1-"), "{init}");
    served.bad("swarm init", "This node is already part of a swarm.");
    let own = served.lab.store.view().state.nodes().next().expect("own node").id;
    served.lab.see_node(own, true);
    served.lab.join(1, "pi1");
    let info = served.good("info");
    assert!(info.contains("Swarm: active") && info.contains("Managers: 1") && info.contains("Nodes: 2"), "{info}");
    assert!(served.good("swarm join-token -q worker").starts_with("SWMTKN-1-"));
    assert!(served.good("swarm join-token --rotate worker").contains("SWMTKN-1-"));
    assert!(served.good("swarm update --task-history-limit 7").contains("Swarm updated"));
    let locks = served.good("swarm update --autolock");
    let key = served.good("swarm unlock-key -q");
    assert!(key.starts_with("SWMKEY-1-") && locks.contains(key.trim()), "{locks} {key}");
    assert_ne!(served.good("swarm unlock-key --rotate -q"), key);
    served.bad("swarm unlock", "swarm is not locked");
    assert!(!served.good("swarm update --autolock=false").contains("SWMKEY"));
    served.bad("swarm unlock-key", "no unlock key is set");
    served.bad("swarm unlock-key --rotate", "autolock is not turned on");
    assert!(served.good("swarm ca").contains("BEGIN CERTIFICATE"));

    let nodes = served.good("node ls");
    assert!(nodes.contains("node0") && nodes.contains("Leader") && nodes.contains("pi1"), "{nodes}");
    served.good("node update --label-add zone=a --availability drain pi1");
    assert!(served.good("node inspect pi1 --pretty").contains("zone=a"));
    assert!(served.good("node inspect self --format {{.ManagerStatus.Leader}}").contains("true"));
    served.bad("node ls --filter foo=bar", "Invalid filter 'foo'");
    served.bad("node rm pi1", "is not down and can't be removed");
    served.bad("node promote pi1", "promoting a node is not supported yet");

    let create = "service create -d --no-resolve-image --name web --replicas 2 --label a=b --limit-memory 64m \
                  --constraint node.role==manager --mount type=volume,source=data,target=/d --network host busybox:latest sleep 9";
    assert_eq!(served.good(create).trim().len(), 25);
    served.bad(create, "name conflicts with an existing object: service web already exists");
    let dnsrr = "service create -d --no-resolve-image --endpoint-mode dnsrr -p 80:80 busybox";
    served.bad(dnsrr, "port published with ingress mode can't be used with dnsrr mode");
    served.bad("service create -d --no-resolve-image --sysctl a=b busybox", "sysctl 'a' is not allowed");
    served.bad("service create -d --no-resolve-image --secret s busybox", "secret not found: s");
    served.bad("service create -d --no-resolve-image --network ovl busybox", "network ovl not found");
    served.lab.run_tasks(&mut IdSource::seeded(3));
    let list = served.good("service ls");
    assert_eq!(words(&list, 1)[1..], ["web", "replicated", "2/2", "busybox:latest"], "{list}");
    let tasks = served.good("service ps web");
    assert!(tasks.contains("web.1") && tasks.contains("Running"), "{tasks}");
    assert!(served.good("node ps self").contains("web.2"));
    let pretty = served.good("service inspect --pretty web");
    for part in ["web", "Replicated", "Replicas:\t2", "a=b", "node.role==manager", "Memory:\t64MiB", "host"] {
        assert!(pretty.contains(part), "{part}: {pretty}");
    }
    assert!(served.good("service scale -d web=3").contains("web scaled to 3"));
    // Every change goes out as a whole specification and must be taken back.
    for change in
        ["--label-add x=y", "--env-add A=1", "--limit-cpu 0.5", "--constraint-add node.labels.zone!=b", "--force"]
    {
        served.good(&format!("service update -d --no-resolve-image {change} web"));
    }
    served.good("service update -d --update-parallelism 3 web");
    served.good("service rollback -d web");
    served.bad("service logs web", "incomplete log stream. some logs could not be retrieved");
    served.bad("service logs nosuch", "no such task or service: nosuch");
    served.good("inspect web");
    served.good("network ls");
    served.good("network create -d overlay --label a=b front");
    served.bad("network create -d overlay front", "network with name front already exists");
    served.bad("network create br", "networks of driver bridge are not supported");
    assert!(served.good("network ls --filter driver=overlay --format {{.Name}}-{{.Scope}}").contains("front-swarm"));
    served.good("service update -d --no-resolve-image --network-rm host web");
    served.good("service update -d --no-resolve-image --network-add name=front,alias=www web");
    assert!(served.good("service inspect --pretty web").contains("front"));
    assert!(served.good("network inspect --verbose front").contains("web"));
    served.bad("network rm front", "is in use by service");
    served.good("service update -d --no-resolve-image --network-rm front web");
    assert!(served.good("ps").starts_with("CONTAINER ID"));
    for list in ["images", "volume ls", "secret ls", "config ls", "plugin ls", "stack ls"] {
        served.good(list);
    }
    served.bad("run busybox", "are not supported");
    served.bad("inspect nosuch", "o such object: nosuch");
    // docker says "until" in whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let events = served.good("events --since 1h --until 0s --format {{.Type}}-{{.Action}}");
    assert!(
        events.contains("network-create") && events.contains("service-create") && events.contains("node-update"),
        "{events}"
    );
    assert_eq!(served.good("service rm web").trim(), "web");
    served.bad("service inspect web", "no such service: web");
    served.good("node rm --force pi1");
    served.bad("swarm leave", "Removing the last manager erases all current state");

    let tcp = format!("tcp://{}", served.tcp);
    assert!(served.docker_at(&tcp, "node ls").1.contains("node0"));
    served.good("swarm leave --force");
}

/// Flags of docker for the whole life of a service, and what docker shows of them.
#[test]
fn docker_s_flags_are_taken_and_shown() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::active());
    std::fs::write(served.dir.path().join("body"), "hello").expect("written");
    let file = served.dir.path().join("body").display().to_string();
    served.good(&format!("secret create sec1 {file}"));
    served.good(&format!("config create cfg1 {file}"));
    let create = "service create -d --no-resolve-image --name full --replicas 2 --update-parallelism 2 --update-delay 1s \
        --update-monitor 2s --update-failure-action rollback --update-max-failure-ratio 0.2 --update-order start-first \
        --rollback-parallelism 0 --rollback-delay 3s --rollback-monitor 4s --rollback-failure-action continue \
        --rollback-max-failure-ratio 0.5 --rollback-order start-first --health-cmd true --health-interval 2s \
        --health-timeout 1s --health-retries 2 --health-start-period 3s --health-start-interval 500ms --init --tty --read-only \
        --cap-add NET_ADMIN --cap-drop MKNOD --ulimit nofile=1024:2048 --sysctl net.core.somaxconn=1024 --group video \
        --dns 1.1.1.1 --dns-search lan --dns-option ndots:2 --host a:1.2.3.4 --isolation default --log-driver local \
        --log-opt max-size=1m --oom-score-adj 100 --stop-signal SIGINT --stop-grace-period 3s \
        --secret source=sec1,target=s,uid=1,gid=2,mode=0400 --config source=cfg1,target=/etc/c busybox";
    served.good(&create.split_whitespace().collect::<Vec<_>>().join(" "));
    let pretty = served.good("service inspect --pretty full");
    for part in [
        "Parallelism:\t2\n Delay:\t\t1s\n On failure:\trollback\n Monitoring Period: 2s\n Max failure ratio: 0.2\n Update order:      start-first",
        "Parallelism:\t0\n Delay:\t\t3s\n On failure:\tcontinue\n Monitoring Period: 4s\n Max failure ratio: 0.5\n Rollback order:    start-first",
        "Init:\t\ttrue",
        "Add: CAP_NET_ADMIN\n Drop: CAP_MKNOD",
        "net.core.somaxconn: 1024",
        "nofile: 1024:2048",
        "Target:\t/etc/c\n  Source:\tcfg1",
        "Target:\ts\n  Source:\tsec1",
        "Name:\t\tlocal\n LogOpts:\n  max-size:       1m",
        "Interval = 2s\n  Retries = 2\n  StartPeriod =\t3s\n  Timeout =\t1s",
    ] {
        assert!(pretty.contains(part), "{part:?} in {pretty}");
    }
    for change in [
        "--no-healthcheck --init=false --tty=false --read-only=false",
        "--cap-add MKNOD --cap-drop NET_ADMIN --ulimit-rm nofile --ulimit-add core=0 --sysctl-rm net.core.somaxconn",
        "--group-rm video --group-add 44 --dns-rm 1.1.1.1 --dns-add 8.8.8.8 --dns-search-rm lan --dns-option-rm ndots:2",
        "--host-rm a --host-add b:::1 --log-driver none --oom-score-adj 0 --secret-rm sec1 --config-rm cfg1",
        "--update-parallelism 1 --rollback-order stop-first",
    ] {
        served.good(&format!("service update -d {change} full"));
    }
    let (_, spec) = served.lab.get("/services/full");
    assert_eq!(
        spec["Spec"]["TaskTemplate"]["ContainerSpec"],
        serde_json::json!({
            "Image": "busybox:latest", "Groups": ["44"], "Init": false, "StopSignal": "SIGINT",
            "StopGracePeriod": 3_000_000_000_i64, "Healthcheck": {"Test": ["NONE"]}, "Hosts": ["::1 b"],
            "DNSConfig": {"Nameservers": ["8.8.8.8"]}, "Isolation": "default",
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        })
    );
    // Rolled back, and the rollback too.
    served.good("service rollback -d full");
    assert_eq!(served.lab.get("/services/full").1["Spec"], spec["PreviousSpec"]);
    assert!(served.good("service inspect --pretty full").contains("manually requested rollback"));
    served.good("service update -d --rollback full");
    assert_eq!(served.lab.get("/services/full").1["Spec"], spec["Spec"]);

    served.good(
        "service create -d --no-resolve-image --name job --mode replicated-job --replicas 3 --max-concurrent 2 busybox",
    );
    served.good("service create -d --no-resolve-image --name each --mode global-job busybox");
    let list = served.good("service ls --format {{.Name}}:{{.Mode}}:{{.Replicas}}");
    assert_eq!(
        list.lines().collect::<Vec<_>>(),
        ["each:global job:0/0 (0/0 completed)", "full:replicated:0/2", "job:replicated job:0/2 (0/3 completed)"]
    );
    served.bad(
        "service create -d --no-resolve-image --mode global-job --update-delay 1s busybox",
        "not supported for jobs",
    );
    served.good("service scale -d job=5");
    assert!(served.good("service ls --filter mode=replicated-job").contains("(0/5 completed)"));
}

/// What a deployment, a second one, lists and a removal ask for, without boards.
#[test]
fn docker_deploys_stacks() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::active());
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("stack.yml");
    let text = "services:\n  web:\n    image: busybox\n    secrets: [key]\n    networks: {front: {aliases: [www]}}\n  \
                other: {image: busybox, deploy: {mode: global}}\nnetworks: {front: }\nsecrets: {key: {file: key}}\n";
    std::fs::write(&path, text).expect("writes");
    std::fs::write(folder.path().join("key"), "the key").expect("writes");
    let deploy = format!("stack deploy --detach=true --resolve-image never --prune -c {} st", path.display());
    let said = served.good(&deploy);
    for made in ["network st_default", "network st_front", "secret st_key", "service st_web", "service st_other"] {
        assert!(said.contains(&format!("Creating {made}")), "{said}");
    }
    let view = served.lab.store.view();
    let revision = |view: &crate::store::View| view.state.service_named("st_web").expect("a service").revision;
    std::fs::write(&path, text.replace("  other: {image: busybox, deploy: {mode: global}}\n", "")).expect("writes");
    let said = served.good(&deploy);
    assert!(said.contains("Removing service st_other") && said.contains("Updating service st_web"), "{said}");
    assert_eq!(revision(&served.lab.store.view()), revision(&view), "no task is replaced");
    assert_eq!(words(&served.good("stack ls"), 1), ["st", "1"]);
    assert!(served.good("stack services st").contains("st_web"));
    served.lab.run_tasks(&mut IdSource::seeded(3));
    assert!(served.good("stack ps st").contains("st_web.1"));
    let said = served.good("stack rm --detach=true st");
    for gone in ["service st_web", "secret st_key", "network st_front", "network st_default"] {
        assert!(said.contains(&format!("Removing {gone}")), "{said}");
    }
    assert!(served.lab.store.view().state.networks().all(|network| network.spec.ingress));
}

/// Docker's progress bar ends when all tasks run.
#[test]
fn progress_converges() {
    if !there_is_docker() {
        return;
    }
    let served = Served::new(Lab::active());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut ids = IdSource::seeded(4);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                served.lab.run_tasks(&mut ids);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let (good, text) = served.docker("service create --no-resolve-image --name web --replicas 2 busybox");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(good && text.contains("converged"), "{text}");
    });
}

/// One raw exchange; everything the server says until it closes or stalls.
fn raw(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).expect("writes");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_server_keeps_http_s_rules() {
    let served = Served::new(Lab::active());
    let open = || {
        let stream = UnixStream::connect(served.socket()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        stream
    };
    let ping = raw(open(), b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
    for header in [
        "HTTP/1.1 200 OK",
        "api-version: 1.47",
        "ostype: linux",
        "docker-experimental: false",
        "server: Racimo/",
        "swarm: active/manager",
        "date: ",
    ] {
        assert!(ping.contains(header), "{header}: {ping}");
    }
    assert!(ping.ends_with("\r\n\r\n"), "{ping}");
    // Two requests on one connection.
    let two = raw(
        open(),
        b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /v1.99/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(two.contains("\r\n\r\nOK") && two.contains("HTTP/1.1 400") && two.contains("is too new"), "{two}");
    let large = format!(
        "POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        limits::API_BODY_BYTES_MAX + 1
    );
    assert!(raw(open(), large.as_bytes()).contains("HTTP/1.1 413"));
    let many: String = (0..200).map(|i| format!("x-{i}: y\r\n")).collect();
    assert!(raw(open(), format!("GET /_ping HTTP/1.1\r\n{many}\r\n").as_bytes()).contains("HTTP/1.1 431"));
    assert!(raw(open(), b"nonsense\r\n\r\n").contains("HTTP/1.1 400"));
    let tcp = |host: &str| {
        let stream = TcpStream::connect(served.tcp).expect("connects");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        raw(stream, format!("GET /_ping HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
    };
    assert!(tcp("127.0.0.1").contains("200 OK") && tcp("evil.example").contains("403"));
}

#[test]
fn events_are_live_and_end_with_the_server() {
    let served = Served::new(Lab::active());
    let mut stream = UnixStream::connect(served.socket()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.by_ref().take_while(|line| !line.is_empty()).any(|line| line == "transfer-encoding: chunked"));
    served.lab.join(7, "pi7");
    assert!(lines.by_ref().any(|line| line.contains(r#""Type":"node","Action":"create""#)));
    drop(served);
    // The last chunk: a proper end.
    assert!(lines.any(|line| line == "0"));
}

#[test]
fn events_until_a_time_end_with_it_and_break_off_before() {
    let ask = |served: &Served, until: i64| {
        let mut stream = UnixStream::connect(served.socket()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        write!(stream, "GET /events?until={until} HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.by_ref().take_while(|line| !line.is_empty()).any(|line| line == "transfer-encoding: chunked"));
        lines
    };
    let served = Served::new(Lab::active());
    let now = served.lab.context.now().nanos() / 1_000_000_000;
    assert!(ask(&served, now + 1).any(|line| line == "0"), "it is reached");
    let mut early = ask(&served, now + 1000);
    let docker = there_is_docker().then(|| {
        Command::new("timeout")
            .args(["20", "docker", "events", "--until", &(now + 1000).to_string()])
            .env("DOCKER_HOST", format!("unix://{}", served.socket().display()))
            .env("DOCKER_CONFIG", served.dir.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("docker runs")
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while served.lab.context.hub.readers() < 1 + usize::from(docker.is_some()) {
        assert!(std::time::Instant::now() < deadline, "docker does not read");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(served);
    assert!(!early.any(|line| line == "0"), "it broke off");
    if let Some(mut docker) = docker {
        assert_eq!(docker.wait().expect("its end").code(), Some(1), "docker sees it");
    }
}
