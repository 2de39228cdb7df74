//! Routes that are described when they are added: a route without a description does not exist.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use madang_proto::ErrorCode;

use super::super::Api;
use super::schemas::Schemas;
use super::signature::{Described, Signature};

/// What the table says about a route.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) filter: MethodFilter,
    /// Below `/v1`.
    pub(crate) path: &'static str,
    /// The resource, which is the name of the handler's file.
    pub(crate) tag: &'static str,
    /// Unique among all routes.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// Refusals besides those that its signature implies.
    pub(crate) refusals: &'static [ErrorCode],
}

/// A route, and the signature of its handler.
pub(super) struct Operation {
    pub(super) route: Route,
    pub(super) signature: fn(&mut Schemas) -> Signature,
}

/// All routes with their descriptions.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Api>,
    pub(super) operations: Vec<Operation>,
}

impl Routes {
    pub(crate) fn add<H, T, A>(&mut self, route: Route, handler: H)
    where
        H: Handler<T, Api> + Described<A>,
        T: 'static,
    {
        self.router = std::mem::take(&mut self.router).route(route.path, on(route.filter, handler));
        self.operations.push(Operation { route, signature: H::signature });
    }

    /// The router that axum serves.
    pub(crate) fn into_router(self) -> Router<Api> {
        self.router
    }
}
