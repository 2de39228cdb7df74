//! One text for all spellings of a value, for hashes that are kept. It must not change: rows of every version have them.
//!
//! Members in the order of their names, strings as `serde_json` writes them, numbers as below.

use std::collections::BTreeMap;

use madang_proto::Data;
use serde_json::value::RawValue;

/// How numbers are written that a 64-bit integer or floating-point number does not hold exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// By all of their digits.
    Exact,
    /// As the nearest floating-point number.
    Rounded,
}

/// The canonical text. Recursion is bounded by the depth of [`Data`].
pub(super) fn text(data: &Data, numbers: Numbers) -> String {
    let mut text = String::with_capacity(data.get().len());
    write(data.get(), numbers, &mut text);
    text
}

fn write(value: &str, numbers: Numbers, out: &mut String) {
    match value.bytes().next() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(value).unwrap_or_default();
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                separate(index, out);
                push_string(name, out);
                out.push(':');
                write(value.get(), numbers, out);
            }
            out.push('}');
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(value).unwrap_or_default();
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                separate(index, out);
                write(element.get(), numbers, out);
            }
            out.push(']');
        }
        Some(b'"') => push_string(&serde_json::from_str::<String>(value).unwrap_or_default(), out),
        Some(b'-' | b'0'..=b'9') => out.push_str(&number(value, numbers)),
        _ => out.push_str(value),
    }
}

fn separate(index: usize, out: &mut String) {
    if index > 0 {
        out.push(',');
    }
}

fn push_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn number(token: &str, numbers: Numbers) -> String {
    let is_zero = token == "-0";
    if !is_zero && (token.parse::<u64>().is_ok() || token.parse::<i64>().is_ok()) {
        return token.to_owned();
    }
    let rounded =
        token.parse::<f64>().ok().and_then(|value| serde_json::to_string(&value).ok()).unwrap_or_default();
    match numbers {
        Numbers::Exact if Decimal::of(&rounded) != Decimal::of(token) => Decimal::of(token).to_string(),
        _ => rounded,
    }
}

/// A decimal number: `digits` without zeros at either end, times ten to the power of `exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(token: &str) -> Self {
        let (is_negative, token) = token.strip_prefix('-').map_or((false, token), |rest| (true, rest));
        let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let cut = all.len() - digits.len();
        // An exponent that does not fit belongs to zero: other such numbers are out of range.
        let exponent = exponent.parse::<i64>().unwrap_or_default();
        let exponent = exponent.saturating_sub(fraction.len() as i64).saturating_add(cut as i64);
        let digits = digits.trim_start_matches('0').to_owned();
        let exponent = if digits.is_empty() { 0 } else { exponent };
        Self { is_negative, digits, exponent }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        write!(f, "{sign}{}e{}", self.digits, self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_text_for_each_value() {
        let exact = |token: &str| number(token, Numbers::Exact);
        for (token, text) in [
            ("0", "0"),
            ("-0", "-0.0"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551617", "18446744073709551617e0"),
            ("184467440737095516170", "18446744073709551617e1"),
            ("-9223372036854775809", "-9223372036854775809e0"),
            ("1e2", "100.0"),
            ("1.50", "1.5"),
            ("0e999999999999999999999", "0.0"),
            ("0.10000000000000000000001", "10000000000000000000001e-23"),
            ("1e-400", "1e-400"),
        ] {
            assert_eq!(exact(token), text, "{token}");
        }
        assert_eq!(number("18446744073709551617", Numbers::Rounded), "1.8446744073709552e+19");
    }
}
