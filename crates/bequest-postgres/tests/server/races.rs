//! A cancel that comes late must not hit the next user of the connection.

use std::time::Duration;

use bequest_postgres::tokio_postgres::NoTls;
use bequest_postgres::tokio_postgres::error::SqlState;

use crate::common::{ROOT, plain, server, single, within};

const ROUNDS: usize = 2000;

/// Steered towards the instant at which the cancel meets the end of the query.
pub(crate) struct Delay(pub(crate) Duration);

impl Delay {
    pub(crate) async fn wait(&self) {
        let until = std::time::Instant::now() + self.0;
        while std::time::Instant::now() < until {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn steer(&mut self, cancel_won: bool) {
        self.0 = if cancel_won {
            self.0 * 9 / 8 + Duration::from_micros(2)
        } else {
            self.0 * 7 / 8
        };
    }
}

/// One user is cancelled at about the end of a query; the next user's query is right behind it on the same connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_cancel_never_hits_the_next_user() {
    let Some(server) = server() else { return };
    let db = single(server, "races").await;
    let (mut finished, mut cancelled) = (0, 0);
    let mut delay = Delay(Duration::from_micros(500));
    for round in 0..ROUNDS {
        let request = ROOT.with_cancel();
        let first = db.query_one(&request, "SELECT 1::int8, pg_sleep(0.0005)", &[]);
        let leaving = async {
            delay.wait().await;
            request.cancel();
        };
        let (first, ()) = within(async { tokio::join!(first, leaving) }).await;
        let next = within(db.query_one(&ROOT, "SELECT 2::int8, pg_sleep(0.001)", &[])).await;
        let next = next.unwrap_or_else(|error| panic!("round {round}: a stranger's cancel: {error}"));
        assert_eq!(next.get::<_, i64>(0), 2);
        delay.steer(first.is_err());
        match first {
            Ok(row) => {
                assert_eq!(row.get::<_, i64>(0), 1, "somebody else's answer");
                finished += 1;
            }
            Err(error) if error.is_canceled() => cancelled += 1,
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    assert!(
        finished > 0 && cancelled > 0,
        "no race: {finished} finished, {cancelled} cancelled"
    );
    let now = db.statistics();
    assert!(
        now.settled > 0 && now.discarded == 0,
        "the connection is the same one: {now:?}"
    );
    assert_eq!(now.opened, 1);
}

/// The control: the driver's own cancel does not wait until it has been heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_the_drivers_own_cancel_kills_the_next_query() {
    let Some(server) = server() else { return };
    let client = plain(server, "races_control").await;
    let first = client.prepare("SELECT 1::int8, pg_sleep(0.0005)").await.unwrap();
    let second = client.prepare("SELECT 2::int8, pg_sleep(0.001)").await.unwrap();
    let mut victims = 0;
    let mut delay = Delay(Duration::from_micros(500));
    for _ in 0..ROUNDS {
        let token = client.cancel_token();
        let leaving = async {
            delay.wait().await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (first, ()) = within(async { tokio::join!(client.query(&first, &[]), leaving) }).await;
        delay.steer(first.is_err());
        if let Err(error) = within(client.query(&second, &[])).await {
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
            victims += 1;
        }
    }
    assert!(victims > 0, "nobody was hit in {ROUNDS} rounds");
}
