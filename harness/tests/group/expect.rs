// SPDX-License-Identifier: GPL-2.0-only
//! What must be posted, in which order, and that nothing else is.

use std::fmt::Write;

use harness::ring::{Cqe, Ring, PATIENCE};

use crate::op::{self, name, Op};

/// A result, or one of several.
#[derive(Clone, Debug)]
pub(crate) struct Want(Vec<i32>);

impl From<i32> for Want {
    fn from(result: i32) -> Self {
        Self(vec![result])
    }
}

impl From<Vec<i32>> for Want {
    fn from(results: Vec<i32>) -> Self {
        Self(results)
    }
}

impl<const N: usize> From<[i32; N]> for Want {
    fn from(results: [i32; N]) -> Self {
        Self(results.to_vec())
    }
}

/// CQEs that must come, each exactly once, and which must come before which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expect {
    cqes: Vec<(u64, Want)>,
    /// The first comes before the second; indices into `cqes`.
    order: Vec<(usize, usize)>,
    /// What the next element of a chain has to come after.
    element: Vec<usize>,
}

impl Expect {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, user_data: u64, want: impl Into<Want>) -> usize {
        self.cqes.push((user_data, want.into()));
        self.cqes.len() - 1
    }

    /// A CQE that may come at any time.
    pub(crate) fn cqe(mut self, user_data: u64, want: impl Into<Want>) -> Self {
        self.element = vec![self.add(user_data, want)];
        self
    }

    /// A group's CQEs: the members' in any order, then the leader's.
    pub(crate) fn group<W: Into<Want>>(
        mut self,
        leader: (u64, W),
        members: impl IntoIterator<Item = (u64, W)>,
    ) -> Self {
        let members: Vec<_> = members
            .into_iter()
            .map(|(user_data, want)| self.add(user_data, want))
            .collect();
        let leader = self.add(leader.0, leader.1);
        self.order.extend(members.iter().map(|&at| (at, leader)));
        self.element = members;
        self.element.push(leader);
        self
    }

    /// Members' CQEs of a group whose leader posts none.
    pub(crate) fn members<W: Into<Want>>(
        mut self,
        members: impl IntoIterator<Item = (u64, W)>,
    ) -> Self {
        self.element = members
            .into_iter()
            .map(|(user_data, want)| self.add(user_data, want))
            .collect();
        self
    }

    /// What was added last comes after all of the element before it.
    fn after(mut self, before: Vec<usize>) -> Self {
        for &later in &self.element {
            self.order
                .extend(before.iter().map(|&earlier| (earlier, later)));
        }
        self
    }

    /// A CQE that comes after the element before it.
    pub(crate) fn then(self, user_data: u64, want: impl Into<Want>) -> Self {
        let before = self.element.clone();
        self.cqe(user_data, want).after(before)
    }

    /// A group, all of whose CQEs come after the element before it.
    pub(crate) fn then_group<W: Into<Want>>(
        self,
        leader: (u64, W),
        members: impl IntoIterator<Item = (u64, W)>,
    ) -> Self {
        let before = self.element.clone();
        self.group(leader, members).after(before)
    }

    /// The CQEs come in the order in which they were added.
    pub(crate) fn in_order(mut self) -> Self {
        self.order = (1..self.cqes.len()).map(|at| (at - 1, at)).collect();
        self
    }

    fn wrong(&self, cqes: &[Cqe]) -> Option<String> {
        let mut wrong = String::new();
        let mut places = vec![None; self.cqes.len()];
        for (place, cqe) in cqes.iter().enumerate() {
            let ud = cqe.user_data;
            let known = self.cqes.iter().position(|(want, _)| *want == ud);
            match known {
                None => _ = writeln!(wrong, "  {} was not expected", name(ud)),
                Some(at) if places[at].is_some() => {
                    _ = writeln!(wrong, "  {} came twice", name(ud));
                }
                Some(at) => {
                    places[at] = Some(place);
                    let want = &self.cqes[at].1 .0;
                    if !want.contains(&cqe.result) {
                        _ = writeln!(
                            wrong,
                            "  {} has the result {}, not {want:?}",
                            name(ud),
                            cqe.result
                        );
                    }
                }
            }
        }
        for (at, (ud, _)) in self.cqes.iter().enumerate() {
            if places[at].is_none() {
                _ = writeln!(wrong, "  {} did not come", name(*ud));
            }
        }
        for &(earlier, later) in &self.order {
            if let (Some(first), Some(second)) = (places[earlier], places[later]) {
                if first > second {
                    let (first, second) = (self.cqes[earlier].0, self.cqes[later].0);
                    _ = writeln!(wrong, "  {} came before {}", name(second), name(first));
                }
            }
        }
        (!wrong.is_empty()).then_some(wrong)
    }

    /// Judges these CQEs, which must be all.
    #[track_caller]
    pub(crate) fn check(&self, cqes: &[Cqe]) {
        if let Some(wrong) = self.wrong(cqes) {
            panic!("{wrong}  posted: {}", list(cqes));
        }
    }

    /// Waits for as many CQEs as are expected, judges them, and sees that no more
    /// come.
    #[track_caller]
    pub(crate) fn finish(&self, ring: &mut Ring) {
        self.settle(ring);
        if let Err(more) = ring.quiet() {
            panic!("  CQEs that should not have come: {}", list(&more));
        }
    }

    /// Waits for as many CQEs as are expected and judges them.
    #[track_caller]
    pub(crate) fn settle(&self, ring: &mut Ring) {
        let cqes = match ring.collect(self.cqes.len(), PATIENCE) {
            Ok(cqes) => cqes,
            Err(missing) => missing.got,
        };
        self.check(&cqes);
    }

    /// Submits a program and judges what comes of it.
    #[track_caller]
    pub(crate) fn run(&self, ring: &mut Ring, ops: &[Op]) {
        op::submit(ring, ops);
        self.finish(ring);
    }
}

