//! TLS: who is trusted, what `sslmode` means, and that a cancel request goes the way of its session.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bequest_postgres::tokio_postgres::{CancelToken, NoTls};
use bequest_postgres::{Database, Error, Options, Step, Tls};
use bequest_test::servers::Postgres;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{LONG, ROOT, eventually, is_whole, plain, server, within};

/// What asks for TLS, and what asks for a cancel, in clear text.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];
const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// A server with a certificate for `names`, and the authority behind it.
struct Secure {
    server: Postgres,
    authority: String,
}

fn secure(names: &[&str]) -> Option<Secure> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let server = match Postgres::start_with_tls(&certificate.pem(), &key.serialize_pem()) {
        // Which says that something is left out.
        Err(error) if error.is_not_installed() => Postgres::start_or_leave_out()?,
        started => started.unwrap(),
    };
    Some(Secure {
        server,
        authority: authority.pem(),
    })
}

impl Secure {
    fn options(&self, words: &str) -> Options {
        let url = format!("{}?{words}", self.server.url());
        let options = Options::from_url(&url).unwrap().connections(1);
        options.tls(Tls::trusting(self.authority.as_bytes()).unwrap())
    }
}

async fn is_encrypted(db: &Database) -> bool {
    let row = within(db.query_one(&ROOT, ENCRYPTED, &[])).await.unwrap();
    row.get(0)
}

async fn refused(options: Options) -> Error {
    let error = within(options.open(&ROOT)).await.unwrap_err();
    assert_eq!(error.step(), Step::Connecting);
    error
}

#[tokio::test]
async fn the_mode_says_when() {
    let Some(secure) = secure(&["127.0.0.1", "localhost"]) else {
        return;
    };
    for (words, encrypted) in [
        ("sslmode=disable", false),
        ("sslmode=prefer", true),
        ("sslmode=require", true),
    ] {
        let db = within(secure.options(words).open(&ROOT)).await.unwrap();
        assert_eq!(is_encrypted(&db).await, encrypted, "{words}");
    }
    // By its name; and in the words of a URL alone.
    let file = std::env::temp_dir().join(format!("bequest-{}-root.pem", std::process::id()));
    std::fs::write(&file, &secure.authority).unwrap();
    let port = secure.server.address().port();
    for words in ["sslmode=verify-full", "sslmode=verify-ca", "sslmode=require"] {
        let url = format!(
            "postgres://postgres@localhost:{port}/postgres?hostaddr=127.0.0.1&{words}&sslrootcert={}",
            file.display()
        );
        let db = within(Database::open(&ROOT, &url)).await.unwrap();
        assert!(is_encrypted(&db).await, "{words}");
    }
    std::fs::remove_file(file).unwrap();

    // A server that does not speak it.
    let Some(plain) = server() else { return };
    let tls = || Tls::trusting(secure.authority.as_bytes()).unwrap();
    let options = |words| {
        Options::from_url(&format!("{}?{words}", plain.url()))
            .unwrap()
            .tls(tls())
    };
    let db = within(options("sslmode=prefer").open(&ROOT)).await.unwrap();
    assert!(!is_encrypted(&db).await);
    let error = refused(options("sslmode=require")).await;
    assert!(error.is_tls() && !error.is_unreachable(), "{error}");
}

/// The certificate must be for this server, and from somebody who is trusted. Whoever prefers TLS does not fall back
/// because of a wrong one.
#[tokio::test]
async fn a_wrong_certificate_is_refused() {
    let Some(elsewhere) = secure(&["elsewhere.example"]) else {
        return;
    };
    let Some(stranger) = secure(&["127.0.0.1"]) else {
        return;
    };
    for mode in ["sslmode=prefer", "sslmode=require"] {
        let error = refused(elsewhere.options(mode)).await;
        assert!(error.is_tls(), "{error}");
        let others = Tls::trusting(elsewhere.authority.as_bytes()).unwrap();
        let error = refused(stranger.options(mode).tls(others)).await;
        assert!(error.is_tls(), "{error}");
    }
    // Nobody whom the system trusts has signed it.
    let url = format!("{}?sslmode=require", stranger.server.url());
    if Tls::system().is_ok() {
        assert!(refused(Options::from_url(&url).unwrap()).await.is_tls());
    }
}

