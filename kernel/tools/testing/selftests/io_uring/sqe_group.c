// SPDX-License-Identifier: GPL-2.0
/*
 * SQE groups: a leader, members that are issued together once it has completed,
 * and its CQE behind theirs. What is promised is in
 * Documentation/userspace-api/io_uring_sqe_group.rst.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/io_uring.h>
#include <linux/io_uring/query.h>
#include <linux/time_types.h>
#include <io_uring/mini_liburing.h>

#include "kselftest_harness.h"

#define ENTRIES	32

/* Milliseconds that a CQE may take: not as many as a test may. */
#define PATIENCE	20000

/* What is submitted, by its user_data, which names it where a test fails. */
enum {
	BEFORE = 1,
	LEADER,
	FIRST,
	SECOND,
	REST,
	AFTER,
	CANCEL,
	TIMER,
	FENCE,
};

static const char * const names[] = {
	"nobody", "BEFORE", "LEADER", "FIRST", "SECOND", "REST", "AFTER", "CANCEL",
	"TIMER", "FENCE",
};

/* A CQE that has to come. */
struct want {
	__u64 user_data;
	int res;
};

FIXTURE(sqe_group)
{
	struct io_uring ring;
	/* The leader, or a member, waits for [0] to be readable. */
	int pipe[2];
	char buf[3];
};

FIXTURE_VARIANT(sqe_group)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(sqe_group, plain)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(sqe_group, submit_all)
{
	.flags = IORING_SETUP_SUBMIT_ALL,
};

FIXTURE_VARIANT_ADD(sqe_group, defer_taskrun)
{
	.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
};

FIXTURE_VARIANT_ADD(sqe_group, sqpoll)
{
	.flags = IORING_SETUP_SQPOLL,
};

/* Why groups cannot be tested here. */
static const char *unavailable(void)
{
	struct io_uring_params params = {};
	struct io_uring ring;

	if (io_uring_queue_init_params(ENTRIES, &ring, &params))
		return strerror(errno);
	io_uring_queue_exit(&ring);
	return params.features & IORING_FEAT_SQE_GROUP ? NULL : "no IORING_FEAT_SQE_GROUP";
}

FIXTURE_SETUP(sqe_group)
{
	const char *why = unavailable();

	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, io_uring_queue_init(ENTRIES, &self->ring, variant->flags));
	ASSERT_EQ(0, pipe(self->pipe));
}

FIXTURE_TEARDOWN(sqe_group)
{
	io_uring_queue_exit(&self->ring);
	close(self->pipe[0]);
	close(self->pipe[1]);
}

static struct io_uring_sqe *next_sqe(struct io_uring *ring, __u8 opcode,
				     __u64 user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe) {
		ksft_print_msg("the queue has no room for what this test submits\n");
		abort();
	}
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = -1;
	sqe->user_data = user_data;
	return sqe;
}

static struct io_uring_sqe *nop(struct io_uring *ring, __u64 user_data, int res)
{
	struct io_uring_sqe *sqe = next_sqe(ring, IORING_OP_NOP, user_data);

	sqe->nop_flags = IORING_NOP_INJECT_RESULT;
	sqe->len = res;
	return sqe;
}

static struct io_uring_sqe *rw(struct io_uring *ring, __u8 opcode, __u64 user_data,
			       int fd, char *byte)
{
	struct io_uring_sqe *sqe = next_sqe(ring, opcode, user_data);

	sqe->fd = fd;
	sqe->off = -1;
	sqe->addr = (unsigned long)byte;
	sqe->len = 1;
	return sqe;
}

static struct io_uring_sqe *cancel(struct io_uring *ring, __u64 target)
{
	struct io_uring_sqe *sqe = next_sqe(ring, IORING_OP_ASYNC_CANCEL, CANCEL);

	sqe->addr = target;
	return sqe;
}

/* Of what matches @flags, which takes @value for what is to match. */
static struct io_uring_sqe *cancel_by(struct io_uring *ring, __u32 flags, int value)
{
	struct io_uring_sqe *sqe = next_sqe(ring, IORING_OP_ASYNC_CANCEL, CANCEL);

	sqe->cancel_flags = flags;
	if (flags & IORING_ASYNC_CANCEL_FD)
		sqe->fd = value;
	else
		sqe->len = value;
	return sqe;
}

/* Returns what the system call does, with the error that it has. */
static int sync_cancel(struct io_uring *ring, __u64 target, __u32 flags)
{
	struct io_uring_sync_cancel_reg reg = {
		.addr = target,
		.fd = -1,
		.flags = flags,
		.timeout = { -1, -1 },
	};
	int ret = syscall(__NR_io_uring_register, ring->ring_fd,
			  IORING_REGISTER_SYNC_CANCEL, &reg, 1);

	return ret < 0 ? -errno : ret;
}

