//! The heap that a pull needs: one process, one test, a hard limit.

#![allow(clippy::unwrap_used, dead_code, reason = "tests; the modules are shared")]

#[path = "pull/board.rs"]
mod board;
#[path = "pull/certificate.rs"]
mod certificate;
#[path = "pull/image.rs"]
mod image;

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use board::{DockerRegistry, on_board};
use certificate::Certificate;
use image::{PLATFORM, TestImage};
use racimo_agent::alloc;
use racimo_agent::runtime::ctrd::{Ctrd, Executor};
use racimo_agent::runtime::pull;
use racimo_common::registry::{Config, Platform, Reference, Registry};
use smol::LocalExecutor;

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

/// What a pull may take beside an agent that is connected to containerd, in bytes.
const BUDGET: usize = 180 << 10;

/// A layer of 20 MB over TLS, the authority at the end of the system's whole list. The pull runs
/// in a process of its own, so that only its memory counts.
#[test]
fn a_pull_stays_within_its_budget() {
    if std::env::var_os("PULL_IMAGE").is_some() {
        return measure();
    }
    on_board(None, async |board, _| {
        let plain = DockerRegistry::start();
        TestImage::new(20 << 20).push(&plain.address, "a/b");
        let certificate = Certificate::new("0.0.0.0");
        let server = plain.with_tls(&certificate.certificate, &certificate.key);
        let system = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        std::fs::write(board.path("authorities.pem"), system + &certificate.authority).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .env("PULL_IMAGE", format!("{}/a/b:single", server.address))
            .env("PULL_SOCKET", board.path("containerd.sock"))
            .env("PULL_AUTHORITIES", board.path("authorities.pem"))
            .arg("--nocapture")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let peak = text.lines().find_map(|line| line.strip_prefix("peak ")).expect("a measurement");
        let peak: usize = peak.parse().unwrap();
        println!("a pull takes {} KiB of heap at most", peak >> 10);
        assert!(peak <= BUDGET, "{peak} bytes");
    });
}

fn measure() {
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let image: Reference = std::env::var("PULL_IMAGE").unwrap().parse().unwrap();
    let registry = Registry::new(Config { extra_ca: Some(path("PULL_AUTHORITIES")), ..Config::default() });
    let platforms = PLATFORM.parse::<Platform>().unwrap().runnable();
    let executor = Executor(Rc::new(LocalExecutor::new()));
    smol::block_on(executor.0.run(async {
        let ctrd = Ctrd::connect(&executor, &path("PULL_SOCKET")).await.unwrap();
        let before = alloc::used();
        if let Ok(limit) = std::env::var("PULL_LIMIT") {
            alloc::set_limit(before + limit.parse::<usize>().unwrap());
        }
        pull::ensure(&ctrd, &registry, &image, None, &platforms, &mut |_| {}).await.unwrap();
        println!("\npeak {}", alloc::peak() - before);
    }));
}
