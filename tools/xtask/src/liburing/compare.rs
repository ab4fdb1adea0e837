// SPDX-License-Identifier: GPL-2.0-only
//! From what tests did on two kernels to what that means.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    guests::{Attempt, Outcome, Side},
    record::{Does, Record},
};
use crate::{kvm::Accel, verdict::Verdict};

/// What a test did on one kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Attempts(Vec<Attempt>);

impl Attempts {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.0.iter()
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.0
            .iter()
            .filter(|attempt| attempt.outcome == outcome)
            .count()
    }

    fn saw(&self, outcome: Outcome) -> bool {
        self.count(outcome) > 0
    }

    /// What it did more often than not.
    pub(super) fn usual(&self) -> Option<Outcome> {
        let usual = |outcome: &Outcome| self.count(*outcome) * 2 > self.0.len();
        let mut outcomes = self.0.iter().map(|attempt| attempt.outcome);
        outcomes.find(usual)
    }

    /// What it did if it did the same each time.
    fn always(&self) -> Option<Outcome> {
        let first = self.0.first()?.outcome;
        (self.count(first) == self.0.len()).then_some(first)
    }

    /// In words, with numbers where it did not do the same each time.
    pub(super) fn words(&self) -> String {
        if self.0.is_empty() {
            return "not run".to_owned();
        }
        if let Some(outcome) = self.always() {
            return outcome.words().to_owned();
        }
        let mut outcomes: Vec<_> = self.0.iter().map(|attempt| attempt.outcome).collect();
        outcomes.sort();
        outcomes.dedup();
        let counted = outcomes.into_iter().map(|outcome| {
            let (count, all) = (self.count(outcome), self.0.len());
            format!("{} {count}/{all}", outcome.words())
        });
        counted.collect::<Vec<_>>().join(", ")
    }
}

/// What a test comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Meaning {
    /// It passes.
    Passes,
    /// It does not, and that is on record.
    Known,
    /// It skips itself, on both, and that is not on record.
    Skips,
    /// Now this, now that, and not more on one kernel than on the other.
    Varies,
    /// It fails on both, and that is not on record.
    Fails,
    /// What is on record is not so.
    Stale,
    /// The patched kernel does more often than not what the base does not, or the other
    /// way round.
    Differs,
    /// The kernel has complained, or was lost, on both.
    Splat,
    /// It has no result.
    NotRun,
}

impl Meaning {
    /// Whether the run has failed for that.
    pub(super) fn is_bad(self) -> bool {
        match self {
            Self::Passes | Self::Known | Self::Skips | Self::Varies => false,
            Self::Fails | Self::Stale | Self::Differs | Self::Splat | Self::NotRun => true,
        }
    }
}

/// A test, and what it did on the kernels that it ran on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Case {
    pub(super) test: String,
    pub(super) meaning: Meaning,
    pub(super) base: Attempts,
    pub(super) patched: Attempts,
    /// What is on record of it.
    pub(super) reason: Option<String>,
}

/// What was run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) record: &'a Record,
    pub(super) accel: Accel,
    /// The kernels.
    pub(super) sides: &'a [Side],
}

impl Case {
    fn judge(test: String, base: Attempts, patched: Attempts, terms: Terms<'_>) -> Self {
        let Terms {
            record,
            accel,
            sides,
        } = terms;
        let known = record.known(&test, accel);
        let ran: Vec<_> = sides
            .iter()
            .map(|side| match side {
                Side::Base => &base,
                Side::Patched => &patched,
            })
            .collect();
        let meaning = meaning(&ran, known.map(|known| known.does));
        Self {
            reason: known.map(|known| known.reason.trim().replace('\n', " ")),
            test,
            meaning,
            base,
            patched,
        }
    }

    pub(super) fn side(&self, side: Side) -> &Attempts {
        match side {
            Side::Base => &self.base,
            Side::Patched => &self.patched,
        }
    }

    /// Whether it did that once, on any kernel.
    pub(super) fn saw(&self, outcome: Outcome) -> bool {
        self.base.saw(outcome) || self.patched.saw(outcome)
    }