/* The kernel copies @ts as the SQE is taken. */
static struct io_uring_sqe *link_timeout(struct io_uring *ring,
					 struct __kernel_timespec *ts)
{
	struct io_uring_sqe *sqe = next_sqe(ring, IORING_OP_LINK_TIMEOUT, TIMER);

	sqe->addr = (unsigned long)ts;
	sqe->len = 1;
	return sqe;
}

/* Another SQE of the group follows. */
static struct io_uring_sqe *more(struct io_uring_sqe *sqe)
{
	sqe->flags |= IOSQE_HAS_EXT_FLAGS;
	sqe->ext_flags |= IOSQE_EXT_SQE_GROUP;
	return sqe;
}

/* How many SQEs the kernel has not taken yet. */
static unsigned int untaken(struct io_uring_sq *sq)
{
	return *sq->ktail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
}

/*
 * io_uring_submit() does not wake an SQPOLL thread, and takes a submission that
 * ends early, behind something malformed, for the end.
 *
 * The SQE that has @hole before it in the queue, if it is not negative, is one that
 * the kernel cannot find: its index in the array is invalid.
 */
static int submit_with_hole(struct io_uring *ring, int hole)
{
	struct io_uring_sq *sq = &ring->sq;
	unsigned int mask = *sq->kring_mask, tail = *sq->ktail, left;
	unsigned int flags = IORING_ENTER_GETEVENTS;

	for (; sq->sqe_head != sq->sqe_tail; sq->sqe_head++)
		sq->array[tail++ & mask] = hole-- ? sq->sqe_head & mask : ~0U;
	__atomic_store_n(sq->ktail, tail, __ATOMIC_RELEASE);
	if (ring->flags & IORING_SETUP_SQPOLL) {
		flags |= IORING_ENTER_SQ_WAKEUP;
		return io_uring_enter(ring->ring_fd, 0, 0, flags, NULL) < 0 ? -errno : 0;
	}
	while ((left = untaken(sq))) {
		/* What is not found is not in what this returns. */
		if (io_uring_enter(ring->ring_fd, left, 0, flags, NULL) < 0)
			return -errno;
		if (untaken(sq) == left)
			return -EAGAIN;
	}
	return 0;
}

static int submit(struct io_uring *ring)
{
	return submit_with_hole(ring, -1);
}

static int ready(struct io_uring *ring)
{
	return __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE) - *ring->cq.khead;
}

/* Lets the task do what it has to do for its ring. */
static int flush(struct io_uring *ring)
{
	return io_uring_enter(ring->ring_fd, 0, 0, IORING_ENTER_GETEVENTS, NULL);
}

/* Takes the next CQE. io_uring_wait_cqe() would wait for it for ever. */
static bool next_cqe(struct io_uring *ring, struct io_uring_cqe *cqe)
{
	struct pollfd fd = { .fd = ring->ring_fd, .events = POLLIN };
	int left;

	for (left = PATIENCE / 100; left; left--) {
		if (!ready(ring))
			flush(ring);
		if (ready(ring)) {
			*cqe = ring->cq.cqes[*ring->cq.khead & *ring->cq.kring_mask];
			io_uring_cqe_seen(ring);
			return true;
		}
		poll(&fd, 1, 100);
	}
	return false;
}

/*
 * Takes as many CQEs as there are in @want, which they have to match, in any order
 * but for the leader, which comes behind its members. Returns how many do not.
 */
static int unmatched(struct io_uring *ring, const struct want *want)
{
	unsigned int due = 0, seen = 0, members, bad = 0;
	const struct want *w;

	for (w = want; w->user_data; w++)
		due |= 1 << w->user_data;
	members = due & (1 << FIRST | 1 << SECOND);

	while (seen != due) {
		struct io_uring_cqe cqe;

		if (!next_cqe(ring, &cqe)) {
			for (w = want; w->user_data; w++)
				if (!(seen & (1 << w->user_data)))
					ksft_print_msg("no CQE of %s\n", names[w->user_data]);
			return bad + 1;
		}
		for (w = want; w->user_data && w->user_data != cqe.user_data; w++)
			;
		if (!w->user_data || seen & (1 << w->user_data)) {
			ksft_print_msg("a CQE that should not be there: %s, %d\n",
				       cqe.user_data <= FENCE ? names[cqe.user_data] : "?",
				       cqe.res);
			bad++;
			continue;
		}
		seen |= 1 << w->user_data;
		if (cqe.res != w->res) {
			ksft_print_msg("%s: %d instead of %d\n", names[w->user_data],
				       cqe.res, w->res);
			bad++;
		}
		if (w->user_data == LEADER && (seen & members) != members) {
			ksft_print_msg("the leader came before a member\n");
			bad++;
		}
	}
	return bad;
}

