//! Every property holds for every seed.

use madang_fuzz::{TARGETS, examples, kept};

#[test]
fn every_seed_holds() {
    let examples = examples().expect("the examples of the protocol");
    assert!(examples.len() > 200, "{} examples", examples.len());
    for target in TARGETS {
        let kept = kept(target.name).expect("the seeds of the target");
        assert!(kept.len() >= 5, "{} seeds of {}", kept.len(), target.name);
        for seed in examples.iter().chain(&kept) {
            (target.check)(seed);
        }
    }
}
