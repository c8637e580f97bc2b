//! What a job does: it digests the corpus, passage by passage.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bequest::{Canceled, Context};

use crate::search::corpus;

/// How long a job rests after each passage. It is a gentle job; and one can watch it.
const REST: Duration = Duration::from_millis(10);

/// Digests the corpus, counting the passages in `done`.
///
/// # Cancel safety
///
/// It ends at the passage where it stands when `ctx` ends, and has nothing to put away.
///
/// # Errors
///
/// The end of `ctx`.
pub(super) async fn digest(ctx: &Context, done: &AtomicU32) -> Result<String, Canceled> {
    let (mut words, mut longest) = (0, "");
    for passage in corpus::passages() {
        ctx.sleep(REST).await?;
        words += passage.text.split_whitespace().count();
        if passage.title.chars().count() > longest.chars().count() {
            longest = passage.title;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(format!("{words} words; the longest title is {longest:?}"))
}
