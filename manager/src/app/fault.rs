//! Why something does not work, as long as that is so.

use std::sync::{Arc, Mutex, PoisonError};

/// Why it does not, if it does not; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    /// How it is now. True: that is another fault than before, or there was none.
    pub(super) fn set(&self, fault: Option<String>) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = fault.is_some() && fault != *told;
        *told = fault;
        is_news
    }

    /// What a person should know.
    pub(super) fn now(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_news_once() {
        let fault = Fault::default();
        let at = |why: &str| Some(why.to_owned());
        for (why, is_news) in [(None, false), (at("a"), true), (at("a"), false), (at("b"), true), (None, false)] {
            assert_eq!((fault.set(why.clone()), fault.clone().now()), (is_news, why));
        }
        assert!(fault.set(at("b")), "it was gone meanwhile");
    }
}
