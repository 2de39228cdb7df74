//! Requests and answers of handlers, read from their signatures, so that a description cannot differ from the code.

use std::marker::PhantomData;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use madang_proto::limits;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::super::Api;
use super::super::extract::{Auth, Guest, IdempotencyKey, Ids, Json, Params, Signed};
use super::super::operator::{Acting, Anybody, IfMatch, Tagged, Watching};
use super::schemas::Schemas;
use crate::refusal::Refusal;

/// What a handler accepts and answers.
#[derive(Default)]
pub(crate) struct Signature {
    /// Whether it needs an access token.
    pub(super) wants_token: bool,
    /// Schemas of the ids in the path, in their order.
    pub(super) ids: Vec<Value>,
    /// The query and the headers, as parameters of OpenAPI.
    pub(super) parameters: Vec<Value>,
    /// The schema of the body.
    pub(super) body: Option<Value>,
    /// The status of success.
    pub(super) status: u16,
    /// The schema of the answer, or of one line of it. `None` for an answer without a body.
    pub(super) answer: Option<Value>,
    /// Whether the answer is lines of JSON.
    pub(super) is_lines: bool,
}

/// An answer of lines of JSON, each a `T`.
pub(crate) struct Lines<T> {
    response: Response,
    line: PhantomData<T>,
}

impl<T> Lines<T> {
    pub(crate) const fn new(response: Response) -> Self {
        Self { response, line: PhantomData }
    }
}

impl<T> IntoResponse for Lines<T> {
    fn into_response(self) -> Response {
        self.response
    }
}

/// A handler that can be described. `A` stands for its arguments and its answer.
pub(crate) trait Described<A> {
    fn signature(schemas: &mut Schemas) -> Signature;
}

/// An argument of a handler.
trait Taken {
    fn describe(signature: &mut Signature, schemas: &mut Schemas);
}

/// The answer of a handler.
trait Answered {
    fn describe(signature: &mut Signature, schemas: &mut Schemas);
}

macro_rules! described {
    ($($argument:ident)*) => {
        impl<H, F, A, $($argument),*> Described<($($argument,)* A,)> for H
        where
            H: Fn($($argument),*) -> F,
            F: Future<Output = Result<A, Refusal>>,
            A: Answered,
            $($argument: Taken,)*
        {
            fn signature(schemas: &mut Schemas) -> Signature {
                let mut signature = Signature::default();
                $(<$argument as Taken>::describe(&mut signature, schemas);)*
                <A as Answered>::describe(&mut signature, schemas);
                signature
            }
        }
    };
}

described!(A1 A2);
described!(A1 A2 A3);
described!(A1 A2 A3 A4);

impl Taken for State<Api> {
    fn describe(_: &mut Signature, _: &mut Schemas) {}
}

impl Taken for Guest {
    fn describe(_: &mut Signature, _: &mut Schemas) {}
}

impl Taken for Auth {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.wants_token = true;
    }
}

impl Taken for Signed {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.wants_token = true;
    }
}

impl Taken for Anybody {
    fn describe(_: &mut Signature, _: &mut Schemas) {}
}

impl Taken for Watching {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.wants_token = true;
    }
}

impl Taken for Acting {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.wants_token = true;
    }
}

impl Taken for IfMatch {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.parameters.push(json!({
            "name": "If-Match", "in": "header", "required": true,
            "description": "The `ETag` of what is replaced.",
            "schema": { "type": "string" },
        }));
    }
}

impl Taken for IdempotencyKey {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key with the same request does not create a second object.",
            "schema": { "type": "string", "minLength": 8, "maxLength": limits::IDEMPOTENCY_KEY_BYTES },
        }));
    }
}

impl<T: JsonSchema> Taken for Ids<T> {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        let schema = schemas.taken::<T>();
        signature.ids = match schema.get("prefixItems") {
            Some(Value::Array(each)) => each.clone(),
            _ => vec![schema],
        };
    }
}

impl<T: JsonSchema> Taken for Params<T> {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        let parameter = |(name, schema, required)| json!({ "name": name, "in": "query", "required": required, "schema": schema });
        signature.parameters.extend(schemas.query::<T>().into_iter().map(parameter));
    }
}

impl<T: JsonSchema> Taken for Json<T> {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        signature.body = Some(schemas.taken::<T>());
    }
}

impl<T: JsonSchema> Answered for Answer<T> {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        signature.status = 200;
        signature.answer = Some(schemas.answered::<T>());
    }
}

impl<T: JsonSchema> Answered for Tagged<T> {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        signature.status = 200;
        signature.answer = Some(schemas.answered::<T>());
    }
}

impl<T: JsonSchema> Answered for Lines<T> {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        signature.status = 200;
        signature.answer = Some(schemas.answered::<T>());
        signature.is_lines = true;
    }
}

/// The answer of a call that has made something.
impl<T: JsonSchema> Answered for (StatusCode, Answer<T>) {
    fn describe(signature: &mut Signature, schemas: &mut Schemas) {
        signature.status = 201;
        signature.answer = Some(schemas.answered::<T>());
    }
}

/// The answer without a body.
impl Answered for StatusCode {
    fn describe(signature: &mut Signature, _: &mut Schemas) {
        signature.status = 204;
    }
}
