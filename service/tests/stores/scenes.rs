//! Each scene on private servers: ours is nought, and the naive way is not.

use serde_json::Value;

use crate::Torture;

/// Plays `scene` and hands its figures to `check`, ours and the naive client's.
fn played(scene: &str, scale: &str, check: impl FnOnce(&Value, &Value)) {
    let Some((_, written)) = Torture::of(scene, scale).play() else {
        return;
    };
    let shown = &written["scenes"][0];
    assert_eq!(shown["scene"], scene, "{written:#}");
    assert_eq!(
        (&shown["holds"], &shown["control_failed"], &shown["stopped"]),
        (&true.into(), &true.into(), &false.into()),
        "{written:#}"
    );
    check(&shown["figures"]["here"], &shown["figures"]["naive"]);
}

fn number(figures: &Value, name: &str) -> u64 {
    figures[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name} in {figures:#}"))
}

fn no_foreign_answers(here: &Value, naive: &Value) {
    assert_eq!(number(here, "foreign"), 0);
    assert!(
        number(here, "answers") >= 20_000 && number(here, "cancels") >= 6_000,
        "{here}"
    );
    assert!(number(naive, "foreign") > 0, "{naive}");
}

#[test]
fn no_answer_of_postgres_reaches_a_stranger() {
    played("foreign-postgres", "0.02", no_foreign_answers);
}

#[test]
fn no_answer_of_redis_reaches_a_stranger() {
    played("foreign-redis", "0.02", no_foreign_answers);
}

#[test]
fn a_late_cancel_has_no_victims() {
    played("victims", "0.02", |here, naive| {
        assert_eq!(number(here, "next_users_killed"), 0);
        assert!(number(here, "canceled_in_time") > 0, "{here}");
        assert!(number(naive, "next_users_killed") > 0, "{naive}");
    });
}

#[test]
fn a_transaction_ended_at_any_await_is_whole_or_not_there() {
    played("transactions", "0.04", |here, naive| {
        for wrong in [
            "left_idle_in_transaction",
            "acknowledged_and_lost",
            "there_twice",
            "refused_but_there",
            "run_in_autocommit",
        ] {
            assert_eq!(number(here, wrong), 0, "{wrong}: {here}");
        }
        assert!(
            number(here, "ended") > 0 && number(here, "acknowledged") > 0,
            "{here}"
        );
        assert!(number(naive, "left_idle_in_transaction") > 0, "{naive}");
        assert!(number(naive, "run_in_autocommit") > 0, "{naive}");
    });
}

#[test]
fn a_query_that_was_given_up_does_not_run_on() {
    played("next-user", "0.04", |here, naive| {
        assert_eq!(number(here, "ran_to_their_end"), 0);
        assert!(number(naive, "ran_to_their_end") > 0, "{naive}");
    });
}

#[test]
fn no_job_is_lost() {
    played("jobs", "0.1", |here, naive| {
        assert_eq!((number(here, "lost"), number(here, "twice")), (0, 0));
        assert_eq!(number(here, "safe"), number(here, "pushed"));
        assert!(number(here, "given_up") > 0, "{here}");
        assert!(number(naive, "lost") > 0, "{naive}");
    });
}

#[test]
fn a_crowd_that_leaves_is_hardly_noticed() {
    played("storm", "0.2", |here, naive| {
        assert!(number(here, "most_cancels_counted") <= 8, "{here}");
        assert!(number(here, "most_cancels_seen_by_the_network") <= 8, "{here}");
        assert_eq!(
            (number(here, "connections_kept"), number(here, "still_active")),
            (64, 0)
        );
        assert!(number(naive, "most_cancels") > 8, "{naive}");
    });
}

#[test]
fn every_call_is_answered_whatever_hangs() {
    for scene in ["faults-postgres", "faults-redis"] {
        let Some((_, written)) = Torture::of(scene, "0.02").play() else {
            return;
        };
        let shown = &written["scenes"][0];
        let (all, faults) = (&shown["figures"]["all"], &shown["figures"]["by_fault"]);
        assert_eq!(shown["holds"], true, "{written:#}");
        let answered: u64 = ["answered", "ended", "failed"]
            .iter()
            .map(|how| number(all, how))
            .sum();
        assert_eq!(answered, number(all, "calls"), "{all:#}");
        assert!(
            faults["server stopped"].is_object(),
            "the private server is stopped, too: {faults:#}"
        );
        assert!(number(&all["without_deadline"], "hung") > 0, "{all:#}");
    }
}
