//! The real manager over starts, on a disk in memory and a folder of its own.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_lite::future::block_on;
use racimo_common::id::{ClusterId, NetworkId, RandomId};
use racimo_common::time::Wall;
use ring::rand::SystemRandom;

use super::super::keep::{self, Own};
use super::super::testing::{Bench, request};
use super::*;
use crate::ca::{Ca, JoinTokens, kept};
use crate::store::{Change, DependencyKind, NewCluster, NewDependency};
use crate::vault::{self, KEY_BYTES};

#[test]
fn an_address_that_is_not_here_is_taken_and_warned_of() {
    let bench = Bench::new();
    block_on(async {
        let manager = bench.start();
        let advertise = Some("203.0.113.9:2377".to_owned());
        manager.clone().init(InitRequest { advertise, ..request(false) }).await.expect("a cluster");
        let about =
            |text: &String| text.starts_with("boards are told to dial 203.0.113.9:2377, which is not an address");
        assert_eq!(manager.warnings().iter().filter(|text| about(text)).count(), 1, "{:?}", manager.warnings());
        manager.stop_for_test().await;
        // It may be a router's: it is not told for ever.
        let manager = bench.start();
        assert!(manager.resume().await);
        assert_eq!(manager.warnings(), Vec::<String>::new());
        manager.stop_for_test().await;
    });
}

#[test]
fn the_vault_s_key_is_kept_apart_and_looked_after() {
    let bench = Bench::new();
    let key = bench.data.path().join("manager/vault.key");
    block_on(async {
        let manager = bench.start();
        let (store, vault) = (manager.store(), manager.vault());
        manager.clone().init(request(false)).await.expect("a cluster");
        let mode = std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777;
        assert_eq!((mode, std::fs::read(&key).expect("a key").len()), (0o600, KEY_BYTES));
        let id = racimo_common::id::DependencyId::from_bits(1);
        let owner = vault::Owner::Dependency(DependencyKind::Secret, id);
        let body = vault.seal(owner, b"plain").expect("sealed");
        let (kind, name, labels) = (DependencyKind::Secret, "s".to_owned(), Default::default());
        let new = NewDependency { id, kind, name, labels, template: false, body: body.clone() };
        let change = Change::DependencyCreate(Box::new(new));
        store.commit(Wall::default(), vec![change]).await.expect("stored");
        let running = manager.running().take().expect("it runs");
        running.stop().await;
        drop(manager);

        let kept = std::fs::read(&key).expect("a key");
        let open = |vault: &Vault| vault.open(owner, &body).map(|plain| plain.to_vec());
        for (bytes, works) in [(None, false), (Some(vec![0; 5]), false), (Some(vec![1; 32]), false), (Some(kept), true)]
        {
            let _ = std::fs::remove_file(&key);
            if let Some(bytes) = bytes {
                std::fs::write(&key, bytes).expect("written");
            }
            let manager = bench.start();
            let vault = manager.vault();
            assert_eq!(manager.resume().await, works);
            assert_eq!(open(vault).ok(), works.then(|| b"plain".to_vec()));
            if works {
                manager.clone().leave().await.expect("it leaves");
                assert!(!key.exists() && open(vault).is_err());
            }
            let running = manager.running().take();
            if let Some(running) = running {
                running.stop().await;
            }
        }
    });
}

/// A cluster of an older version: the tokens are plain, the root's key is a file, and there may be no vault's key.
async fn older(store: &Store, data: &std::path::Path) -> (Ca, JoinTokens) {
    let (rng, now) = (SystemRandom::new(), Clock::start().now().wall);
    let (cluster, node) = (ClusterId::from_bits(5), NodeId::from_bits(6));
    let ca = Ca::create(cluster, now, &rng).expect("a root");
    let tokens = JoinTokens::draw(ca.root_digest(), &rng).expect("tokens");
    keep::store_own(
        data,
        &Own { cluster, node, listen: "127.0.0.1:0".to_owned(), advertise: None, here: false, restored: false },
    )
    .expect("kept");
    std::fs::write(keep::old_key_path(data), ca.key_pem().as_bytes()).expect("written");
    let new = NewCluster {
        root_pem: ca.root_pem(),
        worker_secret: (*tokens.worker.secret()).into(),
        manager_secret: (*tokens.manager.secret()).into(),
        ..NewCluster::bare(cluster, NetworkId::from_bits(7))
    };
    store.commit(now, vec![Change::ClusterCreate(Box::new(new))]).await.expect("stored");
    (ca, tokens)
}