    /// How bad it is.
    pub(super) fn verdict(&self) -> Verdict {
        if !self.meaning.is_bad() {
            return Verdict::Passed;
        }
        if self.saw(Outcome::Splat) {
            Verdict::Splat
        } else if self.saw(Outcome::Lost) || self.meaning == Meaning::NotRun {
            Verdict::Lost
        } else {
            Verdict::Failed
        }
    }
}

/// Whether it is no chance that they did not do the same. Where the base fails at times and
/// the patched kernel does not, it is the test, or the machine.
fn differs(base: &Attempts, patched: &Attempts) -> bool {
    let apart = base.iter().all(|attempt| !patched.saw(attempt.outcome));
    let new = patched.usual().is_some_and(|outcome| !base.saw(outcome));
    let worse = match (base.usual(), patched.always()) {
        (Some(before), Some(now)) => now > before,
        _ => false,
    };
    // Once is enough: neither a kernel nor its log does that by chance.
    let died = |outcome| base.saw(outcome) || patched.saw(outcome);
    apart || new || worse || died(Outcome::Splat) || died(Outcome::Lost)
}

/// What the kernels that a test ran on, one or two, have to say about it. The first is
/// the base, if that is among them.
fn meaning(ran: &[&Attempts], known: Option<Does>) -> Meaning {
    if ran.iter().any(|attempts| attempts.0.is_empty()) {
        return Meaning::NotRun;
    }
    let bad = |outcome| ran.iter().all(|attempts| attempts.saw(outcome));
    if bad(Outcome::Splat) || bad(Outcome::Lost) {
        return Meaning::Splat;
    }
    if let [base, patched] = ran {
        if differs(base, patched) {
            return Meaning::Differs;
        }
    }
    let always = ran[0].always().filter(|outcome| {
        ran.iter()
            .all(|attempts| attempts.always() == Some(*outcome))
    });
    match (known, always) {
        (Some(Does::Vary), _) => Meaning::Known,
        (Some(Does::Skip), Some(Outcome::Skipped)) => Meaning::Known,
        (Some(Does::Fail), Some(Outcome::Failed | Outcome::TimeOut)) => Meaning::Known,
        (Some(Does::Skip | Does::Fail), Some(_)) => Meaning::Stale,
        (_, None) => Meaning::Varies,
        (None, Some(Outcome::Passed)) => Meaning::Passes,
        (None, Some(Outcome::Skipped)) => Meaning::Skips,
        (None, Some(_)) => Meaning::Fails,
    }
}

