//! The registry client and the pull, against a real containerd, Debian's docker-registry and a
//! fake registry that misbehaves.

#![allow(clippy::unwrap_used, reason = "tests")]

mod board;
mod certificate;
mod fake;
mod image;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use board::{DockerRegistry, on_board};
use certificate::Certificate;
use fake::{Fake, Request, Response, serve_image};
use futures_lite::FutureExt as _;
use image::{PLATFORM, TestImage};
use racimo_agent::images::{self, TURN, UNUSED, Wanted};
use racimo_agent::runtime::ctrd::Ctrd;
use racimo_agent::runtime::pull::{self, LocalImage, Progress, PullError, keep};
use racimo_common::error::chain;
use racimo_common::registry::{Config, Credentials, Digest, Platform, Reference, Registry, RegistryError};

fn platforms() -> Vec<Platform> {
    PLATFORM.parse::<Platform>().unwrap().runnable()
}

fn registry() -> Registry {
    Registry::new(Config::default())
}

async fn ensure(ctrd: &Ctrd, image: &str) -> Result<LocalImage, PullError> {
    let image: Reference = image.parse().unwrap();
    pull::ensure(ctrd, &registry(), &image, None, &platforms(), &mut |_| {}).await
}

async fn lookup(ctrd: &Ctrd, image: &str) -> Option<LocalImage> {
    pull::lookup(ctrd, &image.parse().unwrap(), &platforms()).await.unwrap()
}

/// A registry that behaves.
fn serving(image: &TestImage) -> Fake {
    let image = image.clone();
    Fake::plain(move |request| serve_image(&image, request))
}

/// Requests for the top layer (the large one).
fn layer_requests(fake: &Fake, image: &TestImage) -> Vec<Request> {
    let digest = Digest::of(&image.layers[1]).to_string();
    fake.seen().into_iter().filter(|request| request.path.ends_with(&digest)).collect()
}

#[test]
fn from_a_real_registry() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1 << 20);
        let server = DockerRegistry::start();
        image.push(&server.address, "a/b");
        let name = format!("{}/a/b:single", server.address);
        let digest = Digest::of(&image.manifest);
        let pinned = format!("{}/a/b:single@{digest}", server.address);

        assert_eq!(lookup(ctrd, &name).await, None);
        let mut last = Progress { bytes: 0, total: 0 };
        let reference = name.parse().unwrap();
        let local =
            pull::ensure(ctrd, &registry(), &reference, None, &platforms(), &mut |now| last = now).await.unwrap();
        let size: usize = image.layers.iter().map(Vec::len).sum();
        assert_eq!(last, Progress { bytes: size as u64, total: size as u64 });
        assert_eq!((&local.image.name, local.manifest_digest), (&name, digest));
        assert_eq!(local.image.run.cmd.as_deref(), Some(&["sleep".to_owned(), "1000".to_owned()][..]));
        assert_eq!(local.image.run.exposed_ports, ["80/tcp"]);

        // Unpacked, held by the configuration, compressed layers and lease gone.
        assert!(board.ctr(&["snapshots", "ls"]).contains(&local.image.chain));
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
        let content = board.ctr(&["content", "ls", "-q"]);
        assert_eq!(content.lines().count(), 2, "manifest and configuration: {content}");
        assert_eq!(board.ctr(&["images", "ls", "-q"]).trim(), name);

        // Without the registry: by digest at once, by tag with a warning, others not.
        let address = server.address.clone();
        drop(server);
        assert_eq!(ensure(ctrd, &pinned).await.unwrap(), local);
        assert_eq!(ensure(ctrd, &name).await.unwrap(), local);
        let error = ensure(ctrd, &format!("{address}/a/b:other")).await.unwrap_err();
        assert!(matches!(error, PullError::Registry(RegistryError::Unreachable { .. })), "{error}");
    });
}

