//! Whole commands against a scripted manager.

mod commands;
mod fake;
mod help;
mod replay;