/* How much is posted although nothing should be before something else happens. */
static int early(struct io_uring *ring)
{
	flush(ring);
	usleep(20000);
	flush(ring);
	return ready(ring);
}

#define expect(ring, ...)							\
	ASSERT_EQ(0, unmatched(ring, (const struct want[]){ __VA_ARGS__, {} }))

#define expect_nothing(ring)							\
	ASSERT_EQ(0, early(ring))

/* All that was submitted is done, and has posted no more than was seen. */
static int left_over(struct io_uring *ring)
{
	nop(ring, FENCE, 0)->flags |= IOSQE_IO_DRAIN;
	return submit(ring) ?: unmatched(ring, (const struct want[]){ { FENCE, 0 }, {} }) ?:
	       ready(ring);
}

#define expect_no_more(ring)							\
	ASSERT_EQ(0, left_over(ring))

/*
 * The feature is announced in two ways, and bit 7 of sqe->flags is refused without
 * it. This is for every kernel.
 */
TEST(announced)
{
	struct io_uring_query_opcode query = {};
	struct io_uring_query_hdr hdr = {
		.query_data = (unsigned long)&query,
		.query_op = IO_URING_QUERY_OPCODES,
		.size = sizeof(query),
	};
	struct io_uring_params params = {};
	struct io_uring ring;
	bool has;

	if (io_uring_queue_init_params(ENTRIES, &ring, &params))
		SKIP(return, "%s", strerror(errno));
	has = params.features & IORING_FEAT_SQE_GROUP;

	nop(&ring, LEADER, 0)->flags |= IOSQE_HAS_EXT_FLAGS;
	ASSERT_EQ(0, submit(&ring));
	expect(&ring, { LEADER, has ? 0 : -EINVAL });

	if (syscall(__NR_io_uring_register, ring.ring_fd, IORING_REGISTER_QUERY,
		    &hdr, 0)) {
		/* Older than the query, and so than groups. */
		ASSERT_EQ(EINVAL, errno);
		ASSERT_FALSE(has);
	} else {
		ASSERT_EQ(0, hdr.result);
		EXPECT_EQ(has, !!(query.feature_flags & IORING_FEAT_SQE_GROUP));
		EXPECT_EQ(has, !!(query.sqe_flags & IOSQE_HAS_EXT_FLAGS));
		EXPECT_EQ(has ? IOSQE_EXT_SQE_GROUP : 0, query.sqe_ext_flags);
	}
	io_uring_queue_exit(&ring);
}

TEST_F(sqe_group, leader_then_members_then_its_cqe)
{
	struct io_uring *ring = &self->ring;

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, 1 }, { SECOND, 2 }, { LEADER, 1 });
	ASSERT_EQ('x', self->buf[0]);
	expect_no_more(ring);
}

/* What the leader reads is there when members write it. */
TEST_F(sqe_group, members_see_what_the_leader_did)
{
	struct io_uring *ring = &self->ring;
	int one[2], two[2];
	char byte;

	ASSERT_EQ(0, pipe(one));
	ASSERT_EQ(0, pipe(two));
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(rw(ring, IORING_OP_WRITE, FIRST, one[1], self->buf));
	rw(ring, IORING_OP_WRITE, SECOND, two[1], self->buf);
	ASSERT_EQ(0, submit(ring));
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, 1 }, { SECOND, 1 }, { LEADER, 1 });
	ASSERT_EQ(1, read(one[0], &byte, 1));
	EXPECT_EQ('x', byte);
	ASSERT_EQ(1, read(two[0], &byte, 1));
	EXPECT_EQ('x', byte);
	expect_no_more(ring);
}

/* Who reads first gets the first byte. */
TEST_F(sqe_group, members_are_issued_in_order)
{
	struct io_uring *ring = &self->ring;

	ASSERT_EQ(2, write(self->pipe[1], "ab", 2));
	more(nop(ring, LEADER, 0));
	more(rw(ring, IORING_OP_READ, FIRST, self->pipe[0], &self->buf[0]));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], &self->buf[1]);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, 1 }, { SECOND, 1 }, { LEADER, 0 });
	EXPECT_EQ('a', self->buf[0]);
	EXPECT_EQ('b', self->buf[1]);
	expect_no_more(ring);
}

/* The first member waits, and the second one does not wait for it. */
TEST_F(sqe_group, members_do_not_wait_for_each_other)
{
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7));
	more(rw(ring, IORING_OP_READ, FIRST, self->pipe[0], self->buf));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { SECOND, 2 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, 1 });
	expect(ring, { LEADER, 7 });
	expect_no_more(ring);
}

/* A leader and two members, each in io-wq if it has its bit in @set. */
static int nops(struct io_uring *ring, int set)
{
	more(nop(ring, LEADER, 7))->flags |= set & 1 ? IOSQE_ASYNC : 0;
	more(nop(ring, FIRST, 1))->flags |= set & 2 ? IOSQE_ASYNC : 0;
	nop(ring, SECOND, 2)->flags |= set & 4 ? IOSQE_ASYNC : 0;
	return submit(ring) ?: unmatched(ring, (const struct want[]){
		{ FIRST, 1 }, { SECOND, 2 }, { LEADER, 7 }, {} });
}

