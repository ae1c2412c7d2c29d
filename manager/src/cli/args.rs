//! Flags that several commands share.

use clap::Args;

use super::format::table::Format;
use super::parse;
use super::url::Filters;

const FORMAT_HELP: &str = "Format of the output: table, table TEMPLATE, json, or a Go template";

/// Flags of a listing.
#[derive(Args, Debug)]
pub(crate) struct ListFlags {
    /// Show only what matches (KEY=VALUE; repeatable)
    #[arg(short, long, value_name = "FILTER", value_parser = parse::filter)]
    pub(crate) filter: Vec<(String, String)>,
    #[arg(long, value_name = "FORMAT", help = FORMAT_HELP)]
    pub(crate) format: Option<String>,
    /// Only show ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Don't shorten anything
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

impl ListFlags {
    /// The filters as the API takes them.
    pub(crate) fn filters(&self) -> Filters {
        Filters::new(&self.filter)
    }

    /// How to print.
    pub(crate) fn format(&self) -> Format {
        if self.quiet && self.format.is_none() {
            return Format::Template("{{.ID}}".to_owned());
        }
        Format::parse(self.format.as_deref())
    }
}

/// Flags of an inspection.
#[derive(Args, Debug)]
pub(crate) struct InspectFlags {
    /// Go template for each object, or json
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "pretty")]
    pub(crate) format: Option<String>,
    /// Print for people
    #[arg(long)]
    pub(crate) pretty: bool,
}

/// Waiting, or not, for tasks to follow.
#[derive(Args, Debug)]
pub(crate) struct WaitFlags {
    /// Exit at once instead of waiting until the tasks have followed
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true")]
    pub(crate) detach: bool,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
