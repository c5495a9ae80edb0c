/* SPDX-License-Identifier: MIT */
/*
 * Statistics: the buckets, the percentiles, the sealed page, and a reader that distrusts the page.
 */
#include "check.h"
#include "os/fds.h"
#include "os/fds_give.h"
#include "stats/stats.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct stats_page copy;

static void test_buckets(void)
{
	uint64_t below = UINT64_MAX; /* bucket 0 begins at below + 1, which is 0 */

	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		CHECK_EQ(stats_bucket(below + 1), b);
		below = stats_bucket_top_ns(b);
		CHECK_EQ(stats_bucket(below), b);
	}
	CHECK(below == UINT64_MAX);
	CHECK_EQ(stats_bucket((1ull << 40) - 1), STATS_BUCKETS - 2);
	CHECK_EQ(stats_bucket(1ull << 40), STATS_BUCKETS - 1);
	/* The top of a bucket is at most 1/8 above a value in the bucket. */
	for (uint64_t ns = 1; ns < 1ull << 40; ns += ns / 7 + 1)
		CHECK_LE(stats_bucket_top_ns(stats_bucket(ns)) - ns, ns / 8);
}

static void test_summary(void)
{
	static struct stats_histogram h;
	struct fm_histogram_summary s = {.count = 7};

	stats_summary(&h, &s);
	CHECK_EQ(s.count, 0);
	CHECK_EQ(s.max_ns, 0);

	stats_record(&h, 5);
	stats_summary(&h, &s);
	CHECK_EQ(s.count, 1);
	CHECK_EQ(s.p50_ns, 5);
	CHECK_EQ(s.p999_ns, 5);

	/* Record 1 to 1000 microseconds, once each. With the 5 ns above there are 1001 values. */
	for (uint64_t us = 1; us <= 1000; us++)
		stats_record(&h, us * 1000);
	stats_summary(&h, &s);
	CHECK_EQ(s.count, 1001);
	CHECK_GE(s.p50_ns, 500000);
	CHECK_LE(s.p50_ns, 500000 * 9 / 8);
	CHECK_GE(s.p99_ns, 990000);
	CHECK_LE(s.p99_ns, 1000000);
	CHECK_GE(s.p999_ns, 999000);
	CHECK_EQ(s.max_ns, 1000000);
	CHECK_EQ(h.sum_ns, 500500000 + 5);

	/* Of values beyond the last bucket only the maximum is known. */
	stats_record(&h, 1ull << 50);
	stats_summary(&h, &s);
	CHECK_EQ(s.max_ns, 1ll << 50);
}

static void *record_many(void *arg)
{
	for (unsigned i = 1; i <= 20000; i++)
		stats_record(arg, i);
	return NULL;
}

static void test_threads(void)
{
	static struct stats_histogram h;
	struct fm_histogram_summary s;
	pthread_t thread[4];

	for (int i = 0; i < 4; i++)
		CHECK_OK(-pthread_create(&thread[i], NULL, record_many, &h));
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	stats_summary(&h, &s);
	CHECK_EQ(s.count, 80000);
	CHECK_EQ(h.count, 80000);
	CHECK_EQ(s.max_ns, 20000);
	CHECK_EQ(h.sum_ns, 4ll * 20000 * 20001 / 2);
}

static void test_collect(const struct stats_page *page)
{
	struct fm_stats all = {.size = sizeof(all)};

	stats_collect(page, &all);
	CHECK_EQ(all.size, sizeof(all));
	CHECK_EQ(all.faults, 3);
	CHECK_EQ(all.requests, 1);
	CHECK_EQ(all.files_changed, 9);
	CHECK_EQ(all.read_ns.count, 1);
	CHECK_EQ(all.read_ns.max_ns, 1234);
	CHECK_EQ(all.fault_minor_ns.count, 0);
}

static void test_sealed(struct stats_page *page, int fd)
{
	char path[64];
	void *mem;
	int again;

	CHECK_EQ(ftruncate(fd, 1), -1);
	CHECK_EQ(ftruncate(fd, 1 << 20), -1);
	CHECK_EQ(pwrite(fd, "x", 1, 0), -1);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	if (again >= 0) {
		mem = mmap(NULL, sizeof(*page), PROT_WRITE, MAP_SHARED, again, 0);
		CHECK(mem == MAP_FAILED);
		close(again);
	}
	stats_add(page, reads, 1); /* our own mapping stays writable */
	CHECK_EQ(page->reads, 1);
}

