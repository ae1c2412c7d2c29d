use super::plan::{Chain, Hook};
use super::*;

/// firewalld, as far as it matters: its ports, and whether it knows our links.
#[derive(Default)]
struct Daemon {
    ports: BTreeSet<String>,
    links: BTreeSet<String>,
    asked: usize,
}

impl Daemon {
    fn run(&mut self, program: &str, arguments: &[String]) -> Result<(), String> {
        assert_eq!(program, FIREWALL_CMD);
        self.asked += 1;
        let (what, value) = arguments.last().unwrap().split_once('=').unwrap();
        let done = match what {
            "--query-port" => self.ports.contains(value),
            "--add-port" => self.ports.insert(value.to_owned()),
            "--remove-port" => self.ports.remove(value),
            "--add-interface" => self.links.insert(value.to_owned()),
            "--remove-interface" => self.links.remove(value),
            other => panic!("{other}"),
        };
        done.then_some(()).ok_or_else(|| "NO".to_owned())
    }

    fn found(&self) -> Found {
        let chain = Chain {
            family: 1,
            table: plan::FIREWALLD.to_owned(),
            name: "filter_FORWARD".to_owned(),
            hook: Some(Hook::Forward),
            drops: false,
            ours: BTreeSet::new(),
            names_ours: !self.links.is_empty(),
            ends: None,
        };
        Found { chains: vec![chain], ..Found::default() }
    }

    #[track_caller]
    fn keep(&mut self, firewall: &mut Firewall, wanted: Option<&Wanted>, ports: &[&str]) {
        for _ in 0..2 {
            let done = firewall.ask(&self.found(), wanted, &mut |program, arguments| self.run(program, arguments));
            assert_eq!(done, (Vec::new(), None));
            self.asked = if self.ports.iter().eq(ports.iter().copied()) { 0 } else { panic!("{:?}", self.ports) };
        }
        firewall.ask(&self.found(), wanted, &mut |_, _| panic!("it is asked again"));
    }
}

#[test]
fn of_firewalld_only_what_was_asked_for_is_taken_back() {
    let run = tempfile::tempdir().unwrap();
    let wanted = |encrypts| Wanted { vxlan_port: 4789, encrypts };
    let mut daemon = Daemon::default();
    let mut firewall = Firewall::new(run.path());
    daemon.keep(&mut firewall, Some(&wanted(false)), &["4789/udp"]);
    assert_eq!(daemon.links.len(), 3);
    daemon.keep(&mut firewall, Some(&wanted(true)), &["4789/udp", "51820/udp"]);
    daemon.keep(&mut firewall, Some(&wanted(false)), &["4789/udp"]);
    // Another agent knows it, too.
    let mut firewall = Firewall::new(run.path());
    daemon.keep(&mut firewall, Some(&Wanted { vxlan_port: 4800, encrypts: false }), &["4800/udp"]);
    let mut firewall = Firewall::new(run.path());
    daemon.keep(&mut firewall, None, &[]);
    assert_eq!(daemon.links.len(), 0);

    // The user has a WireGuard of their own.
    daemon.ports.insert("51820/udp".to_owned());
    daemon.keep(&mut firewall, Some(&wanted(true)), &["4789/udp", "51820/udp"]);
    daemon.keep(&mut firewall, Some(&wanted(false)), &["4789/udp", "51820/udp"]);
    let mut firewall = Firewall::new(run.path());
    daemon.keep(&mut firewall, Some(&wanted(true)), &["4789/udp", "51820/udp"]);
    // It loads its rules anew: now the other port is the user's, too.
    daemon.links.clear();
    daemon.keep(&mut firewall, Some(&wanted(true)), &["4789/udp", "51820/udp"]);
    daemon.keep(&mut firewall, None, &["4789/udp", "51820/udp"]);
}

#[test]
fn what_firewalld_refuses_is_told_and_asked_again() {
    let run = tempfile::tempdir().unwrap();
    let wanted = Wanted { vxlan_port: 4789, encrypts: false };
    let (mut daemon, mut firewall) = (Daemon::default(), Firewall::new(run.path()));
    let (told, failed) = firewall.ask(&daemon.found(), Some(&wanted), &mut |_, _| Err("not running".to_owned()));
    assert!(
        told.len() == 4 && told[0].contains("`firewall-cmd -q --add-port=4789/udp` failed: not running"),
        "{told:?}"
    );
    assert!(failed.is_some() && firewall.ports == Ports::default());
    daemon.keep(&mut firewall, Some(&wanted), &["4789/udp"]);
}
