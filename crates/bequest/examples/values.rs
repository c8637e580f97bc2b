//! Values: typed, under a key that is private to the module that owns them.
//!
//! Run it with `cargo run -p bequest --example values`; it says nothing if every assertion holds.

use std::time::Duration;

use bequest::{Codec, Context, Key};

/// Who is asking. The key is private: these functions are the only way in and out.
mod user {
    use super::{Context, Key};

    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct User {
        pub(crate) name: String,
    }

    static USER: Key<User> = Key::new("user");

    pub(crate) fn new_context(ctx: &Context, user: User) -> Context {
        ctx.with_value(&USER, user)
    }

    pub(crate) fn from_context(ctx: &Context) -> Option<&User> {
        ctx.value(&USER)
    }
}

/// Of the same type and even of the same name as another module's key, and yet another key.
static OTHER: Key<user::User> = Key::new("user");

/// Never printed, and never sent to another process.
static TOKEN: Key<String> = Key::new("token").sensitive();

/// Sent to another process as text, of a limited length.
static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
    encode: |tenant| tenant.to_string(),
    decode: |text| text.parse().ok(),
    limit: 10,
});

fn greeting(ctx: &Context) -> String {
    match user::from_context(ctx) {
        Some(user) => format!("hello, {}", user.name),
        None => "hello, stranger".to_owned(),
    }
}

pub(crate) fn main() {
    let background = Context::background();
    let name = "ann".to_owned();
    let ctx = user::new_context(&background, user::User { name });
    assert_eq!(greeting(&ctx), "hello, ann");
    assert_eq!(
        greeting(&background),
        "hello, stranger",
        "a parent is not changed"
    );
    assert_eq!(ctx.value(&OTHER), None);

    // Go's order keeps the owner: the scope with one more value is the scope.
    let scope = ctx.with_timeout(Duration::from_secs(1)).with_value(&TENANT, 7);
    assert_eq!(scope.value(&TENANT), Some(&7));
    assert_eq!(greeting(&scope), "hello, ann");
    assert!(!scope.is_done());

    let ctx = scope.context().with_value(&TOKEN, "s3cret".to_owned());
    assert!(!format!("{ctx:?}").contains("s3cret"));
    assert_eq!(
        ctx.crossing(),
        [("tenant", "7".to_owned())],
        "only what declares how"
    );

    let received = background.with_crossed(&TENANT, "7").unwrap();
    assert_eq!(received.value(&TENANT), Some(&7));
    assert!(background.with_crossed(&TENANT, "not a tenant").is_none());
}
