// SPDX-License-Identifier: GPL-2.0-only
//! What a run shows, all things considered.
//!
//! Nothing is taken to be well until it is shown: a run is [`Verdict::Passed`] only
//! if every one of the things in [`Evidence`] is as it should be.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// The verdict on a run. Every one has an exit status of its own; 2 is for a
/// command line that was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Everything ran, and nothing was wrong. Exit status 0.
    Passed,
    /// Everything ran, and a test failed. Exit status 1.
    Failed,
    /// It cannot be said, because the means failed. Exit status 5.
    Infrastructure,
    /// The guest stopped to talk, or never started. Exit status 4.
    Lost,
    /// The kernel has complained, or died. Exit status 3.
    Splat,
}

impl Verdict {
    /// What the process ends with.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Splat => 3,
            Self::Lost => 4,
            Self::Infrastructure => 5,
        }
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Splat => "kernel splat",
            Self::Lost => "guest lost",
            Self::Infrastructure => "infrastructure error",
        }
    }

    /// What to do about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Passed => "",
            Self::Failed => "The output of each failed test is above and in the results; the commands run one test again.",
            Self::Splat => "The kernel's report is above and in the console log. Run the test again with `--profile debug`, which shows more.",
            Self::Lost => "The last lines of the console are above. If the machine is merely slow, give it more time with `--timeout-scale 4`; to look around in this kernel, `cargo xtask shell`.",
            Self::Infrastructure => "This says nothing about the kernel. Remove the cause named above and run the command again.",
        }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(verdict.status())
    }
}

/// How far the guest's messages went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// There were none.
    Silent,
    /// They stop in the middle.
    Cut,
    /// They end as they should.
    Ended,
    /// Init refused to work on this kernel.
    Refused,
    /// Init could not go on.
    Broken,
    /// They do not make sense.
    Faulty,
}

/// What the kernel log shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// It is whole, and nothing is wrong.
    Clean,
    /// It is not whole.
    Incomplete,
    /// It is whole and shows nothing, though the kernel says it has complained.
    Unexplained,
    /// The guest could not run.
    Lost,
    /// The kernel complains.
    Splat,
}

/// How the guest's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself and content.
    Expected,
    /// By itself and with an error.
    Failed,
    /// It had to be killed.
    Killed,
}

/// What the tests show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    /// Some passed, and none failed.
    Passed,
    /// Some failed.
    Failed,
    /// None passed and none failed.
    Nothing,
}

impl Results {
    /// Of so many that passed and failed.
    pub(crate) fn new(passed: u32, failed: u32) -> Self {
        match (passed, failed) {
            (0, 0) => Self::Nothing,
            (_, 0) => Self::Passed,
            (_, _) => Self::Failed,
        }
    }
}

/// All that is known of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) channel: Channel,
    pub(crate) log: Log,
    pub(crate) exit: Exit,
    /// Whether a time-out of the host struck.
    pub(crate) timed_out: bool,
    pub(crate) results: Results,
}

