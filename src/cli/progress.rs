//! How far long work is: a bar with rate and time left on a terminal, plain lines now and then elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printing::size;

/// Between two plain lines, in seconds.
const LINE_SECONDS: u64 = 10;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counts {
    Bytes,
    Entries,
}

/// One piece of long work. Tells on standard error, so that results can be piped.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    began: std::time::Instant,
    /// When the next plain line is due, in seconds.
    next_line: u64,
    name: String,
    counts: Counts,
}

impl Progress {
    /// Of nothing yet.
    #[allow(
        clippy::disallowed_methods,
        reason = "the command line shows real time, and decides nothing by it"
    )]
    pub(super) fn new(name: &str, counts: Counts) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            bar.set_style(style(counts));
            bar.set_message(name.to_string());
            bar
        });
        let (began, next_line) = (std::time::Instant::now(), LINE_SECONDS);
        Progress { bar, began, next_line, name: name.to_string(), counts }
    }

    /// So much is done of so much.
    pub(super) fn set(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let seconds = self.began.elapsed().as_secs();
        if seconds >= self.next_line {
            self.next_line = seconds + LINE_SECONDS;
            eprintln!("{}", line(&self.name, self.counts, done, total, seconds));
        }
    }

    /// It is done: the bar goes.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(counts: Counts) -> ProgressStyle {
    let template = match counts {
        Counts::Bytes => {
            "{msg} [{bar:30}] {percent}% {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left"
        }
        Counts::Entries => {
            "{msg} [{bar:30}] {percent}% {human_pos} of {human_len} entries, {per_sec}, {eta} left"
        }
    };
    ProgressStyle::with_template(template).expect("the template is sound").progress_chars("=> ")
}

/// `shards: 12 % (1.20 GB of 10.0 GB), 120 MB/s, 73 s left`
fn line(name: &str, counts: Counts, done: u64, total: u64, seconds: u64) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    let rate = done / seconds.max(1);
    let left = total.saturating_sub(done).checked_div(rate).map(|left| format!(", {left} s left"));
    let left = left.unwrap_or_default();
    match counts {
        Counts::Bytes => {
            let (done, total, rate) = (size(done), size(total), size(rate));
            format!("{name}: {percent} % ({done} of {total}), {rate}/s{left}")
        }
        Counts::Entries => {
            format!("{name}: {percent} % ({done} of {total} entries), {rate}/s{left}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_sound() {
        style(Counts::Bytes);
        style(Counts::Entries);
    }

    #[test]
    fn plain_lines_say_rate_and_time_left() {
        assert_eq!(
            line("shards", Counts::Bytes, 1_200_000_000, 10_000_000_000, 10),
            "shards: 12 % (1.20 GB of 10.0 GB), 120 MB/s, 73 s left"
        );
        assert_eq!(
            line("index", Counts::Entries, 500, 1000, 5),
            "index: 50 % (500 of 1000 entries), 100/s, 5 s left"
        );
        assert_eq!(line("x", Counts::Entries, 0, 0, 0), "x: 100 % (0 of 0 entries), 0/s");
    }
}
