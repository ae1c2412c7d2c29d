//! Writes the manual pages and shell completions of both programs, from the definitions of their command lines.
//!
//! ```text
//! pages DIRECTORY    → DIRECTORY/man/*.{1,8}, DIRECTORY/{bash,zsh,fish}/…
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Arg, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use racimo_agent::config::FLAGS;
use racimo_agent::usage;

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).context("usage: pages DIRECTORY")?;
    let directory = Path::new(&directory);
    write(directory, racimo_manager::cli::definition(), "1")?;
    write(directory, agent(), "8")
}

fn write(directory: &Path, program: Command, section: &str) -> Result<()> {
    let name = program.get_name().to_owned();
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    // Each subcommand's page is named as docker's and git's are: pi-mgr-service-create.
    let mut complete = program.clone().disable_help_subcommand(true);
    complete.build();
    page(&pages, &complete, &name, section)?;
    for (shell, folder) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let folder = directory.join(folder);
        fs::create_dir_all(&folder)?;
        clap_complete::generate_to(shell, &mut program.clone(), &name, &folder)?;
    }
    Ok(())
}

fn page(pages: &Path, command: &Command, name: &str, section: &str) -> Result<()> {
    let shown = command.clone().display_name(name.to_owned());
    // No date: the same sources give the same bytes.
    let man = Man::new(shown).title(name.to_uppercase()).section(section).date("").source(source()).manual("Racimo");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let file = pages.join(format!("{name}.{section}"));
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        page(pages, child, &format!("{name}-{}", child.get_name()), section)?;
    }
    Ok(())
}

fn source() -> String {
    format!("racimo {}", env!("CARGO_PKG_VERSION"))
}

/// The agent's tables, which are no definition of clap's: a board has no room for one.
fn agent() -> Command {
    let examples = usage::EXAMPLES.join("\n  ");
    let mut program = Command::new("pi-agent").about(usage::ABOUT).subcommand_required(true).after_help(format!(
        "Files: /etc/racimo/agent.toml, /var/lib/racimo/agent, /run/racimo.\n\nExamples:\n  {examples}"
    ));
    for (line, does) in usage::COMMANDS {
        let name = line.split(' ').next().unwrap_or(line);
        let mut command = Command::new(name).about(does);
        if name == "join" {
            let token = Arg::new("token").long("token").value_name("TOKEN");
            let manager = Arg::new("HOST[:PORT]").help("the manager").required(true);
            command = command
                .arg(token.help("what `pi-mgr join-token worker` shows; also as environment RACIMO_TOKEN"))
                .arg(manager);
        }
        if name != "version" {
            let flag = |(flag, does)| Arg::new(flag).long(flag).value_name("VALUE").help(does);
            command = command.args(FLAGS.map(flag)).after_help(format!("Flags: {}.", usage::FLAGS_NOTE));
        }
        program = program.subcommand(command);
    }
    program
}
