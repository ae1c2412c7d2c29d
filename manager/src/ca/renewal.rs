//! When does a certificate have to be renewed, and what does a board have to be told?
//!
//! In: what a board shows and trusts, what it should, the time. Out: an [`Ask`], or when a certificate is due. Keeps
//! nothing.
//!
//! ```text
//! signed ───────── 50 % ─── due ─── 80 % ───── end     drawn from the certificate's digest: boards that joined together
//!                                                      do not renew together, and a restart changes nothing
//! ```

use std::time::Duration;

use racimo_common::time::Wall;
use racimo_common::token::DIGEST_BYTES;

use super::{BACKDATE, Present, Shown};

/// Parts of a thousand of a certificate's life after which it is renewed, at the earliest and at the latest.
const SHARE: (u64, u64) = (500, 800);

/// What boards shall show and trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// SHA-256 of the root certificate whose key signs.
    pub issuer: [u8; DIGEST_BYTES],
    /// SHA-256 of each root certificate to trust.
    pub roots: Vec<[u8; DIGEST_BYTES]>,
    /// How long new certificates are valid.
    pub validity: Duration,
}

/// What a board has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// To ask for a new certificate; the roots come with it.
    Renew,
    /// Which roots to trust.
    Roots,
}

/// Judges a board that shows and trusts this.
pub fn judge(shown: &Shown, trusts: &[[u8; DIGEST_BYTES]], wanted: &Wanted, now: Wall) -> Option<Ask> {
    let same_roots = || {
        let within = |inner: &[[u8; DIGEST_BYTES]], outer: &[_]| inner.iter().all(|root| outer.contains(root));
        within(trusts, &wanted.roots) && within(&wanted.roots, trusts)
    };
    if shown.issuer != Some(wanted.issuer) || due(shown, wanted.validity) <= now {
        Some(Ask::Renew)
    } else if !same_roots() {
        Some(Ask::Roots)
    } else {
        None
    }
}

/// When a certificate is due: at 50 to 80 % of its life; of what it would live if it were signed today, where that is
/// shorter.
pub fn due(shown: &Shown, validity: Duration) -> Wall {
    let signed = shown.begins + BACKDATE;
    let life = shown.ends.since(signed).min(validity);
    let [a, b, ..] = shown.digest;
    let share = SHARE.0 + (SHARE.1 - SHARE.0) * u64::from(u16::from_be_bytes([a, b])) / u64::from(u16::MAX);
    signed + Duration::from_secs(life.as_secs().saturating_mul(share) / 1000)
}

/// Why a board that shows this may only renew it; none: it may open a session.
pub fn over(shown: &Shown, present: &Present, now: Wall) -> Option<&'static str> {
    let digest = |root| Some(racimo_common::tls::digest(root)) == shown.issuer;
    if shown.ends <= now {
        return Some("this node's certificate has expired: a new one is needed first");
    }
    if !present.roots.trusted().iter().any(|root| digest(root)) {
        return Some("this node's certificate is of a root that was replaced: a new one is needed first");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SIGNED: Wall = Wall::from_nanos(1_790_000_000_000_000_000);

    fn shown(first: u8, hours: u32) -> Shown {
        let digest = [first; DIGEST_BYTES];
        Shown { digest, issuer: Some([1; 32]), begins: SIGNED - BACKDATE, ends: SIGNED + HOUR * hours }
    }

    #[track_caller]
    fn check_due(first: u8, hours: u32, setting_hours: u32, want_minutes: std::ops::RangeInclusive<u64>) {
        let minutes = due(&shown(first, hours), HOUR * setting_hours).since(SIGNED).as_secs() / 60;
        assert!(want_minutes.contains(&minutes), "due after {minutes} minutes, not {want_minutes:?}");
    }

    #[test]
    fn due_at_half_of_life_or_later() {
        check_due(0, 1, 1, 30..=30);
        check_due(0xff, 1, 1, 47..=48);
        check_due(0x80, 1, 1, 38..=40);
        check_due(0, 90 * 24, 90 * 24, 64_799..=64_800);
        check_due(0xff, 90 * 24, 90 * 24, 103_670..=103_680);
        // A setting counts for the certificates that are there if it is shorter, and not if it is longer.
        check_due(0, 90 * 24, 1, 30..=30);
        check_due(0, 1, 90 * 24, 30..=30);
        // One that ends before it was signed is due at once.
        let past = Shown { ends: SIGNED - HOUR, ..shown(9, 1) };
        assert_eq!(due(&past, HOUR), SIGNED);
    }

    #[track_caller]
    fn check(shown: &Shown, trusts: &[u8], after: Duration, want: Option<Ask>) {
        let trusts: Vec<_> = trusts.iter().map(|root| [*root; DIGEST_BYTES]).collect();
        let wanted = Wanted { issuer: [1; 32], roots: vec![[1; 32], [2; 32]], validity: HOUR };
        assert_eq!(judge(shown, &trusts, &wanted, SIGNED + after), want);
    }

    #[test]
    fn what_a_board_is_told() {
        let good = shown(0, 1);
        check(&good, &[1, 2], HOUR / 4, None);
        check(&good, &[2, 1], HOUR / 4, None);
        check(&good, &[1], HOUR / 4, Some(Ask::Roots));
        check(&good, &[1, 2, 3], HOUR / 4, Some(Ask::Roots));
        check(&good, &[], HOUR / 4, Some(Ask::Roots));
        check(&good, &[1, 2], HOUR / 2, Some(Ask::Renew));
        check(&good, &[1], HOUR, Some(Ask::Renew));
        check(&Shown { issuer: Some([2; 32]), ..good.clone() }, &[1, 2], Duration::ZERO, Some(Ask::Renew));
        check(&Shown { issuer: None, ..good }, &[1, 2], Duration::ZERO, Some(Ask::Renew));
    }
}