/// CQEs as a failure shows them.
pub(crate) fn list(cqes: &[Cqe]) -> String {
    if cqes.is_empty() {
        return "nothing".into();
    }
    let one = |cqe: &Cqe| format!("{}={}", name(cqe.user_data), cqe.result);
    cqes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Sees that the kernel has nothing to post: it waits for what a test keeps from
/// it.
#[track_caller]
pub(crate) fn nothing_yet(ring: &mut Ring) {
    if let Err(cqes) = ring.quiet() {
        panic!("  too early: {}", list(&cqes));
    }
}

/// The same where a drain would hold back the NOP that [`Ring::quiet`] sends: gives
/// the kernel some rounds to do wrong.
#[track_caller]
pub(crate) fn nothing_yet_behind_drain(ring: &mut Ring) {
    for _ in 0..20 {
        let cqes = ring.arrived();
        assert!(cqes.is_empty(), "  too early: {}", list(&cqes));
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The oracle must be able to fail.
mod tests {
    use super::*;
    use crate::op::{AFTER, L, M1, M2};

    fn cqe(user_data: u64, result: i32) -> Cqe {
        Cqe {
            user_data,
            result,
            flags: 0,
            extra: [0; 2],
        }
    }

    fn expect() -> Expect {
        Expect::new()
            .group((L, 0), [(M1, 1), (M2, 2)])
            .then(AFTER, [3, 4])
    }

    #[test]
    fn members_come_in_any_order() {
        let (l, m1, m2, after) = (cqe(L, 0), cqe(M1, 1), cqe(M2, 2), cqe(AFTER, 4));
        assert_eq!(expect().wrong(&[m1, m2, l, after]), None);
        assert_eq!(expect().wrong(&[m2, m1, l, after]), None);
    }

    #[test]
    fn mistakes_are_named() {
        let (l, m1, m2, after) = (cqe(L, 0), cqe(M1, 1), cqe(M2, 2), cqe(AFTER, 3));
        let wrong = |cqes: &[Cqe]| expect().wrong(cqes).unwrap_or_default();
        assert!(wrong(&[m1, l, m2, after]).contains("L came before M2"));
        assert!(wrong(&[m1, m2, after, l]).contains("after came before L"));
        assert!(wrong(&[m1, m2, l]).contains("after did not come"));
        assert!(wrong(&[m1, m1, m2, l, after]).contains("M1 came twice"));
        assert!(wrong(&[m1, m2, cqe(L, -5), after]).contains("L has the result -5, not [0]"));
        assert!(wrong(&[m1, m2, l, after, cqe(9, 0)]).contains("0x9 was not expected"));
    }
}
