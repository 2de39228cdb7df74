//! The program that `cargo xtask fuzz` runs: libFuzzer with one target, named by `MADANG_FUZZ_TARGET`. It writes the
//! seeds into the folder `MADANG_FUZZ_CORPUS` before the search begins.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs};

use madang_fuzz::{Target, examples, kept, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("MADANG_FUZZ_TARGET").expect("MADANG_FUZZ_TARGET names a target");
    target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fn write_seeds() {
    let Some(folder) = env::var_os("MADANG_FUZZ_CORPUS").map(PathBuf::from) else { return };
    let seeds = [examples().expect("the examples"), kept(TARGET.name).expect("the seeds")].concat();
    for (index, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{index}")), seed).expect("a file in the corpus");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |data: &[u8]| (TARGET.check)(data));
