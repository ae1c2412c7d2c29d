//! Image references, platforms, and a client for image registries.

mod platform;

pub use platform::Platform;