/// containerd shares content between its namespaces: what Docker or Kubernetes pulled is at its full length at once.
#[test]
fn what_another_namespace_has() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1000);
        let server = DockerRegistry::start();
        image.push(&server.address, "a/b");
        let name = format!("{}/a/b:single", server.address);
        board.ctr(&["-n", "other", "images", "pull", "--plain-http", "--platform", PLATFORM, &name]);
        let local = ensure(ctrd, &name).await.unwrap();
        assert_eq!(lookup(ctrd, &name).await, Some(local));
    });
}

/// One task's registry hangs in the middle of a pull; the others' images are here.
#[test]
fn a_registry_that_hangs_holds_up_no_image_that_is_here() {
    on_board(None, async |_, ctrd| {
        let image = TestImage::new(1000);
        let good = serving(&image);
        let tag = format!("{}/a/b:single", good.address);
        let local = ensure(ctrd, &tag).await.unwrap();
        let pinned = format!("{tag}@{}", Digest::of(&image.manifest));
        // It takes connections, and that is all.
        let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = format!("{}/x:single", hung.local_addr().unwrap());
        let hangs = ensure(ctrd, &elsewhere);
        let others = async {
            smol::Timer::after(Duration::from_millis(200)).await;
            assert_eq!(ensure(ctrd, &pinned).await.unwrap(), local);
            assert_eq!(ensure(ctrd, &tag).await.unwrap(), local);
            Err(PullError::Vanished)
        };
        let started = Instant::now();
        let first = smol::future::or(hangs, others).await;
        assert!(matches!(first, Err(PullError::Vanished)), "{first:?}");
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    });
}

#[test]
fn from_an_index() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1000);
        let fake = serving(&image);
        let digest = Digest::of(&image.index);
        let local = ensure(ctrd, &format!("{}/x:multi@{digest}", fake.address)).await.unwrap();
        assert_eq!(local.manifest_digest, Digest::of(&image.manifest));
        assert_eq!(board.ctr(&["images", "ls", "-q"]).lines().count(), 2, "by digest and by tag");

        // Nothing more is fetched for the tag: its digest is here.
        let before = fake.seen().len();
        assert_eq!(ensure(ctrd, &format!("{}/x:multi", fake.address)).await.unwrap().image.chain, local.image.chain);
        let after: Vec<_> = fake.seen()[before..].iter().map(|request| request.method.clone()).collect();
        assert_eq!(after, ["HEAD"]);

        // Not for a 64-bit board.
        let reference = format!("{}/y:multi", fake.address).parse().unwrap();
        let board_platforms = ["linux/arm64".parse().unwrap()];
        let error = pull::ensure(ctrd, &registry(), &reference, None, &board_platforms, &mut |_| {}).await.unwrap_err();
        assert_eq!(error.to_string(), "image has linux/amd64, linux/arm/v7; this board runs linux/arm64");
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
    });
}

#[test]
fn a_broken_connection_is_resumed() {
    on_board(None, async |_, ctrd| {
        let image = TestImage::new(2 << 20);
        let (served, layer) = (image.clone(), Digest::of(&image.layers[1]).to_string());
        let fake = Fake::plain(move |request| {
            let response = serve_image(&served, request);
            let cut_after = (request.path.ends_with(&layer) && request.offset() == 0).then_some(1 << 20);
            Response { cut_after, ..response }
        });
        ensure(ctrd, &format!("{}/x:single", fake.address)).await.unwrap();
        let offsets: Vec<_> = layer_requests(&fake, &image).iter().map(Request::offset).collect();
        assert_eq!(offsets, [0, 1 << 20]);
    });
}

/// Drops a pull when more than 1 MiB of the top layer is here.
async fn cancel_half_way(ctrd: &Ctrd, image: &Reference, first_layer: usize) {
    let (enough, wake) = async_channel::bounded::<()>(1);
    let mut progress = |now: Progress| {
        if now.bytes > (first_layer + (1 << 20)) as u64 {
            let _ = enough.try_send(());
        }
    };
    let (registry, platforms) = (registry(), platforms());
    let cut = async {
        wake.recv().await.unwrap();
        None
    };
    let pulled = async { Some(pull::ensure(ctrd, &registry, image, None, &platforms, &mut progress).await) };
    assert!(cut.or(pulled).await.is_none(), "cancelled in the middle");
}

