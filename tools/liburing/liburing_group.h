/* SPDX-License-Identifier: MIT */
#ifndef LIB_URING_GROUP_H
#define LIB_URING_GROUP_H

/*
 * SQE groups for users of liburing, see io_uring_sqe_group(7). It was compiled, as C and
 * as C++, with liburing 2.3 and 2.15; what their io_uring.h does not know yet is defined
 * here.
 */

#include <errno.h>
#include <stdbool.h>

#include <liburing.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Younger ones say how their own functions are to be inlined. */
#ifndef IOURINGINLINE
#define IOURINGINLINE		static inline
#endif

#ifndef IORING_FEAT_SQE_GROUP
#define IORING_FEAT_SQE_GROUP	(1U << 18)
#endif
#ifndef IOSQE_HAS_EXT_FLAGS
#define IOSQE_HAS_EXT_FLAGS	(1U << 7)
#endif
#ifndef IOSQE_EXT_SQE_GROUP
#define IOSQE_EXT_SQE_GROUP	(1U << 0)
#endif

/*
 * sqe->personality is two bytes with IOSQE_HAS_EXT_FLAGS: ext_flags, and
 * ext_personality. An older struct io_uring_sqe has no names for them.
 */
IOURINGINLINE __u8 *__io_uring_sqe_ext(struct io_uring_sqe *sqe)
{
	return (__u8 *) &sqe->personality;
}

/*
 * Whether the kernel has groups. A ring remembers what io_uring_setup(2) said of it.
 */
IOURINGINLINE bool io_uring_has_sqe_group(const struct io_uring *ring)
{
	return (ring->features & IORING_FEAT_SQE_GROUP) != 0;
}

/*
 * Starts a group with this SQE, or continues it: the SQE that is got next is in the same
 * group. The last member is the first SQE without this call.
 *
 * A personality that was set before is lost: see io_uring_sqe_set_ext_personality().
 *
 * io_uring_prep_*() and io_uring_sqe_set_flags() overwrite what this sets, so it comes
 * after them.
 */
IOURINGINLINE void io_uring_sqe_set_group(struct io_uring_sqe *sqe)
{
	if (!(sqe->flags & IOSQE_HAS_EXT_FLAGS)) {
		__io_uring_sqe_ext(sqe)[0] = 0;
		__io_uring_sqe_ext(sqe)[1] = 0;
	}
	sqe->flags |= IOSQE_HAS_EXT_FLAGS;
	__io_uring_sqe_ext(sqe)[0] |= IOSQE_EXT_SQE_GROUP;
}

/*
 * The registered personality of an SQE that has io_uring_sqe_set_group(), and comes after
 * that. Returns -ERANGE for one that does not fit, which is above 255.
 */
IOURINGINLINE int io_uring_sqe_set_ext_personality(struct io_uring_sqe *sqe,
						   unsigned int personality)
{
	if (personality > 255)
		return -ERANGE;
	if (!(sqe->flags & IOSQE_HAS_EXT_FLAGS))
		__io_uring_sqe_ext(sqe)[0] = 0;
	sqe->flags |= IOSQE_HAS_EXT_FLAGS;
	__io_uring_sqe_ext(sqe)[1] = (__u8) personality;
	return 0;
}

/*
 * Makes sure that so many SQEs can be got without a submission in between, which would
 * end their group: submits what is in the queue if there is not enough room. Returns 0,
 * -E2BIG if the queue is not that large, or what io_uring_submit() returns if it fails.
 *
 * As it may submit, it may end a chain or a group which is not complete. Call it before
 * the first SQE of what belongs together, for all of that.
 *
 * It counts entries. A 128-byte SQE of an IORING_SETUP_SQE_MIXED ring takes two, and a
 * third one if the queue ends between them: io_uring_get_sqe128() puts a nop there. That
 * is an SQE without the flag, so within a group it is the last member.
 */
IOURINGINLINE int io_uring_group_room(struct io_uring *ring, unsigned int sqes)
{
	int ret;

	if (io_uring_sq_space_left(ring) >= sqes)
		return 0;
	if (sqes > ring->sq.ring_entries)
		return -E2BIG;
	while (io_uring_sq_space_left(ring) < sqes) {
		ret = io_uring_submit(ring);
		if (ret < 0)
			return ret;
		/* The thread of IORING_SETUP_SQPOLL takes them when it gets to it. */
		if (ring->flags & IORING_SETUP_SQPOLL) {
			ret = io_uring_sqring_wait(ring);
			if (ret < 0)
				return ret;
		}
	}
	return 0;
}

#ifdef __cplusplus
}
#endif

#endif
