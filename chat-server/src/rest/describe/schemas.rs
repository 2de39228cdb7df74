//! JSON schemas of the wire, derived from its types.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// The place of schemas in both documents.
const PATH: &str = "/components/schemas";

/// Schemas of requests and of answers. They differ: a field with a default may be left out of a request, and is always in an
/// answer.
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
        let null_is_absence = RecursiveTransform(null_is_absence);
        Self {
            taken: settings().for_deserialize().with_transform(null_is_absence).into_generator(),
            answered: settings().for_serialize().with_transform(without_null).into_generator(),
        }
    }

    /// A reference to the schema of a request.
    pub(super) fn taken<T: JsonSchema>(&mut self) -> Value {
        self.taken.subschema_for::<T>().to_value()
    }

    /// A reference to the schema of an answer.
    pub(super) fn answered<T: JsonSchema>(&mut self) -> Value {
        self.answered.subschema_for::<T>().to_value()
    }

    /// The members of a query string: name, schema, and whether it is required.
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
        for (name, mut schema) in self.answered.take_definitions(true) {
            if name == "Entry" {
                admit_later_kinds(&mut schema);
            }
            debug_assert!(all.get(&name).is_none_or(|taken| *taken == schema), "{name} has two schemas");
            all.insert(name, schema);
        }
        all
    }
}

/// A field that may be left out of a request may also be `null`, with the same meaning.
fn null_is_absence(schema: &mut Schema) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| required.as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let Some(Value::Object(members)) = schema.get_mut("properties") else { return };
    members.iter_mut().filter(|(name, _)| !is_required(name)).for_each(|(_, member)| admit_null(member));
}

fn admit_null(schema: &mut Value) {
    let is_there = match (&schema["type"], &schema["anyOf"]) {
        // `true` allows everything.
        _ if schema.is_boolean() => true,
        (Value::Array(types), _) => types.iter().any(|name| name == "null"),
        (_, Value::Array(any)) => any.iter().any(|one| one["type"] == "null"),
        _ => false,
    };
    if is_there {
        return;
    }
    if let Some(Value::String(only)) = schema.get("type").cloned()
        && schema.get("enum").is_none()
    {
        schema["type"] = json!([only, "null"]);
        return;
    }
    // A description belongs beside the alternatives, where readers look for it.
    let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    let default = schema.as_object_mut().and_then(|schema| schema.remove("default"));
    let mut whole = json!({ "anyOf": [schema.take(), { "type": "null" }] });
    for (name, value) in [("description", description), ("default", default)] {
        if let Some(value) = value {
            whole[name] = value;
        }
    }
    *schema = whole;
}

/// Allows kinds of later versions, so that a client that checks entries does not fail on a kind that is newer than the client.
fn admit_later_kinds(schema: &mut Value) {
    let Some(kinds) = schema["oneOf"].as_array_mut() else { return };
    let known: Vec<Value> = kinds.iter().map(|kind| kind["properties"]["kind"]["const"].clone()).collect();
    kinds.push(json!({
        "description": "A kind of a later version. Skip the entry, but count its `seq`.",
        "type": "object",
        "properties": { "kind": { "type": "string", "not": { "enum": known } } },
        "required": ["kind"],
    }));
}

/// An absent field is left out of an answer. It is never `null`.
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
