//! The goals, row by row: what is compared with what, and how it is to come out.

use crate::peer::{GO, OURS};

/// A workload on a peer.
pub type Measured = (&'static str, &'static str);

pub enum Goal {
    /// The peer's time divided by ours is at least so much.
    Ahead { peer: Measured, at_least: f64 },
    /// Ours is at most so many units.
    Within { at_most: f64, unit: &'static str },
    /// Ours divided by another figure of the same run is at most so much.
    Beside { other: Measured, at_most: f64 },
    /// Ours less another figure of the same run is at most so many nanoseconds.
    Extra { other: Measured, at_most: f64 },
}

pub struct Row {
    /// The workload of the table, such as `W1`.
    pub group: &'static str,
    pub what: &'static str,
    /// Our case.
    pub case: &'static str,
    pub goal: Goal,
}

/// Miss a goal by less than this, and it is a tie: samples spread more.
pub const TIE: f64 = 0.10;

const fn ahead(
    group: &'static str,
    what: &'static str,
    case: &'static str,
    peer: &'static str,
    at_least: f64,
) -> Row {
    ahead_of(group, what, case, (peer, case), at_least)
}

const fn ahead_of(
    group: &'static str,
    what: &'static str,
    case: &'static str,
    peer: Measured,
    at_least: f64,
) -> Row {
    Row {
        group,
        what,
        case,
        goal: Goal::Ahead { peer, at_least },
    }
}

const fn within(
    group: &'static str,
    what: &'static str,
    case: &'static str,
    at_most: f64,
    unit: &'static str,
) -> Row {
    Row {
        group,
        what,
        case,
        goal: Goal::Within { at_most, unit },
    }
}

const fn beside(
    group: &'static str,
    what: &'static str,
    case: &'static str,
    other: Measured,
    at_most: f64,
) -> Row {
    Row {
        group,
        what,
        case,
        goal: Goal::Beside { other, at_most },
    }
}

const TOKEN: &str = "tokio-util";
const FLAGS: &str = "almost-enough";
const OTEL: &str = "opentelemetry";
const HTTP: &str = "http";

pub const ROWS: &[Row] = &[
    ahead("W1", "derive, cancel, drop", "w1", GO, 11.0),
    ahead("W1", "derive, cancel, drop", "w1", TOKEN, 3.0),
    ahead("W1", "derive, cancel, drop", "w1", FLAGS, 1.1),
    ahead("W1", "derive, drop", "w1_nc", TOKEN, 3.0),
    beside(
        "W1",
        "with 100 000 siblings, beside own W1",
        "w1_100k",
        (OURS, "w1"),
        1.2,
    ),
    ahead("W2", "two threads, one parent", "w2", GO, 15.0),
    ahead("W2", "two threads, one parent", "w2", TOKEN, 15.0),
    ahead("W2", "two threads, one parent", "w2", FLAGS, 2.0),
    beside("W2", "beside own W1", "w2", (OURS, "w1"), 1.3),
    ahead_of("W3", "timeout, armed", "w3_armed", (GO, "w3_armed"), 10.0),
    ahead("W3", "timeout, armed", "w3_armed", TOKEN, 2.8),
    ahead("W3", "timeout, not looked at", "w3", TOKEN, 1.0),
    ahead("W3", "100 000 outstanding", "w3_100k", GO, 18.0),
    ahead("W3", "100 000 outstanding", "w3_100k", TOKEN, 2.5),
    ahead("W3", "two threads", "w3_2t", GO, 20.0),
    ahead("W3", "two threads", "w3_2t", TOKEN, 7.0),
    ahead("W4", "check at depth 1", "w4_d1", GO, 5.0),
    ahead("W4", "check at depth 1", "w4_d1", TOKEN, 5.0),
    ahead("W4", "check at depth 10", "w4_d10", GO, 5.0),
    ahead("W4", "check at depth 10", "w4_d10", TOKEN, 5.0),
    ahead("W4", "check under a deadline", "w4_deadline", GO, 5.0),
    ahead_of(
        "W4",
        "check under a deadline",
        "w4_deadline",
        (TOKEN, "w4_d1"),
        5.0,
    ),
    ahead("W4", "two threads", "w4_2t", GO, 5.0),
    ahead("W4", "two threads", "w4_2t", TOKEN, 25.0),
    beside("W4", "beside one atomic load", "w4_d1", ("bare", "w4_d1"), 1.3),
    beside(
        "W4",
        "`check()` beside one atomic load",
        "w4_check",
        ("bare", "w4_d1"),
        1.3,
    ),
    ahead("W5", "cancel, flat 1 000", "w5_1k", GO, 12.0),
    ahead("W5", "cancel, flat 1 000", "w5_1k", TOKEN, 5.0),
    within("W5", "cancel, flat 1 000", "w5_1k", 7.0, "ns a node"),
    ahead("W5", "cancel, flat 100 000", "w5_100k", GO, 40.0),
    ahead("W5", "cancel, flat 100 000", "w5_100k", TOKEN, 5.0),
    within("W5", "cancel, flat 100 000", "w5_100k", 7.0, "ns a node"),
    ahead("W5", "cancel, flat 1 000 000", "w5_1m", GO, 50.0),
    ahead("W5", "cancel, flat 1 000 000", "w5_1m", TOKEN, 5.0),
    within("W5", "cancel, flat 1 000 000", "w5_1m", 7.0, "ns a node"),
    ahead("W5", "binary, depth 10", "w5_bin10", GO, 10.0),
    ahead("W5", "binary, depth 10", "w5_bin10", TOKEN, 5.0),
    ahead("W5", "10-ary, depth 5", "w5_dec5", GO, 3.0),
    ahead("W5", "10-ary, depth 5", "w5_dec5", TOKEN, 2.0),
    ahead("W5", "chain of 10 000", "w5_chain10k", GO, 40.0),
    ahead("W5", "chain of 10 000", "w5_chain10k", TOKEN, 4.5),
    within(
        "W5",
        "chain of 1 000 000, cancel",
        "w5_chain1m",
        25.0,
        "ns a node",
    ),
    within("W5", "chain of 1 000 000, drop", "w5_drop1m", 25.0, "ns a node"),
    ahead("W6", "10 000 tasks on one node", "w6_10k", GO, 1.2),
    ahead("W6", "10 000 tasks on one node", "w6_10k", TOKEN, 0.9),
    ahead("W6", "the same, one thread", "w6_10k_ct", TOKEN, 0.9),
    ahead("W6", "10 000 tasks, a node each", "w6_10k_own", TOKEN, 0.9),
    ahead("W6", "register and withdraw", "w6_reg", TOKEN, 2.2),
    ahead("W6", "one task, same thread", "w6_ct", TOKEN, 0.9),
    ahead("W6", "one task, parked worker", "w6_mt", TOKEN, 0.9),
    ahead_of("W6", "one task, parked worker", "w6_mt", (GO, "w6_task"), 0.9),
    ahead("W6", "one parked thread", "w6_thread", TOKEN, 0.9),
    ahead("W7", "hit, 1 value", "w7_hit_1", GO, 5.0),
    ahead("W7", "hit, 5 values", "w7_hit_5", GO, 5.0),
    ahead("W7", "hit, 20 values", "w7_hit_20", GO, 10.0),
    ahead("W7", "hit, 100 values", "w7_hit_100", GO, 40.0),
    ahead("W7", "hit, 1 value", "w7_hit_1", OTEL, 3.0),
    ahead("W7", "hit, 5 values", "w7_hit_5", OTEL, 1.2),
    ahead("W7", "hit, 20 values", "w7_hit_20", OTEL, 0.9),
    ahead("W7", "hit, 100 values", "w7_hit_100", OTEL, 0.6),
    ahead("W7", "hit, 1 value", "w7_hit_1", HTTP, 3.0),
    ahead("W7", "hit, 20 values", "w7_hit_20", HTTP, 0.9),
    ahead("W7", "miss, 1 value", "w7_miss_1", OTEL, 1.5),
    ahead("W7", "miss, 20 values", "w7_miss_20", OTEL, 1.5),
    ahead("W7", "miss, 100 values", "w7_miss_100", OTEL, 0.4),
    ahead("W7", "derive at 1", "w7_derive_1", GO, 2.5),
    ahead("W7", "derive at 5", "w7_derive_5", GO, 2.5),
    ahead("W7", "derive at 20", "w7_derive_20", GO, 2.5),
    ahead("W7", "derive at 100", "w7_derive_100", GO, 2.5),
    ahead("W7", "derive at 1", "w7_derive_1", OTEL, 4.0),
    ahead("W7", "derive at 5", "w7_derive_5", OTEL, 4.0),
    ahead("W7", "derive at 20", "w7_derive_20", OTEL, 4.0),
    ahead("W7", "derive at 100", "w7_derive_100", OTEL, 4.0),
    ahead("W7", "derive 8 in a row at 20", "w7_ladder_20", GO, 2.5),
    ahead("W7", "derive 8 in a row at 20", "w7_ladder_20", OTEL, 4.0),
    ahead("W7", "derive 8 in a row at 100", "w7_ladder_100", GO, 2.5),
    ahead("W7", "derive and five look-ups at 1", "w7_both_1", OTEL, 2.0),
    ahead("W7", "derive and five look-ups at 5", "w7_both_5", OTEL, 2.0),
    ahead("W7", "derive and five look-ups at 8", "w7_both_8", OTEL, 2.0),
    ahead("W7", "derive and five look-ups at 20", "w7_both_20", OTEL, 2.0),
    ahead("W7", "derive and five look-ups at 100", "w7_both_100", OTEL, 2.0),
    ahead("W8", "child", "w8_child", GO, 2.1),
    ahead("W8", "child", "w8_child", TOKEN, 2.1),
    within("W8", "child", "w8_child", 64.0, "bytes"),
    ahead("W8", "timeout, armed", "w8_timeout", GO, 3.4),
    ahead("W8", "timeout, armed", "w8_timeout", TOKEN, 2.7),
    within("W8", "timeout, armed", "w8_timeout", 96.0, "bytes"),
    ahead("W8", "value", "w8_value", GO, 1.0),
    ahead("W8", "value", "w8_value", OTEL, 4.0),
    within("W8", "value", "w8_value", 48.0, "bytes"),
    ahead("W9", "a whole request", "w9", GO, 13.0),
    ahead("W9", "a whole request", "w9", TOKEN, 3.7),
    ahead_of(
        "W9",
        "tokens whose deadlines cannot fire",
        "w9",
        (TOKEN, "w9_unarmed"),
        2.7,
    ),
    within("W9", "a whole request", "w9", 350.0, "ns"),
    ahead("W9", "two threads", "w9_2t", GO, 17.0),
    ahead("W9", "two threads", "w9_2t", TOKEN, 5.0),
    ahead("W10", "ready at once", "w10_ready", TOKEN, 3.8),
    ahead("W10", "ready at the third poll", "w10_3poll", TOKEN, 2.2),
    ahead("W10", "ready at once", "w10_ready", "select", 6.0),
    ahead("W10", "ready at the third poll", "w10_3poll", "select", 3.0),
    ahead("W10", "ready at once", "w10_ready", "select-biased", 6.0),
    ahead(
        "W10",
        "ready at the third poll",
        "w10_3poll",
        "select-biased",
        2.2,
    ),
    ahead_of(
        "W10",
        "under a deadline, ready at once",
        "w10_ready_deadline",
        (TOKEN, "w10_ready"),
        3.8,
    ),
    ahead_of(
        "W10",
        "under a deadline, third poll",
        "w10_3poll_deadline",
        (TOKEN, "w10_3poll"),
        2.2,
    ),
    ahead(
        "W10",
        "a new timeout, ready at once",
        "w10_ready_timeout",
        "tokio-timeout",
        1.0,
    ),
    ahead(
        "W10",
        "a new timeout, third poll",
        "w10_3poll_timeout",
        "tokio-timeout",
        1.3,
    ),
    ahead(
        "W10",
        "a new timeout, ready at once",
        "w10_ready_timeout",
        "timeout-run",
        1.2,
    ),
    ahead(
        "W10",
        "a new timeout, third poll",
        "w10_3poll_timeout",
        "timeout-run",
        2.0,
    ),
    within(
        "inspect",
        "switched off: one look at the switch",
        "switch",
        1.0,
        "ns",
    ),
    Row {
        group: "inspect",
        what: "switched on, per derive and end, over own W1",
        case: "w1_inspected",
        goal: Goal::Extra {
            other: (OURS, "w1"),
            at_most: 150.0,
        },
    },
];

impl Row {
    /// What has to be measured for this row.
    pub fn needs(&self) -> Vec<Measured> {
        let mut needs = vec![(OURS, self.case)];
        match self.goal {
            Goal::Ahead { peer, .. } => needs.push(peer),
            Goal::Beside { other, .. } | Goal::Extra { other, .. } => needs.push(other),
            Goal::Within { .. } => {}
        }
        needs
    }
}
