//! No file or folder has a meaningless name.

use super::tree::{Tree, Violation};

/// Names that do not say what the code is for.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"];

/// Refuses such names for files and folders.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.paths()
        .filter_map(|path| {
            let name = path.rsplit('/').next()?;
            let stem = name.split('.').next()?;
            let message = format!("`{stem}` says nothing; name it after what it is for");
            EMPTY_NAMES.contains(&stem).then(|| Violation::new(path, 0, message))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_found() {
        let tree = Tree::of(&[
            ("a/utils.rs", ""),
            ("b/common/mod.rs", ""),
            ("a/commons.rs", ""),
            ("helper.test.ts", ""),
        ]);
        let found: Vec<String> = check(&tree).into_iter().map(|violation| violation.path).collect();
        assert_eq!(found, ["a/utils.rs", "b/common", "helper.test.ts"]);
    }
}