/*
 * How many threads io-wq has here. One of them stays when it has nothing to do, so
 * this does not have to be in time, and tells only once whether something went there.
 */
static int workers(void)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *task;
	int nr = 0;

	if (!tasks)
		return -errno;
	while ((task = readdir(tasks))) {
		char path[sizeof(task->d_name) + sizeof("/comm")], comm[16] = "";
		int fd;

		sprintf(path, "%s/comm", task->d_name);
		fd = openat(dirfd(tasks), path, O_RDONLY);
		if (fd < 0)
			continue;
		if (read(fd, comm, sizeof(comm) - 1) > 0 && !strncmp(comm, "iou-wrk-", 8))
			nr++;
		close(fd);
	}
	closedir(tasks);
	return nr;
}

TEST_F(sqe_group, async_leader)
{
	struct io_uring *ring = &self->ring;

	ASSERT_EQ(0, nops(ring, 0));
	ASSERT_EQ(0, workers());
	ASSERT_EQ(0, nops(ring, 1));
	ASSERT_LT(0, workers());
	expect_no_more(ring);
}

TEST_F(sqe_group, async_member)
{
	struct io_uring *ring = &self->ring;

	ASSERT_EQ(0, nops(ring, 0));
	ASSERT_EQ(0, workers());
	ASSERT_EQ(0, nops(ring, 4));
	ASSERT_LT(0, workers());
	expect_no_more(ring);
}

/* Leader and members in io-wq, in each combination. Who was there is not seen. */
TEST_F(sqe_group, async_combinations)
{
	struct io_uring *ring = &self->ring;
	int set;

	for (set = 0; set < 8; set++)
		ASSERT_EQ(0, nops(ring, set));
	expect_no_more(ring);
}

/*
 * The largest group that the queue takes. A thread that serves two rings takes less of
 * each in one go.
 */
TEST_F(sqe_group, as_large_as_the_queue)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQPOLL | IORING_SETUP_ATTACH_WQ,
		.wq_fd = self->ring.ring_fd,
	};
	bool two = variant->flags & IORING_SETUP_SQPOLL;
	struct io_uring *ring = &self->ring, other;
	struct io_uring_cqe cqe;
	__u64 seen = 0;
	int i;

	if (two)
		ASSERT_EQ(0, io_uring_queue_init_params(ENTRIES, &other, &params));
	for (i = 0; i < ENTRIES - 1; i++)
		more(nop(ring, i, i));
	nop(ring, i, i);
	ASSERT_EQ(0, submit(ring));
	for (i = 0; i < ENTRIES; i++) {
		ASSERT_TRUE(next_cqe(ring, &cqe));
		ASSERT_EQ((int)cqe.user_data, cqe.res);
		ASSERT_FALSE(seen & (1ULL << cqe.user_data));
		seen |= 1ULL << cqe.user_data;
	}
	/* That of the leader was the last. */
	ASSERT_EQ(0, cqe.user_data);
	expect_no_more(ring);
	if (two)
		io_uring_queue_exit(&other);
}

/* The last SQE says that more follow. What is submitted next is not in the group. */
TEST_F(sqe_group, ends_with_the_submission)
{
	struct io_uring *ring = &self->ring;

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	more(nop(ring, SECOND, 2));
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { AFTER, 3 });
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, 1 }, { SECOND, 2 }, { LEADER, 1 });

	/* A leader with no member is a plain request. */
	more(nop(ring, LEADER, 5));
	ASSERT_EQ(0, submit(ring));
	expect(ring, { LEADER, 5 });
	expect_no_more(ring);
}

TEST_F(sqe_group, failing_leader)
{
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, -EPERM));
	more(nop(ring, FIRST, 0));
	rw(ring, IORING_OP_WRITE, SECOND, self->pipe[1], self->buf);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	/* What comes behind is not in a chain with the group. */
	expect(ring, { AFTER, 3 }, { FIRST, -EIO }, { SECOND, -EIO }, { LEADER, -EPERM });
	/* The member was not issued. */
	ASSERT_EQ(0, fcntl(self->pipe[0], F_SETFL, O_NONBLOCK));
	ASSERT_EQ(-1, read(self->pipe[0], self->buf, 1));
	expect_no_more(ring);
}

/* A short read is a failure, as it is in a chain. */
TEST_F(sqe_group, short_leader)
{
	struct io_uring *ring = &self->ring;

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf))->len = 2;
	more(nop(ring, FIRST, 0));
	nop(ring, SECOND, 0);
	ASSERT_EQ(0, submit(ring));
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, -EIO }, { SECOND, -EIO }, { LEADER, 1 });
	expect_no_more(ring);
}

