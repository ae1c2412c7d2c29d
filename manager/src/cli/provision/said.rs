//! What a person reads when a step fails: which one, the last that was said, and what to try. Pure.

use super::super::error::CliError;

/// Steps as a person sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Opening the connection.
    Connect,
    /// Finding out what the board is like.
    Look,
    /// Debian's packages.
    Packages,
    /// Our package.
    Agent,
    /// Joining.
    Join,
    /// Name and labels of a node.
    Settings,
    /// Starting what shall run.
    Start,
    /// Until the manager sees it.
    Ready,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Connect => "cannot connect",
            Stage::Look => "cannot find out what it is like",
            Stage::Packages => "installing packages failed",
            Stage::Agent => "installing pi-agent failed",
            Stage::Join => "joining failed",
            Stage::Settings => "giving it its settings failed",
            Stage::Start => "starting containerd and pi-agent failed",
            Stage::Ready => "it is not ready",
        }
    }
}

/// The error of a step; `said`: the last that ssh or the board said.
pub(super) fn failed(board: &str, stage: Stage, said: &str) -> CliError {
    let mut text = format!("{board}: {}", stage.name());
    for line in said.lines() {
        text.push_str("\n    ");
        text.push_str(line);
    }
    if let Some(hint) = hint(board, stage, said) {
        text.push('\n');
        text.push_str(&hint);
    }
    CliError::Board(text)
}

/// What to try.
fn hint(board: &str, stage: Stage, said: &str) -> Option<String> {
    let has = |words: &str| said.contains(words);
    Some(match stage {
        _ if has("REMOTE HOST IDENTIFICATION HAS CHANGED") => {
            "Another machine answers there than before, or it was installed anew. If you know why: ssh-keygen -R HOST"
                .to_owned()
        }
        _ if has("Host key verification failed") => {
            format!("ssh does not know this board yet. Connect once by hand, and compare its key: ssh {board}")
        }
        _ if has("Permission denied (") => {
            format!(
                "The board does not let you in. Bring it your key: ssh-copy-id {board}; or name one: --identity FILE"
            )
        }
        Stage::Connect => {
            "Does the board have power, network and ssh (raspi-config, Interface Options)? What ssh says: ssh -v"
                .to_owned()
        }
        Stage::Look => return None,
        Stage::Packages | Stage::Agent => {
            "What was done stays; when the board's apt works again (`sudo apt-get update` there), run this again"
                .to_owned()
        }
        Stage::Join => {
            "Does the board reach the manager? Another address of it: --manager HOST[:PORT]. Run this again then"
                .to_owned()
        }
        Stage::Settings => return None,
        Stage::Start | Stage::Ready => {
            "What the agent says, on the board: sudo journalctl -u pi-agent -n 50".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stage: Stage, said: &str, want: &str) {
        assert_eq!(failed("pi@kitchen", stage, said).to_string(), want);
    }

    #[test]
    fn steps_name_what_was_said_and_what_to_try() {
        check(
            Stage::Connect,
            "Host key verification failed.",
            "pi@kitchen: cannot connect\n    Host key verification failed.\n\
             ssh does not know this board yet. Connect once by hand, and compare its key: ssh pi@kitchen",
        );
        check(
            Stage::Packages,
            "Err:1 http://deb.debian.org\nE: Unable to fetch",
            "pi@kitchen: installing packages failed\n    Err:1 http://deb.debian.org\n    E: Unable to fetch\n\
             What was done stays; when the board's apt works again (`sudo apt-get update` there), run this again",
        );
        check(Stage::Look, "sh: not found", "pi@kitchen: cannot find out what it is like\n    sh: not found");
        let denied = failed("pi@kitchen", Stage::Connect, "pi@kitchen: Permission denied (publickey).").to_string();
        assert!(denied.ends_with("ssh-copy-id pi@kitchen; or name one: --identity FILE"), "{denied}");
    }
}
