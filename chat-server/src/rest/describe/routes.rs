//! Routes that are described as they are added: what is not described is not routed.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use madang_proto::ErrorCode;

use super::super::Api;
use super::schemas::Schemas;
use super::signature::{Described, Signature};

/// What the table says of a route.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) filter: MethodFilter,
    /// Below `/v1`.
    pub(crate) path: &'static str,
    /// The resource, which is the file of the handler.
    pub(crate) tag: &'static str,
    /// Unique.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// Refusals besides those that its signature implies.
    pub(crate) refusals: &'static [ErrorCode],
}

/// A route, and what the signature of its handler says.
pub(super) struct Operation {
    pub(super) route: Route,
    pub(super) signature: fn(&mut Schemas) -> Signature,
}

/// All routes, and what they are.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Api>,
    pub(super) operations: Vec<Operation>,
}

impl Routes {
    /// Adds a route.
    pub(crate) fn add<H, T, A>(&mut self, route: Route, handler: H)
    where
        H: Handler<T, Api> + Described<A>,
        T: 'static,
    {
        self.router = std::mem::take(&mut self.router).route(route.path, on(route.filter, handler));
        self.operations.push(Operation { route, signature: H::signature });
    }

    /// What axum serves.
    pub(crate) fn into_router(self) -> Router<Api> {
        self.router
    }
}
