// SPDX-License-Identifier: GPL-2.0-only
//! A list of checks, each of which is made and told, whatever became of the others.

use std::process::ExitCode;

use anyhow::Result;

use crate::report;

/// Outcomes so far.
#[derive(Default)]
pub(crate) struct Checks {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Checks {
    pub(crate) fn add(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                report::print(&format!("ok      {what}\n"));
                self.passed += 1;
            }
            Err(error) => {
                report::print(&format!("FAILED  {what}: {error:#}\n"));
                self.failed += 1;
            }
        }
    }

    pub(crate) fn skip(&mut self, what: &str) {
        report::print(&format!("skipped {what}\n"));
        self.skipped += 1;
    }

    pub(crate) fn end(self) -> ExitCode {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        report::print(&report::closing(passed, failed, skipped));
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