#[test]
fn a_cancelled_pull_is_resumed() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(2 << 20);
        let fake = serving(&image);
        let reference = format!("{}/x:single", fake.address).parse().unwrap();
        cancel_half_way(ctrd, &reference, image.layers[0].len()).await;
        assert_eq!(board.ctr(&["leases", "ls", "-q"]).lines().count(), 1);

        ensure(ctrd, &reference.to_string()).await.unwrap();
        let offsets: Vec<_> = layer_requests(&fake, &image).iter().map(Request::offset).collect();
        assert_eq!(offsets.len(), 2);
        assert!(offsets[1] > 1 << 20, "{offsets:?}");
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
    });
}

#[test]
fn a_pull_that_nobody_wants_any_more_leaves_a_full_disk() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(2 << 20);
        let fake = serving(&image);
        let reference: Reference = format!("{}/x:single", fake.address).parse().unwrap();
        cancel_half_way(ctrd, &reference, image.layers[0].len()).await;
        let leases = || board.ctr(&["leases", "ls", "-q"]).lines().count();
        let ingests = || std::fs::read_dir(board.path("root/io.containerd.content.v1.content/ingest")).unwrap().count();
        pull::forget(ctrd, &[reference.to_string()].into()).await.unwrap();
        assert_eq!((leases(), ingests()), (1, 1), "a task wants it");
        // Not while another test pulls: it is not waited for.
        let begun = Instant::now();
        while leases() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is not given up");
            pull::forget(ctrd, &["docker.io/library/other:1".to_owned()].into()).await.unwrap();
            smol::Timer::after(Duration::from_millis(50)).await;
        }
        assert_eq!(ingests(), 0);
    });
}

#[test]
fn bytes_torn_by_a_power_cut_are_fetched_again() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(2 << 20);
        let fake = serving(&image);
        let reference = format!("{}/x:single", fake.address).parse().unwrap();
        cancel_half_way(ctrd, &reference, image.layers[0].len()).await;
        let mut torn = 0;
        for ingest in std::fs::read_dir(board.path("root/io.containerd.content.v1.content/ingest")).unwrap() {
            let data = ingest.unwrap().path().join("data");
            let length = std::fs::metadata(&data).unwrap().len();
            std::fs::write(&data, vec![0; usize::try_from(length).unwrap()]).unwrap();
            torn += 1;
        }
        assert_eq!(torn, 1);

        ensure(ctrd, &reference.to_string()).await.unwrap();
        let offsets: Vec<_> = layer_requests(&fake, &image).iter().map(Request::offset).collect();
        assert_eq!((offsets[0], offsets[2], offsets.len()), (0, 0, 3), "{offsets:?}");
    });
}

/// What a power cut or a worn card may leave of a blob.
enum Damage {
    Torn,
    Wrong,
    Gone,
}

fn damage(board: &board::Board, digest: Digest, damage: Damage) {
    let path = board.path("root/io.containerd.content.v1.content/blobs/sha256").join(digest.hex());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    match damage {
        Damage::Torn => std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
        Damage::Wrong => std::fs::write(&path, vec![b' '; bytes.len()]).unwrap(),
        Damage::Gone => {}
    }
}

