//! The long tests of the whole chain: exits that nobody was there to hear, starts whose answer was lost, kills and stops at
//! random under load, many containers, and much output.
//!
//! Each has a sample that fits an everyday run; `LITE_DRILL=full` runs what is promised. A random one prints its seed and takes
//! one by `LITE_SEED`.

mod aftermath;
mod exits;
mod listener;
mod logs;
mod lost;
mod many;
mod meter;
mod model;
mod random;
mod scale;
mod storm;
mod stuck;
mod vanish;

/// Whether the promised sizes are wanted.
fn full() -> bool {
    std::env::var("LITE_DRILL").as_deref() == Ok("full")
}
