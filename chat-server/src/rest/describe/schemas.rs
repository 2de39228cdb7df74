//! JSON schemas of what goes over the wire, from the types themselves.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

/// Where both documents keep schemas.
const PATH: &str = "/components/schemas";

/// Schemas of what is taken and of what is answered: a field with a default may be left out of the one, and is always
/// in the other.
pub(crate) struct Schemas {
    taken: SchemaGenerator,
    answered: SchemaGenerator,
}

impl Schemas {
    /// In the dialect of OpenAPI 3.1.
    pub(super) fn for_openapi() -> Self {
        Self::new(SchemaSettings::draft2020_12)
    }

    /// In the dialect of AsyncAPI 3.
    pub(super) fn for_asyncapi() -> Self {
        Self::new(SchemaSettings::draft07)
    }

    fn new(dialect: fn() -> SchemaSettings) -> Self {
        let settings = || {
            dialect().with(|settings| {
                settings.definitions_path = PATH.into();
                settings.meta_schema = None;
            })
        };
        let without_null = RecursiveTransform(without_null);
        Self {
            taken: settings().for_deserialize().into_generator(),
            answered: settings().for_serialize().with_transform(without_null).into_generator(),
        }
    }

    /// A reference to the schema of what is taken.
    pub(super) fn taken<T: JsonSchema>(&mut self) -> Value {
        self.taken.subschema_for::<T>().to_value()
    }

    /// A reference to the schema of what is answered.
    pub(super) fn answered<T: JsonSchema>(&mut self) -> Value {
        self.answered.subschema_for::<T>().to_value()
    }

    /// The members of a query string: name, schema, and whether it must be there.
    pub(super) fn query<T: JsonSchema>(&mut self) -> Vec<(String, Value, bool)> {
        let mut schema = T::json_schema(&mut self.taken);
        // A query has no `null`.
        RecursiveTransform(without_null).transform(&mut schema);
        let required = schema.get("required").cloned().unwrap_or_default();
        let is_required =
            |name: &str| required.as_array().is_some_and(|all| all.iter().any(|one| one == name));
        let Some(Value::Object(members)) = schema.remove("properties") else { return Vec::new() };
        members.into_iter().map(|(name, schema)| (name.clone(), schema, is_required(&name))).collect()
    }

    /// All schemas that were referred to, by name.
    pub(super) fn into_components(mut self) -> Map<String, Value> {
        let mut all = self.taken.take_definitions(true);
        for (name, schema) in self.answered.take_definitions(true) {
            debug_assert!(all.get(&name).is_none_or(|taken| *taken == schema), "{name} has two schemas");
            all.insert(name, schema);
        }
        all
    }
}

/// What is absent is left out of an answer, never `null`.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    let Some(Value::Array(any)) = schema.get_mut("anyOf") else { return };
    any.retain(|one| one["type"] != "null");
    if let [Value::Object(only)] = &any[..] {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            schema.insert(key, value);
        }
    }
}
