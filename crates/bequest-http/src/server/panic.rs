//! Catching a handler's panic together with the place it came from.
//!
//! The place is known only to the process's panic hook, so the first server puts one in front of whatever hook is there.
//! It takes notes on threads that are inside [`catch`], and in any case calls the hook that was there before: what a
//! program does about panics does not change.
//!
//! # Invariants
//!
//! 1. The hook never panics itself, and never keeps the previous one from running.
//! 2. Notes are taken only inside [`catch`], and belong to the innermost one on the thread.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// A caught panic: its message, and where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    message: String,
    place: Option<Place>,
}

/// A line of source code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: String,
    line: u32,
}

thread_local! {
    /// How many calls of [`catch`] this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic began at each depth, the innermost last.
    static NOTES: RefCell<Vec<(usize, Place)>> = const { RefCell::new(Vec::new()) };
}

impl Panic {
    /// What the panic said.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where it began; `None` only if the program replaced the panic hook after the server had started.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    fn new(payload: &(dyn Any + Send), place: Option<Place>) -> Panic {
        let message = payload
            .downcast_ref::<&'static str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a value that is no text".to_owned());
        Panic { message, place }
    }
}

impl Place {
    /// The file, as the compiler knew it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "panicked at {place}: {}", self.message),
            None => write!(f, "panicked: {}", self.message),
        }
    }
}

impl std::error::Error for Panic {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Puts the note-taking hook in front of the present one, once per process.
pub(super) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            take_notes(info);
            previous(info);
        }));
    });
}

/// Runs `work` and turns a panic in it into an error.
///
/// Whatever `work` borrowed is to be given up by the caller after a panic, as it may be half-changed.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    let depth = DEPTH.get() + 1;
    DEPTH.set(depth);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(depth - 1);
    result.map_err(|payload| Panic::new(&*payload, notes_of(depth)))
}

/// Takes what was noted at this depth, and gives up whatever was noted further in.
fn notes_of(depth: usize) -> Option<Place> {
    NOTES.with_borrow_mut(|notes| {
        let at = notes.iter().position(|(noted_at, _)| *noted_at >= depth)?;
        let mut taken = notes.split_off(at);
        let of_depth = taken.iter().position(|(noted_at, _)| *noted_at == depth)?;
        Some(taken.swap_remove(of_depth).1)
    })
}

fn take_notes(info: &PanicHookInfo<'_>) {
    let depth = DEPTH.try_with(Cell::get).unwrap_or(0);
    let Some(place) = info.location().filter(|_| depth > 0) else {
        return;
    };
    let place = Place {
        file: place.file().to_owned(),
        line: place.line(),
    };
    // Failures are harmless and must stay silent (invariant 1): at thread exit, or if the thread panicked while it took
    // notes, there is nobody to take notes for.
    let _ = NOTES.try_with(|notes| {
        if let Ok(mut notes) = notes.try_borrow_mut() {
            notes.retain(|(noted_at, _)| *noted_at < depth);
            notes.push((depth, place));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_message_and_line() {
        install_hook();
        let line = line!() + 1;
        let caught = catch(|| panic!("out of {}", "paper")).expect_err("it panics");
        assert_eq!(caught.message(), "out of paper");
        assert_eq!(caught.place().map(Place::line), Some(line));
        assert!(caught.place().expect("a place").file().ends_with("panic.rs"));
    }

    #[test]
    fn notes_belong_to_the_innermost_catch() {
        install_hook();
        let outer = catch(|| {
            let inner = catch(|| panic!("inner")).expect_err("inner panics");
            assert_eq!(inner.message(), "inner");
            7
        });
        assert_eq!(outer, Ok(7));
    }

    #[test]
    fn a_panic_that_is_caught_on_the_way_of_another_leaves_its_note_alone() {
        /// Catches a panic of its own while it is dropped.
        struct Catches;

        impl Drop for Catches {
            fn drop(&mut self) {
                let caught = catch(|| panic!("inner")).expect_err("inner panics");
                assert_eq!(caught.message(), "inner");
            }
        }

        install_hook();
        let line = line!() + 3;
        let caught = catch(|| {
            let _catches = Catches;
            panic!("outer")
        });
        let caught: Panic = caught.map(|(): ()| ()).expect_err("outer panics");
        assert_eq!(caught.place().map(Place::line), Some(line));
    }
}