#[tokio::test]
async fn a_password_is_bound_to_the_certificate() {
    let Some(secure) = secure(&["127.0.0.1"]) else {
        return;
    };
    let admin = plain(&secure.server, "admin").await;
    admin
        .batch_execute(
            "CREATE ROLE ana LOGIN PASSWORD 'secret';
             DO $$ BEGIN EXECUTE format(
                 'COPY (VALUES (''hostssl all ana all scram-sha-256''), (''host all postgres all trust'')) TO %L',
                 current_setting('hba_file')); END $$;
             SELECT pg_reload_conf()",
        )
        .await
        .unwrap();
    let port = secure.server.address().port();
    let open = |words: &str| {
        let url = format!("postgres://ana:secret@127.0.0.1:{port}/postgres?{words}");
        let tls = Tls::trusting(secure.authority.as_bytes()).unwrap();
        Options::from_url(&url).unwrap().tls(tls).open(&ROOT)
    };
    // The server reads its rules again when it is told, and not at once.
    within(async {
        while let Err(error) = open("sslmode=require&channel_binding=require").await {
            assert!(error.code().is_some() || error.postgres().is_some(), "{error}");
        }
    })
    .await;
    let error = within(open("sslmode=disable")).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("28000"), "{error}");
    let error = within(
        open("sslmode=require")
            .await
            .unwrap()
            .query(&ROOT, "SELECT 1 / 0", &[]),
    )
    .await;
    assert_eq!(error.unwrap_err().code().map(|code| code.code()), Some("22012"));
}

/// A way to the server on which it is noted how each connection begins.
struct Way {
    port: u16,
    beginnings: Arc<Mutex<Vec<[u8; 8]>>>,
}

impl Way {
    async fn to(server: &Postgres) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, address) = (listener.local_addr().unwrap().port(), server.address());
        let beginnings: Arc<Mutex<Vec<[u8; 8]>>> = Arc::default();
        let noted = Arc::clone(&beginnings);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(address).await.unwrap();
                    let mut beginning = [0; 8];
                    client.read_exact(&mut beginning).await.unwrap();
                    noted.lock().unwrap().push(beginning);
                    server.write_all(&beginning).await.unwrap();
                    // Whichever side ends it, the other is told.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Way { port, beginnings }
    }

    fn count(&self, beginning: [u8; 8]) -> usize {
        let beginnings = self.beginnings.lock().unwrap();
        beginnings.iter().filter(|other| **other == beginning).count()
    }
}

#[tokio::test]
async fn a_cancel_is_encrypted_as_its_session_is() {
    let Some(secure) = secure(&["127.0.0.1"]) else {
        return;
    };
    for (mode, encrypted) in [("require", true), ("disable", false)] {
        let way = Way::to(&secure.server).await;
        let url = format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode={mode}",
            way.port
        );
        let tls = Tls::trusting(secure.authority.as_bytes()).unwrap();
        let db = within(
            Options::from_url(&url)
                .unwrap()
                .connections(1)
                .tls(tls)
                .open(&ROOT),
        )
        .await
        .unwrap();
        for _ in 0..20 {
            let request = ROOT.with_timeout(Duration::from_millis(10));
            assert!(
                within(db.query(&request, LONG, &[]))
                    .await
                    .unwrap_err()
                    .is_canceled()
            );
            within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
        }
        eventually("the pool is whole", || is_whole(&db)).await;
        let now = db.statistics();
        assert_eq!((now.opened, now.discarded), (1, 0), "{now:?}");
        let cancels = now.cancels_sent as usize;
        assert!(cancels >= 20);
        let (secret, open) = (way.count(SSL_REQUEST), way.count(CANCEL_REQUEST));
        let expected = if encrypted { (cancels + 1, 0) } else { (0, cancels) };
        assert_eq!((secret, open), expected);
    }
}

/// The driver's own, without the connector that its session had: who listens sees the key that cancels.
#[tokio::test]
async fn control_a_cancel_without_tls_shows_its_key() {
    let Some(secure) = secure(&["127.0.0.1"]) else {
        return;
    };
    let way = Way::to(&secure.server).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", way.port);
    let (client, connection) = bequest_postgres::tokio_postgres::connect(&url, NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let token: CancelToken = client.cancel_token();
    token.cancel_query(NoTls).await.unwrap();
    eventually("the cancel came by", || way.count(CANCEL_REQUEST) == 1).await;
}

#[test]
fn what_can_not_be_trusted_is_said() {
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n",
    ] {
        let error = Tls::trusting(pem.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let url = "postgres://localhost/shop?sslrootcert=/no/such%20file&sslmode=verify-full";
    let error = Options::from_url(url).unwrap_err();
    assert!(error.to_string().contains("/no/such file"), "{error}");
}
