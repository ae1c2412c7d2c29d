//! The manager speaks to Docker's clients, and names docker's commands; `pi-mgr` shows its own for them. Pure.

/// What the manager says for docker's command line, and what it is for ours.
const OURS: [(&str, &str); 4] = [
    (
        r#"Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again."#,
        "Use `pi-mgr init` to make a cluster.",
    ),
    (
        r#"Use "docker swarm leave" to leave this swarm and join another one."#,
        "Use `pi-mgr leave --force` to end it, and then make another one.",
    ),
    (r#""docker swarm unlock""#, "`pi-mgr unlock`"),
    ("docker network ", "pi-mgr network "),
];

/// A message of the manager with our commands for docker's: of a refusal, or why a task waits.
pub(crate) fn ours(message: &str) -> String {
    OURS.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, parse};
    use super::*;
    use crate::api::swarm::{ALREADY_IN, LOCKED, NOT_A_MANAGER};
    use crate::scheduler::NO_INGRESS;

    #[test]
    fn messages_name_our_commands() {
        for (theirs, want) in [
            (NOT_A_MANAGER, "pi-mgr init"),
            (ALREADY_IN, "pi-mgr leave --force"),
            (LOCKED, "pi-mgr unlock"),
            (NO_INGRESS, "pi-mgr network create --driver overlay --ingress ingress"),
        ] {
            let text = ours(theirs);
            assert!(!text.contains("docker"), "{text}");
            let command = text.split('`').nth(1).expect("a command");
            assert_eq!(command, want);
            let words = parse::words(command).expect("a shell line");
            assert!(Cli::try_parse_from(&words).is_ok(), "{command}");
        }
        assert_eq!(ours("node x not found"), "node x not found");
    }
}
