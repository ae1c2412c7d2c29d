//! Named network namespaces.

use std::fs;
use std::process::Command;

use racimo_agent::net::netlink::route::Route;
use racimo_agent::net::ns::{Namespace, Parameter};
use rustix::fs::stat;

use crate::support::Lab;

fn inode(path: impl AsRef<std::path::Path>) -> u64 {
    stat(path.as_ref()).unwrap().st_ino
}

#[test]
#[ignore = "needs root"]
fn a_namespace_is_made_once_and_removed() {
    let lab = Lab::new();
    let here = inode("/proc/thread-self/ns/net");
    let first = lab.make("t1");
    let made = inode(lab.path("t1"));
    assert_ne!(made, here);
    assert_eq!(inode("/proc/thread-self/ns/net"), here, "this thread stays where it is");
    // Again, as after a restart.
    lab.make("t1");
    assert_eq!(inode(lab.path("t1")), made);
    assert_eq!(first.run(|| inode("/proc/thread-self/ns/net")).unwrap(), made);
    assert_eq!(lab.all.list().unwrap(), ["t1"]);
    assert!(lab.all.open("t1").unwrap().is_some());
    assert!(lab.all.open("t2").unwrap().is_none());
    lab.all.remove("t1").unwrap();
    lab.all.remove("t1").unwrap();
    assert!(lab.all.list().unwrap().is_empty() && !lab.path("t1").exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(lab.path("t1").to_str().unwrap()));
    // What is open works on.
    assert_eq!(first.run(|| Route::open().unwrap().links().unwrap().len()).unwrap(), 1);
}

#[test]
#[ignore = "needs root"]
fn what_a_crash_left_is_put_right() {
    let lab = Lab::new();
    lab.make("other");
    // It died between the file and the mount, or the board restarted.
    fs::write(lab.path("stale"), "").unwrap();
    assert!(lab.all.open("stale").unwrap().is_none());
    assert_eq!(lab.all.list().unwrap(), ["other", "stale"]);
    lab.make("stale");
    assert_ne!(inode(lab.path("stale")), inode(lab.path("other")));
    // Mounted twice, as two agents at once would do it.
    let status = Command::new("mount").arg("--bind").arg(lab.path("other")).arg(lab.path("stale")).status().unwrap();
    assert!(status.success());
    lab.all.remove("stale").unwrap();
    assert_eq!(lab.all.list().unwrap(), ["other"]);
}

#[test]
#[ignore = "needs root"]
fn parameters_are_set_inside_only() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let outside = read();
    let parameter = |path, value, optional| Parameter { path, value, optional };
    inside
        .set(&[
            parameter("net/ipv4/ip_unprivileged_port_start", "7", false),
            parameter("net/bridge/bridge-nf-call-nothing", "0", true),
            parameter("net/ipv4/ip_forward", "1", false),
        ])
        .unwrap();
    assert_eq!(inside.run(read).unwrap(), "7\n");
    assert_eq!(read(), outside);
    let error = inside.set(&[parameter("net/no/such", "1", false), parameter("net/ipv4/ip_forward", "0", false)]);
    assert!(error.unwrap_err().to_string().contains("/proc/sys/net/no/such"));
    assert_eq!(lab.inside("t1", "cat /proc/sys/net/ipv4/ip_forward"), "0\n", "the others were set");
}

#[test]
#[ignore = "needs root"]
fn a_panic_inside_comes_out() {
    let lab = Lab::new();
    let inside = lab.make("t1");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inside.run(|| panic!("inside")).unwrap()));
    assert!(caught.is_err());
    assert!(Namespace::own().is_ok());
}