/// Every test with what it did, in their order.
pub(super) fn cases(tests: &[String], attempts: Vec<Attempt>, terms: Terms<'_>) -> Vec<Case> {
    let mut by_test: BTreeMap<String, (Attempts, Attempts)> = BTreeMap::new();
    for attempt in attempts {
        let (base, patched) = by_test.entry(attempt.test.clone()).or_default();
        match attempt.side {
            Side::Base => base.0.push(attempt),
            Side::Patched => patched.0.push(attempt),
        }
    }
    tests
        .iter()
        .map(|test| {
            let (base, patched) = by_test.remove(test).unwrap_or_default();
            Case::judge(test.clone(), base, patched, terms)
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Outcome::*, *};

    pub(in super::super) fn attempts(outcomes: &[Outcome]) -> Attempts {
        Attempts(
            outcomes
                .iter()
                .map(|outcome| Attempt {
                    test: "a".to_owned(),
                    side: Side::Base,
                    outcome: *outcome,
                    ms: 1,
                    output: String::new(),
                    directory: "/run".into(),
                })
                .collect(),
        )
    }

    fn both(base: &[Outcome], patched: &[Outcome], known: Option<Does>) -> Meaning {
        meaning(&[&attempts(base), &attempts(patched)], known)
    }

    #[test]
    fn what_is_the_same_on_both_is_no_difference() {
        for (outcome, expected) in [
            (Passed, Meaning::Passes),
            (Skipped, Meaning::Skips),
            (Failed, Meaning::Fails),
            (TimeOut, Meaning::Fails),
            (Splat, Meaning::Splat),
            (Lost, Meaning::Splat),
        ] {
            assert_eq!(both(&[outcome], &[outcome], None), expected);
            assert_eq!(meaning(&[&attempts(&[outcome])], None), expected);
        }
    }

    #[test]
    fn a_difference_persists() {
        let p = Passed;
        for (base, patched) in [
            (&[p][..], &[Failed][..]),
            (&[p; 4], &[Failed; 4]),
            // Once by chance is not what it does.
            (&[p; 4], &[Failed, Failed, p, Failed]),
            (&[p; 4], &[Skipped; 4]),
            (&[p; 4], &[Failed, TimeOut, Failed, TimeOut]),
            (&[p, Failed, p, p], &[Failed; 4]),
            (&[Failed; 4], &[p; 4]),
            (&[Failed; 4], &[TimeOut; 4]),
            // Not by chance.
            (&[p; 4], &[p, p, p, Splat]),
            (&[p; 4], &[Lost, p, p, p]),
        ] {
            assert_eq!(both(base, patched, None), Meaning::Differs);
            assert!(Meaning::Differs.is_bad());
        }
    }

    #[test]
    fn what_comes_and_goes_is_no_difference() {
        let p = Passed;
        for (base, patched) in [
            (&[p; 4], &[p, p, p, Failed]),
            (&[p; 4], &[Failed, p, p, Failed]),
            (&[p, p, Failed, TimeOut], &[p; 4]),
            (&[Failed, Failed, p, Failed], &[p; 4]),
            (&[Failed, Failed, p, Failed], &[Failed; 4]),
        ] {
            assert_eq!(both(base, patched, None), Meaning::Varies);
        }
    }

    #[test]
    fn a_record_excuses_what_it_says_and_no_difference() {
        let fail = Some(Does::Fail);
        let skip = Some(Does::Skip);
        assert_eq!(both(&[Failed], &[Failed], fail), Meaning::Known);
        assert_eq!(both(&[TimeOut], &[TimeOut], fail), Meaning::Known);
        assert_eq!(both(&[Skipped], &[Skipped], skip), Meaning::Known);
        assert_eq!(both(&[Passed], &[Failed], fail), Meaning::Differs);
        assert_eq!(both(&[Failed], &[Splat], fail), Meaning::Differs);
        assert_eq!(both(&[Splat], &[Splat], fail), Meaning::Splat);
        assert_eq!(
            both(&[Passed; 4], &[Failed; 4], Some(Does::Vary)),
            Meaning::Differs
        );
    }

    #[test]
    fn a_record_that_is_not_so_is_stale() {
        for known in [Does::Fail, Does::Skip] {
            assert_eq!(both(&[Passed], &[Passed], Some(known)), Meaning::Stale);
        }
        assert_eq!(both(&[Failed], &[Failed], Some(Does::Skip)), Meaning::Stale);
        assert_eq!(
            both(&[Skipped], &[Skipped], Some(Does::Fail)),
            Meaning::Stale
        );
        assert!(Meaning::Stale.is_bad());
        // That it passes now is what it says.
        assert_eq!(both(&[Passed], &[Passed], Some(Does::Vary)), Meaning::Known);
    }

    #[test]
    fn no_result_is_not_a_good_one() {
        assert_eq!(both(&[Passed], &[], None), Meaning::NotRun);
        assert_eq!(meaning(&[&attempts(&[])], None), Meaning::NotRun);
        assert!(Meaning::NotRun.is_bad());
    }

    #[test]
    fn words_count_where_it_varies() {
        assert_eq!(attempts(&[Failed; 3]).words(), "failed");
        assert_eq!(
            attempts(&[Passed, Failed, Passed]).words(),
            "passed 2/3, failed 1/3"
        );
        assert_eq!(attempts(&[]).words(), "not run");
    }
}
