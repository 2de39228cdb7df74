//! Examples of frames and bodies. They are taken from the protocol page, so that they are written once.

use std::sync::LazyLock;

use serde_json::{Value, json};

const PAGES: [&str; 2] =
    [include_str!("../../../../docs/protocol.md"), include_str!("../../../../docs/operators.md")];

/// An example of the pages.
pub(super) struct Example {
    /// What it is an example of: `client`, `server`, `entry`, or `rest:` and the name of a body.
    pub(super) marker: &'static str,
    pub(super) json: Value,
}

/// All examples, in the order of the pages.
pub(super) static EXAMPLES: LazyLock<Vec<Example>> = LazyLock::new(|| {
    let example = |block: &'static str| {
        let (marker, text) = block.strip_prefix("json ")?.split_once('\n')?;
        Some(Example { marker, json: serde_json::from_str(text).ok()? })
    };
    PAGES.iter().flat_map(|page| page.split("\n```")).filter_map(example).collect()
});

/// Adds the examples of bodies to their schemas.
pub(super) fn illustrate(schemas: &mut serde_json::Map<String, Value>) {
    for Example { marker, json } in EXAMPLES.iter() {
        let name = match *marker {
            "entry" => "Entry".to_owned(),
            // `Page<UserCard>` is called `Page_UserCard`, because names may not contain angle brackets.
            marker => match marker.strip_prefix("rest:") {
                Some(name) => name.replace('<', "_").replace('>', ""),
                None => continue,
            },
        };
        if let Some(schema) = schemas.get_mut(&name) {
            match schema.get_mut("examples").and_then(Value::as_array_mut) {
                Some(examples) => examples.push(json.clone()),
                None => schema["examples"] = json!([json]),
            }
        }
    }
}