impl Evidence {
    /// The worst that can be said, from what explains most to what explains least.
    pub(crate) fn judge(self) -> Verdict {
        let Self {
            channel,
            log,
            exit,
            timed_out,
            results,
        } = self;
        match log {
            Log::Splat => return Verdict::Splat,
            Log::Lost => return Verdict::Lost,
            Log::Clean | Log::Incomplete | Log::Unexplained => {}
        }
        match channel {
            Channel::Refused | Channel::Broken | Channel::Faulty => return Verdict::Infrastructure,
            // The machine itself did not get going, or fell over.
            Channel::Silent | Channel::Cut if exit == Exit::Failed => {
                return Verdict::Infrastructure
            }
            Channel::Silent | Channel::Cut => return Verdict::Lost,
            Channel::Ended => {}
        }
        match exit {
            // All was done, but the guest does not go away.
            Exit::Killed => return Verdict::Lost,
            Exit::Failed => return Verdict::Infrastructure,
            Exit::Expected => {}
        }
        if timed_out {
            return Verdict::Lost;
        }
        if log != Log::Clean {
            return Verdict::Infrastructure;
        }
        match results {
            Results::Passed => Verdict::Passed,
            Results::Failed => Verdict::Failed,
            Results::Nothing => Verdict::Infrastructure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: [Channel; 6] = [
        Channel::Silent,
        Channel::Cut,
        Channel::Ended,
        Channel::Refused,
        Channel::Broken,
        Channel::Faulty,
    ];
    const LOGS: [Log; 5] = [
        Log::Clean,
        Log::Incomplete,
        Log::Unexplained,
        Log::Lost,
        Log::Splat,
    ];
    const EXITS: [Exit; 3] = [Exit::Expected, Exit::Failed, Exit::Killed];
    const RESULTS: [Results; 3] = [Results::Passed, Results::Failed, Results::Nothing];

    fn all() -> Vec<Evidence> {
        let mut all = Vec::new();
        for channel in CHANNELS {
            for log in LOGS {
                for exit in EXITS {
                    for timed_out in [false, true] {
                        for results in RESULTS {
                            all.push(Evidence {
                                channel,
                                log,
                                exit,
                                timed_out,
                                results,
                            });
                        }
                    }
                }
            }
        }
        assert_eq!(all.len(), 6 * 5 * 3 * 2 * 3);
        all
    }

    const GOOD: Evidence = Evidence {
        channel: Channel::Ended,
        log: Log::Clean,
        exit: Exit::Expected,
        timed_out: false,
        results: Results::Passed,
    };

    #[test]
    fn only_one_combination_passes() {
        for evidence in all() {
            assert_eq!(
                evidence.judge() == Verdict::Passed,
                evidence == GOOD,
                "{evidence:?}"
            );
        }
    }

    #[test]
    fn only_a_failed_test_in_a_sound_run_is_a_failure() {
        let failed = Evidence {
            results: Results::Failed,
            ..GOOD
        };
        for evidence in all() {
            assert_eq!(
                evidence.judge() == Verdict::Failed,
                evidence == failed,
                "{evidence:?}"
            );
        }
    }

    #[test]
    fn a_splat_is_never_hidden() {
        for evidence in all() {
            assert_eq!(
                evidence.judge() == Verdict::Splat,
                evidence.log == Log::Splat,
                "{evidence:?}"
            );
        }
    }

    #[test]
    fn a_guest_that_stops_talking_is_lost() {
        for evidence in all() {
            let silent = matches!(evidence.channel, Channel::Silent | Channel::Cut);
            if silent && evidence.log != Log::Splat && evidence.exit != Exit::Failed {
                assert_eq!(evidence.judge(), Verdict::Lost, "{evidence:?}");
            }
        }
    }

    #[test]
    fn single_deviations() {
        for (evidence, verdict) in [
            (
                Evidence {
                    channel: Channel::Silent,
                    ..GOOD
                },
                Verdict::Lost,
            ),
            (
                Evidence {
                    channel: Channel::Cut,
                    ..GOOD
                },
                Verdict::Lost,
            ),
            (
                Evidence {
                    channel: Channel::Refused,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
            (
                Evidence {
                    channel: Channel::Broken,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
            (
                Evidence {
                    channel: Channel::Faulty,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
            (
                Evidence {
                    log: Log::Incomplete,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
            (
                Evidence {
                    log: Log::Unexplained,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
            (
                Evidence {
                    log: Log::Lost,
                    ..GOOD
                },
                Verdict::Lost,
            ),
            (
                Evidence {
                    log: Log::Splat,
                    ..GOOD
                },
                Verdict::Splat,
            ),
            (
                Evidence {
                    exit: Exit::Failed,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
            (
                Evidence {
                    exit: Exit::Killed,
                    ..GOOD
                },
                Verdict::Lost,
            ),
            (
                Evidence {
                    timed_out: true,
                    ..GOOD
                },
                Verdict::Lost,
            ),
            (
                Evidence {
                    results: Results::Failed,
                    ..GOOD
                },
                Verdict::Failed,
            ),
            (
                Evidence {
                    results: Results::Nothing,
                    ..GOOD
                },
                Verdict::Infrastructure,
            ),
        ] {
            assert_eq!(evidence.judge(), verdict, "{evidence:?}");
        }
    }

    #[test]
    fn every_verdict_has_a_status_of_its_own() {
        let verdicts = [
            Verdict::Passed,
            Verdict::Failed,
            Verdict::Infrastructure,
            Verdict::Lost,
            Verdict::Splat,
        ];
        for (index, verdict) in verdicts.into_iter().enumerate() {
            // Used by clap.
            assert_ne!(verdict.status(), 2);
            for other in &verdicts[..index] {
                assert_ne!(verdict.status(), other.status());
                assert_ne!(verdict.words(), other.words());
            }
        }
    }
}
