//! Racimo's agent.
