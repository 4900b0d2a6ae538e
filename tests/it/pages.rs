//! The pages hold together: what one of them points at exists, be it a file or a section of another
//! page, and the README leads to all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The README and its like, and everything in `docs`, below a root.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    pages.sort();
    pages
}

/// The lines of a page that are not in a block of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What its links point at.
fn links(page: &str) -> Vec<&str> {
    let targets = prose(page).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| rest.split(')').next()).collect()
}

/// The anchors of its headings, as GitHub makes them: lower case, without punctuation, a hyphen for
/// each space, and a number behind those that are there already.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page) {
        let Some(title) = line.trim_start_matches('#').strip_prefix(' ') else {
            continue;
        };
        if !line.starts_with('#') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        let title = title.trim().to_lowercase();
        let anchor: String = title.chars().filter(kept).collect();
        let anchor = anchor.replace(' ', "-");
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let mut all = std::iter::once(anchor.clone()).chain(numbered);
        anchors.extend(all.find(|anchor| !anchors.contains(anchor)));
    }
    anchors
}

/// How many links the pages below a root have to each other and to what is beside them; and those
/// that point at nothing, one in each line.
pub(crate) fn dangling(root: &Path) -> (usize, String) {
    let (mut links_seen, mut dangling) = (0, String::new());
    for page in pages(root) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            links_seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                _ => page.with_file_name("").join(path),
            };
            let there = anchor.is_empty()
                || std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).contains(anchor));
            if !target.exists() || !there {
                writeln!(dangling, "{}: {link}", page.display()).unwrap();
            }
        }
    }
    (links_seen, dangling)
}

#[test]
fn what_the_pages_point_at_exists() {
    let (links_seen, dangling) = dangling(Path::new(ROOT));
    assert!(links_seen > 100, "{links_seen}");
    assert!(dangling.is_empty(), "point at nothing:\n{dangling}");
}

#[test]
fn the_readme_leads_to_every_page() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let links = links(&readme);
    for page in pages(Path::new(ROOT)) {
        let path = page.strip_prefix(ROOT).unwrap().to_str().unwrap();
        assert!(
            path == "README.md" || links.contains(&path),
            "the README says nowhere what {path} is for"
        );
    }
}

#[test]
fn headings_and_links_are_read_as_meant() {
    let page = "# Later, and not too late\n## routing.yaml\n```sh\n# no heading [no](link)\n```\n\
        ## `XADD` – a_b\n### Later, and not too late\n#no\n[a](b.md#c) [d\ne](../f) ![g](h.svg)\n";
    assert_eq!(links(page), ["b.md#c", "../f", "h.svg"]);
    let expected = [
        "later-and-not-too-late",
        "later-and-not-too-late-1",
        "routingyaml",
        "xadd--a_b",
    ];
    assert_eq!(anchors(page), BTreeSet::from(expected.map(str::to_owned)));
}
