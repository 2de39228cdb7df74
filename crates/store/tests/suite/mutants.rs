//! The suite finds every fault that is planted in the model.

use std::future::Future;

use crate::subjects::ModelSubject;
use madang_store::conformance::{cases, fault_tolerant_cases, order_cases};
use madang_store::model::{Faults, Mutant};
use tokio::task::JoinSet;

#[tokio::test]
async fn the_suite_finds_every_mutant() {
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        let found_by = failing_cases(mutant).await;
        println!("{mutant:?} is found by {found_by:?}");
        if found_by.is_empty() {
            survivors.push(mutant);
        }
    }
    assert!(survivors.is_empty(), "the suite does not find {survivors:?}");
}

async fn failing_cases(mutant: Mutant) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for case in cases() {
        if fails((case.run)(ModelSubject::with(1, Faults::NONE, Some(mutant)))).await {
            failing.push(case.name);
        }
    }
    for case in order_cases() {
        if fails((case.run)(ModelSubject::with(1, Faults::NONE, Some(mutant)))).await {
            failing.push(case.name);
        }
    }
    for case in fault_tolerant_cases() {
        if fails((case.run)(ModelSubject::with(1, Faults::ROUGH, Some(mutant)))).await {
            failing.push(case.name);
        }
    }
    failing
}

async fn fails(case: impl Future<Output = ()> + Send + 'static) -> bool {
    let mut task = JoinSet::new();
    task.spawn(case);
    task.join_next().await.is_none_or(|ended| ended.is_err())
}
