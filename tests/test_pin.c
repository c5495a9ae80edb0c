/* SPDX-License-Identifier: MIT */
/*
 * fm_pin(): pages stay installed until as many calls of fm_unpin(), so that a system call can use
 * them. The frames are reserved first, and a quarter of the frames is left to other pages.
 *
 * Seen to fail: with the page's own pin put although the count went up (test_stays), with the limit
 * left out (test_limit). With no undo of a pin that fails half way (test_half_way).
 */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define SEED 17

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static uint64_t len;
static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};

static void begin(uint64_t budget, uint64_t size)
{
	mm = support_mm(budget);
	file = support_open(mm, support_format("faulty:%s", support_file(size, SEED)), &alone);
	len = size + 2 * PAGE;
	addr = support_map(file, 0, len);
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_arguments(void)
{
	begin(MIB, 8 * PAGE);
	CHECK_EQ(fm_pin(NULL, addr, PAGE, 0), -EINVAL);
	CHECK_EQ(fm_pin(mm, addr, 0, 0), -EINVAL);
	CHECK_EQ(fm_pin(mm, addr, PAGE, 4), -EINVAL);
	CHECK_EQ(fm_pin(mm, &mm, 1, 0), -EFAULT);
	CHECK_EQ(fm_pin(mm, addr + 8 * PAGE, 1, 0), -ENXIO);
	CHECK_EQ(fm_unpin(mm, addr, PAGE), -EINVAL); /* never pinned */
	CHECK_EQ(fm_unpin(mm, &mm, 1), -EINVAL);
	CHECK_EQ(support_stats(mm).pins, 0);
	end();
}

/* The kernel reads pinned pages for a write() to a pipe, under every trap. */
static void test_system_call(void)
{
	unsigned char got[8 * KIB];
	int fd[2];

	begin(MIB, 8 * PAGE);
	CHECK_EQ(pipe(fd), 0);
	CHECK_OK(fm_pin(mm, addr + 100, sizeof(got), 0));
	CHECK_EQ(write(fd[1], addr + 100, sizeof(got)), (ssize_t)sizeof(got));
	CHECK_EQ(read(fd[0], got, sizeof(got)), (ssize_t)sizeof(got));
	CHECK_EQ(support_differs(got, 100, sizeof(got), SEED), UINT64_MAX);
	CHECK_OK(fm_unpin(mm, addr + 100, sizeof(got)));
	/* Without a pin the call gets EFAULT, or the right bytes if the kernel lets the thread trap
	 * serve the call. */
	ssize_t n = write(fd[1], addr + 6 * PAGE, 64);
	if (n < 0) {
		CHECK_EQ(errno, EFAULT);
	} else {
		CHECK_EQ(test_trap(), FM_TRAP_THREAD);
		CHECK_EQ(read(fd[0], got, sizeof(got)), n);
		CHECK_EQ(support_differs(got, 6 * PAGE, (size_t)n, SEED), UINT64_MAX);
	}
	close(fd[0]);
	close(fd[1]);
	end();
}

/* Under memory pressure the pinned pages cause no new fault. */
static void test_stays(void)
{
	begin(fm_budget_min(4096), 256 * PAGE);
	CHECK_OK(fm_pin(mm, addr + 2 * PAGE, 3 * PAGE, 0));
	CHECK_EQ(support_stats(mm).pins, 3);
	for (int round = 0; round < 3; round++)
		support_expect(mm, addr + 16 * PAGE, 16 * PAGE, 240 * PAGE, SEED);
	uint64_t faults = support_faults_settled(mm);
	CHECK_EQ(support_differs(addr + 2 * PAGE, 2 * PAGE, 3 * PAGE, SEED), UINT64_MAX);
	CHECK_EQ(support_stats(mm).faults, faults);
	CHECK_OK(fm_advise(mm, addr, 8 * PAGE, FM_ADVICE_DONTNEED)); /* drops no pinned page */
	CHECK_EQ(support_differs(addr + 2 * PAGE, 2 * PAGE, 3 * PAGE, SEED), UINT64_MAX);
	CHECK_EQ(support_stats(mm).faults, faults);
	CHECK_OK(fm_unpin(mm, addr + 2 * PAGE, 3 * PAGE));
	CHECK_EQ(support_stats(mm).pins, 0);
	end();
}

static void test_balance(void)
{
	begin(MIB, 8 * PAGE);
	for (int i = 0; i < 5; i++)
		CHECK_OK(fm_pin(mm, addr + PAGE, 2 * PAGE, 0));
	CHECK_EQ(support_stats(mm).pins, 2); /* counts pages, not calls */
	for (int i = 0; i < 5; i++) {
		CHECK_EQ(support_stats(mm).pins, 2);
		CHECK_OK(fm_unpin(mm, addr + PAGE, 2 * PAGE));
	}
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_EQ(fm_unpin(mm, addr + PAGE, PAGE), -EINVAL);
	/* Pin overlapping ranges. */
	CHECK_OK(fm_pin(mm, addr, 3 * PAGE, 0));
	CHECK_OK(fm_pin(mm, addr + 2 * PAGE, 3 * PAGE, 0));
	CHECK_EQ(support_stats(mm).pins, 5);
	CHECK_OK(fm_unpin(mm, addr, 3 * PAGE));
	CHECK_EQ(support_stats(mm).pins, 3);
	CHECK_OK(fm_unpin(mm, addr + 2 * PAGE, 3 * PAGE));
	CHECK_EQ(support_stats(mm).pins, 0);
	end();
}

/* Of 16 frames 12 may be pinned and 4 are left. A refused call leaves the earlier pins in place. */
static void test_limit(void)
{
	begin(fm_budget_min(4096), 256 * PAGE);
	CHECK_EQ(fm_pin(mm, addr, 13 * PAGE, 0), -ENOMEM);
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_OK(fm_pin(mm, addr, 12 * PAGE, 0));
	CHECK_EQ(fm_pin(mm, addr + 20 * PAGE, 1, 0), -ENOMEM);
	CHECK_OK(fm_pin(mm, addr + 5 * PAGE, PAGE, 0)); /* a second pin costs nothing */
	support_expect(mm, addr, 0, 12 * PAGE, SEED);
	/* Under the call trap support_expect() pins what it reads. */
	if (test_trap() != FM_TRAP_CALL)
		support_expect(mm, addr + 16 * PAGE, 16 * PAGE, 128 * PAGE, SEED);
	CHECK_OK(fm_unpin(mm, addr + 5 * PAGE, PAGE));
	CHECK_OK(fm_unpin(mm, addr, 12 * PAGE));
	CHECK_OK(fm_pin(mm, addr + 20 * PAGE, 12 * PAGE, 0));
	CHECK_OK(fm_unpin(mm, addr + 20 * PAGE, 12 * PAGE));
	end();
}

static void test_half_way(void)
{
	begin(MIB, 8 * PAGE);
	CHECK_OK(fm_file_control(file, "error-at=20480")); /* page 5 */
	CHECK_EQ(fm_pin(mm, addr, 8 * PAGE, 0), -EIO);
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_EQ(fm_pin(mm, addr + 6 * PAGE, 3 * PAGE, 0), -ENXIO);
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_OK(fm_file_control(file, "error-at=none"));
	CHECK_OK(fm_pin(mm, addr, 8 * PAGE, 0));
	CHECK_OK(fm_unpin(mm, addr, 8 * PAGE));
	end();
}

static void test_nowait(void)
{
	begin(MIB, 8 * PAGE);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	CHECK_EQ(fm_pin(mm, addr, 4 * PAGE, FM_NOWAIT), -EAGAIN);
	CHECK_EQ(support_stats(mm).pins, 0);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	EVENTUALLY(fm_pin(mm, addr, 4 * PAGE, FM_NOWAIT) == 0);
	CHECK_EQ(support_stats(mm).pins, 4);
	CHECK_OK(fm_unpin(mm, addr, 4 * PAGE));
	end();
}

/* Pins outlive the mapping. They end with the file at the latest. */
static void test_left(void)
{
	begin(MIB, 8 * PAGE);
	CHECK_OK(fm_pin(mm, addr, 4 * PAGE, 0));
	end();
	begin(MIB, 8 * PAGE);
	CHECK_OK(fm_pin(mm, addr, 4 * PAGE, 0));
	CHECK_OK(fm_mm_destroy(mm));
}

static atomic_bool stop;
static void *presser(void *arg)
{
	uint64_t at = (uintptr_t)arg;
	while (!stop) {
		at = (at * 5 + 3) % 240;
		support_expect(mm, addr + (16 + at) * PAGE, (16 + at) * PAGE, 64, SEED);
	}
	return NULL;
}

static void test_pressure(void)
{
	pthread_t thread[3];

	if (test_trap() == FM_TRAP_CALL)
		return;
	begin(2 * fm_budget_min(4096), 256 * PAGE);
	stop = false;
	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, presser, (void *)i), 0);
	for (unsigned i = 0; i < 200; i++) {
		unsigned page = i * 7 % 250;
		CHECK_OK(fm_pin(mm, addr + page * PAGE, 4 * PAGE, 0));
		CHECK_EQ(support_differs(addr + page * PAGE, page * PAGE, 4 * PAGE, SEED),
			 UINT64_MAX);
		CHECK_OK(fm_unpin(mm, addr + page * PAGE, 4 * PAGE));
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	end();
}

static void test(void)
{
	test_arguments();
	test_system_call();
	test_stays();
	test_balance();
	test_limit();
	test_half_way();
	test_nowait();
	test_left();
	test_pressure();
}

int main(void)
{
	return support_run(test);
}
