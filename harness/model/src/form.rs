// SPDX-License-Identifier: GPL-2.0-only

//! F1 to F6: which chains and groups the SQEs of a submission become.

use crate::chain::{Element, Link, Program, Sqe};

const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;

/// What the application asks for with one SQE, as far as it says what becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `IOSQE_EXT_SQE_GROUP`
    pub group: bool,
    /// `IOSQE_IO_LINK` or `IOSQE_IO_HARDLINK`
    pub link: Option<Link>,
    /// `IOSQE_IO_DRAIN`
    pub drain: bool,
    /// `IOSQE_CQE_SKIP_SUCCESS`
    pub skip: bool,
    /// It is an `IORING_OP_TIMEOUT`.
    pub timer: bool,
    /// It is an `IORING_OP_LINK_TIMEOUT`.
    pub deadline: bool,
    /// It is an `IORING_OP_SEND_ZC` or `IORING_OP_SENDMSG_ZC`.
    pub zero_copy: bool,
    /// It can't be executed, wherever it stands.
    pub bad: Option<Bad>,
}

/// What is wrong with an SQE by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Found before its flags have had any effect, with this error.
    Early(i32),
    /// Restrictions of the ring forbid it, with this error.
    Refused(i32),
    /// Found after that.
    Late(i32),
}

/// A LINK_TIMEOUT, which is not an element of its chain but says something of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Which SQE of the submission it is.
    pub request: usize,
    /// Of which element.
    pub element: usize,
}

/// A chain, and where its requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What was asked for.
    pub program: Program,
    /// Which SQE of the submission each request of the program is.
    pub requests: Vec<usize>,
    /// Deadlines of its elements.
    pub deadlines: Vec<Deadline>,
    /// It waits for all that came before, I4. Today that is so for the whole chain, whichever
    /// element says it.
    pub drains: bool,
    /// It does not say that it is complete: the submission ended it. Today that is for a worker.
    pub dangles: bool,
    /// It is what was left of a group that was cut, F6: no chain at all, its requests are cancelled
    /// one by one.
    pub rest: bool,
}

/// Where an SQE stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Alone,
    /// Alone, and behind an element that it can be a deadline for.
    Behind,
    Leader,
    Member,
}

/// How many SQEs the kernel takes at a time that takes no more than `cap`: F2, a group is not cut by
/// that. Chains are, today.
pub fn batches(asked: &[Asked], cap: usize) -> Vec<usize> {
    let mut batches = Vec::new();
    let mut left = asked;

    while !left.is_empty() {
        let behind = left.iter().skip(cap - 1);
        let open = behind.take_while(|sqe| sqe.group).count();
        let taken = left.len().min(cap + open);
        batches.push(taken);
        left = &left[taken..];
    }
    batches
}

/// What a ring remembers from one submission to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// A CQE_SKIP_SUCCESS has been taken. Today there are no drains in a ring from then on.
    pub skips: bool,
    /// A drain has been taken. Today it leaves some requests that come later to workers.
    pub drains: bool,
    /// A group was cut, and has not ended: what follows in the SQ belongs to it (F6).
    pub cut: bool,
}

impl Memory {
    /// What `sqe` can't be executed for, in the order in which it is looked at.
    fn error(&mut self, sqe: &Asked, place: Place) -> Option<i32> {
        if let Some(Bad::Early(error)) = sqe.bad {
            return Some(error);
        }
        if place == Place::Leader && (sqe.deadline || sqe.zero_copy) {
            // F4
            return Some(EINVAL);
        }
        self.skips |= sqe.skip;
        if place == Place::Member && sqe.drain {
            // F4
            return Some(EINVAL);
        }
        if sqe.drain && self.skips {
            return Some(EOPNOTSUPP);
        }
        self.drains |= sqe.drain;
        if let Some(Bad::Refused(error)) = sqe.bad {
            return Some(error);
        }
        if place == Place::Member && (sqe.link.is_some() || sqe.deadline) {
            // F4
            return Some(EINVAL);
        }
        if sqe.deadline && place != Place::Behind {
            return Some(EINVAL);
        }
        match sqe.bad {
            Some(Bad::Late(error)) => Some(error),
            _ => None,
        }
    }

    /// The chains that the SQEs of a submission become, in their order. `cut` is that none could be
    /// taken behind the last one, because of this error; it is nothing to who does not have a group
    /// open.
    pub fn form(&mut self, asked: &[Asked], cut: Option<i32>) -> Vec<Chain> {
        let mut chains = Vec::new();
        let mut at = 0;

        // F6: up to the first one that ends the group.
        while self.cut && at < asked.len() {
            let sqe = Sqe {
                bad: Some(crate::ECANCELED),
                skip: asked[at].skip,
                ..Sqe::default()
            };
            let element = Element {
                link: Link::Soft,
                sqes: vec![sqe],
            };

            chains.push(Chain {
                program: Program::new(vec![element], None),
                requests: vec![at],
                deadlines: Vec::new(),
                drains: false,
                dangles: false,
                rest: true,
            });
            self.skips |= asked[at].skip && !matches!(asked[at].bad, Some(Bad::Early(_)));
            // What could not be taken belongs to it too, or nobody knows.
            self.cut = asked[at].group && (at + 1 < asked.len() || cut.is_some());
            at += 1;
        }
        while at < asked.len() {
            chains.push(self.chain(asked, &mut at, cut));
        }
        chains
    }

