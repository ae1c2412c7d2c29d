//! `version`: of this program and of the manager it talks to.

use clap::Args;
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::template::Template;
use super::super::json::Peek;
use super::super::url::Url;

/// `version`.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// json, or a Go template such as '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Prints both versions; the client's even when no manager answers.
pub(crate) async fn version(args: &VersionArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let ours = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": std::env::consts::ARCH,
    });
    let answer = client.get(&Url::new(&["version"])).await;
    let server = answer.as_ref().unwrap_or(&Value::Null);
    match args.format.as_deref() {
        None => console.out.write_all(plain(&ours, server).as_bytes())?,
        Some(format) => {
            let both = json!({"Client": ours, "Server": server});
            match format {
                "json" => console.say(both.to_string())?,
                text => console.say(Template::parse(text)?.value(&both)?)?,
            }
        }
    }
    answer.map(|_| ())
}

fn plain(client: &Value, server: &Value) -> String {
    let mut text = format!(
        "Client:\n Version:           {}\n OS/Arch:           {}/{}\n",
        client.text("/Version"),
        client.text("/Os"),
        client.text("/Arch")
    );
    if server.is_null() {
        return text;
    }
    text.push_str("\nServer:\n");
    for (label, value) in [
        ("Version:", server.text("/Version").to_owned()),
        ("API version:", format!("{} (minimum version {})", server.text("/ApiVersion"), server.text("/MinAPIVersion"))),
        ("Git commit:", server.text("/GitCommit").to_owned()),
        ("OS/Arch:", format!("{}/{}", server.text("/Os"), server.text("/Arch"))),
        ("Kernel:", server.text("/KernelVersion").to_owned()),
    ] {
        if !value.is_empty() {
            text.push_str(&format!(" {label:<18} {value}\n"));
        }
    }
    text
}
