//! Everything that reads bytes from outside, against bytes made to break it.
//!
//! The ordinary test takes two seconds and prints its seed; the long one is
//!
//! ```text
//! FUZZ_SECONDS=3600 cargo test -p runc-lite --lib fuzz::for_a_long_time -- --ignored --nocapture
//! ```
//!
//! and needs no special compiler: inputs are changed by [`mutate`], each target
//! says how an input ended, and an input with an end that was not seen before
//! is kept and changed further. `FUZZ_SEED` repeats a run, `FUZZ_CORPUS` names a
//! directory for what was kept and for what failed. A panic, an arithmetic
//! overflow or an input that takes longer than [`SLOW`] is a finding.

mod mutate;
mod seeds;
mod targets;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutate::Random;
use targets::TARGETS;

/// No input of the sizes made here may take this long, on a busy machine either.
const SLOW: Duration = Duration::from_secs(5);

/// Kept inputs per target; older ones make room.
const KEEP: usize = 1500;

/// Inputs worth changing further, for one target.
#[derive(Debug, Default)]
struct Corpus {
    inputs: Vec<Vec<u8>>,
    ends: HashSet<u64>,
}

impl Corpus {
    /// Keeps an input whose end is new.
    fn learn(&mut self, input: &[u8], end: &str, random: &mut Random) -> bool {
        let mut hasher = DefaultHasher::new();
        // Numbers in messages are positions and values: not another end.
        end.chars()
            .filter(|c| !c.is_ascii_digit())
            .take(120)
            .for_each(|c| c.hash(&mut hasher));
        if self.ends.len() > 200_000 || !self.ends.insert(hasher.finish()) {
            return false;
        }
        if self.inputs.len() < KEEP {
            self.inputs.push(input.to_owned());
        } else {
            let at = random.below(KEEP);
            input.clone_into(&mut self.inputs[at]);
        }
        true
    }
}

/// Runs for a time; gives executions and kept inputs, panics on a finding.
fn run(time: Duration, seed: u64) -> (u64, usize) {
    let mut random = Random::new(seed);
    let dir = std::env::var_os("FUZZ_CORPUS").map(PathBuf::from);
    let mut corpora: Vec<Corpus> = TARGETS.iter().map(|_| Corpus::default()).collect();
    for (target, corpus) in TARGETS.iter().zip(&mut corpora) {
        corpus.inputs = (target.seeds)();
        if let Some(dir) = &dir {
            let kept = std::fs::read_dir(dir.join(target.name))
                .into_iter()
                .flatten();
            let kept = kept.filter_map(|e| std::fs::read(e.ok()?.path()).ok());
            corpus.inputs.extend(kept.take(KEEP));
        }
    }
    let (start, mut executions) = (Instant::now(), 0);
    while start.elapsed() < time {
        for (target, corpus) in TARGETS.iter().zip(&mut corpora) {
            for _ in 0..200 {
                let base = &corpus.inputs[random.below(corpus.inputs.len())];
                let other = &corpus.inputs[random.below(corpus.inputs.len())];
                let input = mutate::change(base, other, target.json, &mut random);
                let begin = Instant::now();
                let end = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
                executions += 1;
                let end = end.unwrap_or_else(|_| found(dir.as_ref(), target.name, &input, seed));
                if begin.elapsed() > SLOW {
                    found(dir.as_ref(), target.name, &input, seed);
                }
                if corpus.learn(&input, &end, &mut random)
                    && let Some(dir) = &dir
                {
                    keep(&dir.join(target.name), &input);
                }
            }
        }
    }
    (executions, corpora.iter().map(|c| c.inputs.len()).sum())
}

fn keep(dir: &std::path::Path, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = dir.join(format!("{:016x}", hasher.finish()));
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(&path, input).unwrap();
    path
}

fn found(dir: Option<&PathBuf>, target: &str, input: &[u8], seed: u64) -> ! {
    let place = dir.map(|d| keep(&d.join("found"), input));
    let shown = String::from_utf8_lossy(input).into_owned();
    panic!("finding in {target}, seed {seed}, kept as {place:?}: {shown}");
}

fn seed() -> u64 {
    let given = std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64 | 1
    })
}

#[test]
fn for_a_moment() {
    let seed = seed();
    println!("FUZZ_SEED={seed}");
    run(Duration::from_secs(2), seed);
}

#[test]
#[ignore = "takes FUZZ_SECONDS, an hour if not given"]
fn for_a_long_time() {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(3600));
    let seed = seed();
    println!("FUZZ_SEED={seed}");
    let (executions, kept) = run(time, seed);
    println!("{executions} executions in {time:?}, {kept} inputs kept, no finding");
}
