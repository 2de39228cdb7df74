//! JSON with placeholders: `*` matches anything, `$name` is a variable, `...` at the end allows further members,
//! `"ab"*3` is `"ababab"`, `$"x ${name}"` is a text that contains a variable.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// JSON with placeholders.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Template {
    Any,
    Variable(String),
    /// A text that contains variables.
    Filled(String),
    Plain(Value),
    /// The items, and whether further items are allowed.
    Array(Vec<Template>, bool),
    /// The members, and whether further members are allowed.
    Object(Vec<(String, Template)>, bool),
}

/// Values of the variables.
#[derive(Debug, Default)]
pub(super) struct Variables {
    values: BTreeMap<String, Value>,
    keys: u64,
}

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    pub(super) fn get(&self, name: &str) -> Result<&Value, String> {
        self.values.get(name).ok_or_else(|| format!("${name} is not bound"))
    }

    /// The value of a variable as text.
    pub(super) fn text(&self, name: &str) -> Result<String, String> {
        Ok(match self.get(name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// The name of a member, which may be a variable: `{$d: 4}`.
    fn member_name(&self, name: &str) -> Result<String, String> {
        name.strip_prefix('$').map_or_else(|| Ok(name.to_owned()), |variable| self.text(variable))
    }

    /// A new retry key.
    pub(super) fn fresh_key(&mut self) -> String {
        self.keys += 1;
        format!("01920000-0000-7000-8000-{:012}", self.keys)
    }

    /// Replaces each `$name` and `${name}` in a text.
    pub(super) fn fill_text(&self, text: &str) -> Result<String, String> {
        let mut parts = text.split('$');
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let braced = part.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let (name, rest) = braced.unwrap_or_else(|| part.split_at(name_at(part).len()));
            filled += &self.text(name)?;
            filled += rest;
        }
        Ok(filled)
    }

    /// The JSON that a template sends. A new variable `$key…` becomes a new UUID.
    pub(super) fn fill(&mut self, template: &Template) -> Result<Value, String> {
        Ok(match template {
            Template::Any | Template::Array(_, true) | Template::Object(_, true) => {
                return Err("a frame to be sent cannot contain `*` or `...`".into());
            }
            Template::Variable(name) => {
                if name.starts_with("key") && !self.values.contains_key(name) {
                    let key = self.fresh_key();
                    self.set(name, Value::String(key));
                }
                self.get(name)?.clone()
            }
            Template::Filled(text) => Value::String(self.fill_text(text)?),
            Template::Plain(value) => value.clone(),
            Template::Array(items, _) => {
                Value::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?)
            }
            Template::Object(members, _) => {
                let mut object = Map::new();
                for (name, member) in members {
                    object.insert(self.member_name(name)?, self.fill(member)?);
                }
                Value::Object(object)
            }
        })
    }

    /// Compares a value with a template and binds new variables.
    pub(super) fn compare(&mut self, template: &Template, value: &Value, at: &str) -> Result<(), String> {
        match (template, value) {
            (Template::Any, _) => Ok(()),
            (Template::Variable(name), _) => match self.values.get(name) {
                Some(known) if known == value => Ok(()),
                Some(known) => Err(format!("{at} is {value}, and ${name} is {known}")),
                None => {
                    self.set(name, value.clone());
                    Ok(())
                }
            },
            (Template::Plain(expected), _) if expected == value => Ok(()),
            (Template::Filled(text), _) if value.as_str() == Some(&self.fill_text(text)?) => Ok(()),
            (Template::Array(items, is_open), Value::Array(values)) => {
                if values.len() < items.len() || (values.len() > items.len() && !is_open) {
                    return Err(format!("{at} has {} items instead of {}", values.len(), items.len()));
                }
                let mut pairs = items.iter().zip(values).enumerate();
                pairs.try_for_each(|(index, (item, value))| {
                    self.compare(item, value, &format!("{at}[{index}]"))
                })
            }
            (Template::Object(members, is_open), Value::Object(values)) => {
                let names = members.iter().map(|(name, _)| self.member_name(name));
                let names = names.collect::<Result<Vec<String>, String>>()?;
                for (name, (_, member)) in names.iter().zip(members) {
                    let value = values.get(name).ok_or_else(|| format!("{at}.{name} is missing"))?;
                    self.compare(member, value, &format!("{at}.{name}"))?;
                }
                match values.keys().find(|name| !is_open && !names.contains(name)) {
                    Some(name) => Err(format!("{at}.{name} was not expected")),
                    None => Ok(()),
                }
            }
            (expected, _) => Err(format!("{at} is {value} instead of {}", describe(expected))),
        }
    }
}

fn describe(template: &Template) -> String {
    match template {
        Template::Plain(value) => value.to_string(),
        Template::Filled(text) => format!("{text:?}"),
        Template::Array(..) => "an array".into(),
        Template::Object(..) => "an object".into(),
        Template::Any => "*".into(),
        Template::Variable(name) => format!("${name}"),
    }
}

