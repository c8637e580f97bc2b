//! `bequest torture sessions`, with fewer rounds than a person would let it run.

use crate::BINARY;
use crate::support::instance::command;

#[test]
fn the_promises_hold_and_the_controls_fail() {
    let output = command(BINARY.as_ref())
        .args([
            "torture",
            "sessions",
            "--rounds",
            "60",
            "--disconnects",
            "500",
            "--logins",
            "200",
            "--slices",
            "1",
        ])
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{errors}");
    for scene in [
        "8 readers race one logout, 2 nodes           0 accepted after, of 2880",
        "cache away during a logout, then back        0 accepted after 60 s",
        "stampede of misses, the first one leaves     1 query, 999 answers of 1000",
        "clients leave at every step                  0 late steps, 0 written, 0 held",
        "kill -9 during logins, over and over         0 lost of ",
        "throughput of GET /me",
    ] {
        assert!(said.contains(scene), "{scene} is not in\n{said}");
    }
}
