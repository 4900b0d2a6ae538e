//! `streamfleet man`: the manual pages, made from what `--help` says.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::text::count;
use super::{Cli, CommandError};
use crate::process::exit::Exit;
use crate::process::{router_command, worker_command};

/// Write the manual pages: one per command, and those of the router and of workers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to write them into, such as /usr/share/man/man1.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Exit, CommandError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        |cause| CommandError::File { path, cause }
    };
    std::fs::create_dir_all(&args.dir).map_err(file(&args.dir))?;
    let pages = pages();
    for (name, page) in &pages {
        let path = args.dir.join(name);
        std::fs::write(&path, page).map_err(file(&path))?;
    }
    let pages = count(pages.len() as u64, "page");
    writeln!(stdout(), "wrote {pages} into {}", args.dir.display())?;
    Ok(Exit::Clean)
}

/// Every page and the name of its file.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut pages = Vec::new();
    for root in [Cli::command(), router_command(), worker_command()] {
        let mut root = root.disable_help_subcommand(true);
        root.build();
        add(&root, &mut pages);
    }
    pages
}

fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, pages);
    }
    let man = Man::new(command.clone()).manual("streamfleet");
    let mut page = Vec::new();
    // Writing into memory does not fail.
    let written = render(&man, command, &mut page);
    debug_assert!(written.is_ok());
    pages.push((man.get_filename(), page));
}

fn render(man: &Man, command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(page)?;
    }
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(page)?;
    }
    page.write_all(b".SH \"EXIT STATUS\"\n")?;
    for (code, what) in Exit::MEANINGS {
        write!(page, ".TP\n{code}\n{what}\n")?;
    }
    page.write_all(b".SH \"SEE ALSO\"\n\\fBstreamfleet\\fR(1), \\fBstreamfleet-router\\fR(1), \\fBstreamfleet-worker\\fR(1)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_everything_that_is_not_hidden() {
        let pages = pages();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "streamfleet.1",
            "streamfleet-dead-list.1",
            "streamfleet-router.1",
            "streamfleet-worker.1",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for hidden in [
            "streamfleet-complete.1",
            "streamfleet-child.1",
            "streamfleet-help.1",
        ] {
            assert!(!names.contains(&hidden), "{hidden}");
        }
        let (_, status) = pages
            .iter()
            .find(|(n, _)| n == "streamfleet-status.1")
            .unwrap();
        let status = String::from_utf8_lossy(status);
        assert!(
            status.contains("EXIT STATUS") && status.contains("69"),
            "{status}"
        );
    }
}
