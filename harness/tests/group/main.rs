// SPDX-License-Identifier: GPL-2.0-only
//! The rules of SQE groups, on the kernel that runs this.
//!
//! A test is named for the rule it checks: `f2_..` for rule F2, `v1_07_..` for the
//! seventh mistake of the first posting. Each runs in a process of its own.

/// Makes tests of a function that takes a [`harness::ring::RingMode`]: a module of
/// the function's name, with one test a mode.
macro_rules! in_modes {
    ($test:ident: $($name:ident $mode:ident),+ $(; $rest:ident: $($other:ident),+)? $(,)?) => {
        mod $test {
            use harness::ring::RingMode;
            $(
                #[test]
                fn $name() {
                    super::$test(RingMode::$mode);
                }
            )+
            $(
                #[test]
                fn $rest() {
                    for mode in [$(RingMode::$other),+] {
                        // Shown if it fails.
                        println!("{mode:?}");
                        super::$test(mode);
                    }
                }
            )?
        }
    };
}

/// In every mode: for requests that need no file.
macro_rules! every_mode {
    ($($test:ident),+ $(,)?) => {
        $(
            in_modes!(
                $test:
                default Default,
                single_issuer SingleIssuer,
                defer_taskrun DeferTaskrun,
                coop_taskrun CoopTaskrun,
                taskrun_flag TaskrunFlag,
                sqpoll Sqpoll,
                iopoll Iopoll,
                hybrid_iopoll HybridIopoll,
                sqe128 Sqe128,
                sqe_mixed SqeMixed,
                cqe32 Cqe32,
                cqe_mixed CqeMixed,
                no_sqarray NoSqarray,
                sq_rewind SqRewind,
                submit_all SubmitAll,
                r_disabled RDisabled,
                registered_fd RegisteredFd,
            );
        )+
    };
}

/// In every mode that takes pipes and sockets.
macro_rules! every_pollable_mode {
    ($($test:ident),+ $(,)?) => {
        $(
            in_modes!(
                $test:
                default Default,
                single_issuer SingleIssuer,
                defer_taskrun DeferTaskrun,
                coop_taskrun CoopTaskrun,
                taskrun_flag TaskrunFlag,
                sqpoll Sqpoll,
                sqe128 Sqe128,
                sqe_mixed SqeMixed,
                cqe32 Cqe32,
                cqe_mixed CqeMixed,
                no_sqarray NoSqarray,
                sq_rewind SqRewind,
                submit_all SubmitAll,
                r_disabled RDisabled,
                registered_fd RegisteredFd,
            );
        )+
    };
}

/// In the three modes that differ in who submits and where task work runs, each a test;
/// and in all others that take pipes and sockets, which are one test: they hardly ever
/// fail alone, and a process each would take longer than what is run in it.
macro_rules! main_modes {
    ($($test:ident),+ $(,)?) => {
        $(
            in_modes!(
                $test:
                default Default,
                defer_taskrun DeferTaskrun,
                sqpoll Sqpoll;
                other_modes: SingleIssuer, CoopTaskrun, TaskrunFlag, Sqe128, SqeMixed, Cqe32,
                CqeMixed, NoSqarray, SqRewind, SubmitAll, RDisabled, RegisteredFd
            );
        )+
    };
}

/// The same for requests that need no file.
macro_rules! main_modes_of_nops {
    ($($test:ident),+ $(,)?) => {
        $(
            in_modes!(
                $test:
                default Default,
                defer_taskrun DeferTaskrun,
                sqpoll Sqpoll;
                other_modes: SingleIssuer, CoopTaskrun, TaskrunFlag, Iopoll, HybridIopoll, Sqe128,
                SqeMixed, Cqe32, CqeMixed, NoSqarray, SqRewind, SubmitAll, RDisabled,
                RegisteredFd,
            );
        )+
    };
}

mod expect;
mod op;
mod world;

mod buffers;
mod cancel;
mod commands;
mod complete;
mod drain;
mod exit;
mod faults;
mod files;
mod form;
mod fuzz;
mod interface;
mod issue;
mod leaks;
mod liburing;
mod multishot;
mod observe;
mod overflow;
mod phases;
mod polled;
mod storm;
mod tables;
mod v1;
mod waiting;
