//! Real iptables, as Docker and ufw use it.

use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use racimo_agent::net::firewall::{Firewall, Wanted};
use racimo_agent::net::ns::Namespace;

use crate::support::Lab;

const WANTED: Wanted = Wanted { vxlan_port: 4789, encrypts: true };

/// As long as packets that are dropped are waited for.
const SILENCE: Duration = Duration::from_millis(500);

/// A client, a board that forwards, and a task behind it.
fn board() -> (Lab, Namespace, Namespace) {
    let lab = Lab::new();
    let (board, outside) = (lab.make("board"), lab.make("client"));
    lab.make("task");
    let (client, task) = (lab.path("client"), lab.path("task"));
    lab.inside(
        "board",
        &format!(
            "ip link set lo up && sysctl -q net.ipv4.ip_forward=1
             ip link add lan0 type veth peer name eth0 netns {} && ip addr add 10.77.0.1/24 dev lan0 && ip link set lan0 up
             ip link add rg-1 type veth peer name eth0 netns {} && ip addr add 10.200.1.1/24 dev rg-1 && ip link set rg-1 up",
            client.display(),
            task.display()
        ),
    );
    for (name, address, gateway) in [("client", "10.77.0.2", "10.77.0.1"), ("task", "10.200.1.2", "10.200.1.1")] {
        lab.inside(
            name,
            &format!(
                "ip link set lo up && ip addr add {address}/24 dev eth0 && ip link set eth0 up
                 ip route add default via {gateway}"
            ),
        );
    }
    (lab, board, outside)
}

