//! `stack ls`, `stack ps` and `stack services`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::console::Console;
use super::super::error::CliError;
use super::super::format::sort::natural;
use super::super::format::table::{Column, Format, Table, column};
use super::super::json::Peek;
use super::super::url::{Filters, Url};
use super::super::{node, service, tasks};
use super::{LsArgs, PsArgs, ServicesArgs, convert, of_stack};

const COLUMNS: &[Column] = &[column("Name", "NAME"), column("Services", "SERVICES")];

/// Stacks by name, with how many services they have.
pub(super) async fn stacks(args: &LsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let filters = Filters::default().with("label", convert::NAMESPACE);
    let services = client.get(&Url::new(&["services"]).filters(&filters)).await?;
    let mut counts = BTreeMap::<&str, u64>::new();
    for service in services.list("") {
        if let Some(stack) = service["Spec"]["Labels"][convert::NAMESPACE].as_str() {
            *counts.entry(stack).or_default() += 1;
        }
    }
    let mut stacks: Vec<(&str, u64)> = counts.into_iter().collect();
    stacks.sort_by(|a, b| natural(a.0, b.0));
    let row = |(name, count): (&str, u64)| json!({ "Name": name, "Services": count.to_string() });
    let rows: Vec<Value> = stacks.into_iter().map(row).collect();
    Table { columns: COLUMNS, rows, cell: |_, _| None }.print(&Format::parse(args.format.as_deref()), false, console)
}

/// A stack's filters and the user's; several labels must all be there.
fn filters(stack: &str, own: &[(String, String)]) -> Filters {
    own.iter().fold(of_stack(stack), |filters, (key, value)| filters.with(key, value))
}

/// Tasks of a stack.
pub(super) async fn tasks(args: &PsArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let mut filters = filters(&args.stack, &args.list.filter);
    node::resolve_self(&mut filters, client).await?;
    let count = tasks::list(client, console, &filters, &args.list, !args.no_resolve).await?;
    if count == 0 { Err(CliError::Refused(format!("nothing found in stack: {}", args.stack))) } else { Ok(()) }
}

/// Services of a stack.
pub(super) async fn services(args: &ServicesArgs, client: &mut Client, console: &mut Console) -> Result<(), CliError> {
    let count = service::list::print(filters(&args.stack, &args.list.filter), &args.list, client, console).await?;
    if count == 0 {
        console.warn(format!("Nothing found in stack: {}", args.stack))?;
    }
    Ok(())
}
