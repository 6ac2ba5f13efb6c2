//! The table at the end of a test run.

use std::fmt;

use super::libtest::Outcome;
use crate::progress::seconds;

/// All outcomes in the order of the run.
#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<(String, Option<Outcome>)>,
}

impl Summary {
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome) {
        self.rows.push((name.to_owned(), Some(outcome)));
    }

    /// A file whose tests were not run counts as a failure: nobody may take it for a pass.
    pub(crate) fn leave_out(&mut self, name: &str) {
        self.rows.push((name.to_owned(), None));
    }

    /// Whether everything ran and passed.
    pub(crate) fn is_clean(&self) -> bool {
        self.rows
            .iter()
            .all(|(_, outcome)| outcome.as_ref().is_some_and(Outcome::is_success))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0)
            .max(4);
        writeln!(
            out,
            "\n{:<width$}  {:>6}  {:>6}  {:>12}",
            "file", "passed", "failed", "time"
        )?;
        let (mut passed, mut failed) = (0, 0);
        for (name, outcome) in &self.rows {
            let Some(outcome) = outcome else {
                writeln!(out, "{name:<width$}  left out")?;
                continue;
            };
            passed += outcome.passed;
            failed += outcome.failed;
            if !outcome.counted && outcome.is_success() {
                writeln!(
                    out,
                    "{name:<width$}  {:>6}  {:>6}  {:>12}",
                    "ok",
                    "",
                    seconds(outcome.took)
                )?;
                continue;
            }
            if outcome.passed + outcome.failed == 0 && outcome.is_success() {
                continue;
            }
            let time = seconds(outcome.took);
            write!(
                out,
                "{name:<width$}  {:>6}  {:>6}  {time:>12}",
                outcome.passed, outcome.failed
            )?;
            writeln!(
                out,
                "{}",
                outcome
                    .trouble
                    .as_ref()
                    .map(|why| format!("  {why}"))
                    .unwrap_or_default()
            )?;
        }
        let verdict = if self.is_clean() {
            "all passed"
        } else {
            "NOT all passed"
        };
        write!(out, "{:<width$}  {passed:>6}  {failed:>6}  {verdict}", "all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(passed: usize) -> Outcome {
        Outcome {
            passed,
            counted: true,
            ..Outcome::default()
        }
    }

    #[test]
    fn a_program_without_tests_is_not_listed_and_one_that_does_not_count_is() {
        let mut summary = Summary::default();
        summary.add("empty", passed(0));
        summary.add("own-harness", Outcome::default());
        let table = summary.to_string();
        assert!(summary.is_clean());
        assert!(
            !table.contains("empty") && table.contains("own-harness      ok"),
            "{table}"
        );
    }

    #[test]
    fn what_failed_and_what_was_left_out_is_in_the_table() {
        let mut summary = Summary::default();
        summary.add("core", passed(3));
        assert!(summary.is_clean() && summary.to_string().contains("all passed"));
        summary.leave_out("sqs_worker");
        summary.add(
            "crds",
            Outcome {
                trouble: Some("signal 6".into()),
                ..Outcome::default()
            },
        );
        let table = summary.to_string();
        assert!(!summary.is_clean());
        assert!(
            table.contains("sqs_worker  left out") && table.contains("signal 6"),
            "{table}"
        );
        assert!(table.contains("NOT all passed"));
    }
}
