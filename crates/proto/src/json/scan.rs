//! Scans JSON text byte by byte, without recursion and without building a tree.

/// Whether arrays and objects are nested deeper than `levels`. Works for any text, even if it is not JSON.
pub(super) fn is_deeper(text: &str, levels: usize) -> bool {
    let mut scan = Scan::default();
    text.bytes().any(|byte| {
        scan.step(byte);
        scan.depth > levels
    })
}

/// The text without white space outside strings.
pub(super) fn compact(text: &str) -> String {
    let mut scan = Scan::default();
    let mut compact = String::with_capacity(text.len());
    for char in text.chars() {
        let was_inside = scan.is_inside();
        // In valid JSON, characters that are not ASCII occur only in strings and do not change the state.
        scan.step(u8::try_from(char).unwrap_or(b'a'));
        if was_inside || !char.is_ascii_whitespace() {
            compact.push(char);
        }
    }
    compact
}

/// Splits the first value off a text with valid grammar that begins with a value.
pub(super) fn split_value(text: &str) -> (&str, &str) {
    let mut scan = Scan::default();
    let is_string = text.starts_with('"');
    for (index, byte) in text.bytes().enumerate() {
        // A value at this level ends before the comma, or before the end of the enclosing array or object.
        let ends_before = !scan.is_inside() && scan.depth == 0 && matches!(byte, b',' | b']' | b'}' | b':');
        if ends_before {
            return (text[..index].trim_end(), &text[index..]);
        }
        scan.step(byte);
        if is_string && index > 0 && !scan.is_inside() {
            return text.split_at(index + 1);
        }
    }
    (text.trim_end(), "")
}

/// Whether the escapes of a string contain one half of a surrogate pair without the other.
pub(super) fn has_lone_surrogate(text: &str) -> bool {
    let mut escapes = text.split('\\').skip(1);
    let mut awaits_low = false;
    while let Some(escape) = escapes.next() {
        // `\\` splits into an empty part, and the part after it does not begin with an escape.
        if escape.is_empty() {
            escapes.next();
        }
        let unit = escape.strip_prefix('u').and_then(|hex| u16::from_str_radix(hex.get(..4)?, 16).ok());
        let (is_high, is_low) = match unit {
            Some(unit) => ((0xd800..0xdc00).contains(&unit), (0xdc00..0xe000).contains(&unit)),
            None => (false, false),
        };
        if is_low != awaits_low {
            return true;
        }
        awaits_low = is_high;
        if is_high && escape.len() != 5 {
            return true;
        }
    }
    awaits_low
}

#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Scan {
    const fn is_inside(&self) -> bool {
        self.in_string
    }

    const fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_open_brackets_outside_strings() {
        for (text, depth) in
            [("1", 0), ("[1]", 1), (r#"{"[[[":[]}"#, 2), (r#"["\"[[",[]]"#, 2), ("[][][]", 1)]
        {
            assert!(!is_deeper(text, depth), "{text}");
            assert!(depth == 0 || is_deeper(text, depth - 1), "{text}");
        }
        assert!(is_deeper(&"[".repeat(1_000_000), 64));
    }

    #[test]
    fn only_white_space_outside_strings_is_removed() {
        assert_eq!(compact(" { \"a b\\\" \" :\t[ 1 ,\n2 ] } "), r#"{"a b\" ":[1,2]}"#);
        assert_eq!(compact("\"가 나\""), "\"가 나\"");
    }

    #[test]
    fn values_are_split_at_their_ends() {
        let cases = [
            ("1,2", "1", ",2"),
            ("1 ]", "1", "]"),
            (r#""a,\"]" : 1"#, r#""a,\"]""#, " : 1"),
            (r#"{"a":[1,2]} , 3"#, r#"{"a":[1,2]}"#, ", 3"),
            ("[[],{}]}", "[[],{}]", "}"),
            ("null", "null", ""),
        ];
        for (text, value, rest) in cases {
            assert_eq!(split_value(text), (value, rest), "{text}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_found() {
        for lone in
            [r#""\ud83d""#, r#""\ud83dx\ude00""#, r#""\ude00""#, r#""\ud83d\ud83d\ude00""#, r#""\ud83d\n""#]
        {
            assert!(has_lone_surrogate(lone), "{lone}");
        }
        for whole in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""a\u00e9\n\"""#, r#""\\\ud83d\ude00""#, "\"\""]
        {
            assert!(!has_lone_surrogate(whole), "{whole}");
        }
    }
}
