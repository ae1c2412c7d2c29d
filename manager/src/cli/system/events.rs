//! `events`: what happens, as it happens.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::template::Template;
use super::super::json::Peek;
use super::super::parse::{self, Nanos};
use super::super::url::{Filters, Url};

/// `events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Also show events since then: 10m, 1700000000 or 2026-11-20T11:00:00Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Stop at that time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Show only what matches (KEY=VALUE; repeatable)
    #[arg(short, long, value_name = "FILTER", value_parser = parse::filter)]
    filter: Vec<(String, String)>,
    /// Format of each event: json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Prints events until the stream ends.
pub(crate) async fn events(args: &EventsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut url = Url::new(&["events"]).filters(&Filters::new(&args.filter));
    for (key, text) in [("since", &args.since), ("until", &args.until)] {
        if let Some(text) = text {
            let time = moment(text, console.now()).map_err(|e| CliError::Usage(format!("--{key}: {e}")))?;
            url = url.query(key, &time);
        }
    }
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let mut lines = client.lines(&url).await?;
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error @ CliError::Transport { .. }) => return Err(client.why_broken(error).await),
            Err(error) => return Err(error),
        };
        let event: Value = serde_json::from_str(&line)
            .map_err(|e| CliError::Answer { request: "GET /events".to_owned(), reason: e.to_string() })?;
        let text = match (&template, &args.format) {
            (Some(template), _) => template.value(&event)?,
            (None, Some(_)) => line,
            (None, None) => plain(&event),
        };
        console.say(text)?;
        console.out.flush()?;
    }
    if args.until.is_some() {
        // Before its time it would have broken off.
        return Ok(());
    }
    // Nobody asked for an end.
    client.why_ended().await.and(Err(CliError::Ended))
}

/// `2026-11-20T11:17:55.254936959Z service update ID (name=web, …)`.
fn plain(event: &Value) -> String {
    let nanos = event.int("/timeNano").map(i128::from);
    let nanos = nanos.or(event.int("/time").map(|seconds| i128::from(seconds) * 1_000_000_000));
    let time = nanos.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
    let time = time.map_or(String::new(), |time| {
        let (date, (hour, minute, second, nanos)) = (time.date(), time.to_hms_nano());
        format!("{date}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    });
    let mut attributes: Vec<_> = event.entries("/Actor/Attributes").collect();
    attributes.sort_by_key(|(key, _)| *key);
    let attributes: Vec<String> =
        attributes.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    let (kind, action, id) = (event.text("/Type"), event.text("/Action"), event.text("/Actor/ID"));
    if attributes.is_empty() {
        return format!("{time} {kind} {action} {id}");
    }
    format!("{time} {kind} {action} {id} ({})", attributes.join(", "))
}

/// A point in time as the API takes it: seconds since 1970, with nanoseconds where there are some.
pub(crate) fn moment(text: &str, now: OffsetDateTime) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ok(text.to_owned());
    }
    let time = match (parse::duration(text), OffsetDateTime::parse(text, &Rfc3339)) {
        (Ok(Nanos(nanos)), _) => now - time::Duration::nanoseconds(nanos),
        (Err(_), Ok(time)) => time,
        (Err(_), Err(_)) => {
            return Err(format!(
                "\"{text}\" is not a time; expected for example 10m (ago), 1700000000 or 2026-11-20T11:00:00Z"
            ));
        }
    };
    Ok(match time.nanosecond() {
        0 => time.unix_timestamp().to_string(),
        nanos => format!("{}.{nanos:09}", time.unix_timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times() {
        let now = OffsetDateTime::from_unix_timestamp(1000).expect("a time");
        assert_eq!(moment("5m", now), Ok("700".to_owned()));
        assert_eq!(moment("1.5s", now), Ok("998.500000000".to_owned()));
        assert_eq!(moment("1700000000", now), Ok("1700000000".to_owned()));
        assert_eq!(moment("1970-01-01T00:00:09Z", now), Ok("9".to_owned()));
        assert!(moment("yesterday", now).is_err() && moment("", now).is_err());
    }

    #[test]
    fn an_event_as_a_line() {
        let event = json!({"Type": "service", "Action": "update", "scope": "swarm", "timeNano": 1_795_173_475_678_360_474_i64,
            "Actor": {"ID": "mz", "Attributes": {"replicas.old": "2", "name": "web2", "replicas.new": "3"}}});
        let want = "2026-11-20T11:17:55.678360474Z service update mz (name=web2, replicas.new=3, replicas.old=2)";
        assert_eq!(plain(&event), want);
    }
}
