/* SPDX-License-Identifier: GPL-2.0 */
#ifndef IOU_GROUP_H
#define IOU_GROUP_H

#include <linux/io_uring.h>
#include <linux/io_uring_types.h>
#include "../cancel.h"

struct seq_file;

/*
 * SQE groups: a leader, then members that are issued once it has completed. The
 * CQE of the leader comes last. See group.rs for how, and state.rs for the
 * states. Without CONFIG_IO_URING_GROUP the flags that lead here are 0, and
 * nothing of this is called.
 */
#ifdef CONFIG_IO_URING_GROUP
#define IO_GROUP_FEAT_FLAGS	IORING_FEAT_SQE_GROUP
#define IO_GROUP_SQE_FLAGS	IOSQE_HAS_EXT_FLAGS
#define IO_GROUP_SQE_EXT_FLAGS	IOSQE_EXT_SQE_GROUP
#else
#define IO_GROUP_FEAT_FLAGS	0
#define IO_GROUP_SQE_FLAGS	0
#define IO_GROUP_SQE_EXT_FLAGS	0
#endif

/* what a cancellation looks for */
#define IO_GROUP_LEADERS	1
#define IO_GROUP_HELD		2
#define IO_GROUP_INFLIGHT	4

/* the SQE that is being taken is a member, or what is left of a group */
#define IO_RING_F_IN_GROUP	(IO_RING_F_GROUP_OPEN | IO_RING_F_GROUP_SKIP)

/* group.rs, with ->uring_lock held */
int io_group_init_leader(struct io_kiocb *req);
void io_group_open(struct io_kiocb *leader);
void io_group_add(struct io_kiocb *leader, struct io_kiocb *req);
void io_group_add_odd(struct io_kiocb *leader, struct io_kiocb *req, int err);
bool io_group_close(struct io_kiocb *leader);
void io_group_abort(struct io_kiocb *leader, int err);
bool io_group_start(struct io_kiocb *req);
void io_group_fail_link(struct io_kiocb *leader);
bool io_group_complete(struct io_kiocb *req);
void io_group_fan_out(struct io_tw_req tw_req, io_tw_token_t tw);
unsigned int io_group_members(const struct io_kiocb *leader);
bool io_group_cancel_held(struct io_kiocb *leader);
int io_group_cancel_match(struct io_ring_ctx *ctx, struct io_cancel_data *cd,
			  unsigned int what, bool all,
			  struct io_kiocb **leader);

/* fdinfo.rs, with ->uring_lock held */
void io_group_show_fdinfo(struct io_ring_ctx *ctx, struct seq_file *m);

/* io_uring.c, for group.rs */
void io_group_issue_held(struct io_kiocb *leader, u32 stop);
void io_group_queue_member(struct io_kiocb *req, int err);

/* number of members, of those that haven't completed */
static inline unsigned int io_group_nr(const struct io_kiocb *req)
{
	return req->flags & REQ_F_GROUP ? io_group_members(req) : 0;
}

/*
 * Called with ->uring_lock held, and maybe with a lock of io-wq. The work of a
 * request that has completed already may still be around, but its flag is gone.
 */
static inline bool io_group_has(const struct io_kiocb *leader,
				const struct io_kiocb *req)
{
#ifdef CONFIG_IO_URING_GROUP
	/* of the flags, a worker that runs the request changes other bits */
	if (!(data_race(req->flags) & REQ_F_GROUP))
		return false;
	if (req == leader)
		return true;
	/* or the members that another leader holds, which is none of the two */
	return req->grp_leader == leader;
#else
	return false;
#endif
}

static inline struct io_kiocb *io_cancel_leader(struct io_cancel_data *cd)
{
#ifdef CONFIG_IO_URING_GROUP
	return cd->leader;
#else
	return NULL;
#endif
}

static inline bool io_has_groups(struct io_ring_ctx *ctx)
{
#ifdef CONFIG_IO_URING_GROUP
	return !hlist_empty(&ctx->groups);
#else
	return false;
#endif
}

static inline void io_group_poison(struct io_kiocb *req)
{
#ifdef CONFIG_IO_URING_GROUP
	req->grp_leader = IO_URING_PTR_POISON;
#endif
}

static inline bool io_sqe_has_ext_flags(const struct io_uring_sqe *sqe)
{
	return IO_GROUP_SQE_FLAGS &&
	       (READ_ONCE(sqe->flags) & IO_GROUP_SQE_FLAGS);
}

static inline bool io_sqe_in_group(const struct io_uring_sqe *sqe)
{
	return io_sqe_has_ext_flags(sqe) &&
	       (READ_ONCE(sqe->ext_flags) & IOSQE_EXT_SQE_GROUP);
}

/* is it a member that others follow, and that has no other ext flags? */
static inline bool io_sqe_joins(const struct io_ring_ctx *ctx,
				const struct io_uring_sqe *sqe)
{
	return (ctx->int_flags & IO_RING_F_GROUP_OPEN) &&
	       READ_ONCE(sqe->ext_flags) == IOSQE_EXT_SQE_GROUP;
}

/* a byte of sqe->personality is taken by ext flags, if there are any */
static inline u16 io_sqe_personality(const struct io_uring_sqe *sqe,
				     u16 personality)
{
	if (personality && io_sqe_has_ext_flags(sqe))
		return READ_ONCE(sqe->ext_personality);
	return personality;
}

#endif