#[test]
fn documents_damaged_on_the_disk_are_pulled_again() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1000);
        let fake = serving(&image);
        let (manifest, config) = (Digest::of(&image.manifest), Digest::of(&image.config));
        let pinned = format!("{}/x:single@{manifest}", fake.address);
        let local = ensure(ctrd, &pinned).await.unwrap();
        for (digest, how) in [
            (manifest, Damage::Torn),
            (manifest, Damage::Wrong),
            (manifest, Damage::Gone),
            (config, Damage::Torn),
            (config, Damage::Wrong),
            (config, Damage::Gone),
        ] {
            damage(board, digest, how);
            let before = fake.seen().len();
            assert_eq!(ensure(ctrd, &pinned).await.unwrap(), local);
            assert!(fake.seen().len() > before, "it was fetched");
            assert_eq!(lookup(ctrd, &pinned).await.as_ref(), Some(&local), "and is whole now");
        }
        assert_eq!(layer_requests(&fake, &image).len(), 1, "layers were here all the time");
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
    });
}

#[test]
fn layers_damaged_on_the_disk_are_pulled_again() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1 << 17);
        let fake = serving(&image);
        let archive = board.path("image.tar");
        let name = format!("{}/x:single", fake.address);
        let pinned = format!("{name}@{}", Digest::of(&image.manifest));
        let import = || {
            std::fs::write(&archive, image.archive(&name)).unwrap();
            board.ctr(&["images", "import", "--no-unpack", "--all-platforms", &archive.display().to_string()]);
        };
        // Never unpacked, and damaged since.
        import();
        damage(board, Digest::of(&image.layers[1]), Damage::Wrong);
        let local = ensure(ctrd, &pinned).await.unwrap();
        assert_eq!(layer_requests(&fake, &image).len(), 1);
        // Unpacked, but what was unpacked is gone, and what it was unpacked from is torn.
        pull::discard(ctrd, &pinned.parse().unwrap(), &platforms()).await.unwrap();
        assert_eq!(board.ctr(&["snapshots", "ls"]).lines().count(), 1, "only the heading");
        import();
        damage(board, Digest::of(&image.layers[0]), Damage::Torn);
        assert_eq!(ensure(ctrd, &pinned).await.unwrap(), local);
        assert_eq!(lookup(ctrd, &pinned).await, Some(local));
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
    });
}

/// A layer that cannot be unpacked says nothing about the disk: neither others' layers nor its own bytes are dropped.
#[test]
fn an_image_that_is_broken_harms_nothing() {
    on_board(None, async |board, ctrd| {
        let base = image::base();
        let broken = TestImage::over(&base, &image::dangling(), |_| {});
        let top = image::base();
        let good = TestImage::over(&base, &top, |_| {});
        let fakes = [serving(&good), serving(&broken)];
        let [local, pinned] = [(&good, &fakes[0]), (&broken, &fakes[1])]
            .map(|(image, fake)| format!("{}/x:single@{}", fake.address, Digest::of(&image.manifest)));
        ensure(ctrd, &local).await.unwrap();
        let before = board.ctr(&["snapshots", "ls"]);
        for _ in 0..2 {
            let error = ensure(ctrd, &pinned).await.unwrap_err();
            assert!(chain(&error).contains("no such file or directory"), "{}", chain(&error));
        }
        assert_eq!(board.ctr(&["snapshots", "ls"]), before, "what is whole stays");

        // Imported, and in no registry: a whole blob that cannot be unpacked is not deleted.
        let archive = board.path("image.tar");
        std::fs::write(&archive, broken.archive("here.test/x:1")).unwrap();
        board.ctr(&["images", "import", "--no-unpack", "--all-platforms", &archive.display().to_string()]);
        for _ in 0..2 {
            let error = pull::lookup(ctrd, &"here.test/x:1".parse().unwrap(), &platforms()).await.unwrap_err();
            assert!(chain(&error).contains("no such file or directory"), "{}", chain(&error));
        }
        let content = board.ctr(&["content", "ls", "-q"]);
        assert!(content.contains(&Digest::of(&broken.layers[1]).to_string()), "{content}");
    });
}

