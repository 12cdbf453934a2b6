//! A small generator of random numbers with a printed seed (xorshift64*): a run can be had again.

/// The generator.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// By `LITE_SEED`, else by the clock; prints the seed.
    pub(crate) fn seeded(what: &str) -> Self {
        let given = std::env::var("LITE_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |d| u64::from(d.subsec_nanos()) + d.as_secs())
        });
        println!("{what}: LITE_SEED={seed}");
        Self(seed.max(1))
    }

    /// Another one that goes its own way.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next().max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
