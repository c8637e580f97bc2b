//! `http::Extensions`: a map of values, cloned to hand one more down.

use http::Extensions;

use crate::values::{Store, Typed};

#[derive(Clone)]
pub struct Map(Extensions);

impl Store for Map {
    #[inline(always)]
    fn empty() -> Map {
        Map(Extensions::new())
    }

    #[inline(always)]
    fn with<const N: usize>(&self) -> Map {
        let mut map = self.0.clone();
        map.insert(Typed::<N>(7));
        Map(map)
    }

    #[inline(always)]
    fn get<const N: usize>(&self) -> bool {
        self.0.get::<Typed<N>>().is_some()
    }
}