/// Images that share a layer, and the layers' directories are gone: containerd's database knows nothing of it.
#[test]
fn layers_that_are_gone_are_made_anew() {
    on_board(None, async |board, ctrd| {
        // Archives have the time in them.
        let [a, b] = std::iter::repeat_with(|| [TestImage::new(1000), TestImage::new(2000)])
            .find(|[a, b]| a.layers[0] == b.layers[0])
            .unwrap();
        let fakes = [serving(&a), serving(&b)];
        let names = [&a, &b].map(|image| Digest::of(&image.manifest)).into_iter().zip(&fakes);
        let names: Vec<String> = names.map(|(digest, fake)| format!("{}/x:single@{digest}", fake.address)).collect();
        for name in &names {
            ensure(ctrd, name).await.unwrap();
        }
        for snapshot in std::fs::read_dir(board.path("root/io.containerd.snapshotter.v1.overlayfs/snapshots")).unwrap()
        {
            std::fs::remove_dir_all(snapshot.unwrap().path()).unwrap();
        }
        for name in names.iter().rev() {
            // As who cannot make a container does it.
            pull::discard(ctrd, &name.parse().unwrap(), &platforms()).await.unwrap();
            let local = ensure(ctrd, name).await.unwrap();
            assert_eq!(lookup(ctrd, name).await, Some(local));
        }
        let there = std::fs::read_dir(board.path("root/io.containerd.snapshotter.v1.overlayfs/snapshots")).unwrap();
        assert_eq!(there.count(), 3, "one shared, two own");
    });
}

/// Three versions of a service: what is kept with them in containerd, and what goes.
#[test]
fn versions_that_nobody_needs_go() {
    on_board(None, async |board, ctrd| {
        let versions: Vec<TestImage> = (1..=3).map(|n| TestImage::new(n * (1 << 18))).collect();
        let mut fakes = Vec::new();
        let mut names = Vec::new();
        for image in &versions {
            let fake = serving(image);
            let local = ensure(ctrd, &format!("{}/web:single@{}", fake.address, Digest::of(&image.manifest))).await;
            names.push(local.unwrap().image.name);
            for _ in 0..2 {
                keep::note_use(ctrd, names.last().unwrap(), "web").await.unwrap();
            }
            fakes.push(fake);
        }
        let wanted = Wanted { services: ["web".to_owned()].into(), ..Wanted::default() };
        let records = keep::records(ctrd).await.unwrap();
        let turn = |name: &str| {
            let record = records.iter().find(|record| record.name == name).unwrap();
            record.labels.get(&format!("{TURN}web")).cloned()
        };
        let turns: Vec<_> = names.iter().map(|name| turn(name).unwrap()).collect();
        assert_eq!(turns, ["1", "2", "3"], "a second use is not written");

        // A look: the oldest begins to age, and a use makes it young.
        let unused = images::unused(&records, &wanted);
        assert_eq!(unused.len(), 1);
        assert_eq!(unused[0].names.len(), 2, "{unused:?}");
        for hours in ["0", "6"] {
            for record in keep::records(ctrd).await.unwrap() {
                let is_unused = unused[0].names.contains(&record.name);
                if let Some(labels) = images::aged(&record, is_unused, &wanted.services, 6) {
                    keep::label(ctrd, record.name, labels).await.unwrap();
                }
            }
            let records = keep::records(ctrd).await.unwrap();
            let aged: Vec<_> = records.iter().filter_map(|record| record.labels.get(UNUSED)).collect();
            assert_eq!(aged, [hours, hours]);
        }
        let aged = images::unused(&keep::records(ctrd).await.unwrap(), &wanted);
        assert_eq!((&aged[0].digest, aged[0].hours), (&unused[0].digest, 6));

        // What was pulled goes with all that is only its own; what people imported stays.
        let archive = board.path("image.tar");
        std::fs::write(&archive, TestImage::new(10).archive("docker.io/library/imported:1")).unwrap();
        board.ctr(&["images", "import", "--all-platforms", &archive.display().to_string()]);
        // What the import itself leaves to containerd's collection is gone before it is counted.
        board.ctr(&["images", "tag", "docker.io/library/imported:1", "docker.io/library/again:1"]);
        board.ctr(&["images", "rm", "--sync", "docker.io/library/again:1"]);
        let before = board.ctr(&["snapshots", "ls"]).lines().count();
        keep::remove(ctrd, aged.into_iter().next().unwrap()).await.unwrap();
        assert_eq!(board.ctr(&["snapshots", "ls"]).lines().count(), before - 1, "its own layer; the other is shared");
        let left = board.ctr(&["images", "ls", "-q"]);
        assert_eq!(left.lines().count(), 5, "{left}");
        assert!(left.contains("imported:1") && !left.contains(&names[0]), "{left}");
        assert_eq!(images::unused(&keep::records(ctrd).await.unwrap(), &wanted), []);
        // A rollback needs no registry.
        let pinned = format!("{}/web:single@{}", fakes[1].address, Digest::of(&versions[1].manifest));
        drop(fakes);
        ensure(ctrd, &pinned).await.unwrap();
        keep::note_use(ctrd, &names[1], "web").await.unwrap();
        let records = keep::records(ctrd).await.unwrap();
        let used = records.iter().find(|record| record.name == names[1]).unwrap();
        assert_eq!(used.labels[&format!("{TURN}web")], "4");
    });
}

