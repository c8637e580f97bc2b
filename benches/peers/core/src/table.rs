//! Measuring all that the chosen rows need, and printing the table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::Result;
use crate::goals::{Goal, Measured, ROWS, Row, TIE};
use crate::peer::{GO, OURS};

/// What was asked for on the command line.
struct Options {
    /// Prefixes of cases or groups; none: all.
    only: Vec<String>,
    /// Peers; none: all. Ours is always there.
    peers: Vec<String>,
    rounds: usize,
}

const USAGE: &str = "usage: [--quick] [--rounds N] [--only w1,w3,…] [--peer tokio-util,go,…]";
const ROUNDS: usize = 9;
const QUICK: usize = 3;
/// A sample of wall time counts only if others had less of the machine than this.
const QUIET: f64 = 0.06;
/// How often a disturbed sample is taken again; the least disturbed one is used, and marked.
const TRIES: usize = 3;

/// The samples of one case on one peer.
#[derive(Default)]
struct Samples {
    values: Vec<f64>,
    disturbed: usize,
}

pub fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row)).collect();
    let mut work: Vec<Measured> = rows.iter().flat_map(|row| row.needs()).collect();
    work.sort_unstable();
    work.dedup();
    let go = go();
    work.retain(|(peer, _)| *peer != GO || go.is_some());
    if work.is_empty() {
        return Err(format!("nothing to measure; {USAGE}").into());
    }

    let mut seen: BTreeMap<Measured, Samples> = BTreeMap::new();
    let began = Instant::now();
    for round in 0..options.rounds {
        shuffle(&mut work);
        for &measured in &work {
            seen.entry(measured).or_default().take(measured, go.as_ref())?;
        }
        eprintln!(
            "round {} of {}, {} s",
            round + 1,
            options.rounds,
            began.elapsed().as_secs()
        );
    }
    print(&rows, &seen, options.rounds);
    Ok(())
}

impl Options {
    fn parse(words: &[&str]) -> Result<Options> {
        let mut options = Options {
            only: Vec::new(),
            peers: Vec::new(),
            rounds: ROUNDS,
        };
        let mut words = words.iter();
        let list = |word: Option<&&str>| -> Result<Vec<String>> {
            let word = word.ok_or(USAGE)?;
            Ok(word.split(',').map(str::to_lowercase).collect())
        };
        while let Some(word) = words.next() {
            match *word {
                "--quick" => options.rounds = QUICK,
                "--rounds" => options.rounds = words.next().ok_or(USAGE)?.parse()?,
                "--only" => options.only = list(words.next())?,
                "--peer" | "--peers" => options.peers = list(words.next())?,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, row: &Row) -> bool {
        let group = row.group.to_lowercase();
        let is_chosen =
            |only: &String| *only == group || row.case.starts_with(&format!("{only}_")) || row.case == only;
        let is_wanted = |peer: &str| self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == peer);
        let peer = match row.goal {
            Goal::Ahead { peer: (peer, _), .. } => peer,
            _ => OURS,
        };
        (self.only.is_empty() || self.only.iter().any(is_chosen)) && (peer == OURS || is_wanted(peer))
    }
}

/// The Go program, if it was built.
fn go() -> Option<PathBuf> {
    std::env::var_os("PEERS_GO").map(PathBuf::from)
}

impl Samples {
    fn take(&mut self, (peer, case): Measured, go: Option<&PathBuf>) -> Result<()> {
        let mut least: Option<(f64, f64)> = None;
        for _ in 0..TRIES {
            let (value, others) = sample(peer, case, go)?;
            if least.is_none_or(|(_, before)| others < before) {
                least = Some((value, others));
            }
            if others <= QUIET {
                break;
            }
        }
        if let Some((value, others)) = least {
            self.values.push(value);
            self.disturbed += usize::from(others > QUIET);
        }
        Ok(())
    }

    fn median(&self) -> f64 {
        quantile(&self.values, 0.5)
    }

    /// Half of the samples lie within so much of each other, in per cent of the median.
    fn spread(&self) -> f64 {
        let width = quantile(&self.values, 0.75) - quantile(&self.values, 0.25);
        100.0 * width / self.median()
    }
}

/// One sample in a fresh process, and the share of the machine that others had meanwhile (0 for CPU time).
fn sample(peer: &str, case: &str, go: Option<&PathBuf>) -> Result<(f64, f64)> {
    let mut command = match (peer, go) {
        (GO, Some(go)) => Command::new(go),
        _ if case.starts_with("w8_") => Command::new(std::env::current_exe()?.with_file_name("peers-bytes")),
        _ => Command::new(std::env::current_exe()?),
    };
    let output = command.args(["measure", peer, case]).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let mut fields = told.split_whitespace();
    let (value, others) = (fields.next(), fields.next());
    match value.map(str::parse) {
        Some(Ok(value)) if output.status.success() => {
            Ok((value, others.and_then(|share| share.parse().ok()).unwrap_or(0.0)))
        }
        _ => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("{peer} {case}: {told}{why}").into())
        }
    }
}

