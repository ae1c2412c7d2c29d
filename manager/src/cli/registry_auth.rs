//! `--with-registry-auth`: the credentials that `docker login` left behind.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use super::error::CliError;
use super::format::image;
use super::json::Peek;

/// The value of `X-Registry-Auth` for the image's registry, from `$DOCKER_CONFIG/config.json` or
/// `~/.docker/config.json`. `None` when nothing is stored for that registry.
pub(crate) fn header(image: &str, env: fn(&str) -> Option<String>) -> Result<Option<String>, CliError> {
    let folder = env("DOCKER_CONFIG").unwrap_or_else(|| format!("{}/.docker", env("HOME").unwrap_or_default()));
    let path = format!("{folder}/config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CliError::File { path, source }),
    };
    let config: Value = serde_json::from_str(&text).map_err(|e| CliError::Refused(format!("{path}: {e}")))?;
    credentials(&config, image::registry(image)).map_err(|e| CliError::Refused(format!("{path}: {e}")))
}

fn credentials(config: &Value, registry: &str) -> Result<Option<String>, String> {
    let helper = config.entries("/credHelpers").any(|(host, _)| host == registry);
    let entry = config["auths"].get(registry);
    let Some(entry) = entry.filter(|entry| !entry.text("/auth").is_empty() || !entry.text("/identitytoken").is_empty())
    else {
        return if helper || entry.is_some() && config.has("/credsStore") {
            Err(format!(
                "the credentials for {registry} are in a credential helper, which pi-mgr cannot ask; \
                         log in without one"
            ))
        } else {
            Ok(None)
        };
    };
    let auth = match entry.text("/identitytoken") {
        "" => {
            let wrong = || format!("the entry for {registry} is not base64 of USER:PASSWORD");
            let pair = STANDARD.decode(entry.text("/auth")).map_err(|_| wrong())?;
            let pair = String::from_utf8(pair).map_err(|_| wrong())?;
            let (user, password) = pair.split_once(':').ok_or_else(wrong)?;
            json!({"username": user, "password": password, "serveraddress": registry})
        }
        token => json!({"identitytoken": token, "serveraddress": registry}),
    };
    Ok(Some(URL_SAFE.encode(auth.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config: Value, registry: &str, want: Result<Option<Value>, &str>) {
        let got = credentials(&config, registry).map(|header| {
            header.map(|text| serde_json::from_slice::<Value>(&URL_SAFE.decode(text).expect("base64")).expect("JSON"))
        });
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn stored_logins() {
        let config = json!({"auths": {"r:5000": {"auth": "bWU6cDpx"}, "t": {"identitytoken": "x"}, "bad": {"auth": "!"}, "h": {}},
                            "credsStore": "pass"});
        check(
            config.clone(),
            "r:5000",
            Ok(Some(json!({"username": "me", "password": "p:q", "serveraddress": "r:5000"}))),
        );
        check(config.clone(), "t", Ok(Some(json!({"identitytoken": "x", "serveraddress": "t"}))));
        check(config.clone(), "other", Ok(None));
        check(config.clone(), "bad", Err("not base64"));
        check(config, "h", Err("credential helper"));
    }
}