#[test]
fn containerd_tells_where_its_disk_is() {
    on_board(None, async |board, ctrd| {
        let root = board.path("root/io.containerd.snapshotter.v1.overlayfs");
        assert_eq!(ctrd.root().await.unwrap(), root);
        assert_eq!(ctrd.root().await.unwrap(), root);
    });
}

#[test]
fn damaged_layers_are_refused() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1 << 17);
        let (served, layer) = (image.clone(), Digest::of(&image.layers[1]).to_string());
        let is_longer = AtomicBool::new(false);
        let fake = Fake::plain(move |request| {
            let mut response = serve_image(&served, request);
            if request.path.ends_with(&layer) {
                response.body[1000] ^= 1;
                if is_longer.swap(true, Ordering::Relaxed) {
                    response.body.push(0);
                }
            }
            response
        });
        for name in ["flipped", "longer"] {
            let error = ensure(ctrd, &format!("{}/{name}:single", fake.address)).await.unwrap_err();
            assert!(matches!(error, PullError::DamagedLayer { .. }), "{error}");
        }
        assert_eq!(board.ctr(&["content", "active"]).lines().count(), 1, "only the heading");
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
    });
}

#[test]
fn a_layer_that_is_not_what_the_image_says_leaves_nothing() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::with(1000, |diff_ids| diff_ids[1] = Digest::of(b"something else"));
        let fake = serving(&image);
        let error = ensure(ctrd, &format!("{}/x:single", fake.address)).await.unwrap_err();
        assert!(matches!(error, PullError::WrongLayer { .. }), "{error}");
        let left = board.ctr(&["snapshots", "ls"]);
        assert_eq!(left.lines().count(), 1, "only the heading: {left}");
        assert_eq!(board.ctr(&["images", "ls", "-q"]), "");
    });
}

#[test]
fn a_full_disk_is_told_and_cleared() {
    on_board(Some("6m"), async |board, ctrd| {
        let image = TestImage::new(12 << 20);
        let fake = serving(&image);
        let error = ensure(ctrd, &format!("{}/x:single", fake.address)).await.unwrap_err();
        assert!(matches!(error, PullError::DiskFull { .. }), "{error}");
        assert_eq!(board.ctr(&["leases", "ls", "-q"]), "");
        assert_eq!(board.ctr(&["content", "active"]).lines().count(), 1, "only the heading");
        let fake = serving(&TestImage::new(1000));
        ensure(ctrd, &format!("{}/y:single", fake.address)).await.unwrap();
    });
}

