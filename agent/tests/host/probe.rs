//! What this machine's kernel can.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use racimo_agent::net::probe::{Found, probe};

/// All of these tests need a kernel with networks; whether it has WireGuard is asked of another program.
#[test]
#[ignore = "needs root"]
fn this_kernel_is_known_and_nothing_stays_behind() {
    let links = || fs::read_to_string("/proc/net/dev").unwrap().lines().count();
    let forwards = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let (before, forwarded, began) = (links(), forwards(), Instant::now());
    let found = probe();
    println!("probed in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((links(), forwards()), (before, forwarded));

    let script = "ip link add racimo-probe type wireguard && ip link del racimo-probe";
    let encrypts = Command::new("unshare").args(["-n", "sh", "-c", script]).output().unwrap().status.success();
    let no_encryption = (!encrypts).then(|| {
        "the kernel has no wireguard (CONFIG_WIREGUARD); restart the board if its kernel was updated, else install its \
         modules or a kernel with them"
            .to_owned()
    });
    assert_eq!(found, Found { no_network: None, no_encryption });
}
