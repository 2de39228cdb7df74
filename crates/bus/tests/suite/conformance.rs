//! The local inbox over both stores.

mod embedded {
    use crate::subjects::EmbeddedSubject;

    madang_bus::inbox_conformance!(EmbeddedSubject::new());
}

mod model {
    use crate::subjects::ModelSubject;

    madang_bus::inbox_conformance!(ModelSubject::calm());
}

mod model_with_delays {
    use crate::subjects::ModelSubject;

    madang_bus::inbox_conformance!(ModelSubject::slow());
}
