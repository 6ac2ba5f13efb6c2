//! The table of all cases, `docs/smuggling.md`: what it says must be what happens.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

/// Set, it has the table written instead of compared.
const WRITE: &str = "DORMOUSE_WRITE_TABLES";

/// What became of one case.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) did: String,
    pub(crate) reached: String,
}

/// Compares the rows of one section with the document.
pub(crate) fn compare(section: &str, rows: &[Row]) {
    // Sections are tested side by side, and written into one file.
    static FILE: Mutex<()> = Mutex::new(());
    let _alone = FILE.lock().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/smuggling.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let heading = format!("## {section}\n");
    let begin = text.find(&heading).unwrap_or_else(|| panic!("no {heading:?}")) + heading.len();
    let end = text[begin..].find("\n## ").map_or(text.len(), |end| begin + end);
    let table = table(rows);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, [&text[..begin], &table, &text[end..]].concat()).unwrap();
        return;
    }
    let wanted = &text[begin..end];
    for (wanted, found) in wanted.lines().zip(table.lines()) {
        assert_eq!(
            found,
            wanted,
            "{section}: what happens is not what {} says",
            path.display()
        );
    }
    assert_eq!(table.lines().count(), wanted.lines().count(), "{section}: cases");
}

fn table(rows: &[Row]) -> String {
    let mut table = "\n| case | what we did | what reached the endpoint |\n|---|---|---|\n".to_owned();
    for Row { case, did, reached } in rows {
        writeln!(table, "| {case} | {did} | {reached} |").unwrap();
    }
    table
}
