//! Whose tokens are taken.

use clap::{Args, ValueEnum};
use http::Uri;

use super::Algorithm;
use crate::settings::HttpUrl;

/// The authentication server.
#[derive(Args, Clone, Debug)]
pub(crate) struct TokenSettings {
    /// Authentication server to trust in place of the embedded one; its tokens say `iss` = this URL. With https:// its
    /// certificate is verified, see --trust
    #[arg(long, env = "BEQUEST_ISSUER", value_name = "URL", value_parser = HttpUrl)]
    pub(crate) issuer: Option<Uri>,

    /// Where its key set is, if not at ISSUER/.well-known/jwks.json
    #[arg(long, env = "BEQUEST_ISSUER_KEYS", value_name = "URL", value_parser = HttpUrl, requires = "issuer")]
    pub(crate) issuer_keys: Option<Uri>,

    /// The one algorithm with which it signs
    #[arg(
        long,
        env = "BEQUEST_ISSUER_ALGORITHM",
        value_name = "NAME",
        default_value = "EdDSA"
    )]
    pub(crate) issuer_algorithm: Algorithm,

    /// What its tokens for this service have in `aud`
    #[arg(
        long,
        env = "BEQUEST_AUDIENCE",
        value_name = "NAME",
        default_value = "bequest"
    )]
    pub(crate) audience: String,
}

impl ValueEnum for Algorithm {
    fn value_variants<'a>() -> &'a [Algorithm] {
        &[Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}
