//! What `--help`, completion and wrong command lines promise.

use clap::{Command, CommandFactory, Parser};

use super::super::Cli;

fn walk(command: &Command, path: &str, visit: &mut dyn FnMut(&Command, &str)) {
    visit(command, path);
    for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
        walk(child, &format!("{path} {}", child.get_name()), visit);
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let mut count = 0;
    walk(&Cli::command(), "pi-mgr", &mut |command, path| {
        count += 1;
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:\n") && help.contains(path), "{path} has no example of itself");
        assert!(command.get_about().is_some(), "{path} does not say what it does");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {} is not explained", argument.get_id());
        }
    });
    assert!(count > 25, "the walk saw only {count} commands");
}

#[test]
fn examples_are_valid_command_lines() {
    walk(&Cli::command(), "pi-mgr", &mut |command, _| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.replace("\\\n", "").lines().skip(1) {
            let line = line.split(" > ").next().unwrap_or(line);
            let words = super::super::parse::words(line.trim()).expect("a shell line");
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{line}: {error}");
            }
        }
    });
}

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

/// `--flag -5s` and `--flag=-5s` are the same: clap would take the first for flags `-5`, `-s`.
#[test]
fn a_negative_duration_is_no_flag() {
    let mut count = 0;
    walk(&Cli::command(), "pi-mgr", &mut |command, path| {
        for arg in command.get_arguments() {
            if arg.get_value_names().is_some_and(|names| names == ["DURATION"] || names == ["TIME"]) {
                count += 1;
                assert!(arg.is_allow_hyphen_values_set(), "{path}: {}", arg.get_id());
            }
        }
    });
    assert!(count > 20, "the walk saw only {count} durations");
}

#[test]
fn completion_knows_the_commands() {
    for shell in [
        clap_complete::Shell::Bash,
        clap_complete::Shell::Zsh,
        clap_complete::Shell::Fish,
        clap_complete::Shell::Elvish,
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "pi-mgr", &mut script);
        let script = String::from_utf8(script).expect("UTF-8");
        assert!(script.contains("replicas-max-per-node"), "{shell}");
    }
}

/// docs/cli.md names each flag of docker's that we refuse, and no other.
#[test]
fn every_flag_of_docker_is_there_or_explained() {
    let docs = include_str!("../../../../docs/cli.md");
    let flags: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/golden/cli/flags.json")).expect("JSON");
    let cli = Cli::command();
    for (name, flags) in flags.as_object().expect("an object") {
        let words = name.split(' ').filter(|word| *word != "swarm");
        let command = words.fold(&cli, |command, word| command.find_subcommand(word).expect(name));
        for flag in flags.as_array().expect("a list") {
            let flag = flag.as_str().expect("a name");
            let ours = command.get_arguments().any(|arg| arg.get_long() == Some(flag) && !arg.is_hide_set());
            let explained = docs.contains(&format!("\n| `{name}` | `--{flag}` |"));
            assert!(ours != explained, "{name} --{flag}: ours is {ours}, explained in docs/cli.md is {explained}");
        }
    }
}
