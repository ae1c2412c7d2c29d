use super::*;

const WANTED: Wanted = Wanted { vxlan_port: 4789, encrypts: false };

fn chain(table: &str, name: &str, hook: Option<Hook>) -> Chain {
    let (family, table) = if table == "filter" { (2, table) } else { (1, table) };
    let (table, name) = (table.to_owned(), name.to_owned());
    Chain { family, table, name, hook, drops: true, ours: BTreeSet::new(), names_ours: false, ends: None }
}

fn ufw() -> Found {
    let chains = vec![chain("filter", "INPUT", Some(Hook::Input)), chain("filter", "FORWARD", Some(Hook::Forward))];
    Found { chains, ..Found::default() }
}

fn planned(found: &Found, wanted: Option<&Wanted>) -> Plan {
    plan(found, wanted, &Ports::default())
}

#[track_caller]
fn check(found: &Found, wanted: Option<&Wanted>, want: &[&str]) {
    let steps: Vec<String> = planned(found, wanted).steps.iter().map(Step::to_string).collect();
    assert_eq!(steps, want);
}

/// Does what is planned, as the program would.
fn apply(found: &mut Found, wanted: Option<&Wanted>) {
    let mut moved = Vec::new();
    for step in planned(found, wanted).steps {
        let Step::Rule { change, chain, accept, .. } = step else { panic!("{step}") };
        let chain = found.chains.iter_mut().find(|found| found.name == chain).unwrap();
        match change {
            // It was put in once more.
            Change::Out if moved.contains(&accept) => {}
            Change::Out => assert!(chain.ours.remove(&accept)),
            Change::First | Change::Before(_) | Change::Last => {
                if !chain.ours.insert(accept.clone()) {
                    moved.push(accept);
                }
            }
        }
    }
    assert_eq!(planned(found, wanted), Plan::default());
}

fn rule(verb: &str, rest: &str, mark: &str) -> String {
    let (program, target) = (Way::Tables.program(), if mark.starts_with("not") { "RETURN" } else { "ACCEPT" });
    format!("{program} -w 5 {verb} {rest} -m comment --comment \"racimo: {mark}\" -j {target}")
}

