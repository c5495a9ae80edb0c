/* SPDX-License-Identifier: MIT */
/*
 * fm_pin() for writing. System calls write into pinned pages (read(), readv(), direct reads,
 * io_uring), and only the kernel sees these writes. After fm_unpin() and fm_sync() the store has
 * the bytes that memory has.
 *
 * Seen to fail:
 *   test_others_write: a pinned page is cleaned when the page is written back.
 *   test_truncated: page_remove() leaves the pins.
 *   test_no_gap: a pinned page is made writable by MOVE.
 */
#include "write_support.h"

#include <liburing.h>
#include <sched.h>
#include <sys/uio.h>

#define SEED 31
#define PAGES 64
#define LEN (PAGES * PAGE)

static fm_mm *mm;
static fm_file *file;
static const char *path;
static unsigned char *addr;

static void begin(void)
{
	hazard_watch("a call, or an access, never ended");
	mm = support_mm(2 * MIB);
	path = support_file(LEN, SEED);
	file = write_open(mm, path);
	addr = write_map(file, 0, LEN);
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void read_plain(int fd, unsigned char *to, size_t len, uint64_t offset)
{
	CHECK_EQ(pread(fd, to, len, (off_t)offset), (ssize_t)len);
}

static void read_parts(int fd, unsigned char *to, size_t len, uint64_t offset)
{
	struct iovec iov[3] = {{to, PAGE}, {to + PAGE, len - 2 * PAGE}, {to + len - PAGE, PAGE}};
	CHECK_EQ(preadv(fd, iov, 3, (off_t)offset), (ssize_t)len);
}

static void read_ring(int fd, unsigned char *to, size_t len, uint64_t offset)
{
	struct io_uring ring;
	struct io_uring_cqe *cqe;

	if (io_uring_queue_init(8, &ring, 0) < 0) { /* io_uring is forbidden here */
		read_plain(fd, to, len, offset);
		return;
	}
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, fd, to, (unsigned)len, offset);
	CHECK_EQ(io_uring_submit(&ring), 1);
	CHECK_EQ(io_uring_wait_cqe(&ring, &cqe), 0);
	CHECK_EQ(cqe->res, (int)len);
	io_uring_cqe_seen(&ring, cqe);
	io_uring_queue_exit(&ring);
}

/*
 * Read into pinned pages in each way, from a file with its own pattern. Call fm_sync() while the
 * pages are pinned, and afterwards.
 */
static void test_others_write(void)
{
	static void (*const way[])(int, unsigned char *, size_t,
				   uint64_t) = {read_plain, read_parts, read_ring};
	unsigned seed = SEED;

	begin();
	for (int direct = 0; direct < 2; direct++)
		for (unsigned w = 0; w < 3; w++) {
			const char *source = support_file(LEN, ++seed);
			int fd = open(source, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
			if (fd < 0 && direct)
				continue; /* this file system has no direct reads */
			CHECK(fd >= 0);
			for (unsigned first = 0; first < PAGES; first += 16) {
				unsigned char *at = addr + first * PAGE;
				CHECK_OK(fm_pin(mm, at, 16 * PAGE, FM_WRITE));
				way[w](fd, at, 8 * PAGE, first * PAGE);
				CHECK_OK(fm_sync(mm, addr, LEN, 0)); /* pages stay dirty */
				way[w](fd, at + 8 * PAGE, 8 * PAGE, (first + 8) * PAGE);
				CHECK_EQ(support_differs(at, first * PAGE, 16 * PAGE, seed), UINT64_MAX);
				CHECK_OK(fm_unpin(mm, at, 16 * PAGE));
			}
			CHECK_OK(fm_sync(mm, addr, LEN, 0));
			write_expect_file(path, 0, LEN, seed);
			CHECK_OK(fm_advise(mm, addr, LEN, FM_ADVICE_DONTNEED));
			support_expect(mm, addr, 0, LEN, seed);
			close(fd);
			CHECK_EQ(unlink(source), 0);
		}
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	end();
}

/* Pin pages for reading, then for writing. The program writes to the pages too. */
static void test_both(void)
{
	begin();
	CHECK_OK(fm_pin(mm, addr, 8 * PAGE, 0));
	CHECK_OK(fm_pin(mm, addr + 4 * PAGE, 8 * PAGE, FM_WRITE));
	support_fill(addr + 4 * PAGE, 4 * PAGE, 8 * PAGE, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 4 * PAGE, 8 * PAGE, SEED + 1);
	support_fill(addr + 4 * PAGE, 4 * PAGE, 8 * PAGE, SEED + 2);
	CHECK_OK(fm_unpin(mm, addr, 8 * PAGE));
	CHECK_OK(fm_unpin(mm, addr + 4 * PAGE, 8 * PAGE));
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 4 * PAGE, 8 * PAGE, SEED + 2);
	write_expect_file(path, 0, 4 * PAGE, SEED);
	CHECK_EQ(support_stats(mm).dirty_pages, 0);
	/* A page that is left pinned and dirty is written at the end all the same. */
	CHECK_OK(fm_pin(mm, addr + 20 * PAGE, 4 * PAGE, FM_WRITE));
	support_fill(addr + 20 * PAGE, 20 * PAGE, 4 * PAGE, SEED + 3);
	end();
	write_expect_file(path, 20 * PAGE, 4 * PAGE, SEED + 3);
}

