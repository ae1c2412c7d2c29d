//! From answers to text. Pure, except for the last write.

pub(crate) mod human;
pub(crate) mod image;
pub(crate) mod sort;
pub(crate) mod table;
pub(crate) mod template;
