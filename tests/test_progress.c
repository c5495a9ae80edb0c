/* SPDX-License-Identifier: MIT */
/*
 * Forward progress reaches as far as the instruction: the pages of an instruction are kept until
 * the instruction has completed (src/mm/reclaim/pin sets.c). 64 threads run loads and string moves
 * that straddle two pages of a file much larger than the pool. The pool goes from 16 times the
 * smallest budget down to the smallest budget itself. Every thread completes a fixed
 * number of operations with the right bytes. On average an operation costs at most 8 reads of the
 * store. HAZARDS.md A5. Seen to fail with pin sets switched off: progress_begin() returned at once.
 */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define PAGE        4096ull
#define FILE_PAGES  16384ull
#define FRAMES_MIN  16
#define THREADS     64
#define READS_MAX   8
#define MOVE_BYTES  64 /* bytes of a string move: 8 quadwords, one of which straddles */
#define WATCHDOG_S  60
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define OPS 10 /* operations of each thread in a run */
#else
#define OPS 20
#endif

static const char *map;
static const unsigned char *want; /* the whole file, read with fm_file_read() */
static int operations; /* operations of each thread */
static _Atomic uint64_t done;
static atomic_bool go;

static void too_long(int signo)
{
	static const char words[] =
		"test_progress: threads make no progress: an instruction that straddles pages starves\n";
	ssize_t unused = write(2, words, sizeof(words) - 1);
	(void)unused;
	(void)signo;
	_exit(1);
}

/* Each helper is one instruction, which the compiler must not split. */
#if defined(__x86_64__)
static uint64_t load_unaligned(const char *at)
{
	uint64_t value;
	__asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(at) : "memory");
	return value;
}

static void move_string(void *to, const char *from, size_t bytes)
{
	size_t quads = bytes / 8;
	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(quads) : : "memory");
}
#else
static uint64_t load_unaligned(const char *at)
{
	uint64_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static void move_string(void *to, const char *from, size_t bytes)
{
	memcpy(to, from, bytes);
}
#endif

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The page boundaries are random, so that two threads hardly ever share a boundary. */
static void one_operation(uint64_t *random, bool load)
{
	uint64_t boundary = (1 + next_random(random) % (FILE_PAGES - 1)) * PAGE;
	unsigned char got[MOVE_BYTES];

	if (load) {
		uint64_t at = boundary - 1 - next_random(random) % 7;
		uint64_t value = load_unaligned(map + at);
		if (memcmp(&value, want + at, sizeof(value)) != 0)
			CHECK_FAIL("a load at %llu gave other bytes", (unsigned long long)at);
		return;
	}
	uint64_t at = boundary - MOVE_BYTES / 2 - 1 - next_random(random) % 7;
	move_string(got, map + at, sizeof(got));
	if (memcmp(got, want + at, sizeof(got)) != 0)
		CHECK_FAIL("a string move at %llu gave other bytes", (unsigned long long)at);
}

static void *worker(void *arg)
{
	uint64_t id = (uint64_t)(uintptr_t)arg;
	uint64_t random = 0x9e3779b97f4a7c15ull * (id + 1);

	while (!go)
		usleep(100);
	for (int i = 0; i < operations; i++) {
		one_operation(&random, (id + (uint64_t)i) & 1);
		done++;
	}
	return NULL;
}

static void run(unsigned frames, const char *uri, int count)
{
	const struct fm_file_options options = {.size = sizeof(options),
						.readahead_bytes = UINT32_MAX};
	struct fm_stats stats = {.size = sizeof(stats)};
	pthread_t thread[THREADS];
	fm_mm *mm = test_mm_create(frames * PAGE);
	fm_file *file;
	void *addr;
	size_t len;

	CHECK_OK(fm_file_open(mm, uri, &options, &file));
	CHECK_OK(fm_map(file, 0, FILE_PAGES * PAGE, NULL, &addr));
	CHECK_OK(fm_advise(mm, addr, FILE_PAGES * PAGE, FM_ADVICE_RANDOM));
	if (!want) { /* all runs have the same bytes */
		unsigned char *bytes = malloc(FILE_PAGES * PAGE);
		CHECK(bytes != NULL);
		CHECK_OK(fm_file_read(file, bytes, FILE_PAGES * PAGE, 0, &len));
		want = bytes;
	}
	map = addr;
	operations = count;
	done = 0;
	go = false;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, worker, (void *)i), 0);
	go = true;
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_OK(fm_stats(mm, &stats));
	printf("%4u frames: %llu operations, %llu.%02llu reads and %llu.%02llu faults each, %llu keeps, "
	       "%llu waits for a keeper, %llu for a frame  (%s)\n",
	       frames, (unsigned long long)done, (unsigned long long)(stats.reads / done),
	       (unsigned long long)(stats.reads * 100 / done % 100),
	       (unsigned long long)(stats.faults / done),
	       (unsigned long long)(stats.faults * 100 / done % 100),
	       (unsigned long long)stats.progress_keeps, (unsigned long long)stats.progress_waits,
	       (unsigned long long)stats.frame_waits, uri);
	fflush(stdout);
	CHECK_EQ(done, THREADS * count);
	CHECK_LE(stats.reads, READS_MAX * done);
	CHECK_EQ(stats.lock_held_over_block, 0);
	CHECK_LE(stats.frames_used, frames);
	CHECK_OK(fm_unmap(mm, addr, FILE_PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
}

int main(void)
{
	static const unsigned frames[] = {16 * FRAMES_MIN, 8 * FRAMES_MIN, 4 * FRAMES_MIN,
					  2 * FRAMES_MIN, FRAMES_MIN};

	if (test_trap() == FM_TRAP_CALL)
		SKIP("the call trap serves no instruction");
	CHECK_EQ(fm_budget_min(PAGE), FRAMES_MIN * PAGE);
	signal(SIGALRM, too_long);
	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		alarm(WATCHDOG_S);
		run(frames[i], "memory:64M?seed=7", OPS);
		alarm(WATCHDOG_S);
		run(frames[i], "faulty:memory:64M?seed=7&delay=20us..200us", OPS);
	}
	/* Several reads of this store take longer than KEEP_NS, the age limit of a keeper. */
	alarm(WATCHDOG_S);
	run(FRAMES_MIN, "faulty:memory:64M?seed=7&delay=8ms..16ms", 3);
	free((void *)(uintptr_t)want);
	return 0;
}
