//! The user's IP address, carried by the context.
//!
//! The key is private to this module, so that nobody else can read or forge the address: these three functions are all
//! there is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bequest::{Codec, Context, Key};

/// Crosses to other processes, so that the search back end may know whom it works for.
static USER_IP: Key<IpAddr> = Key::new("userip").crossing(Codec {
    encode: |ip| ip.to_string(),
    decode: |text| text.parse().ok(),
    limit: 45,
});

/// A remote address that is not an IP address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAnAddress(String);

/// The IP address of a remote address as a listener reports it, `192.0.2.1:4711` or `[2001:db8::1]:4711`.
pub(crate) fn from_request(remote: &str) -> Result<IpAddr, NotAnAddress> {
    match remote.parse::<SocketAddr>() {
        Ok(address) => Ok(address.ip()),
        Err(_) => Err(NotAnAddress(remote.to_string())),
    }
}

/// `ctx` with the user's address.
pub(crate) fn new_context(ctx: &Context, ip: IpAddr) -> Context {
    ctx.with_value(&USER_IP, ip)
}

/// The user's address, if `ctx` carries one.
pub(crate) fn from_context(ctx: &Context) -> Option<IpAddr> {
    ctx.value(&USER_IP).copied()
}

impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "userip: {:?} is not IP:port", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_in_the_context() {
        let ip = from_request("192.0.2.1:4711").unwrap();
        let ctx = new_context(&Context::background(), ip);
        assert_eq!(from_context(&ctx), Some(ip));
        assert_eq!(from_context(&Context::background()), None);
        assert_eq!(
            from_request("[2001:db8::1]:80").unwrap().to_string(),
            "2001:db8::1"
        );
    }

    #[test]
    fn a_bad_address_is_named() {
        for bad in ["192.0.2.1", "localhost:80", "", "192.0.2.1:99999"] {
            assert_eq!(
                from_request(bad).unwrap_err().to_string(),
                format!("userip: {bad:?} is not IP:port")
            );
        }
    }
}
