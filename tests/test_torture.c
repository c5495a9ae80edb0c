/* SPDX-License-Identifier: MIT */
/*
 * Everything at once with a small budget: readers, mappers, advisers, pinners and callers share one
 * slow store that fails now and then. Every byte read is the store's own. Every error is the
 * injected error. At the end no pin, mapping or frame is in use.
 */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#define FILE_BYTES (16u << 20)
#define PAGE 4096u
#define PAGES (FILE_BYTES / PAGE)
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 200
#else
#define ROUNDS 300
#endif

static fm_mm *mm;
static fm_file *file;
static char *base;
static atomic_int failed;
static int trap;

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 33;
}

struct look {
	const char *at;
	char copy[64];
};

static void copy_out(void *arg)
{
	struct look *look = arg;
	memcpy(look->copy, look->at, sizeof(look->copy));
}

static void expect(const char *what, int err)
{
	if (err && err != -EIO)
		CHECK_FAIL("%s: %d", what, err);
	if (err)
		failed++;
}

static void *reader(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t offset = next_random(&seed) % (FILE_BYTES - 64);
		struct look look = {.at = base + offset};
		char truth[64];
		size_t len = 0;
		int err = 0;
		if (trap == FM_TRAP_CALL) { /* a read may straddle two pages, so pin both */
			err = fm_pin(mm, look.at, 64, 0);
			if (err == -ENOMEM)
				continue;
		}
		if (!err) {
			err = fm_guard(copy_out, &look, NULL);
			if (trap == FM_TRAP_CALL)
				CHECK_OK(fm_unpin(mm, look.at, 64));
		}
		expect("reading", err);
		if (err)
			continue;
		do
			err = fm_file_read(file, truth, 64, offset, &len);
		while (err == -EIO);
		CHECK_OK(err);
		if (memcmp(truth, look.copy, 64) != 0)
			CHECK_FAIL("other bytes at %llu", (unsigned long long)offset);
	}
	return NULL;
}

static void *mapper(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t first = next_random(&seed) % PAGES, count = 1 + next_random(&seed) % 64;
		void *at;
		CHECK_OK(fm_map(file, first * PAGE, count * PAGE, NULL, &at));
		CHECK(at == base + first * PAGE);
		CHECK_OK(fm_unmap(mm, at, count * PAGE));
	}
	return NULL;
}

static void *adviser(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t first = next_random(&seed) % PAGES;
		uint64_t count = 1 + next_random(&seed) % (PAGES - first);
		CHECK_OK(fm_advise(mm, base + first * PAGE, (count > 200 ? 200 : count) * PAGE,
				   (enum fm_advice)(next_random(&seed) % (FM_ADVICE_COLD + 1))));
	}
	return NULL;
}

static void *caller(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t first = next_random(&seed) % (PAGES - 4);
		unsigned flags = next_random(&seed) % 2 ? FM_NOWAIT : 0;
		int err = fm_fault_in(mm, base + first * PAGE, 4 * PAGE, flags);
		if (err != -EAGAIN)
			expect("fm_fault_in", err);
		err = fm_pin(mm, base + first * PAGE, 2 * PAGE, 0);
		if (err == -ENOMEM)
			continue;
		expect("fm_pin", err);
		if (!err)
			CHECK_OK(fm_unpin(mm, base + first * PAGE, 2 * PAGE));
	}
	return NULL;
}

static int env(const char *name, const char *const *words, int count, int otherwise)
{
	const char *value = getenv(name);
	for (int i = 0; value && i < count; i++)
		if (strcmp(words[i], value) == 0)
			return i;
	return otherwise;
}

static void no_progress(int signo)
{
	(void)signo;
	static const char words[] = "the test does not end: a thread hangs\n";
	(void)!write(2, words, sizeof(words) - 1);
	abort();
}

static void run(uint32_t page_size, uint64_t budget, int install)
{
	static void *(*const work[])(void *) = {reader, reader, reader, reader, reader, reader,
						mapper, adviser, caller, caller};
	enum { THREADS = sizeof(work) / sizeof(work[0]) };
	pthread_t thread[THREADS];
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = budget,
					.trap = (uint32_t)trap, .install = (uint32_t)install};
	struct fm_file_options file_options = {.size = sizeof(file_options), .page_size = page_size};
	struct fm_stats stats = {.size = sizeof(stats)};
	void *at;

	CHECK_OK(fm_mm_create(&options, &mm));
	CHECK_OK(fm_file_open(mm, "faulty:memory:16M?delay=0us..300us&error-every=211&short-every=53",
			      &file_options, &file));
	CHECK_OK(fm_map(file, 0, FILE_BYTES, NULL, &at));
	base = at;
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, work[i], (void *)(uintptr_t)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_OK(fm_unmap(mm, base, FILE_BYTES));
	CHECK_OK(fm_stats(mm, &stats));
	CHECK_EQ(stats.lock_held_over_block, 0);
	CHECK_EQ(stats.pins, 0);
	CHECK_EQ(stats.mappings, 0);
	CHECK_LE(stats.frames_used, stats.frames);
	CHECK_OK(fm_file_close(file));
	for (int i = 0; i < 2000 && stats.frames_used; i++) {
		usleep(1000);
		CHECK_OK(fm_stats(mm, &stats));
	}
	CHECK_EQ(stats.frames_used, 0);
	CHECK_EQ(stats.pages_installed, 0);
	CHECK_OK(fm_mm_destroy(mm));
}

int main(void)
{
	static const char *const traps[] = {"default", "inline", "thread", "call"};
	static const char *const installs[] = {"auto", "move", "copy"};
	int install = env("FM_TEST_INSTALL", installs, 3, FM_INSTALL_AUTO);

	trap = env("FM_TEST_TRAP", traps, 4, FM_TRAP_INLINE);
	signal(SIGALRM, no_progress);
	alarm(170);
	run(4096, fm_budget_min(4096) * 2, install);
	run(4096, 2 << 20, install);
	run(65536, fm_budget_min(65536), install);
	CHECK(failed > 0);
	return 0;
}
