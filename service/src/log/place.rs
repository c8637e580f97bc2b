//! Where in the source an answer was decided: function, file and line.

use std::borrow::Cow;

/// A place in the source. Made by [`here!`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Empty if nobody knows.
    function: &'static str,
    file: Cow<'static, str>,
    line: u32,
}

/// The place where it is written, with the function around it.
///
/// The compiler knows file and line; the function's name is that of an item inside it, less its own last part.
macro_rules! here {
    () => {{
        fn here() {}
        $crate::log::Place::inside(
            ::std::any::type_name_of_val(&here),
            ::std::file!(),
            ::std::line!(),
        )
    }};
}

pub(crate) use here;

impl Place {
    /// The place around an item of this name.
    pub(crate) fn inside(item: &'static str, file: &'static str, line: u32) -> Place {
        let mut function = item.rsplit_once("::").map_or(item, |(around, _)| around);
        // An async function's body, and a closure in it, are items of their own; people look for the function.
        while let Some(around) = function.strip_suffix("::{{closure}}") {
            function = around;
        }
        Place {
            function,
            file: file.into(),
            line,
        }
    }

    /// Where something panicked. The function is not known.
    pub(crate) fn of_panic(at: &bequest_http::server::Place) -> Place {
        Place {
            function: "",
            file: at.file().to_owned().into(),
            line: at.line(),
        }
    }

    /// The function with its path.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// The file's name without its folders.
    pub(crate) fn file_name(&self) -> &str {
        self.file.rsplit(['/', '\\']).next().unwrap_or(&self.file)
    }

    pub(crate) fn line(&self) -> u32 {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Place {
        here!()
    }

    async fn in_a_closure_of_an_async_function() -> Place {
        let place = || here!();
        place()
    }

    #[test]
    fn the_function_around_is_named() {
        let place = plain();
        assert_eq!(place.function(), "bequest::log::place::tests::plain");
        assert_eq!(place.file_name(), "place.rs");
        assert!(place.line() > 1 && place.line() < line!());
    }

    #[tokio::test]
    async fn closures_and_async_bodies_are_their_function() {
        let place = in_a_closure_of_an_async_function().await;
        assert_eq!(
            place.function(),
            "bequest::log::place::tests::in_a_closure_of_an_async_function"
        );
    }
}