/* It changes neither its sibling's result nor its leader's, but breaks the chain. */
TEST_F(sqe_group, failing_member)
{
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(nop(ring, FIRST, -EPERM));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -EPERM }, { SECOND, 2 }, { LEADER, 7 });
	expect(ring, { AFTER, -ECANCELED });

	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_HARDLINK;
	more(nop(ring, FIRST, -EPERM));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -EPERM }, { SECOND, 2 }, { LEADER, 7 });
	expect(ring, { AFTER, 3 });
	expect_no_more(ring);
}

/* A group is one element of a chain, its leader's link flag is that of all of it. */
TEST_F(sqe_group, in_a_chain)
{
	struct io_uring *ring = &self->ring;

	rw(ring, IORING_OP_READ, BEFORE, self->pipe[0], &self->buf[0])->flags |=
		IOSQE_IO_LINK;
	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], &self->buf[1]);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "a", 1));
	expect(ring, { BEFORE, 1 });
	expect(ring, { FIRST, 1 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "b", 1));
	expect(ring, { SECOND, 1 });
	expect(ring, { LEADER, 7 });
	expect(ring, { AFTER, 3 });
	expect_no_more(ring);
}

/* N to M: the members of the second group wait for all of the first. */
TEST_F(sqe_group, chain_of_groups)
{
	struct io_uring *ring = &self->ring;
	int other[2];

	ASSERT_EQ(0, pipe(other));
	more(nop(ring, BEFORE, 0))->flags |= IOSQE_IO_LINK;
	more(rw(ring, IORING_OP_READ, CANCEL, self->pipe[0], &self->buf[0]));
	rw(ring, IORING_OP_READ, TIMER, other[0], &self->buf[1]);
	more(nop(ring, LEADER, 7));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_EQ(1, write(other[1], "a", 1));
	expect(ring, { TIMER, 1 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "b", 1));
	expect(ring, { CANCEL, 1 });
	expect(ring, { BEFORE, 0 });
	expect(ring, { FIRST, 1 }, { SECOND, 2 }, { LEADER, 7 });
	expect_no_more(ring);
}

TEST_F(sqe_group, in_a_broken_chain)
{
	struct io_uring *ring = &self->ring;

	nop(ring, BEFORE, -EPERM)->flags |= IOSQE_IO_LINK;
	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { BEFORE, -EPERM });
	expect(ring, { FIRST, -ECANCELED }, { SECOND, -ECANCELED }, { LEADER, -ECANCELED });
	expect(ring, { AFTER, -ECANCELED });
	expect_no_more(ring);
}

/* The group waits for what came before, and what drains after it for all of it. */
TEST_F(sqe_group, drain)
{
	struct io_uring *ring = &self->ring;

	rw(ring, IORING_OP_READ, BEFORE, self->pipe[0], &self->buf[0]);
	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_DRAIN;
	more(nop(ring, FIRST, 1));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], &self->buf[1]);
	nop(ring, AFTER, 3)->flags |= IOSQE_IO_DRAIN;
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "a", 1));
	expect(ring, { BEFORE, 1 });
	expect(ring, { FIRST, 1 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "b", 1));
	expect(ring, { SECOND, 1 });
	expect(ring, { LEADER, 7 });
	expect(ring, { AFTER, 3 });
	expect_no_more(ring);
}

/* One CQE for a group that succeeds, and each error of one that does not. */
TEST_F(sqe_group, skipped_cqes)
{
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7));
	more(nop(ring, FIRST, 1))->flags |= IOSQE_CQE_SKIP_SUCCESS;
	nop(ring, SECOND, 2)->flags |= IOSQE_CQE_SKIP_SUCCESS;
	ASSERT_EQ(0, submit(ring));
	expect(ring, { LEADER, 7 });

	more(nop(ring, LEADER, 7))->flags |= IOSQE_CQE_SKIP_SUCCESS;
	more(nop(ring, FIRST, -EPERM))->flags |= IOSQE_CQE_SKIP_SUCCESS;
	nop(ring, SECOND, 2)->flags |= IOSQE_CQE_SKIP_SUCCESS;
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -EPERM });
	expect(ring, { LEADER, 7 });

	/* What is linked to it tells that a group is done which says nothing itself. */
	more(nop(ring, LEADER, 7))->flags |= IOSQE_CQE_SKIP_SUCCESS | IOSQE_IO_LINK;
	nop(ring, FIRST, 1)->flags |= IOSQE_CQE_SKIP_SUCCESS;
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { AFTER, 3 });
	/* A ring that skips CQEs does not drain. */
	expect_nothing(ring);
}

