//! The body of a request to APNs: "Generating a remote notification", Apple.
//!
//! Apple takes any JSON object and shows nothing if it makes no sense. The sandbox is stricter, because such a request is a bug of
//! its sender: an alert must contain `alert`, `badge` or `sound`, and a background notice only `content-available` in `aps`
//! ("Pushing background updates to your app").

use serde_json::{Map, Value};

use crate::answer::Refused;

const BYTES: usize = 4_096;
const VOIP_BYTES: usize = 5_120;

/// Reads and checks the body.
pub(super) fn read(body: &[u8], push_type: &str) -> Result<Value, Refused> {
    let limit = if push_type == "voip" { VOIP_BYTES } else { BYTES };
    if body.len() > limit {
        let detail = format!("the body has {} bytes, the limit is {limit}", body.len());
        return Err(Refused::request(413, "PayloadTooLarge", detail));
    }
    if body.is_empty() {
        return Err(empty("the body is empty"));
    }
    let payload: Value = serde_json::from_slice(body).map_err(|_| empty("the body is not JSON"))?;
    let aps = payload["aps"].as_object().ok_or_else(|| empty("the body has no object `aps`"))?;
    check_content(aps, push_type)?;
    Ok(payload)
}

fn empty(detail: &str) -> Refused {
    Refused::request(400, "PayloadEmpty", detail)
}

fn check_content(aps: &Map<String, Value>, push_type: &str) -> Result<(), Refused> {
    let problem = match push_type {
        "background" if aps.get("content-available") != Some(&Value::from(1)) => {
            "`aps` of a background notice has no `content-available: 1`"
        }
        "background" if aps.len() > 1 => "`aps` of a background notice has more than `content-available`",
        "alert" if !["alert", "badge", "sound"].iter().any(|key| aps.contains_key(*key)) => {
            "`aps` of an alert has no `alert`, `badge` or `sound`"
        }
        _ => return Ok(()),
    };
    Err(Refused::request(400, "InvalidPushType", problem))
}

/// Whether a person sees an alert.
pub(super) fn is_visible(payload: &Value, push_type: &str) -> bool {
    push_type == "alert" && !payload["aps"]["alert"].is_null()
}
