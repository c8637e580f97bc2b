//! How far a scene is and how long it will take, where somebody looks: on a terminal, and nowhere else.

use std::borrow::Cow;

use indicatif::{ProgressBar, ProgressStyle};

const LINE: &str = "{msg:<44} [{bar:20}] {percent:>3} %, {eta} left";

/// The line on which a scene tells. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(scene: impl Into<Cow<'static, str>>, of: usize) -> Progress {
        let bar = ProgressBar::new(of.max(1) as u64).with_message(scene);
        Progress(match ProgressStyle::with_template(LINE) {
            Ok(style) => bar.with_style(style.progress_chars("##-")),
            Err(_) => bar,
        })
    }

    /// So much is done now.
    pub(crate) fn at(&self, done: usize) {
        self.0.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
