// SPDX-License-Identifier: GPL-2.0

/* The tracepoints of SQE groups, to be called by trace.rs. */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "events.h"
