//! A name for a service whose client gave it none, as Docker does it. Pure: the id is the chance.

use racimo_common::id::ServiceId;

use crate::store::State;

const ADJECTIVES: [&str; 16] = [
    "amber", "bold", "brave", "bright", "calm", "crisp", "early", "gentle", "golden", "happy", "keen", "late", "mild",
    "quiet", "ripe", "sunny",
];
const NOUNS: [&str; 16] = [
    "barrel", "berry", "bunch", "cask", "cellar", "cork", "crate", "grape", "harvest", "hill", "leaf", "press", "root",
    "terrace", "vine", "yard",
];

/// A name that no service in `state` has. With 256 names, a second `quiet_grape` carries a part of its id.
pub fn draw(state: &State, service: ServiceId) -> String {
    let pick = |words: &[&'static str; 16], shift: u32| {
        words[usize::try_from(service.bits() >> shift & 15).unwrap_or_default()]
    };
    let name = format!("{}_{}", pick(&ADJECTIVES, 0), pick(&NOUNS, 4));
    if state.service_named(&name).is_none() {
        return name;
    }
    let id = service.to_string();
    format!("{name}_{}", id.get(..8).unwrap_or(&id))
}