/// The name at the beginning of a text: `ada.phone` in `ada.phone/x`.
pub(super) fn name_at(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

/// Parses a template at the beginning of a text; returns the rest of the text too.
pub(super) fn read(text: &str) -> Result<(Template, &str), String> {
    let text = text.trim_start();
    let first = text.chars().next().ok_or("a value is missing")?;
    match first {
        '*' => Ok((Template::Any, &text[1..])),
        '$' if text[1..].starts_with('"') => {
            let (text, rest) = read_string(&text[1..])?;
            Ok((Template::Filled(text), rest))
        }
        '$' => {
            let name = name_at(&text[1..]);
            if name.is_empty() {
                return Err("`$` without a name".into());
            }
            Ok((Template::Variable(name.to_owned()), &text[1 + name.len()..]))
        }
        '[' => read_array(&text[1..]),
        '{' => read_object(&text[1..]),
        '"' => read_string(text).map(|(string, rest)| (Template::Plain(Value::String(string)), rest)),
        _ => {
            let end = text.find([',', ']', '}', ' ', '\n']).unwrap_or(text.len());
            let value = serde_json::from_str(&text[..end]);
            let value = value.map_err(|error| format!("`{}`: {error}", &text[..end]))?;
            Ok((Template::Plain(value), &text[end..]))
        }
    }
}

fn read_string(text: &str) -> Result<(String, &str), String> {
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let string = strings.next().ok_or("a string is missing")?.map_err(|error| error.to_string())?;
    let rest = &text[strings.byte_offset()..];
    let Some(count) = rest.strip_prefix('*') else { return Ok((string, rest)) };
    let end = count.find(|c: char| !c.is_ascii_digit()).unwrap_or(count.len());
    let times: usize = count[..end].parse().map_err(|_| "`*` after a string needs a number")?;
    Ok((string.repeat(times), &count[end..]))
}

fn read_array(mut rest: &str) -> Result<(Template, &str), String> {
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix(']') {
            return Ok((Template::Array(items, false), rest));
        }
        if let Some(rest) = rest.strip_prefix("...") {
            let rest =
                rest.trim_start().strip_prefix(']').ok_or("`...` must be the last item of an array")?;
            return Ok((Template::Array(items, true), rest));
        }
        let (item, after) = read(rest)?;
        items.push(item);
        rest = skip_comma(after, ']')?;
    }
}

fn read_object(mut rest: &str) -> Result<(Template, &str), String> {
    let mut members = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((Template::Object(members, false), rest));
        }
        if let Some(rest) = rest.strip_prefix("...") {
            let rest =
                rest.trim_start().strip_prefix('}').ok_or("`...` must be the last member of an object")?;
            return Ok((Template::Object(members, true), rest));
        }
        let (name, after) = if let Some(variable) = rest.strip_prefix('$') {
            let name = name_at(variable);
            (format!("${name}"), &variable[name.len()..])
        } else {
            read_string(rest)?
        };
        let after =
            after.trim_start().strip_prefix(':').ok_or_else(|| format!("`:` is missing after {name:?}"))?;
        let (member, after) = read(after)?;
        members.push((name, member));
        rest = skip_comma(after, '}')?;
    }
}

fn skip_comma(rest: &str, end: char) -> Result<&str, String> {
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(rest) => Ok(rest),
        None if rest.starts_with(end) => Ok(rest),
        None => {
            Err(format!("`,` or `{end}` is missing before `{}`", rest.chars().take(20).collect::<String>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(text: &str) -> Template {
        let (template, rest) = read(text).unwrap();
        assert_eq!(rest, "");
        template
    }

    fn differs(text: &str, value: &Value) -> Option<String> {
        Variables::default().compare(&template(text), value, "frame").err()
    }

    #[test]
    fn variables_bind_once_and_match_later() {
        let mut variables = Variables::default();
        assert_eq!(
            variables.compare(&template(r#"{"a":$x,"b":*}"#), &json!({"a": 1, "b": 2}), "frame"),
            Ok(())
        );
        assert_eq!(variables.fill(&template(r#"[$x,"$x"]"#)), Ok(json!([1, "$x"])));
        assert!(variables.compare(&template("$x"), &json!(2), "frame").is_err());
        assert_eq!(variables.fill_text("/v1/$x/y"), Ok("/v1/1/y".to_owned()));
        assert_eq!(variables.fill(&template(r#"$"${x}9""#)), Ok(json!("19")));
        assert!(variables.fill(&template("$y")).is_err());
        assert!(variables.fill(&template("$key1")).is_ok());
    }

    #[test]
    fn objects_are_closed_unless_they_end_with_dots() {
        let value = json!({"a": 1, "b": [1, 2]});
        assert_eq!(differs(r#"{"a":1,"b":[1,2]}"#, &value), None);
        assert_eq!(differs(r#"{"a":1, ...}"#, &value), None);
        assert_eq!(differs(r#"{"a":1,"b":[1,...]}"#, &value), None);
        assert_eq!(differs(r#"{"a":1}"#, &value).as_deref(), Some("frame.b was not expected"));
        assert_eq!(differs(r#"{"a":1,"b":[1,3]}"#, &value).as_deref(), Some("frame.b[1] is 2 instead of 3"));
        assert_eq!(differs(r#"{"c":1,...}"#, &value).as_deref(), Some("frame.c is missing"));
    }

    #[test]
    fn strings_repeat() {
        assert_eq!(template(r#""ab"*3"#), Template::Plain(json!("ababab")));
    }

    #[test]
    fn invalid_templates_are_refused() {
        for text in ["", "{", "[1 2]", r#"{"a" 1}"#, "$", "nonsense", r#"{"a":1,... ,"b":2}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