/* By the leader's user_data, while it waits. */
TEST_F(sqe_group, cancel_before_members)
{
	struct io_uring *ring = &self->ring;

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf))->flags |=
		IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel(ring, LEADER);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 });
	expect(ring, { FIRST, -ECANCELED }, { SECOND, -ECANCELED }, { LEADER, -ECANCELED });
	expect(ring, { AFTER, -ECANCELED });

	cancel(ring, LEADER);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, -ENOENT });
	expect_no_more(ring);
}

/* By the leader's user_data, which has completed, while members wait. */
TEST_F(sqe_group, cancel_members_by_leader)
{
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(rw(ring, IORING_OP_READ, FIRST, self->pipe[0], self->buf));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { SECOND, 2 });
	expect_nothing(ring);
	cancel(ring, LEADER);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 }, { FIRST, -ECANCELED });
	expect(ring, { LEADER, 7 });
	expect(ring, { AFTER, -ECANCELED });
	expect_no_more(ring);
}

/* One member, not issued yet; the rest of its group goes on. */
TEST_F(sqe_group, cancel_one_member)
{
	struct io_uring *ring = &self->ring;

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel(ring, SECOND);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, 1 }, { SECOND, -ECANCELED }, { LEADER, 1 });
	expect_no_more(ring);
}

/* By the file: members have none before they are issued, a leader that is done is done. */
TEST_F(sqe_group, cancel_by_fd)
{
	struct io_uring *ring = &self->ring;
	int other[2];

	ASSERT_EQ(0, pipe(other));
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], &self->buf[0]))->flags |=
		IOSQE_IO_LINK;
	more(rw(ring, IORING_OP_READ, FIRST, other[0], &self->buf[1]));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_FD, other[0]);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, -ENOENT });
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { SECOND, 2 });
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_FD, self->pipe[0]);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, -ENOENT });
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_FD, other[0]);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 }, { FIRST, -ECANCELED }, { LEADER, 1 });
	expect(ring, { AFTER, -ECANCELED });

	/* The leader runs, and takes its members with it. */
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_FD, self->pipe[0]);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 }, { FIRST, -ECANCELED }, { SECOND, -ECANCELED },
	       { LEADER, -ECANCELED });
	expect_no_more(ring);
}

static struct io_uring_sqe *poll_in(struct io_uring *ring, __u64 user_data, int fd)
{
	struct io_uring_sqe *sqe = next_sqe(ring, IORING_OP_POLL_ADD, user_data);

	sqe->fd = fd;
	sqe->poll32_events = POLLIN;
	return sqe;
}

/* By the opcode, which members have from the start. */
TEST_F(sqe_group, cancel_by_opcode)
{
	struct io_uring *ring = &self->ring;
	int other[2];

	ASSERT_EQ(0, pipe(other));
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], &self->buf[0]))->flags |=
		IOSQE_IO_LINK;
	more(poll_in(ring, FIRST, other[0]));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_OP, IORING_OP_POLL_ADD);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, -ECANCELED }, { SECOND, 2 }, { LEADER, 1 });
	expect(ring, { AFTER, -ECANCELED });

	/* In flight, beside another one that goes on. */
	more(nop(ring, LEADER, 7));
	more(poll_in(ring, FIRST, self->pipe[0]));
	rw(ring, IORING_OP_READ, SECOND, other[0], &self->buf[1]);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_OP, IORING_OP_POLL_ADD);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 0 }, { FIRST, -ECANCELED });
	expect_nothing(ring);
	ASSERT_EQ(1, write(other[1], "x", 1));
	expect(ring, { SECOND, 1 });
	expect(ring, { LEADER, 7 });
	expect_no_more(ring);
}

/* All that match are counted: not members because their leader does. */
TEST_F(sqe_group, cancel_all)
{
	struct io_uring *ring = &self->ring;

	/* Of this group, and of none. */
	more(nop(ring, LEADER, 7));
	more(rw(ring, IORING_OP_READ, FIRST, self->pipe[0], &self->buf[0]));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], &self->buf[1]);
	rw(ring, IORING_OP_READ, AFTER, self->pipe[0], &self->buf[2]);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL, self->pipe[0]);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 3 }, { FIRST, -ECANCELED }, { SECOND, -ECANCELED },
	       { LEADER, 7 }, { AFTER, -ECANCELED });

	/* Members that are not issued. */
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel_by(ring, IORING_ASYNC_CANCEL_OP | IORING_ASYNC_CANCEL_ALL, IORING_OP_NOP);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 2 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, -ECANCELED }, { SECOND, -ECANCELED }, { LEADER, 1 });

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	cancel(ring, LEADER)->cancel_flags = IORING_ASYNC_CANCEL_ALL;
	ASSERT_EQ(0, submit(ring));
	expect(ring, { CANCEL, 1 }, { FIRST, -ECANCELED }, { SECOND, -ECANCELED },
	       { LEADER, -ECANCELED });
	expect_no_more(ring);
}

