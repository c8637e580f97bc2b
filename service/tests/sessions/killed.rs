//! `kill -9` in the middle of logins: what was acknowledged is there afterwards.

use std::sync::Mutex;
use std::thread;

use crate::support::client::try_ask;
use crate::support::instance::Instance;
use crate::{me, service, service_on, token};

const LOGINS: usize = 1000;
const CLIENTS: usize = 8;
/// The service is killed whenever so many more have been acknowledged.
const EVERY: usize = 125;

#[test]
fn every_acknowledged_session_survives_a_kill() {
    let mut killed = service(&[]);
    let data = killed.data();
    let mut acknowledged = log_in_until_killed(&mut killed);
    let mut kills = 1;
    while acknowledged.len() < LOGINS {
        // On what the first one left, whose folder stays until the end.
        acknowledged.extend(log_in_until_killed(&mut service_on(&data)));
        kills += 1;
    }
    assert!(kills > 1, "{} of them with one kill", acknowledged.len());

    let again = service_on(&data);
    for id in &acknowledged {
        assert_eq!(me(&again, id), 200, "an acknowledged session was lost");
    }

    // The control: without what was written before the kill, none of them is there.
    let elsewhere = service(&[]);
    for id in &acknowledged {
        assert_eq!(me(&elsewhere, id), 403);
    }
}

/// Logs in with all clients and kills the service in the middle; the ids that were acknowledged.
fn log_in_until_killed(service: &mut Instance) -> Vec<String> {
    let (addr, bearer) = (service.public, format!("Bearer {}", token(service, "ann")));
    let acknowledged = Mutex::new(Vec::new());
    let victim = &*service;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                // The kill breaks off what is under way: nothing was promised then.
                while let Ok(answer) = try_ask(addr, "POST", "/sessions", &[("authorization", &bearer)]) {
                    assert_eq!(answer.status, 201, "{}", answer.body);
                    let id = answer.json()["Result"]["id"].as_str().unwrap().to_string();
                    let mut acknowledged = acknowledged.lock().unwrap();
                    acknowledged.push(id);
                    if acknowledged.len() == EVERY {
                        victim.signal("KILL");
                    }
                }
            });
        }
    });
    assert!(!service.ended().success());
    acknowledged.into_inner().unwrap()
}
