/* SPDX-License-Identifier: MIT */
/*
 * The device's limit: the speed that O_DIRECT reads by io_uring from one thread reach. A scan reads
 * large pieces, several at once. Random pages are read as many at once as the workload has threads,
 * or wants in flight.
 */
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCAN_BYTES (1u << 20)
#define SCAN_DEPTH 8u

static struct {
	struct io_uring ring;
	unsigned char *buffers;
	uint32_t piece; /* bytes of a read */
	unsigned depth;
	int fd;
} limit;

static int limit_open(struct bench_run *run)
{
	const struct bench_workload *workload = run->workload;
	size_t len;
	int error;

	limit.piece = workload->unit;
	limit.depth = workload->nowait || workload->step ? BENCH_DEPTH : run->cell->in.threads;
	if (bench_is_scan(workload)) {
		limit.piece = SCAN_BYTES;
		limit.depth = SCAN_DEPTH;
		while (run->range_bytes / BENCH_STREAMS % limit.piece)
			limit.piece /= 2;
	}
	limit.fd = open(run->cell->in.path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (limit.fd < 0)
		return bench_why(run, "O_DIRECT: %s", strerror(errno));
	len = (size_t)limit.depth * limit.piece;
	if (posix_memalign((void **)&limit.buffers, BENCH_HUGE, len))
		return bench_why(run, "out of memory");
	/* The device takes a large read in fewer pieces if the memory is contiguous. */
	madvise(limit.buffers, len, MADV_HUGEPAGE);
	memset(limit.buffers, 0, len);
	error = io_uring_queue_init(limit.depth, &limit.ring, 0);
	return error ? bench_why(run, "io_uring: %s", strerror(-error)) : 0;
}

/* Return the offset of read number `turn`. */
static uint64_t read_offset(const struct bench_worker *worker, uint64_t turn)
{
	const struct bench_run *run = worker->run;
	uint64_t pieces = run->range_bytes / limit.piece;

	if (!bench_is_scan(run->workload))
		return bench_offset(worker, turn);
	if (run->workload->pattern == PATTERN_BACKWARD)
		return (pieces - 1 - turn % pieces) * limit.piece;
	if (run->workload->pattern == PATTERN_STREAMS)
		return (turn % BENCH_STREAMS * (pieces / BENCH_STREAMS) + turn / BENCH_STREAMS) * limit.piece;
	return turn % pieces * limit.piece;
}

/* Queue a read, which is submitted together with others. */
static void queue_read(const struct bench_worker *worker, unsigned slot, uint64_t turn)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&limit.ring); /* not NULL: there are as many
								     entries as slots */

	io_uring_prep_read(sqe, limit.fd, limit.buffers + (size_t)slot * limit.piece, limit.piece,
			   read_offset(worker, turn));
	sqe->user_data = slot;
}

/* Wait for one read, and sum its bytes. Returns the read's slot, or a negative value. */
static int take_read(struct bench_worker *worker)
{
	struct io_uring_cqe *cqe;
	int error = io_uring_wait_cqe(&limit.ring, &cqe);
	unsigned slot;

	if (error)
		return bench_why(worker->run, "io_uring: %s", strerror(-error));
	slot = (unsigned)cqe->user_data;
	if (cqe->res != (int)limit.piece)
		return bench_why(worker->run, "direct read: %s",
				 cqe->res < 0 ? strerror(-cqe->res) : "the read returned too few bytes");
	io_uring_cqe_seen(&limit.ring, cqe);
	worker->sum += bench_sum_lines(limit.buffers + (size_t)slot * limit.piece, limit.piece);
	worker->ops += limit.piece / worker->run->workload->unit;
	return (int)slot;
}

static int limit_work(struct bench_worker *worker, uint64_t from, uint64_t to, uint64_t deadline_ns)
{
	unsigned per_read = limit.piece / worker->run->workload->unit, flying = 0;
	uint64_t turn = from / per_read, end = to / per_read;

	for (; flying < limit.depth && turn < end; flying++)
		queue_read(worker, flying, turn++);
	while (flying) {
		int slot;

		/* Take small reads that have ended before the submission: then one system call
		 * submits several reads. Submit large reads at once, because summing a buffer takes
		 * as long as many calls. */
		if (limit.piece > BENCH_PAGE || !io_uring_cq_ready(&limit.ring))
			io_uring_submit(&limit.ring);
		slot = take_read(worker);
		if (slot < 0)
			return slot;
		if (turn == end || (deadline_ns && bench_now_ns() >= deadline_ns)) {
			flying--;
			continue;
		}
		queue_read(worker, (unsigned)slot, turn++);
	}
	return 0;
}

const struct bench_way_ops bench_limit_ops = {
	.open = limit_open,
	.work = limit_work,
};
