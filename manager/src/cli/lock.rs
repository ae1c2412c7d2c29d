//! `unlock` and `unlock-key`: the key that a locked manager needs after a start.
//!
//! The key is read from the terminal, without echo, or from standard input; never from the command line, which others
//! on the machine see.

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::console::Console;
use super::error::CliError;
use super::json::Peek;
use super::swarm;
use super::url::Url;

/// `unlock-key`.
#[derive(Args, Debug)]
pub(crate) struct UnlockKeyArgs {
    /// Only show the key
    #[arg(short, long)]
    quiet: bool,
    /// Replace the key; the old one stops working
    #[arg(long)]
    rotate: bool,
}

/// Brings a locked manager its key.
pub(crate) async fn unlock(client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let info = client.get(&Url::new(&["info"])).await?;
    let refused = match info.text("/Swarm/LocalNodeState") {
        "locked" => None,
        "inactive" => Some("this manager is in no cluster"),
        "error" => Some("the manager is not locked; what keeps it from serving says pi-mgr info"),
        _ => Some("the manager is not locked"),
    };
    if let Some(why) = refused {
        return Err(CliError::Refused(why.to_owned()));
    }
    let key = console.secret("Unlock key: ")?;
    client.post(&Url::new(&["swarm", "unlock"]), &json!({ "UnlockKey": key.trim() }), &[]).await?;
    Ok(())
}

/// Shows, or replaces, the unlock key.
pub(crate) async fn unlock_key(
    args: &UnlockKeyArgs,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), CliError> {
    if args.rotate {
        let cluster = client.get(&Url::new(&["swarm"])).await?;
        if !is_on(&cluster["Spec"]) {
            return Err(CliError::Refused("cannot rotate because autolock is not turned on".to_owned()));
        }
        swarm::update_cluster(client, &cluster, &cluster["Spec"], Some("rotateManagerUnlockKey")).await?;
        if !args.quiet {
            console.say("Successfully rotated manager unlock key.\n")?;
        }
    }
    let key = fetch(client).await?;
    if args.quiet { Ok(console.say(key)?) } else { say(&key, console) }
}

/// Whether a cluster's settings lock its manager.
pub(crate) fn is_on(spec: &Value) -> bool {
    spec.pointer("/EncryptionConfig/AutoLockManagers").and_then(Value::as_bool).unwrap_or(false)
}

/// Shows the key after autolock was switched on.
pub(crate) async fn show(client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let key = fetch(client).await?;
    say(&key, console)
}

async fn fetch(client: &mut Client) -> Result<String, CliError> {
    let answer = client.get(&Url::new(&["swarm", "unlockkey"])).await?;
    match answer.text("/UnlockKey") {
        "" => Err(CliError::Refused("no unlock key is set".to_owned())),
        key => Ok(key.to_owned()),
    }
}

fn say(key: &str, console: &mut Console) -> Result<(), CliError> {
    Ok(console.say(format!(
        "To unlock the manager after it restarts, run `pi-mgr unlock` and type this key:\n\n    {key}\n\n\
         Keep it in a password manager, not on this machine: without it the manager cannot be\nstarted any more."
    ))?)
}
