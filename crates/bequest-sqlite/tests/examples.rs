//! The example is run: it asserts for itself.

#[path = "../examples/handler.rs"]
mod handler;

#[test]
fn handler_asserts_for_itself() {
    handler::main().unwrap();
}
