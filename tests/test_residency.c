/* SPDX-License-Identifier: MIT */
/*
 * fm_residency() tells what is cached, installed and pinned, in one byte for each 4096 bytes. The
 * byte is 0 past the end of the file and where nothing is mapped. The number of system calls does
 * not depend on the number of pages.
 *
 * Seen to fail:
 *   test_one_by_one: each page is looked up as the first page of the range.
 *   test_larger_page: the end of the file is ignored.
 *   test_system_calls: each page costs a system call.
 */
#include "support.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED 23
#define PAGES 256u
#define IN (FM_RESIDENT_CACHED | FM_RESIDENT_MAPPED)
#define ALL (IN | FM_RESIDENT_PINNED)

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr, vec[4 * PAGES];
static uint64_t len;

static void begin(uint64_t budget, uint64_t size, uint32_t page_size)
{
	const struct fm_file_options alone = {.size = sizeof(alone), .page_size = page_size,
					      .readahead_bytes = UINT32_MAX};
	mm = support_mm(budget);
	file = support_open(mm, support_format("faulty:%s", support_file(size, SEED)), &alone);
	len = ((size + PAGE - 1) & ~(PAGE - 1)) + 4 * PAGE;
	addr = support_map(file, 0, len);
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* Under the thread trap a thread may go on before the install is recorded, so wait first. */
static int ask(const void *at, uint64_t bytes)
{
	support_faults_settled(mm);
	return fm_residency(mm, at, bytes, vec);
}

/* Returns how many of these pages have all these bits. */
static unsigned count(unsigned first, unsigned pages, unsigned bits)
{
	unsigned n = 0;
	CHECK_OK(ask(addr + first * PAGE, pages * PAGE));
	for (unsigned i = 0; i < pages; i++) {
		CHECK(!vec[i] || (vec[i] & FM_RESIDENT_CACHED));
		CHECK_EQ(vec[i] & ~ALL, 0);
		n += (vec[i] & bits) == bits;
	}
	return n;
}

static void test_arguments(void)
{
	begin(4 * MIB, PAGES * PAGE, 0);
	vec[0] = vec[1] = 77;
	CHECK_EQ(fm_residency(NULL, addr, PAGE, vec), -EINVAL);
	CHECK_EQ(fm_residency(mm, addr + 1, PAGE, vec), -EINVAL);
	CHECK_EQ(fm_residency(mm, addr, 0, vec), -EINVAL);
	CHECK_EQ(fm_residency(mm, addr, PAGE, NULL), -EINVAL);
	CHECK_EQ(vec[0], 77);
	CHECK_OK(fm_residency(mm, addr, 1, vec)); /* the length is rounded up to one page */
	CHECK_EQ(vec[0], 0);
	CHECK_EQ(vec[1], 77);
	end();
}

static void test_one_by_one(void)
{
	begin(4 * MIB, PAGES * PAGE, 0);
	CHECK_EQ(count(0, PAGES, FM_RESIDENT_CACHED), 0);
	for (unsigned i = 0; i < PAGES; i += 3)
		support_expect(mm, addr + i * PAGE, i * PAGE, PAGE, SEED);
	CHECK_OK(ask(addr, PAGES * PAGE));
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(vec[i], i % 3 ? 0 : IN);
	CHECK_OK(ask(addr + 2 * PAGE, 2 * PAGE));
	CHECK_EQ(vec[0], 0);
	CHECK_EQ(vec[1], IN);
	CHECK_OK(fm_pin(mm, addr + 6 * PAGE, 2 * PAGE, 0));
	CHECK_EQ(count(0, PAGES, ALL), 2);
	CHECK_EQ(vec[6] & vec[7], ALL);
	CHECK_OK(fm_unpin(mm, addr + 6 * PAGE, PAGE));
	CHECK_EQ(count(0, PAGES, ALL), 1);
	CHECK_OK(fm_unpin(mm, addr + 7 * PAGE, PAGE));
	CHECK_EQ(count(0, PAGES, FM_RESIDENT_PINNED), 0);
	CHECK_EQ(vec[6] & vec[7], IN);
	EVENTUALLY(fm_advise(mm, addr, PAGES * PAGE, FM_ADVICE_DONTNEED) == 0 &&
		   count(0, PAGES, FM_RESIDENT_CACHED) == 0);
	end();
}

/*
 * A page that is read but not touched is cached and not mapped. A page whose read is in flight is
 * not cached.
 */
static void test_not_installed(void)
{
	begin(4 * MIB, PAGES * PAGE, 0);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	CHECK_OK(fm_advise(mm, addr, 16 * PAGE, FM_ADVICE_WILLNEED));
	CHECK_GT(support_stats(mm).requests, 0);
	CHECK_EQ(count(0, PAGES, FM_RESIDENT_CACHED), 0);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	EVENTUALLY(count(0, PAGES, FM_RESIDENT_CACHED) == 16);
	CHECK_EQ(count(0, PAGES, FM_RESIDENT_MAPPED), 0);
	end();
}

/* No more pages are cached than there are frames. An evicted page is not reported. */
static void test_evicted(void)
{
	begin(64 * PAGE, PAGES * PAGE, 0);
	for (unsigned i = 0; i < PAGES; i++)
		support_expect(mm, addr + i * PAGE, i * PAGE, PAGE, SEED);
	CHECK_LE(count(0, PAGES, FM_RESIDENT_CACHED), 64);
	CHECK_GT(count(0, PAGES, FM_RESIDENT_CACHED), 16);
	/* The report is true: a touch of a cached page reads nothing. */
	uint64_t reads = support_stats(mm).reads;
	unsigned cached = 0;
	for (unsigned i = PAGES; i-- > 0 && cached < 8;)
		if (vec[i]) {
			support_expect(mm, addr + i * PAGE, i * PAGE, PAGE, SEED);
			cached++;
		}
	CHECK_EQ(support_stats(mm).reads, reads);
	end();
}

static void test_past_end(void)
{
	begin(4 * MIB, 10 * PAGE + 100, 0);
	support_expect(mm, addr, 0, 10 * PAGE + 100, SEED);
	CHECK_EQ(count(0, 15, IN), 11);
	for (unsigned i = 0; i < 15; i++)
		CHECK_EQ(vec[i], i < 11 ? IN : 0);
	end();
}

static void test_hole(void)
{
	begin(4 * MIB, PAGES * PAGE, 0);
	support_expect(mm, addr, 0, 64 * PAGE, SEED);
	for (unsigned i = 10; i < 60; i += 10) /* the unmapped pages leave many mappings */
		CHECK_OK(fm_unmap(mm, addr + i * PAGE, PAGE));
	memset(vec, 77, sizeof(vec));
	CHECK_EQ(ask(addr, 64 * PAGE), -ENOMEM);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(vec[i], i >= 10 && i < 60 && i % 10 == 0 ? 0 : IN);
	CHECK_EQ(vec[64], 77);
	CHECK_EQ(ask(addr + 10 * PAGE, PAGE), -ENOMEM);
	CHECK_EQ(ask(addr + 9 * PAGE, 2 * PAGE), -ENOMEM);
	CHECK_EQ(vec[0], IN);
	CHECK_EQ(vec[1], 0);
	CHECK_OK(ask(addr + 11 * PAGE, 9 * PAGE));
	end();
}

/*
 * A page of 16384 bytes comes and goes as a whole. The bytes past the end of the file are not
 * shown.
 */
static void test_larger_page(void)
{
	begin(4 * MIB, 9 * PAGE + 1, 16384);
	support_expect(mm, addr + 5 * PAGE, 5 * PAGE, 1, SEED);
	CHECK_OK(ask(addr, 12 * PAGE));
	for (unsigned i = 0; i < 12; i++)
		CHECK_EQ(vec[i], i / 4 == 1 ? IN : 0);
	support_expect(mm, addr + 9 * PAGE, 9 * PAGE, 1, SEED);
	CHECK_OK(ask(addr + 6 * PAGE, 6 * PAGE));
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(vec[i], i < 4 ? IN : 0);
	end();
}

/* ------------------------------------------------------------------ system calls */

#define FENCE SYS_getppid

/* Runs in a traced child. Two calls of fm_residency() stand between fences, which are system calls
 * that nothing else makes. The first call covers one page. The second covers many pages, cached and
 * not cached. */
static int calls_of_it(void *arg)
{
	(void)arg;
	begin(4 * MIB, PAGES * PAGE, 0);
	support_expect(mm, addr, 0, PAGES / 2 * PAGE, SEED);
	CHECK_OK(fm_residency(mm, addr, PAGES * PAGE, vec));
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 77;
	raise(SIGSTOP);
	syscall(FENCE);
	fm_residency(mm, addr, PAGE, vec);
	syscall(FENCE);
	fm_residency(mm, addr, PAGES * PAGE, vec);
	syscall(FENCE);
	_exit(0);
}

static void test_system_calls(void)
{
	unsigned calls[2] = {0, 0}, fences = 0;
	bool entry = true;
	int status;
	pid_t child = fork();
	if (!child)
		_exit(calls_of_it(NULL));
	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		return;
	for (int signo = 0; WIFSTOPPED(status);) {
		struct __ptrace_syscall_info info;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) &&
		    ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info) > 0) {
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == FENCE)
				fences++;
			else if (info.op == PTRACE_SYSCALL_INFO_ENTRY && fences > 0 && fences < 3)
				calls[fences - 1]++;
		} else if (WSTOPSIG(status) != SIGSTOP && WSTOPSIG(status) != SIGTRAP) {
			signo = WSTOPSIG(status);
		}
		if (entry)
			CHECK_EQ(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
		entry = false;
		CHECK_EQ(ptrace(PTRACE_SYSCALL, child, NULL, (void *)(intptr_t)signo), 0);
		signo = 0;
		CHECK_EQ(waitpid(child, &status, 0), child);
	}
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK_EQ(fences, 3);
	CHECK_EQ(calls[0], 2); /* only the signal mask; 0 would mean that the test sees no calls */
	CHECK_EQ(calls[1], 2);
}

static void test(void)
{
	test_arguments();
	test_one_by_one();
	test_not_installed();
	test_evicted();
	test_past_end();
	test_hole();
	test_larger_page();
}

int main(void)
{
	test_system_calls();
	return support_run(test);
}