/// Whether somebody's port 80 is reached: nobody listens, and it is told so.
fn reaches(from: &Namespace, address: [u8; 4]) -> bool {
    let connected = from.run(|| TcpStream::connect_timeout(&(address, 80).into(), SILENCE)).unwrap();
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether the client reaches the task, and the board's own port of the mesh: nobody listens, and it is told so.
fn flows(client: &Namespace) -> bool {
    let is_refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    let reached = client.run(|| {
        let task = TcpStream::connect_timeout(&([10, 200, 1, 2], 80).into(), SILENCE);
        let mesh = UdpSocket::bind("0.0.0.0:0").unwrap();
        mesh.set_read_timeout(Some(SILENCE)).unwrap();
        mesh.connect("10.77.0.1:4789").unwrap();
        mesh.send(b"x").unwrap();
        (task.is_err_and(is_refused), mesh.recv(&mut [0]).is_err_and(is_refused))
    });
    let (task, mesh) = reached.unwrap();
    assert_eq!(task, mesh, "one way is open, the other is not");
    task
}

fn check(variant: &str) {
    if Command::new(variant).arg("--version").output().is_err() {
        return eprintln!("NOT RUN: {variant} is not installed (apt-get install iptables)");
    }
    let (lab, board, client) = board();
    let tables = |arguments: &str| lab.inside("board", &format!("{variant} {arguments}"));
    let rules = || tables("-S").lines().filter(|line| line.contains("racimo")).count();
    let run = tempfile::tempdir().unwrap();
    let mut firewall = Firewall::new(run.path());
    let mut keep = |wanted: Option<&Wanted>| {
        board.run(|| firewall.keep(wanted)).unwrap();
        assert_eq!(firewall.degraded(), [""; 0]);
    };

    // Nobody filters: nothing is done.
    assert!(flows(&client));
    keep(Some(&WANTED));
    assert!(flows(&client));

    // As ufw does it.
    tables("-P FORWARD DROP");
    tables("-P INPUT DROP");
    assert!(!flows(&client));
    keep(Some(&WANTED));
    assert!(flows(&client));
    assert_eq!(rules(), 7);
    keep(Some(&WANTED));
    assert_eq!(rules(), 7, "what is there is not put in again");
    let input = tables("-S INPUT -v");
    assert!(input.contains("--dport 4789") && input.contains("--dport 51820"), "{input}");

    // The user forbids something, and Docker comes. What its containers do not publish is left to the policy.
    let task = Namespace::at(&lab.path("task")).unwrap();
    lab.make("container");
    lab.inside(
        "board",
        &format!(
            "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up
             ip link add c0 type veth peer name eth0 netns {} && ip link set c0 master docker0 up",
            lab.path("container").display()
        ),
    );
    lab.inside(
        "container",
        "ip link set lo up && ip addr add 172.17.0.2/16 dev eth0 && ip link set eth0 up && ip route add default via 172.17.0.1",
    );
    let (client_address, container) = ([10, 77, 0, 2], [172, 17, 0, 2]);
    assert!(reaches(&task, client_address) && reaches(&task, container), "the policy is no more");
    tables("-N DOCKER-USER");
    tables("-A DOCKER-USER -j RETURN");
    tables("-I FORWARD -j DOCKER-USER");
    keep(Some(&WANTED));
    assert_eq!(rules(), 8);
    assert!(flows(&client) && reaches(&task, client_address));
    assert!(!reaches(&task, container), "a port of a container that is not published");
    tables("-I DOCKER-USER -i rg-+ -d 10.77.0.2 -p tcp -m conntrack --ctstate NEW -j DROP");
    keep(Some(&WANTED));
    assert!(flows(&client) && !reaches(&task, client_address), "the user's rule comes first");
    tables("-D DOCKER-USER 1");
    // As Docker does it for a port that is published, and for answers.
    tables("-I FORWARD -o docker0 -p tcp --dport 80 -j ACCEPT");
    tables("-I FORWARD -i docker0 ! -o docker0 -j ACCEPT");
    assert!(reaches(&task, container));
    let container = Namespace::at(&lab.path("container")).unwrap();
    tables("-D FORWARD -o docker0 -p tcp --dport 80 -j ACCEPT");
    assert!(reaches(&container, [10, 200, 1, 2]), "answers to a container");

    // Somebody flushes everything, and ends with a rule instead of a policy.
    tables("-F FORWARD");
    tables("-F INPUT");
    assert!(!flows(&client));
    tables("-P FORWARD ACCEPT");
    tables("-A FORWARD -p icmp -j ACCEPT");
    tables("-A FORWARD -j REJECT --reject-with icmp-host-prohibited");
    assert!(!reaches(&task, client_address));
    keep(Some(&WANTED));
    assert!(flows(&client) && reaches(&task, client_address));
    assert!(tables("-S FORWARD").trim_end().ends_with("icmp-host-prohibited"));

    keep(None);
    assert_eq!(rules(), 0);
    tables("-P FORWARD DROP");
    assert!(!flows(&client));
}

#[test]
#[ignore = "needs root"]
fn tasks_are_let_through_iptables_on_nf_tables() {
    check("iptables-nft");
}

#[test]
#[ignore = "needs root"]
fn tasks_are_let_through_iptables_as_it_was_before() {
    check("iptables-legacy");
}

#[test]
#[ignore = "needs root"]
fn a_users_own_rules_are_told_of_until_they_let_tasks_through() {
    let (lab, board, client) = board();
    let run = tempfile::tempdir().unwrap();
    let mut firewall = Firewall::new(run.path());
    lab.inside(
        "board",
        "nft add table inet mine && nft add chain inet mine through '{ type filter hook forward priority 0; policy drop; }'
         nft add chain inet mine in '{ type filter hook input priority 0; policy drop; }'",
    );
    assert!(!flows(&client));
    assert!(board.run(|| firewall.keep(Some(&WANTED))).unwrap());
    let [told] = firewall.degraded() else { panic!("{:?}", firewall.degraded()) };
    assert!(told.starts_with("nftables' chain inet mine through drops tasks' packets"), "{told}");
    // The command that it shows is one.
    let command = told.split('`').nth(1).unwrap();
    lab.inside("board", "nft delete chain inet mine in");
    lab.inside("board", command);
    lab.inside("board", &command.replace("iifname", "oifname"));
    assert!(board.run(|| firewall.keep(Some(&WANTED))).unwrap());
    assert_eq!(firewall.degraded(), [""; 0]);
    assert!(flows(&client));
}
