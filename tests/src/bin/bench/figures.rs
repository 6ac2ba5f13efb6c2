//! What was measured: a table for people, JSON for programs.

use std::fmt;

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What it is; the number of objects is part of the name.
    pub(crate) name: String,
    /// Its value; none where it could not be measured.
    pub(crate) value: Option<f64>,
    /// Of what.
    pub(crate) unit: &'static str,
    /// The value that is just good enough.
    pub(crate) goal: Option<f64>,
    #[serde(skip)]
    better: Better,
    #[serde(skip)]
    note: String,
}

/// Which values are better than the goal.
#[derive(Clone, Copy, Debug)]
enum Better {
    Smaller,
    Larger,
}

impl Figure {
    fn is_missed(&self) -> bool {
        let Some(goal) = self.goal else { return false };
        !self.value.is_some_and(|value| match self.better {
            Better::Smaller => value <= goal,
            Better::Larger => value >= goal,
        })
    }
}

/// All figures of a run, in the order in which they were taken.
#[derive(Default)]
pub(crate) struct Figures {
    all: Vec<Figure>,
}

impl Figures {
    /// Adds a figure of which the goal is the largest value that is good enough, and says it.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        value: impl Into<Option<f64>>,
        unit: &'static str,
        goal: impl Into<Option<f64>>,
        note: impl Into<String>,
    ) {
        self.push(Figure {
            name: name.into(),
            value: value.into(),
            unit,
            goal: goal.into(),
            better: Better::Smaller,
            note: note.into(),
        });
    }

    /// The same where the goal is the smallest value that is good enough.
    pub(crate) fn add_at_least(
        &mut self,
        name: impl Into<String>,
        value: impl Into<Option<f64>>,
        unit: &'static str,
        goal: f64,
        note: impl Into<String>,
    ) {
        self.push(Figure {
            name: name.into(),
            value: value.into(),
            unit,
            goal: Some(goal),
            better: Better::Larger,
            note: note.into(),
        });
    }

    fn push(&mut self, mut figure: Figure) {
        figure.value = figure.value.map(|value| (value * 1000.0).round() / 1000.0);
        eprintln!("    {}", Row(&figure));
        self.all.push(figure);
    }

    /// The figures as a JSON list.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&self.all)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<36} {:>10} {:<13} {:>8}", "figure", "value", "unit", "goal")?;
        for figure in &self.all {
            writeln!(f, "{}", Row(figure))?;
        }
        Ok(())
    }
}

struct Row<'a>(&'a Figure);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure {
            name,
            value,
            unit,
            goal,
            note,
            ..
        } = self.0;
        let shown = value.map_or("-".to_owned(), short);
        let goal = goal.map_or(String::new(), short);
        let missed = if self.0.is_missed() { " !" } else { "  " };
        write!(f, "{name:<36} {shown:>10} {unit:<13} {goal:>8}{missed} {note}")
    }
}

fn short(value: f64) -> String {
    if value == value.trunc() {
        format!("{value:.0}")
    } else if value.abs() >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_marked_and_the_json_has_the_four_fields() {
        let mut figures = Figures::default();
        figures.add("create_5_ready", 21.23456, "s", 20.0, "");
        figures.add("idle_writes_per_min", 0.0, "writes", 0.0, "");
        figures.add("failover_kill", None, "s", 16.0, "nobody took over");
        figures.add_at_least("throughput", 0.9, "", 0.8, "");
        figures.add_at_least("throughput_alone", 0.7, "", 0.8, "");
        let text = figures.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("21.235") && lines[1].contains("20 !"), "{text}");
        assert!(!lines[2].contains('!'), "{text}");
        assert!(
            lines[3].contains("16 !") && lines[3].contains("nobody took over"),
            "{text}"
        );
        assert!(!lines[4].contains('!') && lines[5].contains("0.800 !"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&figures.json().unwrap()).unwrap();
        assert_eq!(
            json[0],
            serde_json::json!({"name": "create_5_ready", "value": 21.235, "unit": "s", "goal": 20.0})
        );
    }
}
