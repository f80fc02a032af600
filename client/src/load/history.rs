//! What was written to each key, as known outside the cluster, and what may be read after it.
//!
//! Invariant: writes of one key never overlap, and each put carries the context of the last acknowledged
//! one. So at any time a key must show its last acknowledged write, and beside or instead of it only what
//! that rule leaves open: see [`KeyHistory::judge`]. Pure; it neither reads nor decides what a
//! violation is worth.

use std::fmt;

use super::stamp::Stamp;

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It gave the key a value.
    Put,
    /// It took the key's values away.
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Write {
    sequence: u32,
    effect: Effect,
}

/// The writes of one key. Constant in size but for writes whose outcome is unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyHistory {
    issued: u32,
    acknowledged: u32,
    last: Option<Write>,
    /// Writes that may appear beside the last acknowledged one, in order: those of unknown outcome, and
    /// those acknowledged after a repetition, of which another replica may hold a second copy that
    /// nothing since has seen.
    open: Vec<Write>,
}

/// One value found at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The value of this run's write with that sequence number.
    Sequence(u32),
    /// A value of another run.
    Foreign,
    /// Bytes that no write of this key ever sent.
    Damaged,
}

impl Found {
    /// Places a value that was read under `key`.
    pub(crate) fn place(run: u32, key: u64, value: &[u8]) -> Found {
        match super::stamp::read_stamp(value) {
            Ok(Stamp { run: found, .. }) if found != run => Found::Foreign,
            Ok(stamp) if stamp.key == key => Found::Sequence(stamp.sequence),
            _ => Found::Damaged,
        }
    }
}

/// What a read says about a key's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as it should be.
    Kept,
    /// As it should be, with an earlier write beside it whose outcome was unknown or that was repeated.
    KeptBesideEarlier,
    /// The last acknowledged write is gone, and nothing is there.
    Lost,
    /// The last acknowledged write is gone, and an earlier one is there.
    Stale,
    /// A write that an acknowledged one had replaced or deleted is there again.
    Resurrected,
    /// The last acknowledged write is gone, and a value of another run is there: somebody else replaced it.
    Overwritten,
    /// There are bytes that were never sent.
    Damaged,
}

impl Verdict {
    /// In a word or two.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Kept => "kept",
            Verdict::KeptBesideEarlier => "kept beside an earlier write",
            Verdict::Lost => "lost",
            Verdict::Stale => "stale",
            Verdict::Resurrected => "resurrected",
            Verdict::Overwritten => "overwritten",
            Verdict::Damaged => "damaged",
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Sequence(number) => write!(formatter, "write {number}"),
            Found::Foreign => formatter.write_str("a value of another run"),
            Found::Damaged => formatter.write_str("bytes that were never sent"),
        }
    }
}

impl KeyHistory {
    /// A write is about to be sent; its sequence number, from 1.
    pub(crate) fn issue(&mut self) -> u32 {
        self.issued += 1;
        self.issued
    }

    /// The write just issued was acknowledged. `repeated`: it may have been sent more than once.
    pub(crate) fn acknowledge(&mut self, effect: Effect, repeated: bool) {
        let write = Write { sequence: self.issued, effect };
        self.acknowledged += 1;
        self.last = Some(write);
        if repeated {
            self.open.push(write);
        }
    }

    /// Nobody knows whether the write just issued took place, or will.
    pub(crate) fn unknown(&mut self, effect: Effect) {
        self.open.push(Write { sequence: self.issued, effect });
    }

