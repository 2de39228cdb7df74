//! Links between pages of the tree have a target.

use super::tree::{Tree, Violation};

/// Every link of a Markdown page to a file of the tree has a target.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.ending(".md").flat_map(|(path, text)| check_page(tree, path, text)).collect()
}

fn check_page(tree: &Tree, page: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line).into_iter().filter(|target| is_file(target)) {
            if !tree.has(&resolve(page, target)) {
                violations.push(Violation::new(
                    page,
                    index + 1,
                    format!("the link `{target}` leads nowhere"),
                ));
            }
        }
    }
    violations
}

/// Targets of `[text](target "title")` and `[name]: target`, outside code spans.
fn targets(line: &str) -> Vec<&str> {
    let prose: Vec<&str> = line.split('`').step_by(2).collect();
    let inline = prose
        .iter()
        .flat_map(|part| part.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ']).next());
    // A link around a code span begins in the part after the span.
    let definition =
        line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(definition).collect()
}

fn is_file(target: &str) -> bool {
    !(target.is_empty() || target.starts_with('#') || target.contains("://") || target.starts_with("mailto:"))
}

fn resolve(page: &str, target: &str) -> String {
    let target = target.trim_matches(['<', '>']).split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { page.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let page = "[a](a.md) [b](../README.md#x \"t\") [c](gone.md)\n[d](https://x/y) [e](#here) [f](/docs/)\n\
                    ```\n[g](gone.md)\n```\n`[h](gone.md)` [`i`](gone/i.md)\n[j]: gone-too.md\n";
        let tree = Tree::of(&[("docs/index.md", page), ("docs/a.md", ""), ("README.md", "")]);
        let found: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
        let expected = [
            "docs/index.md:1: the link `gone.md` leads nowhere",
            "docs/index.md:6: the link `gone/i.md` leads nowhere",
            "docs/index.md:7: the link `gone-too.md` leads nowhere",
        ];
        assert_eq!(found, expected);
    }
}
