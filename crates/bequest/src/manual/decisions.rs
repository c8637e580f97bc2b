//! Why it is decided like this: sessions, logs, jobs and stores, each decision with the incident that taught it.
//!
//! The decisions are those of the reference service and of the crates for stores. Most of them look like details, and each
//! has cost somebody users, money or a night. An incident is named by its project and the number of its issue, or by its
//! CVE or advisory, so that it can be looked up.
//!
//! # Sessions
//!
//! ## What was ended stays ended
//!
//! *Incident.* Keycloak 26, issue 51127 (2026): sessions that had been logged out came back. A reader had found nothing in
//! the cache and asked the database; the logout removed the session in both; then the reader put what it had read into the
//! cache. Eight readers made it happen within two rounds. The mending was a tombstone of 30 s (PR 53045).
//!
//! *Decision.* A logout is a revocation in the database (the generation grows), then a tombstone in the cache, then the removal,
//! the last two in one step. A refill is kept only if no tombstone stands and nothing newer is there; the tombstone outlives the
//! longest way from a read to its refill, which therefore has a limit. In miniature:
//!
//! ```
//! use std::collections::HashMap;
//!
//! #[derive(Clone, Debug, PartialEq)]
//! enum Slot { Session(&'static str), Tombstone }
//!
//! fn refill(cache: &mut HashMap<u32, Slot>, id: u32, read: &'static str) -> bool {
//!     if cache.get(&id) == Some(&Slot::Tombstone) {
//!         return false; // it was ended while we were asking
//!     }
//!     cache.insert(id, Slot::Session(read));
//!     true
//! }
//!
//! let mut cache = HashMap::new();
//! let read = "ann"; // a reader has asked the database
//! cache.insert(7, Slot::Tombstone); // meanwhile, a logout
//! assert!(!refill(&mut cache, 7, read), "and the reader comes too late");
//!
//! let mut naive = HashMap::from([(7, Slot::Session("ann"))]);
//! naive.remove(&7); // the same logout without a tombstone
//! assert!(refill(&mut naive, 7, read), "signed out, and signed in again by nobody");
//! ```
//!
//! ## A cache that was away is not believed for long
//!
//! *Incident.* The same class, seen from the other side: if the cache does not hear of a logout, it goes on saying what it
//! knew. argos (issue 2254) settled on asking the database again every ten minutes.
//!
//! *Decision.* What is cached carries when the database last confirmed it, and is confirmed again after 60 s at the latest.
//! A logout that could not reach the cache says in its answer that it holds within that time, and not at once. Without cache
//! and database the answer is a refusal, never a yes.
//!
//! ## A node that cannot hear does not start
//!
//! *Incident.* agent-native 4302 (2026): the logout cleared a cache, in the process that it came to. The next request came to
//! another one, which had a cache of its own, and was signed in. Between two sites the same was Keycloak 29592.
//!
//! *Decision.* A cache in the process is for a node that has its database to itself. It says so by a lock there, which the system or
//! the server lets go of when the node is gone, however that ended; a second node refuses to start, unless all of them share a
//! cache, the same one: two nodes with a Redis each are two nodes without. A node that has lost its lock to another believes no cache
//! any more.
//!
//! ## The end of a session is in its row
//!
//! *Incident.* hazelcast-wm 73: reads were answered by a copy nearby, the shared map's own timer heard nothing of them, and busy
//! sessions ended as idle. The opposite is as easy: where a miss is filled again from the database, a cache's timer ends nothing.
//!
//! *Decision.* How long an entry is cached says nothing of how long the session lasts. The row has when it was last used and when it
//! ends at the latest; reads from the cache are confirmed every minute, and the use is noted then.
//!
//! ## No whole record is ever saved
//!
//! *Incident.* boj/redistore 2, connect-redis 328, starsessions 58, better-auth 11073, tower-sessions 35 to 37: one and the same
//! mistake in five projects. A slow request saves the session that it had loaded, over a logout or a change that came in
//! between.
//!
//! *Decision.* `last_seen` is a statement of its own, at most once a minute, forwards only, and not for what was ended. It runs on
//! a context that outlives the request, with a limit of its own, since nobody is to wait for it:
//!
//! ```
//! use bequest::{Context, Key, Reason};
//! use std::time::Duration;
//!
//! static USER: Key<&'static str> = Key::new("user");
//!
//! let request = Context::background().with_cancel().with_value(&USER, "ann");
//! let note = request.without_cancel().with_timeout(Duration::from_secs(2)).named("last seen");
//! request.cancel_for(Reason::ClientGone);
//! assert!(!note.is_done(), "it is written although the client left");
//! assert_eq!(note.value(&USER), Some(&"ann"), "and its trace and user are known");
//! assert!(note.deadline().is_some(), "but it can not hang for ever");
//! ```
//!
//! ## A question that many wait for belongs to none of them
//!
//! *Incident.* moka 240: many wait for the one who fills the cache; that one is cancelled, the next begins anew, is cancelled
//! as well, and with limits shorter than the load the cache is never filled.
//!
//! *Decision.* One flight for each id, in a task and under a context of its own; those who wait do so under theirs. One that
//! leaves disturbs nobody. When the last has left, the flight is cancelled, and with it the query.
//!
//! ## Each step has its own budget, and its error a name
//!
//! *Incident.* A cache that hangs is worse than one that is down: without a limit of its own it eats the whole request, and the
//! database that would have answered is asked too late. "Whose limit was it?" is the most wished-for answer around Go's contexts
//! (golang/go 26356 and 64465, k6 5535).
//!
//! *Decision.* 20 ms for the cache, a second for the database, each within what is left; and the next step is taken only if the
//! limit was the step's own:
//!
//! ```
//! use bequest::{Canceled, Context};
//! use std::time::Duration;
//!
//! fn ask_cache(ctx: &Context) -> Result<&'static str, Canceled> {
//!     Err(ctx.wait()) // it hangs
//! }
//!
//! fn look_up(request: &Context) -> Result<&'static str, Canceled> {
//!     let step = request.with_timeout(Duration::from_millis(1)).named("session cache");
//!     match ask_cache(&step) {
//!         Err(end) if end.is_from(&step) => Ok("from the database"), // my own limit: the request lives on
//!         other => other,
//!     }
//! }
//!
//! let request = Context::background().with_cancel();
//! assert_eq!(look_up(&request).unwrap(), "from the database");
//! request.cancel();
//! assert!(look_up(&request).unwrap_err().is_from(&request), "nobody wants it: no second step");
//! ```
//!
//! ## A new id at every login, and only its hash is kept
//!
//! *Incident.* ezauth 130 (2026): a whole library had forgotten to change the id at login, so who planted an id beforehand was
//! signed in with its victim (fixation). scs 257: the store has the ids in clear, so who reads a backup is everybody.
//!
//! *Decision.* 256 random bits, a new id at each login, the old session ended in the same transaction. Database, cache and logs
//! see SHA-256 of it. The test asks whether the *old* id is refused, and not whether the new one differs.
//!
//! ## The way back from the login page stays here
//!
//! *Incident.* nextjs-auth0 555: `/%09/evil.example` left the site, since browsers drop a tab.
//!
//! *Decision.* `next` is a path of this origin after decoding: one slash, no second, no backslash, no control character. The test
//! asks a browser's own parser.
//!
//! ## Who is asking is told by the middleware alone
//!
//! *Incident.* CVE-2025-64484 (oauth2-proxy): `X_Forwarded_User` passed the filter that `X-Forwarded-User` did not pass, and the
//! application behind took one for the other. traefik mended the same (PR 12961), and found it again with dots in place of the
//! underscores.
//!
//! *Decision.* What reads like the name of an identity, once whatever is no letter and no digit is a hyphen, is taken out before
//! anything else is done, and only then is ours set. Handlers here do not read headers at all: the session is in the context, under a
//! key that is private to the module that checked it.
//!
//! ## A key set is asked for rarely, and never thrown away
//!
//! *Incident.* fastapi-zitadel-auth 149 (2026): a token that named a key nobody knew made the verifier throw all keys away and fetch
//! them anew, before any signature was looked at; a stream of such tokens took the good keys from everybody, over and over, and went
//! on to the issuer. Others had a limit with a hole in it: tilegroxy 883 (a refresh on demand passed it by), mobula 28 (an empty set
//! did).
//!
//! *Decision.* Whatever clients send, the set is fetched once a minute at most, once a second as long as there is none, counted from
//! the beginning of the last try and not by what came of it. What was read last stays in use until something better has been read:
//! the server may be away, hang, answer nonsense, or be somebody else behind its address. The fetch belongs to no request.
//!
//! ## A claim of the wrong type is no absent claim
//!
//! *Incident.* CVE-2026-25537: a token whose `nbf` or `exp` was text and not a number passed, because what could not be read
//! counted as not there. GHSA-rp9m-7r4c-75qg: a cache of verified tokens mixed two of them up.
//!
//! *Decision.* Every claim is required and typed; the algorithm is fixed by the issuer and not by the token; results are not
//! cached, the session is.
//!
//! # Logs
//!
//! ## The line is there before the answer
//!
//! *Incident.* Nobody's in particular, everybody's: the process is killed, or panics, between the answer and the line, and the
//! one answer that mattered was never logged. A panic in a handler often closes the connection with no line at all.
//!
//! *Decision.* There is one way out, and it tells the log before there is a response. Panics, spent limits and the router's own
//! refusals take it too. Because a slow disk must not hold requests either, "tells" means queued: what cannot be written is
//! bounded, counted, and told.
//!
//! ## A client that left is not an error
//!
//! *Incident.* Kuma 11821, influxdb 18096, tailscale 193 and others: alarms at night about 500s that were clients closing their
//! laptops. The opposite mistake is monzo/typhon 86: a cancelled *part* of a request passed for a client that had left.
//!
//! *Decision.* 499 in the access log and the metrics, no line in the error log, nothing sent. A child's end while the request
//! lives is a 500, because it is our own fault. The reason tells the two apart:
//!
//! ```
//! use bequest::{Context, Reason};
//!
//! let request = Context::background().with_cancel();
//! let part = request.with_cancel();
//! part.cancel();
//! let end = part.err().unwrap();
//! assert!(!request.is_done() && !end.is_from(&request), "our own fault");
//!
//! let part = request.with_cancel();
//! request.cancel_for(Reason::ClientGone);
//! assert_eq!(part.err().unwrap().reason(), Reason::ClientGone, "nobody's");
//! ```
//!
//! ## Whatever a client sends, one request is one line
//!
//! *Incident.* RUSTSEC-2025-0055: a logging library wrote what a client had sent as it was, escape sequences included, to
//! whoever looked at the log in a terminal.
//!
//! *Decision.* What a client chose is escaped byte by byte in access lines, and in JSON beyond what JSON asks for: terminal
//! controls, marks of direction, invisible characters. 100 000 random requests are read back by a parser.
//!
//! # Jobs
//!
//! ## Told, then grace, then dropped
//!
//! *Incident.* dropshot 701: its handlers became detached by default, because most code is not safe against being dropped in the
//! middle; 965 then had to add a guard just to notice that the client had left. Between "dies without warning" and "runs for
//! ever" there was nothing.
//!
//! *Decision.* A handler hears of the end by its context and has a grace. What is to outlive its request is a job, with a
//! number, a limit, a row in the database, and a scope of all jobs through which the shutdown can tell them:
//!
//! ```
//! use bequest::{Context, Reason};
//! use std::time::Duration;
//!
//! let (request, all) = (Context::background().with_cancel(), Context::background().with_cancel());
//! let job = Context::any([request.without_cancel(), all.context()]);
//! let job = job.with_timeout(Duration::from_secs(300)).named("job");
//! request.cancel_for(Reason::ClientGone);
//! assert!(!job.is_done(), "it outlives its request");
//! all.cancel_for(Reason::Shutdown);
//! assert_eq!(job.err().unwrap().reason(), Reason::Shutdown, "and not the service");
//! ```
//!
//! ## Acknowledged is written
//!
//! *Incident.* Every queue that answers first and writes later: a kill in between, and what somebody was told of has never
//! been.
//!
//! *Decision.* A job's row, a session's row, is committed before its number or id is known to anybody. After `kill -9` the next
//! start finds the rows that say `running` and reports them as interrupted. Both are tested by killing.
//!
//! ## A shutdown has a budget for each kind of guest
//!
//! *Incident.* axum 2673 and 1070, mold 1415: one open event stream held every restart for the whole drain, 45 s each time.
//!
//! *Decision.* Streams and idle connections end at once, requests have the drain, jobs a drain of their own, then each is told,
//! then dropped. A second signal skips.
//!
//! # Stores
//!
//! ## A connection is handed on clean, or closed
//!
//! *Incident.* OpenAI, 20 March 2023 (CVE-2023-28858, and 28859 since the first mending was not complete): a request was cancelled
//! after its command had been sent and before the reply was read. The connection went back to the pool one reply behind, and
//! users saw each other's chat titles. The same class: CVE-2025-29923 (go-redis), CVE-2025-47907 (Go's `database/sql`), redis-rs
//! 325, deadpool 97.
//!
//! *Decision.* A connection goes back at one place, which only a clean path reaches: every reply has been read, no transaction is
//! open, no cancel is on its way. In doubt it is closed. The chapter [`writing_an_integration`](super::writing_an_integration) has
//! the pattern; `bequest torture` counts foreign answers, which are none, beside a naive client, which has thousands.
//!
//! ## A transaction does not end half-way
//!
//! *Incident.* sqlx 4385 and 4393 (2026): a cancelled `BEGIN` left an open transaction in the pool; a later borrower's
//! `INSERT` was answered and lost. Windmill lost about twenty minutes of work on one machine that way.
//!
//! *Decision.* The state is read off the server's answers and not guessed from what was sent. A cancel is a rollback, which runs on
//! a context that ignores the end and has a limit; nothing of the transaction runs afterwards in autocommit:
//!
//! ```
//! use bequest::Context;
//! use std::time::Duration;
//!
//! let request = Context::background().with_cancel();
//! request.cancel();
//! let tidying = request.cleanup(Duration::from_secs(5)).named("rollback");
//! assert!(!tidying.is_done(), "the request has ended, and the rollback may run");
//! assert!(tidying.remaining().unwrap() <= Duration::from_secs(5), "for so long");
//! ```
//!
//! ## A cancel hits its own query
//!
//! *Incident.* lib/pq 1001: a few times a day a query was cancelled that nobody had cancelled. A cancel request names a connection and not
//! a statement; sent without waiting, it hit the next user's statement in 262 to 272 of 400 tries of our own.
//!
//! *Decision.* The cancel's connection is read to its end, which the server closes after it has signalled; only then may the next
//! statement be sent. SQLite is never interrupted from outside at all: its statements read the context themselves.
//!
//! ## A job that was popped is somebody's
//!
//! *Incident.* A `BLPOP` that was given up on the client goes on in the server, and swallows the next job; with a driver whose default limit
//! is 500 ms that is the usual case (redis-rs 453, 1236).
//!
//! *Decision.* Blocking commands have connections of their own and are ended by `CLIENT UNBLOCK`, whose reply is awaited: either
//! nothing was taken, or the element is returned, or put back.
//!
//! ## Tidying up has bounds
//!
//! *Incident.* sqlx 4349: connections that were being tidied up without a limit held their places until the pool was empty.
//!
//! *Decision.* A connection that is made clean holds its place, so the server never works for more than the pool allows; it has a limit,
//! after which it is closed; and cancels are bounded in number, so that a crowd that leaves at once is no crowd of cancels.
