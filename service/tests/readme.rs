//! Runs every command of the READMEs, as they stand, against a service of its own.
//!
//! A command is a line that begins with `$ ` in a block fenced as `console`. A line `#=> …` right below it is part of
//! what it must print. The addresses are replaced by those of a service on free ports, and the commands that start the
//! service or the tests are what this test stands in for. A variable that a line sets, `NAME=$(…)`, is there for those
//! that follow, as in the terminal into which somebody pastes them.

#[allow(
    dead_code,
    reason = "shared with other test binaries, and each uses a part of it"
)]
#[path = "service/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::GUARD;
use support::instance::{Instance, Lines};

/// One command, and what its output must contain.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    shows: Option<String>,
}

/// What this test stands in for.
const STOOD_IN_FOR: [&str; 3] = ["cargo run", "ci/test.sh", "git clone"];

/// Longer than any command takes that does not hang.
const HANGS: Duration = Duration::from_secs(60);

/// The exit code of curl for a client that left at its `-m`.
const LEFT: i32 = 28;

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    run_commands_of("README.md", 5);
}

#[test]
fn every_command_of_the_korean_readme_does_what_it_says() {
    run_commands_of("README.ko.md", 5);
}

/// What is shown in one is shown in the other; only what is searched for is in each one's language.
#[test]
fn both_readmes_show_the_same_commands() {
    let shown = |name: &str| {
        let text = std::fs::read_to_string(root().join(name)).expect("it is there");
        let steps = steps(&text).into_iter().map(|step| {
            let command = step.command.split(" # ").next().unwrap_or_default().trim_end();
            (command.replace("취소", "golang"), step.shows)
        });
        steps.collect::<Vec<_>>()
    };
    assert_eq!(shown("README.md"), shown("README.ko.md"));
}

#[test]
fn steps_are_read_from_console_blocks_alone() {
    let text = "```console\n$ one 'a b'   # why\n#=> 1\nfree text\n$ two\n```\n$ three\n```sh\n$ four\n```\n";
    let step = |command: &str, shows: Option<&str>| Step {
        command: command.into(),
        shows: shows.map(Into::into),
    };
    assert_eq!(
        steps(text),
        [step("one 'a b'   # why", Some("1")), step("two", None)]
    );
}

#[test]
fn a_command_that_does_not_show_what_it_says_is_noticed() {
    let step = |command: &str, shows: &str| Step {
        command: command.into(),
        shows: Some(shows.into()),
    };
    let attempt = |command, shows| attempt(&step(command, shows), &BTreeMap::new());
    assert!(attempt("echo found", "found").is_ok());
    assert!(attempt("echo lost", "found").is_err());
    assert!(attempt("echo found; exit 28", "found").is_err(), "nobody left");
    assert!(attempt("true -m 1; echo found; exit 7", "found").is_err());
}

#[test]
fn what_a_line_sets_is_there_for_the_next() {
    let step = |command: &str, shows: Option<&str>| Step {
        command: command.into(),
        shows: shows.map(Into::into),
    };
    let mut set = BTreeMap::new();
    for command in ["A=$(echo 'one two')", "B=$(echo $A three)", "C=1; echo $C"] {
        run(&step(command, None), &mut set);
    }
    let expected = [("A", "one two"), ("B", "one two three")];
    assert_eq!(
        set,
        BTreeMap::from(expected.map(|(name, value)| (name.into(), value.into())))
    );
    run(&step("echo \"$B four\"", Some("one two three four")), &mut set);
    let fails = attempt(&step("D=$(false)", None), &set);
    assert!(fails.is_err(), "a command that fails sets nothing");
}

fn run_commands_of(name: &str, least: usize) {
    let root = root();
    let text = std::fs::read_to_string(root.join(name))
        .unwrap_or_else(|error| panic!("{name} cannot be read, and its commands are to be run: {error}"));
    let steps = steps(&text);
    let (stood_in_for, steps): (Vec<_>, Vec<_>) = steps.into_iter().partition(is_stood_in_for);
    assert!(
        stood_in_for
            .iter()
            .any(|step| step.command.starts_with("cargo run")),
        "{name} does not say how to start the service"
    );
    assert!(steps.len() >= least, "{name} has only these commands: {steps:#?}");
    if !is_installed("curl") {
        // The program `left_out` names what is not run here.
        return;
    }

    let service = Instance::start(env!("CARGO_BIN_EXE_bequest"), &[]);
    let mut set = BTreeMap::new();
    for mut step in steps {
        step.command = step
            .command
            .replace("127.0.0.1:8080", &service.public.to_string())
            .replace("127.0.0.1:7070", &service.admin.to_string());
        run(&step, &mut set);
    }
}

/// Runs a command with what was set before it. What only looks may look again: a reader is slower than this test.
fn run(step: &Step, set: &mut BTreeMap<String, String>) {
    let only_looks = !step.command.contains(" -X ") && !step.command.contains(" -m ");
    let begun = Instant::now();
    loop {
        match attempt(step, set) {
            Ok(printed) => {
                if let Some(name) = sets(&step.command) {
                    assert!(!printed.is_empty(), "$ {}\nsets nothing", step.command);
                    set.insert(name.into(), printed);
                }
                return;
            }
            Err(error) if !only_looks || begun.elapsed() > GUARD => panic!("$ {}\n{error}", step.command),
            Err(_) => {}
        }
    }
}

/// The variable that a command sets, if that is all it does.
fn sets(command: &str) -> Option<&str> {
    let (name, value) = command.split_once("=$(")?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase());
    (is_name && value.ends_with(')')).then_some(name)
}

/// What the command prints; of one that sets a variable, what that is then.
fn attempt(step: &Step, set: &BTreeMap<String, String>) -> Result<String, String> {
    let tell = sets(&step.command).map_or_else(String::new, |name| format!(" && printf %s \"${name}\""));
    let mut child = Command::new("bash")
        .args(["-c", &format!("{}{tell}", step.command)])
        .envs(set)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash is installed");
    let printed = Lines::of(child.stdout.take().expect("piped"));
    let said = Lines::of(child.stderr.take().expect("piped"));
    let status = wait(&mut child)?;
    let (printed, said) = (printed.whole(), said.whole());
    let may_leave = step.command.contains("curl ") && step.command.contains(" -m ");
    let went_well = status.success() || may_leave && status.code() == Some(LEFT);
    match &step.shows {
        _ if !went_well => Err(format!("{status}: {said}")),
        Some(shows) if !printed.contains(shows) => Err(format!("{shows:?} is not in\n{printed}")),
        _ => Ok(printed),
    }
}

/// Waits for a command, and ends one that hangs.
fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    let begun = Instant::now();
    while begun.elapsed() < HANGS {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    Err(format!("it had not ended after {HANGS:?}"))
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block = None;
    let mut follows = false;
    for line in text.lines() {
        let command = line.strip_prefix("$ ").filter(|_| block == Some("console"));
        match (line.strip_prefix("```"), command, line.strip_prefix("#=> ")) {
            (Some(kind), ..) => block = if block.is_some() { None } else { Some(kind.trim()) },
            (_, Some(command), _) => steps.push(Step {
                command: command.to_string(),
                shows: None,
            }),
            (_, _, Some(shows)) if follows => {
                steps.last_mut().expect("it follows one").shows = Some(shows.to_string())
            }
            _ => {}
        }
        follows = command.is_some();
    }
    steps
}

fn is_stood_in_for(step: &Step) -> bool {
    STOOD_IN_FOR.iter().any(|prefix| step.command.starts_with(prefix))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