#[test]
fn iptables_is_asked_after_the_users_rules_and_everything_is_taken_back() {
    let through = [
        ("-i rg-+", "from tasks"),
        ("-o rg-+", "to tasks"),
        ("-i rc-mesh", "from boards"),
        ("-o rc-mesh", "to boards"),
    ];
    let rules = |forward: &dyn Fn(usize) -> String, input| {
        let forward = through.iter().enumerate().map(|(at, (what, mark))| rule(&forward(at), what, mark));
        let mut rules: Vec<String> = forward.collect();
        rules.push(rule(input, "INPUT -p udp --dport 4789", "mesh 4789"));
        rules
    };
    let check = |found: &Found, wanted, want: Vec<String>| {
        check(found, wanted, &want.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let mut found = ufw();
    check(&found, Some(&WANTED), rules(&|_| "-A FORWARD".to_owned(), "-I"));
    // A chain that ends with a rule to drop all: before that.
    found.chains[1].ends = Some(7);
    check(&found, Some(&WANTED), rules(&|at| format!("-I FORWARD {}", 7 + at), "-I"));
    found.chains[1].ends = None;
    apply(&mut found, Some(&WANTED));
    check(&found, None, rules(&|_| "-D FORWARD".to_owned(), "-D"));
    // Another port, and encryption.
    let other = Wanted { vxlan_port: 4800, encrypts: true };
    let want = [
        rule("-I", "INPUT -p udp --dport 4800", "mesh 4800"),
        rule("-I", "INPUT -p udp --dport 51820", "encryption"),
        rule("-I", "INPUT -i rc-wg -p udp --dport 4790", "encrypted"),
        rule("-D", "INPUT -p udp --dport 4789", "mesh 4789"),
    ];
    check(&found, Some(&other), want.into());
    apply(&mut found, Some(&other));
    apply(&mut found, None);
    assert_eq!(found, ufw());
    // The older packet filter.
    let found = Found { legacy: Some(Legacy { ends: Some(3), ..Legacy::default() }), ..Found::default() };
    let steps = planned(&found, Some(&WANTED)).steps;
    let first = format!("{} -w 5 -I FORWARD 3 -i rg-+", Way::Legacy.program());
    assert!(steps.len() == 5 && steps[0].to_string().starts_with(&first), "{steps:?}");
}

#[test]
fn what_is_for_dockers_bridges_is_left_to_it() {
    let mut found = ufw();
    found.bridges.insert("docker0".to_owned());
    apply(&mut found, Some(&WANTED));
    assert_eq!((found.chains[0].ours.len(), found.chains[1].ours.len()), (1, 5));
    // One more: its rule must come before that which lets tasks' packets through.
    found.bridges.insert("br-0123456789ab".to_owned());
    let new = "-i rg-+ -o br-0123456789ab -m conntrack --ctstate NEW";
    let want = [
        rule("-A FORWARD", new, "not to br-0123456789ab"),
        rule("-A FORWARD", "-i rg-+", "from tasks"),
        rule("-D FORWARD", "-i rg-+", "from tasks"),
    ];
    check(&found, Some(&WANTED), &want.each_ref().map(String::as_str));
    apply(&mut found, Some(&WANTED));
    found.bridges.remove("docker0");
    let gone = rule("-D FORWARD", "-i rg-+ -o docker0 -m conntrack --ctstate NEW", "not to docker0");
    check(&found, Some(&WANTED), &[&gone]);
    apply(&mut found, Some(&WANTED));
    apply(&mut found, None);
    assert_eq!(found.chains, ufw().chains);

    for (name, want) in [
        ("docker0", true),
        ("docker_gwbridge", true),
        ("br-0123456789ab", true),
        ("br-lan", false),
        ("br-0123456789ax", false),
        ("docker1", false),
    ] {
        assert_eq!(is_dockers(name), want, "{name}");
    }
}

#[test]
fn firewalld_is_asked_once_until_it_forgets() {
    let chains = vec![chain("firewalld", "filter_FORWARD", Some(Hook::Forward))];
    let mut found = Found { chains, ..Found::default() };
    let want = [
        "firewall-cmd -q --add-port=4789/udp",
        "firewall-cmd -q --zone=trusted --add-interface=rc-mesh",
        "firewall-cmd -q --zone=trusted --add-interface=rc-wg",
        "firewall-cmd -q --zone=trusted --add-interface=rg-+",
    ];
    check(&found, Some(&WANTED), &want);
    check(&found, None, &[]);
    found.chains[0].names_ours = true;
    let ports = Ports { added: BTreeSet::from([4789]), open: BTreeSet::from([4789, 51820]) };
    assert_eq!(plan(&found, Some(&Wanted { encrypts: true, ..WANTED }), &ports), Plan::default());
    let steps: Vec<String> = plan(&found, None, &ports).steps.iter().map(Step::to_string).collect();
    assert!(steps.len() == 4 && steps[0] == "firewall-cmd -q --remove-port=4789/udp", "{steps:?}");
}

#[test]
fn rules_of_the_users_own_are_told_of() {
    let mut found = Found { chains: vec![chain("mine", "forward", Some(Hook::Forward))], ..Found::default() };
    let told = planned(&found, Some(&WANTED)).told;
    assert_eq!(
        told,
        [
            r#"nftables' chain inet mine forward drops tasks' packets: let those through whose iifname or oifname is "rg-*" or "rc-mesh": `nft insert rule inet mine forward iifname "rg-*" accept`, and so on"#
        ]
    );
    assert_eq!(planned(&found, None), Plan::default());
    found.chains[0].names_ours = true;
    assert_eq!(planned(&found, Some(&WANTED)), Plan::default());
}

#[test]
fn marks_are_found_in_any_bytes() {
    let others = [Accept::Wireguard, Accept::Encrypted, Accept::Vxlan(4789), Accept::NotTo("docker0".to_owned())];
    for accept in Accept::THROUGH.into_iter().chain(others) {
        let bytes = [b"\0\x01", accept.mark().as_bytes(), b"\0\0"].concat();
        assert_eq!(Accept::find(&bytes), BTreeSet::from([accept]));
    }
    for none in [&b""[..], b"racimo: mesh ", b"racimo: mesh 99999", b"racimo: not to eth0", b"racimo"] {
        assert!(Accept::find(none).is_empty());
    }
}
