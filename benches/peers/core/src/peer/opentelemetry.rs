//! OpenTelemetry's context: a map of values behind a count, copied by each addition.

use opentelemetry::Context;

use crate::values::{Store, Typed};

#[derive(Clone)]
pub struct Otel(Context);

impl Store for Otel {
    #[inline(always)]
    fn empty() -> Otel {
        Otel(Context::new())
    }

    #[inline(always)]
    fn with<const N: usize>(&self) -> Otel {
        Otel(self.0.with_value(Typed::<N>(7)))
    }

    #[inline(always)]
    fn get<const N: usize>(&self) -> bool {
        self.0.get::<Typed<N>>().is_some()
    }
}