/* ---- a page pinned for reading becomes writable */

static _Atomic(unsigned char *)
	given; /* NULL: the thread must give the page back, and then sets `idle` */
static atomic_bool idle, stop;
static atomic_uint rounds;

static void *write_out(void *arg)
{
	unsigned char got[PAGE];
	int fd[2];

	CHECK_EQ(pipe(fd), 0);
	while (!stop) {
		const unsigned char *from = given;
		idle = !from;
		if (from) {
			CHECK_EQ(write(fd[1], from, PAGE), (ssize_t)PAGE);
			CHECK_EQ(read(fd[0], got, PAGE), (ssize_t)PAGE);
			rounds++;
		} else {
			sched_yield();
		}
	}
	close(fd[0]);
	close(fd[1]);
	return arg;
}

static void wait_rounds(unsigned count)
{
	unsigned end = rounds + count;
	while ((int)(rounds - end) < 0)
		sched_yield();
}

/* The page never leaves the view for a moment: a system call that uses the page sees no gap. */
static void test_no_gap(void)
{
	pthread_t thread;

	begin();
	stop = false;
	given = NULL;
	CHECK_EQ(pthread_create(&thread, NULL, write_out, NULL), 0);
	for (unsigned i = 0; i < 2 * PAGES; i++) {
		unsigned char *at = addr + i % PAGES * PAGE;
		CHECK_OK(fm_pin(mm, at, PAGE, 0));
		idle = false;
		given = at;
		wait_rounds(2);
		CHECK_OK(fm_fault_in(mm, at, PAGE, FM_WRITE));
		wait_rounds(1);
		given = NULL;
		while (!idle)
			sched_yield();
		*at = support_byte(i, SEED + 1);
		CHECK_OK(fm_unpin(mm, at, PAGE));
		if (i % PAGES == PAGES - 1) /* clean the pages again */
			CHECK_OK(fm_sync(mm, addr, LEN, 0));
	}
	stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	end();
}

/* A truncated page is no longer pinned. A hole over a pinned page is refused. */
static void test_truncated(void)
{
	begin();
	CHECK_OK(fm_pin(mm, addr + 8 * PAGE, 8 * PAGE, FM_WRITE));
	CHECK_EQ(fm_punch(file, 9 * PAGE, 2 * PAGE), -EBUSY);
	CHECK_EQ(fm_punch(file, 9 * PAGE + 5, 50), -EBUSY);
	CHECK_EQ(fm_invalidate(file, 0, 0), -EBUSY);
	support_expect(mm, addr, 0, LEN, SEED);
	CHECK_OK(fm_truncate(file, 12 * PAGE));
	CHECK_EQ(support_stats(mm).pins, 4);
	CHECK_EQ(fm_unpin(mm, addr + 12 * PAGE, 4 * PAGE), -EINVAL);
	CHECK_OK(fm_truncate(file, LEN));
	write_expect_zeros(mm, addr + 12 * PAGE, LEN - 12 * PAGE);
	CHECK_OK(fm_unpin(mm, addr + 8 * PAGE, 4 * PAGE));
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_OK(fm_punch(file, 9 * PAGE, 2 * PAGE));
	CHECK_OK(fm_invalidate(file, 0, 0));
	end();
}

static void test(void)
{
	test_others_write();
	test_both();
	test_no_gap();
	test_truncated();
}

int main(void)
{
	hazard_watch("a call, or an access, never ended");
	return support_run(test);
}
