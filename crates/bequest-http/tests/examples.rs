//! The example is run: it asserts for itself.

#[path = "../examples/hello.rs"]
mod hello;

#[test]
fn hello_asserts_for_itself() {
    hello::main().unwrap();
}