#[test]
fn an_imported_image_is_unpacked_when_needed() {
    on_board(None, async |board, ctrd| {
        let image = TestImage::new(1000);
        let archive = board.path("image.tar");
        std::fs::write(&archive, image.archive("docker.io/library/imported:1")).unwrap();
        board.ctr(&["images", "import", "--no-unpack", "--all-platforms", &archive.display().to_string()]);
        let local = lookup(ctrd, "imported:1").await.expect("imported");
        assert_eq!(local.image.name, "docker.io/library/imported:1");
        assert!(board.ctr(&["snapshots", "ls"]).contains(&local.image.chain));
        let by_digest = format!("imported@{}", Digest::of(&image.manifest));
        assert_eq!(lookup(ctrd, &by_digest).await, Some(local));
        assert_eq!(lookup(ctrd, "imported:2").await, None);
    });
}

/// What [`Registry::resolve`] finds.
fn resolve(config: Config, image: &str, credentials: Option<Credentials>) -> Result<Digest, RegistryError> {
    let image: Reference = image.parse().unwrap();
    let registry = Registry::new(config);
    let resolved = smol::block_on(registry.resolve(&image, credentials.as_ref()))?;
    let names: Vec<_> = resolved.platforms.iter().map(Platform::to_string).collect();
    let expected: &[&str] = if image.tag() == Some("multi") { &["linux/amd64", PLATFORM] } else { &[PLATFORM] };
    assert_eq!(names, expected);
    Ok(resolved.digest)
}

fn password(password: &str) -> Option<Credentials> {
    Some(Credentials::Password { username: "pi".into(), password: password.into() })
}

