//! An authentication server that is not ours: it signs with ES256, and has its key set where everybody has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// The server. It answers as long as its process lives, which is the test's.
#[derive(Debug)]
pub(crate) struct Issuer {
    addr: SocketAddr,
    pair: EcdsaKeyPair,
    speaks_tls: bool,
}

impl Issuer {
    /// In clear, or with TLS.
    pub(crate) fn start(tls: Option<ServerConfig>) -> Issuer {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let set = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "use": "sig", "kid": "its", "x": part(&point[1..33]), "y": part(&point[33..]) },
        ]});
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let (set, speaks_tls, tls) = (Arc::new(set.to_string()), tls.is_some(), tls.map(Arc::new));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (set, tls) = (Arc::clone(&set), tls.clone());
                thread::spawn(move || match tls {
                    Some(tls) => {
                        let session = ServerConnection::new(tls).expect("a configuration");
                        serve(StreamOwned::new(session, stream), &set);
                    }
                    None => serve(stream, &set),
                });
            }
        });
        Issuer {
            addr,
            pair,
            speaks_tls,
        }
    }

    pub(crate) fn url(&self) -> String {
        match self.speaks_tls {
            true => format!("https://localhost:{}", self.addr.port()),
            false => format!("http://{}", self.addr),
        }
    }

    /// A token that is good for a minute.
    pub(crate) fn token(&self, issuer: &str, audience: &str, user: &str) -> String {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since.expect("it is later than 1970").as_secs();
        let claims = json!({ "iss": issuer, "aud": [audience], "sub": user, "nbf": now, "exp": now + 60 });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            part(&json!({ "alg": "ES256", "kid": "its" })),
            part(&claims)
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// One question on one connection. An error is a peer that has gone.
fn serve(mut stream: impl Read + Write, set: &str) {
    let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    if lines.find(String::is_empty).is_none() {
        return;
    }
    drop(lines);
    let (status, body) = match first.split(' ').nth(1) {
        Some("/.well-known/jwks.json") => ("200 OK", set),
        _ => ("404 Not Found", ""),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).ok();
}
