// SPDX-License-Identifier: MIT
/*
 * Copies a file to several others, with a group for each block: the read leads, the
 * writes are members. In the last group a nop leads, and each copy is synced by a member.
 *
 *	cc -o group-cp group-cp.c -luring
 *	./group-cp FROM TO...
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "liburing_group.h"

#define BLOCK		(64 * 1024)
#define IN_FLIGHT	4
#define ENTRIES		64

/* Statuses: that of a test which cannot run here is the one of automake. */
#define SKIPPED		77

struct block {
	char data[BLOCK];
	off_t offset;
	unsigned int length;
	bool busy;
};

struct copy {
	struct io_uring ring;
	int from;
	off_t size;
	int *to;
	unsigned int copies;
	struct block blocks[IN_FLIGHT];
	unsigned int groups;
};

/*
 * If all goes well only the leader posts, so its user_data names the block. Members have
 * that of their block as well: they post if they fail, and before their leader.
 */
static int submit_block(struct copy *copy, struct block *block, off_t offset)
{
	struct io_uring *ring = &copy->ring;
	off_t left = copy->size - offset;
	struct io_uring_sqe *sqe;
	unsigned int i;
	int ret;

	/* A short read fails its group, so that no block may be longer than what is there. */
	block->offset = offset;
	block->length = left < BLOCK ? left : BLOCK;
	block->busy = true;

	ret = io_uring_group_room(ring, 1 + copy->copies);
	if (ret)
		return ret;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, copy->from, block->data, block->length, offset);
	io_uring_sqe_set_data(sqe, block);
	io_uring_sqe_set_group(sqe);
	for (i = 0; i < copy->copies; i++) {
		sqe = io_uring_get_sqe(ring);
		io_uring_prep_write(sqe, copy->to[i], block->data, block->length, offset);
		io_uring_sqe_set_data(sqe, block);
		io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
		if (i + 1 < copy->copies)
			io_uring_sqe_set_group(sqe);
	}
	copy->groups++;
	return io_uring_submit(ring);
}

static int copy_blocks(struct copy *copy)
{
	unsigned int busy = 0, i;
	off_t offset = 0;
	int ret, error = 0;

	while (busy || (!error && offset < copy->size)) {
		struct io_uring_cqe *cqe;
		struct block *block;

		for (i = 0; i < IN_FLIGHT && !error && offset < copy->size; i++) {
			if (copy->blocks[i].busy)
				continue;
			ret = submit_block(copy, &copy->blocks[i], offset);
			if (ret < 0)
				return ret;
			offset += copy->blocks[i].length;
			busy++;
		}
		ret = io_uring_wait_cqe(&copy->ring, &cqe);
		if (ret < 0)
			return ret;
		block = io_uring_cqe_get_data(cqe);
		/* The leader is the one whose result is the length: members skip success. */
		if (cqe->res == (int) block->length) {
			block->busy = false;
			busy--;
		} else {
			/* Of a group that has failed not all that comes is worth telling. */
			error = cqe->res < 0 ? cqe->res : -EIO;
			io_uring_cqe_seen(&copy->ring, cqe);
			return error;
		}
		io_uring_cqe_seen(&copy->ring, cqe);
	}
	return 0;
}

/* All files are synced side by side, and there is one CQE when that is done. */
static int sync_all(struct copy *copy)
{
	struct io_uring *ring = &copy->ring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned int i;
	int ret;

	ret = io_uring_group_room(ring, 1 + copy->copies);
	if (ret)
		return ret;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_group(sqe);
	for (i = 0; i < copy->copies; i++) {
		sqe = io_uring_get_sqe(ring);
		io_uring_prep_fsync(sqe, copy->to[i], IORING_FSYNC_DATASYNC);
		io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
		if (i + 1 < copy->copies)
			io_uring_sqe_set_group(sqe);
	}
	copy->groups++;
	ret = io_uring_submit_and_wait(ring, 1);
	if (ret < 0)
		return ret;
	ret = io_uring_peek_cqe(ring, &cqe);
	if (!ret) {
		ret = cqe->res;
		io_uring_cqe_seen(ring, cqe);
	}
	return ret;
}

int main(int argc, char **argv)
{
	static struct copy copy;
	struct stat stat;
	int ret, i;

	if (argc < 3 || argc - 2 > ENTRIES - 1) {
		fprintf(stderr, "usage: %s FROM TO...\n", argv[0]);
		return 1;
	}
	copy.copies = argc - 2;
	copy.to = calloc(copy.copies, sizeof(*copy.to));
	copy.from = open(argv[1], O_RDONLY);
	if (!copy.to || copy.from < 0 || fstat(copy.from, &stat)) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	copy.size = stat.st_size;
	for (i = 2; i < argc; i++) {
		copy.to[i - 2] = open(argv[i], O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (copy.to[i - 2] < 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			return 1;
		}
	}

	ret = io_uring_queue_init(ENTRIES, &copy.ring, 0);
	if (ret) {
		fprintf(stderr, "io_uring: %s\n", strerror(-ret));
		return 1;
	}
	if (!io_uring_has_sqe_group(&copy.ring)) {
		printf("skip: this kernel has no SQE groups\n");
		return SKIPPED;
	}
	ret = copy_blocks(&copy);
	if (!ret)
		ret = sync_all(&copy);
	if (ret) {
		fprintf(stderr, "copying: %s\n", strerror(-ret));
		return 1;
	}
	printf("%lld bytes to %u files, in %u groups\n", (long long) copy.size, copy.copies,
	       copy.groups);
	io_uring_queue_exit(&copy.ring);
	return 0;
}
