//! The image's digest and platforms, from its registry.

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::error::CliError;
use super::super::format::image;
use super::super::json::{Peek, place, set, unset};
use super::super::url::Url;

/// Puts `wanted` into the specification, pinned to its digest where the registry can say it.
/// Returns the warning to show after the service is stored.
pub(crate) async fn image(
    client: &mut Client,
    spec: &mut Value,
    wanted: &str,
    ask: bool,
    auth: Option<&str>,
) -> Result<Option<String>, CliError> {
    let tagged = image::tagged(wanted);
    let mut warning = None;
    let mut chosen = tagged.clone();
    if ask && !image::has_digest(&tagged) {
        let headers: Vec<(&'static str, &str)> = auth.map(|auth| ("X-Registry-Auth", auth)).into_iter().collect();
        match client.get_with(&Url::distribution(&tagged), &headers).await {
            Ok(answer) if !answer.text("/Descriptor/digest").is_empty() => {
                chosen = image::pinned(&tagged, answer.text("/Descriptor/digest"));
                set_platforms(spec, &answer);
            }
            Ok(_) | Err(CliError::Api { .. }) => {
                // The platforms known so far are those of another image.
                unset(spec, &["TaskTemplate", "Placement", "Platforms"]);
                warning = Some(format!(
                    "image {tagged} could not be accessed on a registry to record\n\
                     its digest. Each node will access {tagged} independently,\n\
                     possibly leading to different nodes running different\n\
                     versions of the image.\n"
                ));
            }
            Err(error) => return Err(error),
        }
    }
    set(spec, &["TaskTemplate", "ContainerSpec", "Image"], chosen);
    Ok(warning)
}

/// Docker's API has no place for a variant here: architecture and system only.
fn set_platforms(spec: &mut Value, answer: &Value) {
    let mut platforms: Vec<Value> = Vec::new();
    for platform in answer.list("/Platforms") {
        let mut entry = json!({});
        for (from, to) in [("/architecture", "Architecture"), ("/os", "OS")] {
            match platform.text(from) {
                "" => {}
                text => set(&mut entry, &[to], text),
            }
        }
        if !platforms.contains(&entry) {
            platforms.push(entry);
        }
    }
    if !platforms.is_empty() {
        *place(spec, &["TaskTemplate", "Placement", "Platforms"]) = platforms.into();
    }
}
