//! Docker's own sessions, replayed: the same command line and the same answers must give the same
//! requests and the same output. `replay.json` holds what docker 28.2.2 and dockerd 20.10 said.

use serde_json::Value;

use super::super::json::Peek;
use super::fake::{Request, pi_mgr};

#[test]
fn commands_speak_and_print_as_docker_does() {
    let sessions: Value = serde_json::from_str(include_str!("../../../tests/golden/cli/replay.json")).expect("JSON");
    for session in sessions.list("") {
        let mut args: Vec<&str> = session.list("/args").iter().filter_map(Value::as_str).collect();
        // Racimo's cluster commands are not below `swarm`.
        args.retain(|word| *word != "swarm");
        let exchanges = session["exchanges"].clone();
        let now = session.int("/now_ms").expect("a time");
        let outcome = pi_mgr(&args, now, move |request| Some(answer(&exchanges, &request)));
        let errors: Vec<String> = outcome.result.as_ref().err().map_or(Vec::new(), |error| error.lines());
        let theirs = session.text("/stderr").trim().replace("Error response from daemon: ", "").replace("Error: ", "");
        assert_eq!(errors.join("\n"), theirs, "{args:?}");
        assert_eq!(outcome.stdout.replace("Cluster updated", "Swarm updated"), session.text("/stdout"), "{args:?}");
        assert_eq!(outcome.result.is_err(), session.int("/rc") != Some(0), "{args:?}");
    }
}

fn answer(exchanges: &Value, request: &Request) -> (u16, String) {
    let same = |exchange: &&Value| {
        let mut query = exchange["query"].clone();
        // Optional, and the default.
        query.as_object_mut().expect("an object").shift_remove("insertDefaults");
        let mut asked = request.query.clone();
        asked.as_object_mut().expect("an object").shift_remove("insertDefaults");
        exchange.text("/request") == request.line
            && query == asked
            && exchange.get("body").is_none_or(|body| *body == request.body)
    };
    match exchanges.list("").iter().find(same) {
        Some(exchange) => {
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
