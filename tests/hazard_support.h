/* SPDX-License-Identifier: MIT */
/*
 * Support for the tests of HAZARDS.md: a watchdog that ends a hung test with a message, threads
 * that touch a page and report how the access ended, and a comparison with plain reads of the
 * store.
 */
#ifndef FM_TESTS_HAZARD_SUPPORT_H
#define FM_TESTS_HAZARD_SUPPORT_H

#include "inside.h"
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* The watchdog is a thread, because a thread that hangs in a fault has all signals blocked. */
#define HAZARD_SECONDS (SUPPORT_SANITIZED ? 120 : 40)
static struct {
	const char *_Atomic words;
	_Atomic uint64_t until_ns;
	atomic_bool runs;
	pid_t owner;
} hazard_watched;

static inline void *hazard_watchdog(void *arg)
{
	(void)arg;
	hazard_watched.runs = true;
	while (support_now_ns() < hazard_watched.until_ns)
		support_sleep_ms(100);
	fprintf(stderr, "%s\n", hazard_watched.words);
	_exit(1);
}

/* Set the message and restart the time. If the time passes before the next call, the watchdog
 * prints the message and ends the test. */
static inline void hazard_watch(const char *words)
{
	pthread_t thread;
	hazard_watched.words = words;
	hazard_watched.until_ns = support_now_ns() + HAZARD_SECONDS * 1000 * MS_NS * support_slower();
	if (hazard_watched.owner == getpid())
		return;
	hazard_watched.owner = getpid();
	hazard_watched.runs = false;
	CHECK_EQ(pthread_create(&thread, NULL, hazard_watchdog, NULL), 0);
	pthread_detach(thread);
	/* A thread that starts holds the locks of ASan's allocator. A child of fork() would find
	 * these locks taken. So wait until the watchdog runs. */
	while (!hazard_watched.runs)
		support_sleep_ms(1);
}

/* ---- one access in a thread of its own */

struct hazard_access {
	pthread_t thread;
	fm_mm *mm;
	const void *addr;
	unsigned char byte;
	int err;
	_Atomic int tid;
	atomic_bool done;
};

static inline void *hazard_access_main(void *arg)
{
	struct hazard_access *access = arg;
	access->tid = gettid();
	access->err = support_read(access->mm, access->addr, &access->byte, 1);
	access->done = true;
	return NULL;
}

static inline void hazard_begin(struct hazard_access *access, fm_mm *mm, const void *addr)
{
	*access = (struct hazard_access){.mm = mm, .addr = addr};
	CHECK_EQ(pthread_create(&access->thread, NULL, hazard_access_main, access), 0);
}

/* Tell whether the thread sleeps. The access is the thread's only work, so the thread sleeps in
 * its fault. */
static inline bool hazard_asleep(const struct hazard_access *access)
{
	char stat[256] = "", *state = NULL;
	FILE *f = access->tid ? fopen(support_format("/proc/self/task/%d/stat", access->tid), "re") : NULL;
	if (f && fgets(stat, sizeof(stat), f))
		state = strrchr(stat, ')');
	if (f)
		fclose(f);
	return state && (state[2] == 'S' || state[2] == 'D');
}

/* Wait for the access to end. Returns 0 or a negative errno. */
static inline int hazard_end(struct hazard_access *access)
{
	CHECK_EQ(pthread_join(access->thread, NULL), 0);
	return access->err;
}

/* ---- bytes */

/* Check that the mapping at `addr` shows the bytes that a plain read of the store gives. */
#define hazard_same(mm, file, addr, offset, len)                                                   \
	hazard_same_at(__LINE__, mm, file, addr, offset, len)
static inline void hazard_same_at(int line, fm_mm *mm, fm_file *file, const void *addr,
				  uint64_t offset, size_t len)
{
	unsigned char *plain = malloc(len), *mapped = malloc(len);
	size_t got;
	CHECK(plain && mapped);
	CHECK_OK(fm_file_read(file, plain, len, offset, &got));
	CHECK_EQ(got, len);
	int err = support_read(mm, addr, mapped, len);
	if (err)
		CHECK_FAIL("line %d: offset %llu: %s", line, (unsigned long long)offset, strerror(-err));
	bool same = memcmp(plain, mapped, len) == 0; /* much faster than bytes, under sanitizers */
	for (size_t i = 0; !same && i < len; i++)
		if (plain[i] != mapped[i])
			CHECK_FAIL("line %d: offset %llu shows %02x, not %02x", line,
				   (unsigned long long)(offset + i), mapped[i], plain[i]);
	free(plain);
	free(mapped);
}

#endif
