//! Whole commands against a scripted manager.

mod access;
mod commands;
mod fake;
mod flags;
mod help;
mod lock;
mod replay;
mod stack;