#[test]
fn bearer_tokens_and_redirects() {
    let image = TestImage::new(10);
    let storage = serving(&image);
    let tokens = Fake::plain(|request| {
        let is_refresh = request.body.contains("refresh_token=t%2Fk") && request.method == "POST";
        if is_refresh || request.header("authorization") == "Basic cGk6Z29vZA==" {
            return Response::ok("application/json", br#"{"token":"T0KEN"}"#);
        }
        Response::status(401)
    });
    let (served, realm, elsewhere) = (image.clone(), tokens.address.clone(), storage.address.clone());
    let fake = Fake::plain(move |request| {
        if request.header("authorization") != "Bearer T0KEN" {
            let challenge = format!(r#"Bearer realm="http://{realm}/token?a=b",service="s v""#);
            return Response::status(401).with("WWW-Authenticate", challenge);
        }
        if request.path.contains("/blobs/") {
            return Response::status(307).with("Location", format!("http://{elsewhere}{}", request.path));
        }
        serve_image(&served, request)
    });
    let single = format!("{}/x/y:single", fake.address);
    let multi = format!("{}/x/y:multi", fake.address);
    assert_eq!(resolve(Config::default(), &single, password("good")).unwrap(), Digest::of(&image.manifest));
    assert_eq!(resolve(Config::default(), &multi, password("good")).unwrap(), Digest::of(&image.index));
    let token = Some(Credentials::IdentityToken("t/k".into()));
    assert_eq!(resolve(Config::default(), &multi, token).unwrap(), Digest::of(&image.index));
    for credentials in [None, password("bad")] {
        let error = resolve(Config::default(), &multi, credentials).unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    }
    assert_eq!(tokens.seen()[0].path, "/token?a=b&scope=repository%3Ax%2Fy%3Apull&service=s%20v");
    let redirected = storage.seen();
    assert_eq!(redirected.len(), 1, "the configuration");
    assert_eq!(redirected[0].header("authorization"), "", "another host gets no token");
}

#[test]
fn basic_authentication() {
    let image = TestImage::new(10);
    let served = image.clone();
    let fake = Fake::plain(move |request| match request.header("authorization") {
        "Basic cGk6Z29vZA==" => serve_image(&served, request),
        _ => Response::status(401).with("WWW-Authenticate", r#"Basic realm="x""#),
    });
    let name = format!("{}/x:single", fake.address);
    assert_eq!(resolve(Config::default(), &name, password("good")).unwrap(), Digest::of(&image.manifest));
    for credentials in [None, password("bad"), Some(Credentials::IdentityToken("t".into()))] {
        let error = resolve(Config::default(), &name, credentials).unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
        assert!(!error.to_string().contains("bad"), "{error}");
    }
}

#[test]
fn tls_is_checked() {
    let image = TestImage::new(10);
    let certificate = Certificate::new("0.0.0.0");
    let served = image.clone();
    let fake = Fake::tls(certificate.server(), move |request| serve_image(&served, request));
    let name = format!("{}/x:single", fake.address);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, &certificate.authority).unwrap();

    let trusting = Config { extra_ca: Some(path), ..Config::default() };
    assert_eq!(resolve(trusting.clone(), &name, None).unwrap(), Digest::of(&image.manifest));
    let insecure = Config { insecure: vec![fake.address.parse().unwrap()], ..Config::default() };
    assert_eq!(resolve(insecure, &name, None).unwrap(), Digest::of(&image.manifest));

    let error = resolve(Config::default(), &name, None).unwrap_err().to_string();
    assert!(error.contains("authority that this machine does not know"), "{error}");
    let wrong_name = Fake::tls(Certificate::new("registry.example").server(), |_| Response::status(404));
    let error = resolve(trusting, &format!("{}/x:single", wrong_name.address), None).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");

    // A secure registry is never asked without TLS.
    let plain = Fake::plain(|_| Response::status(404));
    let port = plain.address.rsplit(':').next().unwrap();
    let error = resolve(Config::default(), &format!("0.0.0.0:{port}/x:single"), None).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(plain.seen().iter().all(|request| request.method != "GET"));
}

#[test]
fn mirrors_come_first() {
    let image = TestImage::new(10);
    let served = image.clone();
    let empty = Fake::plain(|_| Response::status(404));
    let full = Fake::plain(move |request| serve_image(&served, request));
    let mirrors = [&empty, &full].map(|fake| format!("http://{}", fake.address).parse().unwrap());
    let config = Config { mirrors: mirrors.into(), ..Config::default() };
    assert_eq!(resolve(config, "nothing:single", password("secret")).unwrap(), Digest::of(&image.manifest));
    let first = &empty.seen()[0];
    assert_eq!(first.path, "/v2/library/nothing/manifests/single");
    assert!(full.seen().iter().chain([first]).all(|request| request.header("authorization").is_empty()));
}

#[test]
fn refusals_are_told() {
    #[track_caller]
    fn check(answer: impl Fn(&Request) -> Response + Send + Sync + 'static, expected: &str) {
        let fake = Fake::plain(answer);
        let error = resolve(Config::default(), &format!("{}/x:single", fake.address), None).unwrap_err();
        assert_eq!(error.to_string().replace(&fake.address, "HOST"), expected);
    }
    let image = TestImage::new(10);
    check(
        move |request| {
            serve_image(&image, &Request { path: request.path.replace("single", "none"), ..request.clone() })
        },
        "HOST/x:single not found on HOST: manifest unknown",
    );
    check(|_| Response::status(503), "HOST answered with status 503: service unavailable");
    check(
        |_| Response::status(429),
        "HOST allows no more pulls for now: too many requests; wait, log in, or use a mirror",
    );
    check(|_| Response::ok("", &vec![b' '; 300 << 10]), "image manifest is larger than 262144 bytes");
    check(
        |request| Response::status(302).with("Location", request.path.clone()),
        "HOST answered with status 302: redirects too often, to nowhere, or from TLS to plain HTTP",
    );
    check(
        |_| Response::ok("application/vnd.docker.distribution.manifest.v1+prettyjws", br#"{"fsLayers":[]}"#),
        "image format not supported: Docker image manifest, schema 1; push the image again with a current tool",
    );
}
