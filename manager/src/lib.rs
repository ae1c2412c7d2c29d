//! Racimo's manager.