/* By a system call, which waits until it is done. */
TEST_F(sqe_group, cancel_synchronously)
{
	struct io_uring *ring = &self->ring;

	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf))->flags |=
		IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_EQ(0, sync_cancel(ring, LEADER, 0));
	expect(ring, { FIRST, -ECANCELED }, { SECOND, -ECANCELED }, { LEADER, -ECANCELED });
	expect(ring, { AFTER, -ECANCELED });

	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(rw(ring, IORING_OP_READ, FIRST, self->pipe[0], self->buf));
	nop(ring, SECOND, 2);
	nop(ring, AFTER, 3);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { SECOND, 2 });
	expect_nothing(ring);
	ASSERT_EQ(0, sync_cancel(ring, LEADER, 0));
	expect(ring, { FIRST, -ECANCELED }, { LEADER, 7 });
	expect(ring, { AFTER, -ECANCELED });
	ASSERT_EQ(-ENOENT, sync_cancel(ring, LEADER, 0));

	/* One member, not issued yet. */
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf));
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_EQ(0, sync_cancel(ring, FIRST, 0));
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { FIRST, -ECANCELED }, { SECOND, 2 }, { LEADER, 1 });

	/* Whatever there is. Whether a leader counts that waits for its members is open. */
	more(nop(ring, LEADER, 7));
	more(rw(ring, IORING_OP_READ, FIRST, self->pipe[0], &self->buf[0]));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], &self->buf[1]);
	ASSERT_EQ(0, submit(ring));
	expect_nothing(ring);
	ASSERT_LE(2, sync_cancel(ring, 0, IORING_ASYNC_CANCEL_ANY));
	expect(ring, { FIRST, -ECANCELED }, { SECOND, -ECANCELED }, { LEADER, 7 });
	expect_no_more(ring);
}

/* A linked timeout is a deadline for all of the group. */
TEST_F(sqe_group, deadline)
{
	/* Long enough for the first member to be done, though the task be preempted. */
	struct __kernel_timespec ts = { .tv_sec = 1 };
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], self->buf);
	link_timeout(ring, &ts);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, 1 }, { SECOND, -ECANCELED }, { LEADER, 7 }, { TIMER, -ETIME });

	/* The leader is what it strikes, and that at any time. */
	ts = (struct __kernel_timespec){ .tv_nsec = 10 * 1000 * 1000 };
	more(rw(ring, IORING_OP_READ, LEADER, self->pipe[0], self->buf))->flags |=
		IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	link_timeout(ring, &ts);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -ECANCELED }, { SECOND, -ECANCELED }, { LEADER, -ECANCELED },
	       { TIMER, -ETIME });
	expect_no_more(ring);
}

TEST_F(sqe_group, deadline_that_is_met)
{
	struct __kernel_timespec ts = { .tv_sec = 3600 };
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7))->flags |= IOSQE_IO_LINK;
	more(nop(ring, FIRST, 1));
	rw(ring, IORING_OP_READ, SECOND, self->pipe[0], self->buf);
	link_timeout(ring, &ts);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, 1 });
	expect_nothing(ring);
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	expect(ring, { SECOND, 1 });
	expect(ring, { LEADER, 7 }, { TIMER, -ECANCELED });
	expect_no_more(ring);
}

/*
 * Nothing of a group is issued if one of its SQEs is malformed, and each of them
 * posts. The first SQE without the flag is its end all the same.
 */
TEST_F(sqe_group, malformed_member)
{
	struct io_uring *ring = &self->ring;
	int flaw;

	for (flaw = 0; flaw < 6; flaw++) {
		struct __kernel_timespec ts = { .tv_sec = 3600 };
		struct io_uring_sqe *sqe;

		more(rw(ring, IORING_OP_WRITE, LEADER, self->pipe[1], self->buf));
		sqe = flaw == 5 ? link_timeout(ring, &ts) : nop(ring, FIRST, 1);
		more(sqe)->user_data = FIRST;
		switch (flaw) {
		case 0:
			sqe->opcode = 255;
			break;
		case 1:
			sqe->nop_flags = ~0U;
			break;
		case 2:
			sqe->flags |= IOSQE_IO_LINK;
			break;
		case 3:
			sqe->flags |= IOSQE_IO_DRAIN;
			break;
		case 4:
			/* A bit of ext_flags that nobody has given a meaning. */
			sqe->ext_flags |= 0x80;
			break;
		}
		nop(ring, SECOND, 2);
		nop(ring, AFTER, 3);
		ASSERT_EQ(0, submit(ring));
		expect(ring, { FIRST, -EINVAL }, { SECOND, -EIO }, { LEADER, -EINVAL },
		       { AFTER, 3 });
	}
	/* No leader was issued. */
	ASSERT_EQ(0, fcntl(self->pipe[0], F_SETFL, O_NONBLOCK));
	ASSERT_EQ(-1, read(self->pipe[0], self->buf, 1));
	expect_no_more(ring);
}

