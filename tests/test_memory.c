/* SPDX-License-Identifier: MIT */
/*
 * The memory of the whole process (VmRSS at its peak, and VmPTE) stays within the budget + 5 % + 16
 * MiB. No baseline is subtracted. One case reads 20 times the budget. Another touches
 * one page of each MiB of a sparse file of 8 GiB, which needs many page tables. Two larger cases
 * follow, whose excess would not fit into the 16 MiB. With the thread and the call trap each read
 * is slow. There the cases read 10 times a budget and 3 times a larger budget.
 *
 * Seen to fail with a pt_release_empty() that does nothing. sim/mutations has a break for copies
 * that are not dropped.
 */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define THREADS 4

static struct {
	fm_mm *mm;
	const char *map;
	uint64_t bytes, stride;
	atomic_ullong next;
} scan;

static uint64_t status_kib(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	CHECK(at);
	return strtoull(at + strlen(key), NULL, 10) * 1024;
}

struct usage {
	uint64_t peak, now, tables;
};

static struct usage usage(void)
{
	char text[4096];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	ssize_t got = read(fd, text, sizeof(text) - 1);
	close(fd);
	CHECK_GT(got, 0);
	text[got] = 0;
	return (struct usage){.peak = status_kib(text, "VmHWM:"), .now = status_kib(text, "VmRSS:"),
			      .tables = status_kib(text, "VmPTE:")};
}

static void *reader(void *arg)
{
	uint64_t batch = 64 * scan.stride;
	(void)arg;
	for (;;) {
		uint64_t at = atomic_fetch_add(&scan.next, batch);
		if (at >= scan.bytes)
			return NULL;
		for (uint64_t end = at + batch; at < end && at < scan.bytes; at += scan.stride) {
			if (test_trap() == FM_TRAP_CALL)
				CHECK_OK(fm_fault_in(scan.mm, scan.map + at, 1, 0));
			else
				*(const volatile char *)(scan.map + at);
		}
	}
}

static void run(uint64_t budget, const char *what, const char *uri, uint64_t bytes, uint64_t stride)
{
	const uint64_t limit = budget + budget / 20 + 16 * MIB;
	pthread_t thread[THREADS];
	struct usage most = {0};
	fm_mm *mm = support_mm(budget);
	fm_file *file = support_open(mm, uri, NULL);

	scan.mm = mm;
	scan.map = support_map(file, 0, bytes);
	scan.bytes = bytes;
	scan.stride = stride;
	scan.next = 0;
	if (stride > PAGE)
		CHECK_OK(fm_advise(mm, (void *)(uintptr_t)scan.map, bytes, FM_ADVICE_RANDOM));
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, reader, NULL), 0);
	while (scan.next < bytes) {
		struct usage now = usage();
		most.peak = now.peak > most.peak ? now.peak : most.peak;
		most.tables = now.tables > most.tables ? now.tables : most.tables;
		if (now.now + now.tables > most.now)
			most.now = now.now + now.tables;
		support_sleep_ms(1);
	}
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	struct fm_stats stats = support_stats(mm);
	printf("%s: at most %.1f MiB of %.1f (resident, peak, %.1f; page tables %.1f), %llu reads, "
	       "charged %.1f\n",
	       what, (double)most.now / MIB, (double)limit / MIB, (double)most.peak / MIB,
	       (double)most.tables / MIB, (unsigned long long)stats.reads,
	       (double)stats.charged_bytes / MIB);
	fflush(stdout);
	CHECK_GE(stats.read_bytes, bytes / stride * PAGE);
	CHECK_LE(most.now, limit);
	CHECK_LE(most.peak, limit);
	CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)scan.map, bytes));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	if (SUPPORT_SANITIZED)
		SKIP("a sanitizer's own memory would be measured");
	const char *sparse = support_path();
	int fd = open(sparse, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)(24576 * MIB)), 0);
	close(fd);
	const bool slow = test_trap() != FM_TRAP_INLINE;
	const uint64_t times = slow ? 10 : 20, times_larger = slow ? 3 : 5;
	const char *memory = "memory:320M?seed=5";
	run(16 * MIB, "many times the budget", memory, times * 16 * MIB, PAGE);
	run(16 * MIB, "one page of each MiB", sparse, 8192 * MIB, MIB);
	run(48 * MIB, "some times a larger budget", memory, times_larger * 48 * MIB, PAGE);
	run(48 * MIB, "one page of each MiB of 24 GiB", sparse, 24576 * MIB, MIB);
	return 0;
}