#[test]
fn what_older_versions_kept_is_brought_into_the_store_and_erased() {
    let bench = Bench::new();
    let data = bench.data.path();
    let old = keep::old_key_path(data);
    block_on(async {
        let manager = bench.start();
        let (ca, tokens) = older(manager.store(), data).await;
        let key = std::fs::read(&old).expect("a key");
        std::fs::remove_file(&old).expect("removed");
        assert!(!manager.resume().await, "there is no root key anywhere");
        std::fs::write(&old, &key).expect("written");
        drop(manager);
        // The second time the power went before the file was erased; the third time all is as it should be.
        for round in 0..3 {
            let manager = bench.start();
            let (store, vault) = (manager.store(), manager.vault());
            let version = store.view().version();
            assert!(manager.resume().await, "{round}");
            assert_eq!((store.view().version() == version, old.exists()), (round > 0, false), "{round}");
            let view = store.view();
            let cluster = view.state.cluster().expect("a cluster");
            assert!(!cluster.worker_secret.is_plain() && !cluster.manager_secret.is_plain());
            let kept = JoinTokens::open(vault, ca.root_digest(), cluster).expect("they open");
            assert!(kept.worker.matches(&tokens.worker) && kept.manager.matches(&tokens.manager));
            let opened = kept::open(vault, cluster).expect("it opens");
            assert_eq!(opened.key_pem(), ca.key_pem());
            let running = manager.running().take().expect("it runs");
            running.dispatcher.stop().await;
            if round == 0 {
                std::fs::write(&old, &key).expect("written");
            }
        }
    });
}

#[test]
fn a_cluster_is_resumed_once_its_address_is_there() {
    let bench = Bench::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = free.local_addr().expect("an address");
    drop(free);
    block_on(async {
        let manager = bench.start();
        assert!(manager.resume().await, "there is nothing to resume");
        manager.clone().init(InitRequest { listen: listen.to_string(), ..request(false) }).await.expect("a cluster");
        let running = manager.running().take().expect("it runs");
        running.stop().await;
        drop(manager);

        let other = TcpListener::bind(listen).expect("the port is free");
        let manager = bench.start();
        assert!(!manager.resume().await);
        let ControlStatus::Failing { addr, why } = manager.status() else { panic!("{:?}", manager.status()) };
        assert!(
            addr == "127.0.0.1" && why.starts_with(&format!("listen on {listen}: Address already in use")),
            "{why}"
        );
        drop(other);
        assert!(manager.resume().await && matches!(manager.status(), ControlStatus::Active { .. }));
        manager.clone().leave().await.expect("it leaves");
        TcpListener::bind(listen).expect("the port is free again");
        assert!(manager.resume().await, "there is nothing to resume any more");
    });
}

#[test]
fn addresses_may_come_after_their_manager() {
    let bench = Bench::new();
    block_on(async {
        let manager = bench.start();
        manager.clone().init(request(false)).await.expect("a cluster");
        manager.stop_for_test().await;
        let listens = |listen: &str| {
            let own = keep::load_own(bench.data.path()).expect("it is kept");
            keep::store_own(bench.data.path(), &Own { listen: listen.to_owned(), ..own }).expect("kept");
        };
        // An interface without an address: there is nothing to listen on yet.
        listens("nosuch0:0");
        let manager = bench.start();
        assert!(!manager.resume().await);
        let ControlStatus::Failing { why, .. } = manager.status() else { panic!("{:?}", manager.status()) };
        assert_eq!(why, "\"nosuch0\" is neither an IP address nor a network interface with one");
        // An address that is not there, or mistyped, is said and does not stop it.
        listens("192.0.2.77:0");
        assert!(manager.resume().await && matches!(manager.status(), ControlStatus::Active { .. }));
        let said = async {
            while manager.warnings().is_empty() {
                smol::Timer::after(Duration::from_millis(10)).await;
            }
            manager.warnings()
        };
        let late = async {
            smol::Timer::after(Duration::from_secs(20)).await;
            Vec::new()
        };
        let said = smol::future::or(said, late).await.join(" ");
        assert!(said.contains("boards are to be served on 192.0.2.77:0, which is not an address of this"), "{said}");
        manager.stop_for_test().await;
    });
}
