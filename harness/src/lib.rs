// SPDX-License-Identifier: GPL-2.0-only
//! Userspace of SQE groups: ring helpers, the group builder, and what the tests
//! in the guest share.

pub mod protocol;