TEST_F(sqe_group, malformed_leader)
{
	struct io_uring *ring = &self->ring;

	more(nop(ring, LEADER, 7))->opcode = 255;
	more(nop(ring, FIRST, 1));
	rw(ring, IORING_OP_WRITE, SECOND, self->pipe[1], self->buf);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -EIO }, { SECOND, -EIO }, { LEADER, -EINVAL });

	/* Its notification would be posted before the CQE that is withheld. */
	more(rw(ring, IORING_OP_SEND_ZC, LEADER, self->pipe[1], self->buf))->off = 0;
	more(nop(ring, FIRST, 1));
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -EIO }, { SECOND, -EIO }, { LEADER, -EINVAL });
	ASSERT_EQ(0, fcntl(self->pipe[0], F_SETFL, O_NONBLOCK));
	ASSERT_EQ(-1, read(self->pipe[0], self->buf, 1));
	expect_no_more(ring);
}

/*
 * A member that the kernel does not find in the queue, and which does not post. What was
 * taken of its group fails, and the rest is not executed: up to the next SQE without the
 * flag, also if the one that was not found was to be the last.
 */
TEST_F(sqe_group, invalid_index)
{
	struct io_uring *ring = &self->ring;
	int kind;

	for (kind = 0; kind < 3; kind++) {
		struct io_uring_sqe *sqe;

		more(nop(ring, LEADER, 7));
		if (kind)
			more(nop(ring, FIRST, 1));
		sqe = nop(ring, SECOND, 2);
		if (kind < 2)
			more(sqe);
		nop(ring, REST, 4);
		nop(ring, AFTER, 3);
		ASSERT_EQ(0, submit_with_hole(ring, kind ? 2 : 1));
		if (kind) {
			expect(ring, { FIRST, -ECANCELED }, { LEADER, -EINVAL },
			       { REST, -ECANCELED }, { AFTER, 3 });
		} else {
			expect(ring, { LEADER, -EINVAL }, { REST, -ECANCELED }, { AFTER, 3 });
		}
	}
	ASSERT_EQ(0, nops(ring, 0));
	expect_no_more(ring);
}

/* ext_personality takes the place of personality. */
TEST_F(sqe_group, ext_personality)
{
	struct io_uring *ring = &self->ring;
	int id;

	id = syscall(__NR_io_uring_register, ring->ring_fd,
		     IORING_REGISTER_PERSONALITY, NULL, 0);
	ASSERT_GT(id, 0);
	ASSERT_LT(id, 255);
	more(nop(ring, LEADER, 7))->ext_personality = id;
	more(nop(ring, FIRST, 1))->ext_personality = id;
	nop(ring, SECOND, 2)->personality = id;
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, 1 }, { SECOND, 2 }, { LEADER, 7 });

	more(nop(ring, LEADER, 7));
	more(nop(ring, FIRST, 1))->ext_personality = id + 1;
	nop(ring, SECOND, 2);
	ASSERT_EQ(0, submit(ring));
	expect(ring, { FIRST, -EINVAL }, { SECOND, -EIO }, { LEADER, -EINVAL });
	expect_no_more(ring);
}

/* A group before its leader has completed, and one after that. */
static void two_in_flight(struct io_uring *ring, int fd, char *buf)
{
	more(nop(ring, BEFORE, 0));
	rw(ring, IORING_OP_READ, AFTER, fd, &buf[0]);
	more(rw(ring, IORING_OP_READ, LEADER, fd, &buf[1]));
	more(nop(ring, FIRST, 1));
	rw(ring, IORING_OP_READ, SECOND, fd, &buf[2]);
}

/* What a task has in flight goes with it, and the files which that holds. */
TEST_F(sqe_group, task_is_killed)
{
	struct pollfd gone = { .fd = self->pipe[1] };
	int submitted[2], status;
	pid_t parent = getpid(), pid;
	char byte;

	ASSERT_EQ(0, pipe(submitted));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct io_uring ring;

		/* It does not outlive its test, which may end early. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
			_exit(1);
		if (io_uring_queue_init(ENTRIES, &ring, variant->flags))
			_exit(1);
		two_in_flight(&ring, self->pipe[0], self->buf);
		if (submit(&ring) || early(&ring) || write(submitted[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(submitted[1]);
	ASSERT_EQ(1, read(submitted[0], &byte, 1));
	/* Its are the last readers. */
	close(self->pipe[0]);
	self->pipe[0] = -1;
	ASSERT_EQ(0, poll(&gone, 1, 0));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(1, poll(&gone, 1, PATIENCE));
	ASSERT_EQ(POLLERR, gone.revents & POLLERR);
}

TEST_HARNESS_MAIN
