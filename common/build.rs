//! Tells the library when it was built: certificates are never judged against an earlier time.

use std::env::var;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    let given = var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u32>().ok());
    let built = given.map(u64::from).or_else(|| Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()));
    println!("cargo::rustc-env=RACIMO_BUILD_EPOCH={}", built.unwrap_or(0));
}
