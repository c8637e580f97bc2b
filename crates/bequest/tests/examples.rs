//! Every example is run: each asserts for itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "../examples/after_func.rs"]
mod after_func;
#[path = "../examples/causes.rs"]
mod causes;
#[cfg(feature = "tokio")]
#[path = "../examples/command.rs"]
mod command;
#[path = "../examples/derive.rs"]
mod derive;
#[path = "../examples/four_methods.rs"]
mod four_methods;
#[path = "../examples/generator.rs"]
mod generator;
#[cfg(feature = "tokio")]
#[path = "../examples/group.rs"]
mod group;
#[cfg(all(feature = "tokio", unix))]
#[path = "../examples/signals.rs"]
mod signals;
#[path = "../examples/values.rs"]
mod values;

#[test]
fn the_four_methods() {
    four_methods::main();
}

#[test]
fn deriving() {
    derive::main();
}

#[test]
fn carrying_values() {
    values::main();
}

#[test]
fn giving_causes() {
    causes::main();
}

#[test]
fn calling_back() {
    after_func::main();
}

#[test]
fn generating() {
    generator::main();
}

#[cfg(feature = "tokio")]
#[test]
fn grouping() {
    group::main();
}

#[cfg(feature = "tokio")]
#[test]
fn commanding() {
    command::main();
}

#[cfg(all(feature = "tokio", unix))]
#[test]
fn hearing_signals() {
    signals::main().unwrap();
}

#[test]
fn none_is_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let run = include_str!("examples.rs");
    let left_out: BTreeSet<String> = files
        .filter(|file| !run.contains(&format!("#[path = \"../examples/{file}\"]")))
        .collect();
    assert_eq!(left_out, BTreeSet::new());
}
