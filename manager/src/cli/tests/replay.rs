//! Docker's own sessions, replayed: the same command line and the same answers must give the same
//! requests and the same output. The files hold what docker 28.2.2 and dockerd 20.10 said.
//!
//! `extra` are lines that we print besides; `ours` is our output where it is another (a progress display
//! on a pipe: docker repeats lines that say nothing new).

use serde_json::Value;

use super::super::json::Peek;
use super::fake::{Request, pi_mgr_typing};

#[test]
fn commands_speak_and_print_as_docker_does() {
    replay(include_str!("../../../tests/golden/cli/replay.json"));
}

#[test]
fn services_are_handled_as_docker_does() {
    replay(include_str!("../../../tests/golden/cli/services.json"));
}

#[test]
fn networks_and_ports_are_shown_as_docker_shows_them() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/cli/networks.json")).expect("JSON");
    replay(&golden["sessions"].to_string());
}

#[track_caller]
fn replay(text: &str) {
    let sessions: Value = serde_json::from_str(text).expect("JSON");
    let mut wrong = Vec::new();
    for session in sessions.list("") {
        let mut args: Vec<&str> = session.list("/args").iter().filter_map(Value::as_str).collect();
        // Racimo's cluster commands are not below `swarm`.
        args.retain(|word| *word != "swarm");
        let exchanges = session["exchanges"].clone();
        let now = session.int("/now_ms").expect("a time");
        let mut used = vec![false; exchanges.list("").len()];
        let outcome = pi_mgr_typing(session.text("/typed"), &args, now, move |request| {
            Some(answer(&exchanges, &mut used, &request))
        });
        let errors: Vec<String> = outcome.result.as_ref().err().map_or(Vec::new(), |error| error.lines());
        let theirs = session.text("/stderr").trim().replace("Error response from daemon: ", "").replace("Error: ", "");
        // What docker says of its own exit.
        let theirs = theirs.trim_end_matches("\nexit status 1").to_owned();
        let extra = session.list("/extra");
        let kept = outcome.stdout.split_inclusive('\n').filter(|line| !extra.contains(&Value::from(line.trim_end())));
        let kept: String = kept.collect();
        let want = session.get("ours").and_then(Value::as_str).unwrap_or(session.text("/stdout"));
        let got = (errors.join("\n"), kept.replace("Cluster updated", "Swarm updated"), outcome.result.is_err());
        let want = (theirs, want.to_owned(), session.int("/rc") != Some(0));
        if got != want {
            wrong.push(format!("{args:?}:\n got {got:?}\nwant {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The next recorded answer to that request; the last one again when there is no other.
fn answer(exchanges: &Value, used: &mut [bool], request: &Request) -> (u16, String) {
    let same = |exchange: &Value| {
        let mut query = exchange["query"].clone();
        // Optional, and the default.
        query.as_object_mut().expect("an object").shift_remove("insertDefaults");
        let mut asked = request.query.clone();
        asked.as_object_mut().expect("an object").shift_remove("insertDefaults");
        // Where docker looks at a service by its name again, we use its id.
        let by_id = format!("GET /services/{}", exchange.text("/answer/ID"));
        (exchange.text("/request") == request.line || by_id == request.line)
            && query == asked
            && exchange.get("body").is_none_or(|body| *body == request.body)
    };
    let all = exchanges.list("");
    let matching: Vec<usize> = (0..all.len()).filter(|index| same(&all[*index])).collect();
    let next = matching.iter().find(|index| !used[**index]).or(matching.last());
    match next.map(|index| (index, &all[*index])) {
        Some((index, exchange)) => {
            used[*index] = true;
            let status = u16::try_from(exchange.int("/status").expect("a status")).expect("a status");
            let body = match exchange.list("/answer/_json_lines") {
                [] if exchange["answer"].is_null() => String::new(),
                [] => exchange["answer"].to_string(),
                lines => lines.iter().map(|line| format!("{line}\n")).collect(),
            };
            (status, body)
        }
        None => {
            let text = format!("Docker never sent {} {} {}", request.line, request.query, request.body);
            (599, serde_json::json!({"message": text}).to_string())
        }
    }
}
