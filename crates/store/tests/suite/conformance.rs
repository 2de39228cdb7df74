//! Both stores of this crate against the suite.

use crate::subjects::ModelSubject;

mod embedded {
    use crate::subjects::EmbeddedSubject;

    madang_store::store_conformance!(EmbeddedSubject::new());
    madang_store::order_conformance!(EmbeddedSubject::new());
}

mod model {
    use crate::subjects::ModelSubject;

    madang_store::store_conformance!(ModelSubject::calm());
    madang_store::order_conformance!(ModelSubject::calm());
}

mod model_with_delays {
    use crate::subjects::ModelSubject;

    madang_store::store_conformance!(ModelSubject::slow());
    madang_store::order_conformance!(ModelSubject::slow());
}

#[tokio::test]
async fn the_model_holds_while_everything_goes_wrong() {
    for seed in 0..20 {
        for case in madang_store::conformance::fault_tolerant_cases() {
            (case.run)(ModelSubject::rough(seed)).await;
        }
    }
}