    fn chain(&mut self, asked: &[Asked], at: &mut usize, cut: Option<i32>) -> Chain {
        let (mut elements, mut requests, mut deadlines) = (Vec::new(), Vec::new(), Vec::new());
        let (mut drains, mut after_deadline, mut is_cut) = (false, false, None);
        let dangles;

        loop {
            let (head, rest) = (&asked[*at], &asked[*at + 1..]);
            // F1, F2
            let members = match rest.iter().position(|sqe| !sqe.group) {
                _ if !head.group => 0,
                Some(last) => last + 1,
                None => rest.len(),
            };
            // F6
            let all_taken = *at + members + 1 == asked.len();
            let open = all_taken && cut.is_some() && head.group && rest.iter().all(|sqe| sqe.group);
            // F3
            let place = if members > 0 || open {
                Place::Leader
            } else if elements.is_empty() || after_deadline {
                Place::Alone
            } else {
                Place::Behind
            };

            let bad = self.error(head, place);
            drains |= head.drain;
            after_deadline = head.deadline;
            if head.deadline && bad.is_none() {
                deadlines.push(Deadline {
                    request: *at,
                    element: elements.len() - 1,
                });
            } else {
                let sqe = |asked: &Asked, bad| Sqe {
                    skip: asked.skip,
                    timer: asked.timer,
                    bad,
                };
                let mut sqes = vec![sqe(head, bad)];

                for member in &rest[..members] {
                    sqes.push(sqe(member, self.error(member, Place::Member)));
                }
                elements.push(Element {
                    link: head.link.unwrap_or(Link::Soft),
                    sqes,
                });
                requests.extend(*at..=*at + members);
            }
            if open {
                is_cut = cut;
                self.cut = true;
            }
            *at += 1 + members;
            if head.link.is_none() || *at == asked.len() {
                dangles = head.link.is_some() || members > 0 && asked[*at - 1].group;
                break;
            }
        }

        let program = Program::new(elements, is_cut);
        Chain {
            // Nothing of it is issued, so there is nothing to wait.
            drains: drains && !program.is_void(),
            dangles,
            program,
            requests,
            deadlines,
            rest: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Asked = Asked {
        group: false,
        link: None,
        drain: false,
        skip: false,
        timer: false,
        deadline: false,
        zero_copy: false,
        bad: None,
    };
    const MORE: Asked = Asked {
        group: true,
        ..PLAIN
    };
    const LINKED: Asked = Asked {
        link: Some(Link::Soft),
        ..PLAIN
    };
    const DEADLINE: Asked = Asked {
        deadline: true,
        ..PLAIN
    };

    fn form(asked: &[Asked]) -> Vec<Chain> {
        Memory::default().form(asked, None)
    }

    /// Sizes of the elements of each chain.
    fn shape(asked: &[Asked]) -> Vec<Vec<usize>> {
        let size = |element: &Element| element.sqes.len();
        let sizes = |chain: &Chain| chain.program.elements.iter().map(size).collect();

        form(asked).iter().map(sizes).collect()
    }

    fn errors(asked: &[Asked]) -> Vec<Option<i32>> {
        let all = form(asked);
        let sqes = all.iter().flat_map(|chain| {
            let sqes = chain.program.elements.iter();
            sqes.flat_map(|element| &element.sqes)
        });

        sqes.map(|sqe| sqe.bad).collect()
    }

    #[test]
    fn f1_up_to_the_first_without_the_flag() {
        assert_eq!(shape(&[MORE, MORE, PLAIN, PLAIN]), [[3], [1]]);
    }

    #[test]
    fn f1_the_leader_says_whether_the_chain_goes_on() {
        let leader = Asked {
            group: true,
            ..LINKED
        };

        assert_eq!(shape(&[leader, PLAIN, PLAIN]), [[2, 1]]);
    }

    #[test]
    fn f2_the_submission_ends_a_group() {
        assert_eq!(shape(&[PLAIN, MORE, MORE]), [[1], [2]]);
    }

    #[test]
    fn f2_a_cap_does_not_cut_a_group() {
        assert_eq!(batches(&[PLAIN; 8], 8), [8]);
        assert_eq!(batches(&[PLAIN; 9], 8), [8, 1]);
        assert_eq!(batches(&[PLAIN, MORE, MORE, PLAIN, PLAIN], 2), [4, 1]);
        assert_eq!(batches(&[MORE, PLAIN, LINKED, PLAIN], 3), [3, 1]);
        assert_eq!(batches(&[MORE; 5], 2), [5]);
        assert!(batches(&[], 8).is_empty());
    }

    #[test]
    fn what_the_submission_ends_dangles() {
        let dangles = |asked: &[Asked]| form(asked).last().map(|chain| chain.dangles);

        assert_eq!(dangles(&[LINKED, PLAIN]), Some(false));
        assert_eq!(dangles(&[LINKED, LINKED]), Some(true));
        assert_eq!(dangles(&[MORE, PLAIN]), Some(false));
        assert_eq!(dangles(&[MORE, MORE]), Some(true));
        assert_eq!(dangles(&[MORE]), Some(false));
    }

    #[test]
    fn f3_a_leader_alone_is_plain() {
        let zero_copy = Asked {
            zero_copy: true,
            ..MORE
        };

        assert_eq!(shape(&[MORE]), [[1]]);
        assert_eq!(errors(&[zero_copy]), [None]);
        assert_eq!(errors(&[zero_copy, PLAIN]), [Some(EINVAL), None]);
    }

    #[test]
    fn f4_flags_of_members() {
        let hard = Asked {
            link: Some(Link::Hard),
            ..PLAIN
        };
        let drain = Asked {
            drain: true,
            ..PLAIN
        };

        for member in [LINKED, hard, drain, DEADLINE] {
            assert_eq!(errors(&[MORE, member]), [None, Some(EINVAL)]);
        }
        let leader = Asked {
            drain: true,
            group: true,
            ..LINKED
        };
        assert_eq!(errors(&[leader, PLAIN]), [None, None]);
        assert!(form(&[leader, PLAIN])[0].drains);
    }

    #[test]
    fn restrictions_go_for_members() {
        let refused = Asked {
            bad: Some(Bad::Refused(-13)),
            ..PLAIN
        };

        assert_eq!(errors(&[MORE, refused]), [None, Some(-13)]);
        let drains = Asked {
            drain: true,
            ..refused
        };
        assert_eq!(errors(&[MORE, drains]), [None, Some(EINVAL)]);
    }

    #[test]
    fn f4_a_deadline_leads_nothing() {
        let leader = Asked {
            group: true,
            ..DEADLINE
        };

        assert_eq!(errors(&[LINKED, leader, PLAIN]), [None, Some(EINVAL), None]);
    }

    #[test]
    fn f6_what_is_left_is_cancelled() {
        let mut memory = Memory::default();
        let first = memory.form(&[PLAIN, MORE, MORE], Some(EINVAL));

        assert_eq!(first[1].program.cut, Some(EINVAL));
        assert_eq!(first[0].program.cut, None);
        let second = memory.form(&[MORE, PLAIN, PLAIN], None);
        assert_eq!(second.len(), 3);
        assert_eq!(
            [second[0].rest, second[1].rest, second[2].rest],
            [true, true, false]
        );
    }

    #[test]
    fn f6_what_is_left_can_be_cut_again() {
        let mut memory = Memory::default();

        for cut in [Some(EINVAL), Some(EINVAL), None] {
            assert!(!memory.form(&[MORE, MORE], cut).is_empty());
            assert_eq!(memory.cut, cut.is_some());
        }
        assert!(!memory.form(&[PLAIN], None)[0].rest);
    }

    #[test]
    fn f6_a_leader_alone_is_cut_too() {
        let chains = Memory::default().form(&[MORE], Some(EINVAL));

        assert_eq!(chains[0].program.cut, Some(EINVAL));
        assert_eq!(
            Memory::default().form(&[PLAIN], Some(EINVAL))[0]
                .program
                .cut,
            None
        );
    }

    #[test]
    fn a_deadline_belongs_to_the_element_before_it() {
        let deadline = Asked {
            link: Some(Link::Soft),
            ..DEADLINE
        };
        let chain = &form(&[LINKED, deadline, PLAIN])[0];

        assert_eq!(chain.requests, [0, 2]);
        assert_eq!(
            chain.deadlines,
            [Deadline {
                request: 1,
                element: 0
            }]
        );
        // Alone, and behind another one.
        assert_eq!(errors(&[DEADLINE]), [Some(EINVAL)]);
        assert_eq!(errors(&[LINKED, deadline, DEADLINE]), [None, Some(EINVAL)]);
    }

    #[test]
    fn no_drain_behind_a_skip() {
        let skip = Asked {
            skip: true,
            ..PLAIN
        };
        let drain = Asked {
            drain: true,
            ..PLAIN
        };
        let early = Asked {
            bad: Some(Bad::Early(EINVAL)),
            ..skip
        };

        assert_eq!(errors(&[skip, drain]), [None, Some(EOPNOTSUPP)]);
        assert_eq!(errors(&[early, drain]), [Some(EINVAL), None]);
    }
}
