//! A vector with reusable places: insert answers a number by which the entry is taken out again.

/// Entries under numbers; the numbers of removed entries are given out again.
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

/// A slab that once held more than this gives its memory back when it becomes empty.
const KEPT_WHEN_EMPTY: usize = 64;

impl<T> Slab<T> {
    pub(super) const fn new() -> Slab<T> {
        Slab {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, entry: T) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(entry);
                place
            }
            None => {
                self.places.push(Some(entry));
                self.places.len() - 1
            }
        }
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<T> {
        let entry = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        if self.free.len() == self.places.len() && self.places.capacity() > KEPT_WHEN_EMPTY {
            *self = Slab::new();
        }
        Some(entry)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// All entries, in the order of their places; the slab is empty afterwards.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::replace(self, Slab::new()).places.into_iter().flatten()
    }
}
