/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM io_uring

#if !defined(_TRACE_IO_URING_GROUP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_IO_URING_GROUP_H

#include <linux/tracepoint.h>
#include <linux/io_uring_types.h>
#include <linux/io_uring.h>

#include "group.h"

/**
 * io_uring_group_formed - called when the last SQE of a group has been taken
 *
 * @leader:		pointer to the leader
 * @members:		how many members the group has
 *
 * The error is what the leader fails with if an SQE of the group is bad or could not
 * be taken, and 0 otherwise.
 */
TRACE_EVENT(io_uring_group_formed,

	TP_PROTO(struct io_kiocb *leader, unsigned int members),

	TP_ARGS(leader, members),

	TP_STRUCT__entry(
		__field(void *, ctx)
		__field(void *, leader)
		__field(unsigned long long, user_data)
		__field(u8, opcode)
		__field(unsigned int, members)
		__field(int, error)

		__string(op_str, io_uring_get_opcode(leader->opcode))
	),

	TP_fast_assign(
		__entry->ctx		= leader->ctx;
		__entry->leader		= leader;
		__entry->user_data	= leader->cqe.user_data;
		__entry->opcode		= leader->opcode;
		__entry->members	= members;
		__entry->error		= leader->flags & REQ_F_FAIL ? leader->cqe.res : 0;

		__assign_str(op_str);
	),

	TP_printk("ring %p, leader %p, user_data 0x%llx, opcode %s, members %u, error %d",
		  __entry->ctx, __entry->leader, __entry->user_data,
		  __get_str(op_str), __entry->members, __entry->error)
);

/**
 * io_uring_group_fan_out - called before the members of a group are issued
 *
 * @leader:		pointer to the leader, which has completed
 * @members:		how many members the group has
 * @error:		what members get instead of being issued, or 0
 *
 * The result is the leader's, which is not posted before the group is done.
 */
TRACE_EVENT(io_uring_group_fan_out,

	TP_PROTO(struct io_kiocb *leader, unsigned int members, int error),

	TP_ARGS(leader, members, error),

	TP_STRUCT__entry(
		__field(void *, ctx)
		__field(void *, leader)
		__field(unsigned long long, user_data)
		__field(u8, opcode)
		__field(int, res)
		__field(unsigned int, members)
		__field(int, error)

		__string(op_str, io_uring_get_opcode(leader->opcode))
	),

	TP_fast_assign(
		__entry->ctx		= leader->ctx;
		__entry->leader		= leader;
		__entry->user_data	= leader->cqe.user_data;
		__entry->opcode		= leader->opcode;
		__entry->res		= leader->cqe.res;
		__entry->members	= members;
		__entry->error		= error;

		__assign_str(op_str);
	),

	TP_printk("ring %p, leader %p, user_data 0x%llx, opcode %s, result %d, members %u, error %d",
		  __entry->ctx, __entry->leader, __entry->user_data,
		  __get_str(op_str), __entry->res, __entry->members,
		  __entry->error)
);

/**
 * io_uring_group_member_done - called when a member of a group has completed
 *
 * @leader:		pointer to the leader
 * @req:		pointer to the member, which has not posted yet
 * @nr:			its place among those that are accounted for together, from 1
 *
 * What is shown as members is how many have not completed yet. It is not passed, as
 * it would have to be looked up with the tracepoint off, too.
 */
TRACE_EVENT(io_uring_group_member_done,

	TP_PROTO(struct io_kiocb *leader, struct io_kiocb *req, unsigned int nr),

	TP_ARGS(leader, req, nr),

	TP_STRUCT__entry(
		__field(void *, ctx)
		__field(void *, leader)
		__field(unsigned long long, leader_data)
		__field(void *, req)
		__field(unsigned long long, user_data)
		__field(u8, opcode)
		__field(int, res)
		__field(unsigned int, members)

		__string(op_str, io_uring_get_opcode(req->opcode))
	),

	TP_fast_assign(
		__entry->ctx		= leader->ctx;
		__entry->leader		= leader;
		__entry->leader_data	= leader->cqe.user_data;
		__entry->req		= req;
		__entry->user_data	= req->cqe.user_data;
		__entry->opcode		= req->opcode;
		__entry->res		= req->cqe.res;
		__entry->members	= io_group_members(leader) - nr;

		__assign_str(op_str);
	),

	TP_printk("ring %p, leader %p, leader_data 0x%llx, req %p, user_data 0x%llx, opcode %s, result %d, members %u",
		  __entry->ctx, __entry->leader, __entry->leader_data,
		  __entry->req, __entry->user_data, __get_str(op_str),
		  __entry->res, __entry->members)
);

/**
 * io_uring_group_done - called when all requests of a group have completed
 *
 * @leader:		pointer to the leader, which has not posted yet
 * @failed:		whether any of them has failed
 */
TRACE_EVENT(io_uring_group_done,

	TP_PROTO(struct io_kiocb *leader, bool failed),

	TP_ARGS(leader, failed),

	TP_STRUCT__entry(
		__field(void *, ctx)
		__field(void *, leader)
		__field(unsigned long long, user_data)
		__field(u8, opcode)
		__field(int, res)
		__field(bool, failed)

		__string(op_str, io_uring_get_opcode(leader->opcode))
	),

	TP_fast_assign(
		__entry->ctx		= leader->ctx;
		__entry->leader		= leader;
		__entry->user_data	= leader->cqe.user_data;
		__entry->opcode		= leader->opcode;
		__entry->res		= leader->cqe.res;
		__entry->failed		= failed;

		__assign_str(op_str);
	),

	TP_printk("ring %p, leader %p, user_data 0x%llx, opcode %s, result %d, failed %d",
		  __entry->ctx, __entry->leader, __entry->user_data,
		  __get_str(op_str), __entry->res, __entry->failed)
);

/**
 * io_uring_group_cancelled - called when a cancellation or a linked timeout has
 *			      found a group, for the first time
 *
 * @leader:		pointer to the leader
 * @phase:		where the group is in its life
 * @members:		how many members have not completed
 *
 * Members are still held by their leader, and will not be issued, if the group is
 * "leading" or "withheld". They are in flight if it is "joining". There are some of
 * each if it is "issuing": one of them has cancelled its group.
 */
TRACE_EVENT(io_uring_group_cancelled,

	TP_PROTO(struct io_kiocb *leader, const char *phase, unsigned int members),

	TP_ARGS(leader, phase, members),

	TP_STRUCT__entry(
		__field(void *, ctx)
		__field(void *, leader)
		__field(unsigned long long, user_data)
		__field(u8, opcode)
		__field(unsigned int, members)

		__string(op_str, io_uring_get_opcode(leader->opcode))
		__string(phase, phase)
	),

	TP_fast_assign(
		__entry->ctx		= leader->ctx;
		__entry->leader		= leader;
		__entry->user_data	= leader->cqe.user_data;
		__entry->opcode		= leader->opcode;
		__entry->members	= members;

		__assign_str(op_str);
		__assign_str(phase);
	),

	TP_printk("ring %p, leader %p, user_data 0x%llx, opcode %s, phase %s, members %u",
		  __entry->ctx, __entry->leader, __entry->user_data,
		  __get_str(op_str), __get_str(phase), __entry->members)
);

#endif /* _TRACE_IO_URING_GROUP_H */

/* This part must be outside protection */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH ../../io_uring/group
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
