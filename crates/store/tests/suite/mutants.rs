//! The suite finds every fault that is planted in the model.

use std::future::Future;

use crate::subjects::ModelSubject;
use madang_store::conformance::{cases, fault_tolerant_cases, order_cases};
use madang_store::model::{Faults, Mutant};
use tokio::task::JoinSet;

#[tokio::test]
async fn the_suite_finds_every_mutant() {
    assert_eq!(first_failing_case(None).await, None, "without a fault");
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        match first_failing_case(Some(mutant)).await {
            Some(case) => println!("{mutant:?} is found by {case}"),
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "the suite does not find {survivors:?}");
}

async fn first_failing_case(mutant: Option<Mutant>) -> Option<&'static str> {
    let subject = |faults| ModelSubject::with(1, faults, mutant);
    for case in cases() {
        if fails((case.run)(subject(Faults::NONE))).await {
            return Some(case.name);
        }
    }
    for case in order_cases() {
        if fails((case.run)(subject(Faults::NONE))).await {
            return Some(case.name);
        }
    }
    for case in fault_tolerant_cases() {
        if fails((case.run)(subject(Faults::ROUGH))).await {
            return Some(case.name);
        }
    }
    None
}

async fn fails(case: impl Future<Output = ()> + Send + 'static) -> bool {
    let mut task = JoinSet::new();
    task.spawn(case);
    task.join_next().await.is_none_or(|ended| ended.is_err())
}
