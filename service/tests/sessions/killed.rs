//! `kill -9` in the middle of logins: what was acknowledged is there afterwards.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::client::try_ask;
use crate::{me, service, service_on, token};

const LOGINS: usize = 1000;
const CLIENTS: usize = 8;

#[test]
fn every_acknowledged_session_survives_a_kill() {
    let mut killed = service(&[]);
    let (addr, bearer) = (killed.public, format!("Bearer {}", token(&killed, "ann")));
    let (acknowledged, begun) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < LOGINS {
                    let answer = try_ask(addr, "POST", "/sessions", &[("authorization", &bearer)]);
                    // The kill breaks off what is under way: nothing was promised then.
                    let Ok(answer) = answer else { return };
                    assert_eq!(answer.status, 201, "{}", answer.body);
                    let id = answer.json()["Result"]["id"].as_str().unwrap().to_string();
                    let mut acknowledged = acknowledged.lock().unwrap();
                    acknowledged.push(id);
                    if acknowledged.len() == LOGINS / 2 {
                        killed.signal("KILL");
                    }
                }
            });
        }
    });
    assert!(!killed.ended().success());
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(
        (LOGINS / 2..LOGINS).contains(&acknowledged.len()),
        "{} acknowledged",
        acknowledged.len()
    );

    let again = service_on(&killed.data());
    for id in &acknowledged {
        assert_eq!(me(&again, id), 200, "an acknowledged session was lost");
    }

    // The control: without what was written before the kill, none of them is there.
    let elsewhere = service(&[]);
    for id in &acknowledged {
        assert_eq!(me(&elsewhere, id), 403);
    }
}
