//! What is printed: figure, value, budget, and how it was measured.

use std::fmt;

/// One figure.
struct Row {
    figure: String,
    value: String,
    /// What it may be, and whether it is.
    budget: Option<(String, bool)>,
    way: String,
}

/// All figures of one run.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// A figure without a budget. It is told at once too: a run takes minutes.
    pub(crate) fn add(&mut self, figure: impl Into<String>, value: impl Into<String>, way: impl Into<String>) {
        self.push(Row { figure: figure.into(), value: value.into(), budget: None, way: way.into() });
    }

    /// A figure that must not exceed its budget.
    pub(crate) fn add_at_most(&mut self, figure: impl Into<String>, value: Amount, most: Amount, way: &str) {
        let budget = Some((format!("<= {most}"), value.number <= most.number));
        self.push(Row { figure: figure.into(), value: value.to_string(), budget, way: way.to_owned() });
    }

    /// A figure that must reach its budget.
    pub(crate) fn add_at_least(&mut self, figure: impl Into<String>, value: Amount, least: Amount, way: &str) {
        let budget = Some((format!(">= {least}"), value.number >= least.number));
        self.push(Row { figure: figure.into(), value: value.to_string(), budget, way: way.to_owned() });
    }

    fn push(&mut self, row: Row) {
        eprintln!("  {}: {}", row.figure, row.value);
        self.rows.push(row);
    }

    /// How many figures miss their budget.
    pub(crate) fn over(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.budget, Some((_, false)))).count()
    }
}

impl fmt::Display for Table {
    /// Markdown, for docs/performance.md.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| figure | value | budget | measured by |\n|---|---|---|---|")?;
        self.rows.iter().try_for_each(|Row { figure, value, budget, way }| {
            let budget = budget.as_ref().map_or_else(String::new, |(budget, is_met)| {
                format!("{budget} {}", if *is_met { "PASS" } else { "**OVER**" })
            });
            writeln!(f, "| {figure} | {value} | {budget} | {way} |")
        })
    }
}

/// A number with its unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    number: f64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    KiB,
    Percent,
    PerSecond,
}

impl Amount {
    /// A file's size.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self { number: as_f64(bytes), unit: Unit::Bytes }
    }

    /// Memory, as the kernel counts it.
    pub(crate) fn kib(kib: u64) -> Self {
        Self { number: as_f64(kib), unit: Unit::KiB }
    }

    /// A share.
    pub(crate) fn percent(number: f64) -> Self {
        Self { number, unit: Unit::Percent }
    }

    /// A rate.
    pub(crate) fn per_second(number: f64) -> Self {
        Self { number, unit: Unit::PerSecond }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, unit } = self;
        match unit {
            Unit::Bytes => write!(f, "{number:.0} bytes ({:.2} MiB)", number / 1_048_576.0),
            Unit::KiB => write!(f, "{number:.0} KiB"),
            Unit::Percent => write!(f, "{number:.3} %"),
            Unit::PerSecond => write!(f, "{number:.0}/s"),
        }
    }
}

/// Exact up to 2^53, far beyond any figure here.
pub(crate) fn as_f64(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures are far below 2^53")]
    let number = number as f64;
    number
}
