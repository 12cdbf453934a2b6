//! One scenario over every combination of client, containerd, shim and runtime, ours and those of the field.
//!
//! `pairwise` is the everyday run: each seam in full, the rest ours. `full` (ignored; `make drill`) is the product of all, goes on
//! where it stopped (`LITE_MATRIX_STATE`, a file) and prints a markdown table. `LITE_MATRIX` narrows either: words that all
//! stand in a cell's name. A combination whose program is not here is skipped and counted; what fails for a reason in the real
//! peer is named in [`known`].

mod ctr;
mod docker;
mod known;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::rig::Rig;
use integration::rig::parts::{Client, Middle, Part, Release, Runtime, Shim, versions};
use table::{Outcome, Table};

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub(crate) client: Client,
    pub(crate) middle: Middle,
    pub(crate) shim: Shim,
    pub(crate) runtime: Runtime,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        format!(
            "{} | {} | {} | {}",
            self.client.label(),
            self.middle.label(),
            self.shim.label(),
            self.runtime.label()
        )
    }

    /// The program that is not here, if one is not.
    fn missing(&self) -> Option<String> {
        [
            (self.client.label(), self.client.program()),
            (self.middle.label(), self.middle.program()),
            (self.shim.label(), self.shim.program()),
            (self.runtime.label(), self.runtime.program()),
        ]
        .into_iter()
        .find_map(|(label, program)| program.is_none().then_some(label))
    }

    fn wanted(&self) -> bool {
        let words = std::env::var("LITE_MATRIX").unwrap_or_default();
        let name = self.name();
        words.split(',').all(|word| name.contains(word.trim()))
    }
}

fn cells() -> Vec<Cell> {
    let mut all = Vec::new();
    for &client in Client::ALL {
        for &middle in Middle::ALL {
            for &shim in Shim::ALL {
                for &runtime in Runtime::ALL {
                    all.push(Cell {
                        client,
                        middle,
                        shim,
                        runtime,
                    });
                }
            }
        }
    }
    all
}

/// Whether a cell belongs to the everyday run: what is not of one seam is ours.
fn is_of_one_seam(cell: &Cell) -> bool {
    let (shim, runtime) = (cell.shim == Shim::Lite, cell.runtime == Runtime::Lite);
    let middle = cell.middle == Middle::Lite;
    let ours = cell.client == Client::DockerdLite;
    let quick = cell.client == Client::Ctr(Release::Installed);
    let above = shim && runtime;
    let between = runtime && (ours || quick);
    let below = quick && middle;
    above || between || below
}

#[test]
fn pairwise() -> Result<()> {
    let cells: Vec<_> = cells().into_iter().filter(is_of_one_seam).collect();
    run(&cells, Table::default())
}

#[test]
#[ignore = "half an hour; make drill runs it"]
fn full() -> Result<()> {
    run(&cells(), Table::resume()?)
}

fn run(cells: &[Cell], mut table: Table) -> Result<()> {
    versions().iter().for_each(|line| println!("{line}"));
    let start = Instant::now();
    let mut rig: Option<((Client, Middle), Rig)> = None;
    for cell in cells.iter().filter(|cell| cell.wanted()) {
        let name = cell.name();
        if let Some(missing) = cell.missing() {
            table.put(cell, Outcome::Skipped(format!("no {missing} here")))?;
            continue;
        }
        if table.has(&name) {
            continue;
        }
        if rig
            .as_ref()
            .is_some_and(|(key, _)| *key != (cell.client, cell.middle))
        {
            rig = None;
        }
        let began = Instant::now();
        let result = one(cell, &mut rig);
        let took = began.elapsed();
        let outcome = match result {
            Ok(()) => Outcome::Green,
            Err(error) => {
                let text = format!("{error:#}");
                // What a failure left must not disturb the next cell.
                rig = None;
                match known::reason(cell, &text) {
                    Some(reason) => Outcome::Named(reason.to_owned()),
                    None => Outcome::Red(text),
                }
            }
        };
        println!("{:>6.1} s  {name}: {outcome}", took.as_secs_f64());
        table.put(cell, outcome)?;
    }
    drop(rig);
    println!("{}", table.markdown(cells));
    println!("{} in {:?}", table.counts(), round(start.elapsed()));
    let red = table.red();
    ensure!(
        red.is_empty(),
        "{} red cells:\n{}",
        red.len(),
        red.join("\n")
    );
    Ok(())
}

fn round(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn one(cell: &Cell, rig: &mut Option<((Client, Middle), Rig)>) -> Result<()> {
    if rig.is_none() {
        let started = Rig::start(cell.client, cell.middle).context("start")?;
        *rig = Some(((cell.client, cell.middle), started));
    }
    let (_, rig) = rig.as_mut().context("a rig was started")?;
    rig.choose(cell.shim, cell.runtime)?;
    let result = match cell.client {
        Client::Ctr(_) => ctr::scenario(rig),
        _ => docker::scenario(rig),
    };
    if let Err(error) = result {
        let logs = rig.logs();
        // The rig goes anyway; this only makes its going quicker.
        let _ = match cell.client {
            Client::Ctr(_) => ctr::clean(rig),
            _ => docker::clean(rig),
        };
        return Err(anyhow::anyhow!("{error:#}\n{logs}"));
    }
    Ok(())
}
