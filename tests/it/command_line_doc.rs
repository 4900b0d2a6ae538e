//! `docs/command-line.md` is read as the README is: by a reader who types what it says.

use crate::readme::{Reader, copy_shop, programs, steps};

const PAGE: &str = include_str!("../../docs/command-line.md");

#[test]
fn what_the_page_of_the_command_line_says_happens() {
    let folder = tempfile::Builder::new()
        .prefix("streamfleet-command-line-")
        .tempdir()
        .unwrap();
    copy_shop(folder.path());
    let mut reader = Reader::of("docs/command-line.md", folder.path(), programs());
    let steps = steps(PAGE);
    assert!(steps.len() > 15, "it has blocks to run: {steps:?}");
    steps.iter().for_each(|step| reader.does(step));
    reader.ends();
}
