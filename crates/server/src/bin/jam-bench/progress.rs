//! A bar on the terminal for one stage after another; nothing when standard error is no terminal.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{prefix:<10} {bar:30} {msg}";

/// At most so many times in a second; between two of them `detail` is not asked for.
const REDRAWS: u8 = 5;

/// The bar; cleared when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    drawn: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(wanted: bool) -> Self {
        let target = if wanted {
            ProgressDrawTarget::stderr_with_hz(REDRAWS)
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(TEMPLATE).expect("a valid template");
        Self {
            bar: ProgressBar::with_draw_target(Some(0), target).with_style(style),
            drawn: None,
        }
    }

    /// Draws, if the last time is long enough ago.
    pub(crate) fn show(
        &mut self,
        stage: &str,
        done: u64,
        all: u64,
        detail: impl FnOnce() -> String,
    ) {
        let is_early = |drawn: Instant| drawn.elapsed().as_millis() < 1000 / u128::from(REDRAWS);
        if self.bar.is_hidden() || self.drawn.is_some_and(is_early) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.bar.set_prefix(stage.to_owned());
        self.bar.set_length(all);
        self.bar.set_message(detail());
        self.bar.set_position(done.min(all));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