/// The peers take turns in another order each round, so that none always comes after the same one.
fn shuffle(work: &mut [Measured]) {
    // The order need not repeat; the hash of a fresh state is random enough.
    use std::hash::{BuildHasher, RandomState};
    for last in (1..work.len()).rev() {
        let place = RandomState::new().hash_one(last) as usize % (last + 1);
        work.swap(last, place);
    }
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = at * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

fn print(rows: &[&Row], seen: &BTreeMap<Measured, Samples>, rounds: usize) {
    println!(
        "{rounds} interleaved rounds of fresh processes on {}; medians.",
        machine()
    );
    println!(
        "*Half of them*: half of the rounds' ratios lie there. *Ours*, *theirs*: ns, in W8 bytes. *Tie*: missed by less than 10 %."
    );
    println!();
    println!("| | workload | beside | goal | figure | half of them | ours | theirs | |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut disturbed = 0;
    for row in rows {
        let ours = &seen[&(OURS, row.case)];
        let line = match row.goal {
            Goal::Ahead { peer, at_least } => match seen.get(&peer) {
                None => line(
                    row,
                    peer.0,
                    &format!("≥ {at_least}"),
                    "–",
                    "",
                    ours,
                    None,
                    "left out",
                ),
                Some(theirs) => {
                    let (figure, half) = ratio(theirs, ours);
                    let verdict = verdict(figure, at_least);
                    let goal = format!("≥ {at_least}");
                    line(
                        row,
                        peer.0,
                        &goal,
                        &short(figure),
                        &half,
                        ours,
                        Some(theirs),
                        verdict,
                    )
                }
            },
            Goal::Beside { other, at_most } => {
                let theirs = &seen[&other];
                let (figure, half) = ratio(ours, theirs);
                let name = if other.0 == OURS { other.1 } else { other.0 };
                let verdict = verdict(at_most, figure);
                let goal = format!("≤ {at_most}");
                line(
                    row,
                    name,
                    &goal,
                    &short(figure),
                    &half,
                    ours,
                    Some(theirs),
                    verdict,
                )
            }
            Goal::Within { at_most, unit } => {
                let figure = ours.median();
                let goal = format!("≤ {at_most} {unit}");
                let half = format!("± {:.0} %", ours.spread() / 2.0);
                line(
                    row,
                    "own limit",
                    &goal,
                    &short(figure),
                    &half,
                    ours,
                    None,
                    verdict(at_most, figure),
                )
            }
            Goal::Extra { other, at_most } => {
                let theirs = &seen[&other];
                let figure = ours.median() - theirs.median();
                let goal = format!("≤ {at_most} ns");
                line(
                    row,
                    other.1,
                    &goal,
                    &short(figure),
                    "",
                    ours,
                    Some(theirs),
                    verdict(at_most, figure),
                )
            }
        };
        println!("{line}");
        disturbed += ours.disturbed;
    }
    if disturbed > 0 {
        println!();
        println!(
            "{disturbed} of our samples of wall time were disturbed by other processes; take those rows again."
        );
    }
}

/// What it was measured on.
fn machine() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = told
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!(
        "{} ({cores} cores)",
        model.map_or("a processor that does not say", |(_, name)| name)
    )
}

/// The ratio of the medians, and within what half of the rounds' ratios lie.
fn ratio(above: &Samples, below: &Samples) -> (f64, String) {
    let each: Vec<f64> = above
        .values
        .iter()
        .zip(&below.values)
        .map(|(a, b)| a / b)
        .collect();
    let half = format!(
        "{}–{}",
        short(quantile(&each, 0.25)),
        short(quantile(&each, 0.75))
    );
    (above.median() / below.median(), half)
}

/// `figure` is to be at least `goal`.
fn verdict(figure: f64, goal: f64) -> &'static str {
    if figure >= goal {
        "met"
    } else if figure >= goal * (1.0 - TIE) {
        "tie"
    } else {
        "**missed**"
    }
}

fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

#[expect(clippy::too_many_arguments, reason = "the columns of the table")]
fn line(
    row: &Row,
    beside: &str,
    goal: &str,
    figure: &str,
    half: &str,
    ours: &Samples,
    theirs: Option<&Samples>,
    verdict: &str,
) -> String {
    let theirs = theirs.map_or(String::new(), |theirs| short(theirs.median()));
    format!(
        "| {} | {} | {beside} | {goal} | {figure} | {half} | {} | {theirs} | {verdict} |",
        row.group,
        row.what,
        short(ours.median()),
    )
}
