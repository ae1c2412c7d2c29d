//! Ids, units, objects and the wire protocol that Racimo's manager and agent share.
