//! Kills every second, and minutes of conversation.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::report::ratio;
use super::stage::{Stage, Usage};
use super::talk::{Replay, Size, Talk};
use super::{Figures, Tools};

const KILLS: &str = "--days 3 --churn --churn-every 5 --kill-every 1 --patience 60 --edits 0.1 --deletes 0.03 \
                     --reactions 0.1";
/// Lines of each channel. Channels follow each other, each with a minute of conversation.
const SOAK_LINES: u64 = 1_000;
const CHANNEL_LASTS: Duration = Duration::from_secs(60);
/// Most sockets at the same time.
const SOAK_SOCKETS: &str = "500";
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Limit of growth, as a multiple of the figure after the first quarter.
const GROWS_TO: f64 = 1.1;

/// The load tool runs the server itself, and kills it while a send is in flight.
pub(super) fn kills(tools: &Tools) -> Result<Figures> {
    let mut figures = Figures::new();
    for (kind, name) in [("group", "groups"), ("open", "open channels")] {
        let stage = Stage::new(tools, &format!("kills-{kind}"))?;
        let (madang, data) = (tools.program("madang"), stage.data());
        let (madang, data, addr) = (madang.display(), data.display(), stage.addr);
        let server = format!("{madang} serve --limits off --addr {addr} --data {data}");
        let source = match &tools.corpus {
            Some(path) => ["--corpus".to_owned(), path.display().to_string()],
            None => ["--synthetic".to_owned(), "3".to_owned()],
        };
        let mut args: Vec<String> = KILLS.split_whitespace().map(str::to_owned).collect();
        args.extend(source);
        args.extend(["--channel-kind".to_owned(), kind.to_owned(), "--server".to_owned(), server]);
        args.extend(["--server-log".to_owned(), stage.log().display().to_string()]);
        let report = Replay::start(&stage, name, &args)?.finish()?;
        stage.check(&stage.data())?;
        for figure in
            ["acked", "retried", "acked_by_retry", "kills", "kills_with_appends_in_flight", "resumes"]
        {
            ensure!(
                report[figure].as_u64() > Some(0),
                "the run of {name} had no {figure}: it proves nothing"
            );
            figures.insert(format!("{kind}_{figure}"), report[figure].clone());
        }
    }
    Ok(figures)
}

/// Memory and open files at the end must be about those after the first quarter.
pub(super) fn soak(tools: &Tools) -> Result<Figures> {
    let mut stage = Stage::new(tools, "soak")?;
    stage.start()?;
    let seconds = CHANNEL_LASTS.as_secs();
    let size = Size { days: tools.soak.as_secs() / seconds, lines: SOAK_LINES, seconds };
    let mut talk = Talk::start(&stage, size, &["--churn", "--sockets", SOAK_SOCKETS])?;
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while !talk.is_over()? {
        samples.push(stage.usage()?);
        sleep(SAMPLE_EVERY);
    }
    let lasted = begun.elapsed();
    let mut figures = talk.finish()?;
    stage.stop_and_check()?;
    for (name, of) in [("rss_kib", rss as fn(&Usage) -> u64), ("open_files", files)] {
        let (quarter, end) = (around(&samples, 1, of), around(&samples, 4, of));
        let grown = ratio(end, quarter);
        figures.insert(format!("{name}_at_a_quarter"), quarter.into());
        figures.insert(format!("{name}_at_the_end"), end.into());
        ensure!(grown <= GROWS_TO, "{name} grew to {grown} of the first quarter's: {quarter}, {end}");
    }
    figures.insert("minutes".to_owned(), (lasted.as_secs() / 60).into());
    Ok(figures)
}

fn rss(usage: &Usage) -> u64 {
    usage.rss_kib
}

fn files(usage: &Usage) -> u64 {
    usage.open_files
}

/// The median of the samples in the tenth of the run that ends at this quarter.
fn around(samples: &[Usage], quarter: usize, of: fn(&Usage) -> u64) -> u64 {
    let end = samples.len() * quarter / 4;
    let mut part: Vec<u64> = samples[end - samples.len() / 10..end].iter().map(of).collect();
    part.sort_unstable();
    part.get(part.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_the_median_of_the_samples_before_it() {
        let usage = |rss_kib| Usage { rss_kib, peak_kib: 0, open_files: 0 };
        let samples: Vec<Usage> = (1..=100).map(usage).collect();
        assert_eq!((around(&samples, 1, rss), around(&samples, 4, rss)), (21, 96));
    }
}
