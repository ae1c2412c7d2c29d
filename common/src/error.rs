//! Errors as text.

use std::error::Error;

/// The error and its causes in one line: `write layer: no space left on device`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
