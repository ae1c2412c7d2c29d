//! The command line of `pi-agent`, as its help and its manual page tell it.

use std::fmt::Write as _;

use crate::config::FLAGS;

/// What the program is.
pub const ABOUT: &str = "Racimo's agent: runs this board's tasks through containerd.";

/// Each command with its arguments, and what it does.
pub const COMMANDS: [(&str, &str); 5] = [
    ("run [FLAGS]", "run the agent"),
    ("join --token TOKEN HOST[:PORT]", "join a cluster (a running agent takes it up); --again: a member too"),
    ("leave", "leave it: tasks stop, the identity is erased"),
    ("reset-identity", "the same without a word to the manager: for a copied card"),
    ("version", "print the version"),
];

/// Command lines that work.
pub const EXAMPLES: [&str; 2] = [
    "pi-agent join --token SWMTKN-1-... 192.168.1.10:2377",
    "pi-agent run --label rack=1 --insecure-registry 192.168.1.10:5000",
];

/// Where a flag's value may also come from.
pub const FLAGS_NOTE: &str = "each also as environment RACIMO_FLAG_NAME, or a key of the configuration file";

/// The text of `pi-agent help`.
pub fn text() -> String {
    let mut text = [ABOUT, "\n\nUsage:\n"].concat();
    for (command, does) in COMMANDS {
        line(&mut text, "  pi-agent ", command, 33, does);
    }
    text += "\nExamples:\n";
    for example in EXAMPLES {
        text += &["  ", example, "\n"].concat();
    }
    text += &["\nFlags (", FLAGS_NOTE, "):\n"].concat();
    for (flag, does) in FLAGS {
        line(&mut text, "  --", flag, 20, does);
    }
    text
}

fn line(text: &mut String, before: &str, name: &str, width: usize, does: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{before}{name:width$} {does}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lines_up_and_has_everything() {
        let text = text();
        assert!(text.contains("\n  pi-agent leave                             leave it: tasks stop"), "{text}");
        assert!(text.contains("\n  --log-level            error, warn"), "{text}");
        let named = |name: &str| text.matches(name).count() > 0;
        assert!(COMMANDS.iter().all(|(command, does)| named(command) && named(does)));
        assert!(FLAGS.iter().all(|(flag, does)| named(flag) && named(does)));
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
    }
}
