/* SPDX-License-Identifier: MIT */
/*
 * fm_fault_in_batch() and fm_completions(). Each range ends exactly once, with its own result.
 * Waiting threads are woken, and poll() tells the truth. A queue can be destroyed whatever is in
 * flight. The test also covers the eventfd of calls with FM_NOWAIT.
 */
#include "support.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#define SEED 17
#define FOREVER UINT64_MAX

static fm_mm *mm;
static fm_file *file;
static fm_queue *queue;
static unsigned char *addr;
static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static void begin(uint64_t size, unsigned ranges, const struct fm_file_options *options)
{
	mm = support_mm(4 * MIB);
	file = support_open(mm, support_format("faulty:%s", support_file(size, SEED)), options);
	addr = support_map(file, 0, size + 4 * PAGE);
	CHECK_OK(fm_queue_create(mm, ranges, &queue));
}

static void end(uint64_t size)
{
	if (queue)
		CHECK_OK(fm_queue_destroy(queue));
	queue = NULL;
	CHECK_OK(fm_unmap(mm, addr, size + 4 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static struct fm_range range_at(uint64_t offset, size_t len)
{
	return (struct fm_range){.addr = addr + offset, .len = len, .tag = addr + offset, .error = 1};
}

static size_t submit(const struct fm_range *ranges, size_t count)
{
	size_t begun = 0;
	CHECK_OK(fm_fault_in_batch(queue, ranges, count, &begun));
	return begun;
}

static size_t take(struct fm_range *ranges, size_t count, uint64_t timeout_ns)
{
	size_t taken = 77;
	CHECK_OK(fm_completions(queue, ranges, count, timeout_ns, &taken));
	CHECK_LE(taken, count);
	return taken;
}

/* Submit one range and wait for its end. Returns the error of the range. */
static int bring(uint64_t offset, size_t len)
{
	struct fm_range range = range_at(offset, len);
	CHECK_EQ(submit(&range, 1), 1);
	CHECK_EQ(take(&range, 1, FOREVER), 1);
	CHECK(range.tag == addr + offset && range.addr == addr + offset && range.len == len);
	return range.error;
}

static void test_arguments(void)
{
	struct fm_range range;
	size_t count = 5;
	int fd = 5;

	begin(8 * PAGE, 4, &alone);
	range = range_at(0, PAGE);
	CHECK_EQ(fm_queue_create(mm, 0, &queue), -EINVAL);
	CHECK_EQ(fm_queue_create(mm, 4, NULL), -EINVAL);
	CHECK_EQ(fm_queue_create(NULL, 4, &queue), -EINVAL);
	CHECK_EQ(fm_queue_destroy(NULL), -EINVAL);
	CHECK_EQ(fm_queue_fd(queue, NULL), -EINVAL);
	CHECK_EQ(fm_event_fd(mm, NULL), -EINVAL);
	CHECK_EQ(fm_queue_fd(NULL, &fd), -EINVAL);
	CHECK_EQ(fm_fault_in_batch(NULL, &range, 1, &count), -EINVAL);
	CHECK_EQ(fm_fault_in_batch(queue, NULL, 1, &count), -EINVAL);
	CHECK_EQ(fm_fault_in_batch(queue, &range, 1, NULL), -EINVAL);
	CHECK_EQ(fm_completions(queue, &range, 0, 0, &count), -EINVAL);
	CHECK_EQ(fm_completions(queue, NULL, 1, 0, &count), -EINVAL);
	CHECK_EQ(fm_completions(queue, &range, 1, 0, NULL), -EINVAL);
	CHECK(count == 5 && fd == 5);
	CHECK_EQ(submit(NULL, 0), 0);
	CHECK_EQ(take(&range, 1, 0), 0);
	CHECK_EQ(take(&range, 1, MS_NS), 0);
	end(8 * PAGE);
}

/* A range that is wrong carries its own error, and the other ranges are not affected. */
static void test_bad_ranges(void)
{
	begin(8 * PAGE, 8, &alone);
	CHECK_EQ(bring(0, 0), -EINVAL);
	CHECK_EQ(bring(0, SIZE_MAX), -EINVAL);
	CHECK_EQ(bring(13 * PAGE, 1), -EFAULT);
	CHECK_EQ(bring(8 * PAGE, 1), -ENXIO);
	CHECK_EQ(bring(7 * PAGE, PAGE + 1), -ENXIO);
	CHECK_EQ(bring(0, 8 * PAGE), 0);
	CHECK_EQ(bring(3, 1), 0); /* the page is installed already */
	end(8 * PAGE);
}

/* Submit many ranges at once. Each range ends once, and a touch afterwards does not fault. */
static void test_many(void)
{
	static unsigned char ended[512];
	struct fm_range ranges[512];
	size_t left = 512;

	memset(ended, 0, sizeof(ended));
	begin(512 * PAGE, 512, &alone);
	CHECK_OK(fm_file_control(file, "delay=100us..3ms"));
	for (size_t i = 0; i < 512; i++)
		ranges[i] = range_at(i * 37 % 512 * PAGE, PAGE);
	CHECK_EQ(submit(ranges, 512), 512);
	while (left) {
		size_t count = take(ranges, 32, FOREVER);
		CHECK_GE(count, 1);
		for (size_t i = 0; i < count; i++) {
			CHECK_EQ(ranges[i].error, 0);
			CHECK_EQ(ended[((unsigned char *)ranges[i].tag - addr) / PAGE]++, 0);
		}
		left -= count;
	}
	CHECK_EQ(take(ranges, 32, 0), 0);
	uint64_t faults = support_stats(mm).faults;
	CHECK_EQ(support_stats(mm).pages_installed, 512);
	CHECK_EQ(support_differs(addr, 0, 512 * PAGE, SEED), UINT64_MAX);
	CHECK_EQ(support_stats(mm).faults, faults);
	CHECK_EQ(support_stats(mm).read_bytes, 512 * PAGE);
	end(512 * PAGE);
}

/*
 * Submit more ranges than the queue holds. The queue takes as many as fit, and the rest once some
 * completions are taken.
 */
static void test_full(void)
{
	struct fm_range ranges[8];
	size_t begun = 7;

	begin(64 * PAGE, 4, &alone);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	for (size_t i = 0; i < 8; i++)
		ranges[i] = range_at(i * PAGE, PAGE);
	CHECK_EQ(submit(ranges, 8), 4);
	CHECK_EQ(fm_fault_in_batch(queue, ranges + 4, 4, &begun), -EAGAIN);
	CHECK_EQ(begun, 7);
	CHECK_EQ(take(ranges, 8, 20 * MS_NS), 0);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	for (size_t left = 4; left;)
		left -= take(ranges, 8, FOREVER);
	CHECK_EQ(submit(ranges, 4), 4);
	end(64 * PAGE);
}

/* More ranges are in flight than there are frames: 600 ranges and 16 frames. */
static void test_few_frames(void)
{
	struct fm_range ranges[64];
	size_t next = 0, left = 600;

	mm = support_mm(fm_budget_min(4096));
	file = support_open(mm, support_file(600 * PAGE, SEED), &alone);
	addr = support_map(file, 0, 604 * PAGE);
	CHECK_OK(fm_queue_create(mm, 600, &queue));
	for (size_t i; next < 600; next += submit(ranges, i))
		for (i = 0; i < 64 && next + i < 600; i++)
			ranges[i] = range_at((next + i) * PAGE, PAGE);
	while (left) {
		size_t count = take(ranges, 64, FOREVER);
		for (size_t i = 0; i < count; i++)
			CHECK_EQ(ranges[i].error, 0);
		left -= count;
	}
	end(600 * PAGE);
}

/* The errno reaches the range that needs the bytes, once, and no other range. */
static void test_errors(void)
{
	begin(64 * PAGE, 8, &alone);
	CHECK_OK(fm_file_control(file, "delay=2ms"));
	CHECK_OK(fm_file_control(file, support_format("error-at=%llu", 9 * PAGE)));
	CHECK_EQ(bring(0, 8 * PAGE), 0);
	CHECK_EQ(bring(9 * PAGE, PAGE), -EIO);
	CHECK_EQ(bring(8 * PAGE, 4 * PAGE), -EIO);
	CHECK_EQ(bring(10 * PAGE, PAGE), 0);
	end(64 * PAGE);
}

static void test_deadline(void)
{
	struct fm_file_options options = alone;
	options.deadline_ns = 30 * MS_NS;
	begin(64 * PAGE, 8, &options);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	CHECK_EQ(bring(0, PAGE), -ETIMEDOUT);
	CHECK_EQ(bring(8 * PAGE, 4 * PAGE), -ETIMEDOUT);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	EVENTUALLY(bring(0, 16 * PAGE) == 0); /* on a busy machine 30 ms may pass too soon */
	support_expect(mm, addr, 0, 16 * PAGE, SEED);
	end(64 * PAGE);
}

/* A range of many pages is read in large pieces, through the queue and through fm_fault_in(). */
static void test_large(void)
{
	begin(256 * PAGE, 2, &alone);
	CHECK_EQ(bring(5, 128 * PAGE - 5), 0);
	CHECK_LE(support_stats(mm).reads, 16);
	CHECK_EQ(support_stats(mm).read_bytes, 128 * PAGE);
	CHECK_EQ(support_stats(mm).pages_installed, 128);
	CHECK_OK(fm_fault_in(mm, addr + 128 * PAGE, 128 * PAGE, 0));
	CHECK_LE(support_stats(mm).reads, 32);
	CHECK_EQ(support_stats(mm).read_bytes, 256 * PAGE);
	CHECK_EQ(support_differs(addr, 0, 256 * PAGE, SEED), UINT64_MAX);
	end(256 * PAGE);
}

/*
 * A fault that waits long aborts the readahead that it waits behind, and reads its page alone. The
 * rest of the range is still read in large pieces.
 */
static void test_slow(void)
{
	begin(256 * PAGE, 2, &alone);
	CHECK_OK(fm_file_control(file, "delay=100ms"));
	CHECK_OK(fm_fault_in(mm, addr, 128 * PAGE, 0));
	CHECK_LE(1, support_stats(mm).ra_aborted);
	CHECK_LE(support_stats(mm).reads, 16);
	CHECK_EQ(bring(128 * PAGE, 128 * PAGE), 0);
	CHECK_LE(support_stats(mm).reads, 32);
	CHECK_OK(fm_file_control(file, "delay=0ms"));
	support_expect(mm, addr, 0, 256 * PAGE, SEED);
	end(256 * PAGE);
}

static bool readable(int fd, int timeout_ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	return poll(&poll_fd, 1, timeout_ms) == 1;
}

/* An event loop: the descriptor is readable while the queue has completions, and not afterwards. */
static void test_poll(void)
{
	struct fm_range range;
	int fd = -1, same = -1;

	begin(64 * PAGE, 4, &alone);
	CHECK_OK(fm_queue_fd(queue, &fd));
	CHECK_OK(fm_queue_fd(queue, &same));
	CHECK_EQ(fd, same);
	for (uint64_t i = 0; i < 8; i++) {
		CHECK_EQ(take(&range, 1, 0), 0);
		CHECK(!readable(fd, 0));
		CHECK_OK(fm_file_control(file, "stuck=1"));
		range = range_at(i * PAGE, PAGE);
		CHECK_EQ(submit(&range, 1), 1);
		CHECK(!readable(fd, 5));
		CHECK_OK(fm_file_control(file, "stuck=0"));
		size_t taken = 0;
		while (!taken) {
			CHECK(readable(fd, 20000));
			taken = take(&range, 1, 0);
		}
	}
	/* Two ranges have ended and one is taken: the descriptor is still readable. */
	struct fm_range two[2] = {range_at(0, PAGE), range_at(PAGE, PAGE)};
	CHECK_EQ(submit(two, 2), 2);
	CHECK_EQ(take(two, 1, FOREVER), 1);
	CHECK(readable(fd, 20000));
	CHECK_EQ(take(two, 1, 0), 1);
	end(64 * PAGE);
}

static void *taker(void *arg)
{
	struct fm_range range;
	size_t *taken = arg, count;
	int err;
	while ((err = fm_completions(queue, &range, 1, FOREVER, &count)) == 0) {
		CHECK_EQ(range.error, 0);
		__atomic_fetch_add(taken, count, __ATOMIC_SEQ_CST);
	}
	CHECK_EQ(err, -ECANCELED);
	return NULL;
}

/* Several threads wait at one queue. Destroying the queue, or the mm, ends their waits. */
static void test_threads(bool whole)
{
	struct fm_range ranges[64];
	pthread_t thread[4];
	size_t taken[4] = {0};

	begin(256 * PAGE, 64, &alone);
	CHECK_OK(fm_file_control(file, "delay=50us..1ms"));
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, taker, &taken[i]), 0);
	for (size_t next = 0; next < 256;) {
		size_t begun = 0;
		for (size_t i = 0; i < 64 && next + i < 256; i++)
			ranges[i] = range_at((next + i) * PAGE, PAGE);
		int err = fm_fault_in_batch(queue, ranges, next + 64 < 256 ? 64 : 256 - next, &begun);
		if (err)
			CHECK_EQ(err, -EAGAIN);
		else
			next += begun;
	}
	EVENTUALLY(__atomic_load_n(&taken[0], __ATOMIC_SEQ_CST) +
			   __atomic_load_n(&taken[1], __ATOMIC_SEQ_CST) +
			   __atomic_load_n(&taken[2], __ATOMIC_SEQ_CST) +
			   __atomic_load_n(&taken[3], __ATOMIC_SEQ_CST) ==
		   256);
	if (whole)
		CHECK_OK(fm_mm_destroy(mm));
	else
		CHECK_OK(fm_queue_destroy(queue));
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_EQ(fm_queue_destroy(queue), -EOWNERDEAD);
	queue = NULL;
	if (!whole)
		end(256 * PAGE);
}

/*
 * Reads that will not end are in flight: the queue is destroyed at once and leaves nothing behind.
 */
static void test_destroy(bool whole)
{
	struct fm_range ranges[40];

	begin(256 * PAGE, 64, &alone);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	for (size_t i = 0; i < 40; i++)
		ranges[i] = range_at(i * 3 * PAGE, i % 4 ? PAGE : 3 * PAGE);
	CHECK_EQ(submit(ranges, 40), 40);
	if (whole) {
		CHECK_OK(fm_mm_destroy(mm));
		queue = NULL;
		return;
	}
	CHECK_OK(fm_queue_destroy(queue));
	queue = NULL;
	CHECK_OK(fm_file_control(file, "stuck=0"));
	support_expect(mm, addr, 0, 256 * PAGE, SEED);
	end(256 * PAGE);
}

static int in_child(void *arg)
{
	struct fm_range range = range_at(0, PAGE);
	size_t count;
	int fd;
	(void)arg;
	return fm_fault_in_batch(queue, &range, 1, &count) != -EOWNERDEAD ||
	       fm_completions(queue, &range, 1, 0, &count) != -EOWNERDEAD ||
	       fm_queue_fd(queue, &fd) != -EOWNERDEAD || fm_event_fd(mm, &fd) != -EOWNERDEAD ||
	       fm_queue_destroy(queue) != -EOWNERDEAD;
}

static void test_fork(void)
{
	begin(8 * PAGE, 8, &alone);
	CHECK_EQ(support_child(in_child, NULL), 0);
	CHECK_EQ(bring(0, 8 * PAGE), 0);
	end(8 * PAGE);
}

/* fm_fault_in() with FM_NOWAIT: an event follows each -EAGAIN. */
static void test_event(void)
{
	uint64_t count;
	int fd = -1;

	begin(256 * PAGE, 1, &alone);
	CHECK_OK(fm_event_fd(mm, &fd));
	while (readable(fd, 200)) /* another thread writes the events, so an event may be late */
		CHECK_EQ(read(fd, &count, sizeof(count)), sizeof(count));
	CHECK_OK(fm_file_control(file, "stuck=1"));
	CHECK_EQ(fm_fault_in(mm, addr, PAGE, FM_NOWAIT), -EAGAIN);
	CHECK(!readable(fd, 20));
	CHECK_OK(fm_file_control(file, "stuck=0"));
	CHECK_OK(fm_file_control(file, "delay=50us..500us"));
	for (uint64_t page = 0; page < 256; page += 4)
		while (fm_fault_in(mm, addr + page * PAGE, 4 * PAGE, FM_NOWAIT) == -EAGAIN) {
			CHECK(readable(fd, 20000));
			CHECK_EQ(read(fd, &count, sizeof(count)), sizeof(count));
		}
	CHECK_EQ(support_differs(addr, 0, 256 * PAGE, SEED), UINT64_MAX);
	end(256 * PAGE);
}

static void test(void)
{
	test_arguments();
	test_bad_ranges();
	test_many();
	test_full();
	test_few_frames();
	test_errors();
	test_deadline();
	test_large();
	test_slow();
	test_poll();
	test_threads(false);
	test_threads(true);
	test_destroy(false);
	test_destroy(true);
	test_fork();
	test_event();
}

int main(void)
{
	return support_run(test);
}
