use super::*;

const WANTED: Wanted = Wanted { vxlan_port: 4789, encrypts: false };

fn chain(table: &str, name: &str, hook: Option<Hook>) -> Chain {
    let (family, table) = if table == "filter" { (2, table) } else { (1, table) };
    let (table, name) = (table.to_owned(), name.to_owned());
    Chain { family, table, name, hook, drops: true, ours: BTreeSet::new(), names_ours: false }
}

fn ufw() -> Found {
    let chains = vec![chain("filter", "INPUT", Some(Hook::Input)), chain("filter", "FORWARD", Some(Hook::Forward))];
    Found { chains, legacy: None }
}

#[track_caller]
fn check(found: &Found, wanted: Option<&Wanted>, want: &[&str]) {
    let steps: Vec<String> = plan(found, wanted).steps.iter().map(Step::to_string).collect();
    assert_eq!(steps, want);
}

/// Does what is planned, as the program would.
fn apply(found: &mut Found, wanted: Option<&Wanted>) {
    for step in plan(found, wanted).steps {
        let Step::Rule { insert, chain, accept, .. } = step else { panic!("{step}") };
        let chain = found.chains.iter_mut().find(|found| found.name == chain).unwrap();
        assert!(if insert { chain.ours.insert(accept) } else { chain.ours.remove(&accept) });
    }
    assert_eq!(plan(found, wanted), Plan::default());
}

#[test]
fn iptables_is_asked_at_the_beginning_and_everything_is_taken_back() {
    let program = Way::Tables.program();
    let rule = |verb: &str, rest: &str, mark: &str| {
        format!("{program} -w 5 {verb} {rest} -m comment --comment \"racimo: {mark}\" -j ACCEPT")
    };
    let rules = |verb| {
        [
            rule(verb, "FORWARD -i rg-+", "from tasks"),
            rule(verb, "FORWARD -o rg-+", "to tasks"),
            rule(verb, "FORWARD -i rc-mesh", "from boards"),
            rule(verb, "FORWARD -o rc-mesh", "to boards"),
            rule(verb, "INPUT -p udp --dport 4789", "mesh 4789"),
        ]
    };
    let mut found = ufw();
    check(&found, Some(&WANTED), &rules("-I").each_ref().map(String::as_str));
    apply(&mut found, Some(&WANTED));
    check(&found, None, &rules("-D").each_ref().map(String::as_str));
    // Another port, and encryption.
    let other = Wanted { vxlan_port: 4800, encrypts: true };
    let want = [
        rule("-I", "INPUT -p udp --dport 4800", "mesh 4800"),
        rule("-I", "INPUT -p udp --dport 51820", "encryption"),
        rule("-I", "INPUT -i rc-wg -p udp --dport 4790", "encrypted"),
        rule("-D", "INPUT -p udp --dport 4789", "mesh 4789"),
    ];
    check(&found, Some(&other), &want.each_ref().map(String::as_str));
    apply(&mut found, Some(&other));
    apply(&mut found, None);
    assert_eq!(found, ufw());
}

#[test]
fn docker_has_a_chain_for_it() {
    let mut found = ufw();
    apply(&mut found, Some(&WANTED));
    // Docker comes later: the rules move.
    found.chains.push(chain("filter", "DOCKER-USER", None));
    apply(&mut found, Some(&WANTED));
    let ours = |name| found.chains.iter().find(|chain| chain.name == name).unwrap().ours.len();
    assert_eq!((ours("DOCKER-USER"), ours("FORWARD"), ours("INPUT")), (4, 0, 1));
    // It, or somebody, flushed them.
    found.chains.iter_mut().for_each(|chain| chain.ours.clear());
    assert_eq!(plan(&found, Some(&WANTED)).steps.len(), 5);
    apply(&mut found, Some(&WANTED));
    apply(&mut found, None);
    // The older packet filter, beside it.
    let legacy = Legacy { user: None, ..Legacy::default() };
    let found = Found { chains: Vec::new(), legacy: Some(legacy) };
    let steps = plan(&found, Some(&WANTED)).steps;
    assert!(steps.len() == 5 && steps[0].to_string().starts_with(Way::Legacy.program()), "{steps:?}");
}

#[test]
fn firewalld_is_asked_once_until_it_forgets() {
    let mut found = Found { chains: vec![chain("firewalld", "filter_FORWARD", Some(Hook::Forward))], legacy: None };
    let want = [
        "firewall-cmd -q --add-port=4789/udp",
        "firewall-cmd -q --add-port=51820/udp",
        "firewall-cmd -q --zone=trusted --add-interface=rc-mesh",
        "firewall-cmd -q --zone=trusted --add-interface=rc-wg",
        "firewall-cmd -q --zone=trusted --add-interface=rg-+",
    ];
    check(&found, Some(&WANTED), &want);
    check(&found, None, &[]);
    found.chains[0].names_ours = true;
    check(&found, Some(&WANTED), &[]);
    assert_eq!(plan(&found, None).steps.len(), 4);
}

#[test]
fn rules_of_the_users_own_are_told_of() {
    let mut found = Found { chains: vec![chain("mine", "forward", Some(Hook::Forward))], legacy: None };
    let told = plan(&found, Some(&WANTED)).told;
    assert_eq!(
        told,
        [
            r#"nftables' chain inet mine forward drops tasks' packets: let those through whose iifname or oifname is "rg-*" or "rc-mesh": `nft insert rule inet mine forward iifname "rg-*" accept`, and so on"#
        ]
    );
    assert_eq!(plan(&found, None), Plan::default());
    found.chains[0].names_ours = true;
    assert_eq!(plan(&found, Some(&WANTED)), Plan::default());
}

#[test]
fn marks_are_found_in_any_bytes() {
    for accept in Accept::THROUGH.into_iter().chain([Accept::Wireguard, Accept::Encrypted, Accept::Vxlan(4789)]) {
        let bytes = [b"\0\x01", accept.mark().as_bytes(), b"\0\0"].concat();
        assert_eq!(Accept::find(&bytes), BTreeSet::from([accept]));
    }
    for none in [&b""[..], b"racimo: mesh ", b"racimo: mesh 99999", b"racimo"] {
        assert!(Accept::find(none).is_empty());
    }
}
