//! Names that many objects have in common: their namespace, the names of their ports.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Names {
    known: HashSet<Arc<str>>,
    /// At how many names those that nobody has any more are cleared away.
    sweep_at: usize,
}

/// The name as all share it that ask for it here: thousands of objects in one namespace keep it once.
#[must_use]
pub fn shared_name(name: &str) -> Arc<str> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.known.get(name) {
        return Arc::clone(known);
    }
    if names.known.len() >= names.sweep_at {
        names.known.retain(|name| Arc::strong_count(name) > 1);
        names.sweep_at = 2 * names.known.len() + 64;
    }
    let name: Arc<str> = name.into();
    names.known.insert(Arc::clone(&name));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_for_as_long_as_it_is_used() {
        let (one, other) = (shared_name("team-a"), shared_name("team-a"));
        assert!(Arc::ptr_eq(&one, &other));
        for number in 0..1000 {
            drop(shared_name(&format!("team-{number}")));
        }
        let kept = NAMES.lock().unwrap().known.len();
        assert!(kept < 200, "{kept} names are kept");
        assert!(Arc::ptr_eq(&one, &shared_name("team-a")));
    }
}
