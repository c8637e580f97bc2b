//! Database and cache behind TLS: spoken to as their URLs say, and to nobody who is not trusted.

use bequest_test::servers::{Pem, Postgres, Redis};

use crate::servers::query;
use crate::support::authority::Authority;
use crate::support::instance::{Folder, Instance};
use crate::support::until;
use crate::{BINARY, me, nodes, session};

/// Both servers with a certificate for `host`, and the file that says whom to trust for them.
struct Secure {
    postgres: Postgres,
    redis: Redis,
    folder: Folder,
}

impl Secure {
    fn start(host: &str) -> Option<Secure> {
        let (authority, folder) = (Authority::new(), Folder::new());
        std::fs::write(folder.path().join("authorities.pem"), authority.pem()).unwrap();
        let identity = authority.certify(host);
        let pem = Pem {
            certificate: &identity.certificate,
            key: &identity.key(),
            clients_authority: None,
        };
        // Which says that something is left out.
        Postgres::start_or_leave_out()?;
        Redis::start_or_leave_out()?;
        Some(Secure {
            postgres: Postgres::start_with_tls(pem.certificate, pem.key).unwrap(),
            redis: Redis::start_with_tls(pem).unwrap(),
            folder,
        })
    }

    /// With a password, which the server does not ask for.
    fn database(&self, words: &str) -> String {
        let url = self.postgres.url();
        let url = url.replace("postgres@", "postgres:s3cret@");
        format!("{url}{words}")
    }

    fn cache(&self) -> String {
        format!("rediss://{}/", self.redis.tls_address())
    }

    fn trust(&self) -> String {
        let file = self.folder.path().join("authorities.pem");
        file.to_str().unwrap().to_string()
    }

    /// How many connections of clients there are, with TLS and without, other than the question's own.
    fn connections(&self) -> (i64, i64) {
        let sql = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
                   FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let row = &query(&self.postgres.url(), sql, &[])[0];
        (row.get(0), row.get(1))
    }
}

#[test]
fn sessions_and_jobs_live_behind_tls() {
    let Some(secure) = Secure::start("127.0.0.1") else {
        return;
    };
    let (cache, trust) = (secure.cache(), secure.trust());
    for (words, is_secret) in [
        ("?sslmode=require", true),
        ("?sslmode=verify-full", true),
        ("?sslmode=prefer", true),
        ("", false),
    ] {
        let database = secure.database(words);
        let flags = ["--database", &database, "--cache", &cache, "--trust", &trust];
        let nodes = [Instance::start(BINARY, &flags), Instance::start(BINARY, &flags)];
        let id = session(&nodes[0], "ann");
        // A first read may spend the 20 ms that it has for the cache on the handshake; the database answers it then.
        until("a read by the cache", || {
            assert_eq!(me(&nodes[1], &id), 200);
            (nodes[1].metric("bequest_session_cache_hits_total") > 0).then_some(())
        });
        assert_eq!(nodes[0].get("/report?ms=20").status, 200);
        let (secret, open) = secure.connections();
        // The pools, and the claims' own connections.
        assert!(
            if is_secret {
                secret >= 6 && open == 0
            } else {
                open >= 6 && secret == 0
            },
            "{words}"
        );
        assert!(!nodes[0].logged().contains("s3cret"));
    }
    // The URL can say by itself whom to trust.
    let words = format!("?sslmode=verify-full&sslrootcert={trust}");
    let database = secure.database(&words);
    let alone = Instance::start(BINARY, &["--database", &database]);
    assert_eq!(me(&alone, &session(&alone, "ann")), 200);
}

#[test]
fn who_is_not_trusted_keeps_the_service_from_starting() {
    let Some(secure) = Secure::start("127.0.0.1") else {
        return;
    };
    let Some(elsewhere) = Secure::start("elsewhere.test") else {
        return;
    };
    let refused = |flags: &[&str], says: &[&str]| {
        let output = nodes::refused(flags);
        let said = String::from_utf8_lossy(&output.stderr);
        for says in says {
            assert!(said.contains(says), "{says:?} in {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
    };
    let (database, cache) = (secure.database("?sslmode=require"), secure.cache());
    refused(
        &["--database", &database],
        &["the database at postgres://127.0.0.1:", "UnknownIssuer"],
    );
    refused(
        &["--cache", &cache],
        &["the cache at rediss://127.0.0.1:", "UnknownIssuer"],
    );

    let trust = elsewhere.trust();
    let (database, cache) = (elsewhere.database("?sslmode=verify-full"), elsewhere.cache());
    refused(
        &["--database", &database, "--trust", &trust],
        &["the database at", "not valid for name"],
    );
    refused(
        &["--cache", &cache, "--trust", &trust],
        &["the cache at", "not valid for name"],
    );

    let unknown = secure.database("?sslmode=allow");
    refused(&["--database", &unknown], &["the database at", "sslmode"]);
    let insecure = format!("{}#insecure", secure.cache());
    refused(&["--cache", &insecure], &["--cache", "always verified"]);
}

#[test]
fn a_server_that_speaks_no_tls_is_not_spoken_to_in_clear() {
    let Some(plain) = crate::servers::Stores::new() else {
        return;
    };
    let database = format!("{}?sslmode=require", plain.database);
    let output = nodes::refused(&["--database", &database]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the database at") && said.contains("TLS"), "{said}");
    let cache = plain.cache.replace("redis://", "rediss://");
    let output = nodes::refused(&["--cache", &cache]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the cache at"), "{said}");
}