    /// How many writes were issued.
    pub(crate) fn issued(&self) -> u32 {
        self.issued
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// The last acknowledged write, by its number.
    pub(crate) fn last(&self) -> Option<(u32, Effect)> {
        self.last.map(|write| (write.sequence, write.effect))
    }

    /// Judges a read that sees every acknowledged write of the key.
    ///
    /// The last acknowledged write has to be there, unless a later write of unknown outcome replaced
    /// it. An earlier write of unknown outcome may stand beside it, as the last one's context does not
    /// cover it, but never instead of it. What other runs left beside it says nothing.
    pub(crate) fn judge(&self, found: &[Found]) -> Verdict {
        let mut unexplained = false;
        let mut earlier = false;
        let mut foreign = false;
        for value in found {
            match *value {
                Found::Damaged => return Verdict::Damaged,
                Found::Foreign => foreign = true,
                Found::Sequence(sequence) if sequence == 0 || sequence > self.issued => {
                    return Verdict::Damaged;
                }
                Found::Sequence(sequence) => {
                    let open = self.is_open(sequence);
                    let last = self.shows_last(sequence);
                    unexplained |= !open && !last;
                    earlier |= open && !last && !self.is_later(sequence);
                }
            }
        }
        match (self.is_kept(found), unexplained) {
            (false, _) if foreign => Verdict::Overwritten,
            (false, _) if found.is_empty() => Verdict::Lost,
            (false, _) => Verdict::Stale,
            (true, true) => Verdict::Resurrected,
            (true, false) if earlier => Verdict::KeptBesideEarlier,
            (true, false) => Verdict::Kept,
        }
    }

    fn is_kept(&self, found: &[Found]) -> bool {
        let Some(Write { sequence: last, effect: Effect::Put }) = self.last else {
            return true;
        };
        let shows = |value: &Found| match *value {
            Found::Sequence(sequence) => {
                sequence == last || self.is_open(sequence) && self.is_later(sequence)
            }
            Found::Foreign | Found::Damaged => false,
        };
        let deleted_later = || {
            let later = |write: &Write| write.effect == Effect::Delete && write.sequence > last;
            self.open.iter().any(later)
        };
        found.iter().any(shows) || deleted_later()
    }

    fn shows_last(&self, sequence: u32) -> bool {
        self.last == Some(Write { sequence, effect: Effect::Put })
    }

    fn is_later(&self, sequence: u32) -> bool {
        self.last.is_none_or(|last| sequence > last.sequence)
    }

    fn is_open(&self, sequence: u32) -> bool {
        let write = Write { sequence, effect: Effect::Put };
        self.open
            .binary_search_by_key(&sequence, |open| open.sequence)
            .is_ok_and(|at| self.open[at] == write)
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Found, KeyHistory, Verdict};
    use crate::load::stamp::ValueMaker;

    /// A history in letters, one a write: `p` put and `d` delete acknowledged, `P` and `D` of unknown
    /// outcome, `r` put acknowledged after a repetition, `x` a put that was surely not done.
    fn history(writes: &str) -> KeyHistory {
        let mut history = KeyHistory::default();
        for write in writes.chars() {
            history.issue();
            match write {
                'p' => history.acknowledge(Effect::Put, false),
                'd' => history.acknowledge(Effect::Delete, false),
                'r' => history.acknowledge(Effect::Put, true),
                'P' => history.unknown(Effect::Put),
                'D' => history.unknown(Effect::Delete),
                'x' => {}
                other => panic!("no such write: {other}"),
            }
        }
        history
    }

    fn check(writes: &str, found: &[u32], expected: Verdict) {
        let found: Vec<_> = found.iter().map(|sequence| Found::Sequence(*sequence)).collect();
        assert_eq!(history(writes).judge(&found), expected, "{writes} shows {found:?}");
    }

    #[test]
    fn the_last_acknowledged_write_is_kept() {
        check("", &[], Verdict::Kept);
        check("p", &[1], Verdict::Kept);
        check("ppp", &[3], Verdict::Kept);
        check("pxx", &[1], Verdict::Kept);
        check("pd", &[], Verdict::Kept);
        check("pdp", &[3], Verdict::Kept);
    }

    #[test]
    fn later_unknown_writes_may_replace_it_or_stand_beside_it() {
        for found in [&[1][..], &[2], &[3], &[2, 3], &[1, 3], &[1, 2, 3]] {
            check("pPP", found, Verdict::Kept);
        }
        check("pD", &[], Verdict::Kept);
        check("pD", &[1], Verdict::Kept);
        check("dP", &[], Verdict::Kept);
        check("dP", &[2], Verdict::Kept);
        check("pPD", &[2], Verdict::Kept);
        check("PP", &[], Verdict::Kept);
        check("PP", &[1, 2], Verdict::Kept);
    }

    #[test]
    fn earlier_uncertain_writes_may_stand_beside_it_only() {
        check("pPp", &[3], Verdict::Kept);
        check("pPp", &[2, 3], Verdict::KeptBesideEarlier);
        check("rp", &[1, 2], Verdict::KeptBesideEarlier);
        check("rd", &[1], Verdict::KeptBesideEarlier);
        check("pPp", &[2], Verdict::Stale);
        check("rp", &[1], Verdict::Stale);
        // An unknown delete before the last put cannot have removed it.
        check("pDp", &[], Verdict::Lost);
    }

    #[test]
    fn planted_losses_are_found() {
        check("p", &[], Verdict::Lost);
        check("pdp", &[], Verdict::Lost);
        check("pp", &[1], Verdict::Stale);
        check("ppp", &[1, 2], Verdict::Stale);
        check("pPpx", &[1], Verdict::Stale);
    }

    #[test]
    fn planted_resurrections_are_found() {
        check("pp", &[1, 2], Verdict::Resurrected);
        check("pd", &[1], Verdict::Resurrected);
        check("pdp", &[1, 3], Verdict::Resurrected);
        check("ppP", &[1, 3], Verdict::Resurrected);
        check("ppD", &[1], Verdict::Resurrected);
        // A write that was refused as surely not done, and happened.
        check("px", &[1, 2], Verdict::Resurrected);
        check("x", &[1], Verdict::Resurrected);
    }

    #[test]
    fn planted_damage_is_found() {
        assert_eq!(history("p").judge(&[Found::Damaged]), Verdict::Damaged);
        check("p", &[2], Verdict::Damaged);
        check("p", &[0], Verdict::Damaged);
        // Two values of one key cannot say that they are of another.
        let mut values = ValueMaker::new(7, 0, 64);
        let value = values.make(5, 1);
        assert_eq!(Found::place(7, 5, &value), Found::Sequence(1));
        assert_eq!(Found::place(7, 6, &value), Found::Damaged);
        assert_eq!(Found::place(8, 5, &value), Found::Foreign);
        assert_eq!(Found::place(7, 5, &value[1..]), Found::Damaged);
    }

    #[test]
    fn what_another_run_replaced_is_not_lost() {
        let judge = |writes: &str, found: &[Found]| history(writes).judge(found);
        assert_eq!(judge("pp", &[Found::Foreign]), Verdict::Overwritten);
        assert_eq!(judge("pp", &[Found::Sequence(1), Found::Foreign]), Verdict::Overwritten);
        assert_eq!(judge("pp", &[Found::Sequence(2), Found::Foreign]), Verdict::Kept);
        assert_eq!(judge("xP", &[Found::Foreign]), Verdict::Kept, "nothing was acknowledged yet");
        assert_eq!(judge("pp", &[Found::Foreign, Found::Damaged]), Verdict::Damaged);
    }

    #[test]
    fn acknowledged_writes_are_counted() {
        let history = history("pPxdr");
        assert_eq!((history.issued(), history.acknowledged()), (5, 3));
    }
}