static void test_page(void)
{
	struct stats_page *page, *second;
	int fd, second_fd;

	CHECK_EQ(stats_read_process(getpid(), 0, &copy), -ENOENT);
	CHECK_OK(stats_page_create("inline", "a name that is too long to fit", &page, &fd));
	stats_add(page, faults, 5);
	stats_sub(page, faults, 2);
	stats_add(page, requests, 1);
	stats_put(page, files_changed, 9);
	stats_record(&page->read_ns, 1234);
	test_collect(page);

	CHECK_OK(stats_read_process(getpid(), 0, &copy));
	test_collect(&copy);
	CHECK_STR(copy.trap, "inline");
	CHECK_STR(copy.install, "a name that is ");
	CHECK_EQ(copy.pid, getpid());
	CHECK_EQ(stats_read_process(getpid(), 1, &copy), -ENOENT);

	CHECK_OK(stats_page_create("thread", "copy", &second, &second_fd));
	CHECK_OK(stats_read_process(getpid(), 1, &copy));
	CHECK_STR(copy.trap, "thread");
	stats_page_destroy(second, second_fd);
	CHECK_EQ(stats_read_process(getpid(), 1, &copy), -ENOENT);

	int here = os_fds_apart() ? os_fd_fetch(fd) : fd;
	if (here >= 0) /* fetching a descriptor needs Linux 6.9 */
		test_sealed(page, here);
	if (here >= 0 && here != fd)
		close(here);
	stats_page_destroy(page, fd);
	CHECK_EQ(stats_read_process(getpid(), 0, &copy), -ENOENT);
}

/*
 * Read the page of another process. A page that a child inherits by fork() does not count as its
 * own.
 */
static void test_other_process(void)
{
	struct stats_page *page;
	int fd, hold[2], status;
	pid_t child;

	CHECK_OK(stats_page_create("inline", "move", &page, &fd));
	stats_put(page, faults, 42);
	CHECK_EQ(pipe(hold), 0);
	child = fork();
	CHECK_GE(child, 0);
	if (child == 0) {
		close(hold[1]);
		if (stats_read_process(getppid(), 0, &copy) != 0 || copy.faults != 42)
			_exit(1);
		while (read(hold[0], &status, 1) > 0)
			;
		_exit(0);
	}
	close(hold[0]);
	CHECK_EQ(stats_read_process(child, 0, &copy), -ENOENT);
	close(hold[1]);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	CHECK_EQ(stats_read_process(child, 0, &copy), -ESRCH);
	CHECK_EQ(stats_read_process(0, 0, &copy), -ESRCH);
	stats_page_destroy(page, fd);
}

/* Read a memfd that has the name of a statistics page and these contents, or none. */
static void imposter(size_t size, const struct stats_page *contents, int expected)
{
	int fd = memfd_create(STATS_MEMFD_NAME, MFD_CLOEXEC);

	CHECK_GE(fd, 0);
	CHECK_EQ(ftruncate(fd, (off_t)size), 0);
	if (contents)
		CHECK_EQ(pwrite(fd, contents, sizeof(*contents), 0), sizeof(*contents));
	memset(&copy, 0x5a, sizeof(copy));
	CHECK_EQ(stats_read_process(getpid(), 0, &copy), expected);
	if (expected)
		CHECK_EQ(copy.magic, 0x5a5a5a5a5a5a5a5all); /* untouched on failure */
	close(fd);
}

static void test_distrust(void)
{
	static struct stats_page good, bad;
	struct stats_page *page;
	int fd;

	CHECK_OK(stats_page_create("inline", "move", &page, &fd));
	memcpy(&good, page, sizeof(good));
	stats_page_destroy(page, fd);

	imposter(sizeof(good), &good, 0);
	imposter(0, NULL, -ENOENT); /* empty: a page that is being made */
	imposter(sizeof(good) - 8, NULL, -EPROTO);
	imposter(sizeof(good) + 8, &good, -EPROTO);
	imposter(sizeof(good), NULL, -ENOENT); /* all zeros: a page that is being made */
	memcpy(&bad, &good, sizeof(bad));
	bad.magic++;
	imposter(sizeof(bad), &bad, -EPROTO);
	memcpy(&bad, &good, sizeof(bad));
	bad.version++;
	imposter(sizeof(bad), &bad, -EPROTO);
	memcpy(&bad, &good, sizeof(bad));
	bad.size_bytes--;
	imposter(sizeof(bad), &bad, -EPROTO);
	memcpy(&bad, &good, sizeof(bad));
	bad.pid++;
	imposter(sizeof(bad), &bad, -ENOENT); /* the page of another process: skipped */
	memcpy(&bad, &good, sizeof(bad));
	memset(bad.trap, 'x', sizeof(bad.trap));
	imposter(sizeof(bad), &bad, 0);
	CHECK_EQ(strlen(copy.trap), sizeof(copy.trap) - 1);
}

int main(void)
{
	test_buckets();
	test_summary();
	test_threads();
	test_page();
	test_other_process();
	test_distrust();
	return 0;
}
