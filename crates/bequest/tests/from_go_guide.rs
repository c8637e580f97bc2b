//! `docs/from-go.md` against the files that it quotes: a snippet that is not in its file, or a test that is not where the
//! guide says, fails here.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_snippet_is_in_its_file() {
    let guide = read("docs/from-go.md");
    let snippets = snippets(&guide).unwrap();
    assert!(snippets.len() >= 30, "{} snippets", snippets.len());
    for Snippet { line, path, code } in snippets {
        if let Err(missing) = find(&code, &read(path)) {
            panic!("docs/from-go.md:{line}: not in {path}: {missing}");
        }
    }
}

#[test]
fn every_link_leads_to_its_file_and_to_its_test() {
    let guide = read("docs/from-go.md");
    let mut tests = 0;
    for (text, path) in links(&guide) {
        let file = read(path.strip_prefix("../").unwrap());
        if let Some(test) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
            assert!(file.contains(&format!("fn {test}(")), "{test} is not in {path}");
            tests += 1;
        }
    }
    assert!(tests >= 50, "{tests} tests");
}

#[test]
fn every_heading_that_is_linked_is_there() {
    let guide = read("docs/from-go.md");
    let headings: Vec<String> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(anchor)
        .collect();
    for target in guide.split("](#").skip(1).filter_map(|rest| rest.split_once(')')) {
        assert!(headings.iter().any(|heading| heading == target.0), "{}", target.0);
    }
}

#[test]
fn control_what_is_not_there_is_not_found() {
    let file = "fn a() {\n    one();\n    two();\n    three();\n}\n";
    assert_eq!(find("one();\ntwo();", file), Ok(()));
    assert_eq!(find("fn a() {\n// …\n  three();", file), Ok(()));
    for wrong in [
        "one();\nthree();",
        "three();\n// …\none();",
        "wo();",
        "four();",
        "",
    ] {
        assert!(find(wrong, file).is_err(), "{wrong:?}");
    }
    assert!(
        snippets("prose\n\n```rust\none();\n```\n").is_err(),
        "no file is named"
    );
    assert!(
        snippets("In [a](../b):\n\n```rust\none();\n```\n").is_err(),
        "two files are named"
    );
}

/// A block of Rust in the guide, and the file from which it is cut.
struct Snippet<'g> {
    /// Where in the guide, for messages.
    line: usize,
    path: &'g str,
    code: String,
}

/// The blocks of Rust, each below a line that names its file.
fn snippets(guide: &str) -> Result<Vec<Snippet<'_>>, String> {
    let mut snippets = Vec::new();
    let mut above = "";
    let mut lines = guide.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.starts_with("```") {
            let code: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .collect();
            if line == "```rust" {
                let path = named_file(above)
                    .ok_or_else(|| format!("line {}: no file is named above", number + 1))?;
                snippets.push(Snippet {
                    line: number + 1,
                    path,
                    code: code.join("\n"),
                });
            }
        }
        if !line.is_empty() {
            above = line;
        }
    }
    Ok(snippets)
}

/// The file of a line `In [path](../path):`, which names it twice.
fn named_file(line: &str) -> Option<&str> {
    let (path, rest) = line.strip_prefix("In [")?.split_once("](../")?;
    (rest == format!("{path}):")).then_some(path)
}

/// Looks for the parts of `code`, which are parted by `// …`, in `file`, one below the other and each without a gap.
/// Indentation and empty lines do not count.
fn find(code: &str, file: &str) -> Result<(), String> {
    let file = trimmed(file);
    let mut from = 0;
    for part in trimmed(code).split(|line| *line == "// …") {
        let first = part.first().ok_or("an empty part")?;
        let place = (from..file.len())
            .find(|&place| file[place..].starts_with(part))
            .ok_or_else(|| format!("the part that begins with {first:?}"))?;
        from = place + part.len();
    }
    Ok(())
}

fn trimmed(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

/// Links to files of this repository, as text and target.
fn links(guide: &str) -> impl Iterator<Item = (&str, &str)> {
    guide.match_indices("](../").filter_map(|(place, _)| {
        let text = &guide[guide[..place].rfind('[')? + 1..place];
        let target = guide[place + 2..].split_once(')')?.0;
        Some((text, target))
    })
}

/// The anchor that a heading has on the web.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn read(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
