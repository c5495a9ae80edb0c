/* SPDX-License-Identifier: MIT */
/*
 * The thread trap's ways to report a failed access (src/trap/tell.c) leave nothing behind. The
 * other traps pass the same tests: their reports need no trace in the view.
 *
 * Seen to fail with an earlier src/trap/thread.c: test_next_access (the thread got the error of the
 * system call) and test_later_calls (EFAULT for ever). Also test_pin_over_mark (pinned, and not
 * there), test_pinned_stays and test_unmapped_but_pinned (the page is emptied).
 */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEED 23

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};
static int pipe_fd[2];

static void begin(void)
{
	mm = support_mm(MIB);
	file = support_open(mm, support_format("faulty:%s", support_file(16 * PAGE, SEED)), &alone);
	addr = support_map(file, 0, 16 * PAGE);
	CHECK_EQ(pipe(pipe_fd), 0);
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, addr, 16 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

/* Make a system call that reads the page. Returns 0 or the errno of the call. */
static int call_reads(unsigned page)
{
	unsigned char got[64];
	if (write(pipe_fd[1], addr + page * PAGE, sizeof(got)) < 0)
		return errno;
	CHECK_EQ(read(pipe_fd[0], got, sizeof(got)), (ssize_t)sizeof(got));
	CHECK_EQ(support_differs(got, page * PAGE, sizeof(got), SEED), UINT64_MAX);
	return 0;
}

static bool calls_are_served(void)
{
	return test_trap() == FM_TRAP_THREAD && call_reads(15) == 0;
}

static void store_byte(void *at)
{
	*(volatile unsigned char *)at = 1;
}

static bool is_there(unsigned page)
{
	unsigned char vec = 0;
	CHECK_EQ(mincore(addr + page * PAGE, PAGE, &vec), 0);
	return vec & 1;
}

/* Return whether the page's range is writable again. The range is read-only for a moment when the
 * write of a system call is refused. */
static bool kernel_lets_write(unsigned page)
{
	uintptr_t at = (uintptr_t)addr + page * PAGE;
	unsigned long start, end;
	char line[512], access[8] = "";
	FILE *maps = fopen("/proc/self/maps", "re");
	CHECK(maps != NULL);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %7s", &start, &end, access) == 3 && at >= start && at < end)
			break;
	fclose(maps);
	return access[1] == 'w' || test_trap() != FM_TRAP_THREAD;
}

/* The error that a system call got is not the answer to the same thread's next access. */
static void test_next_access(void)
{
	begin();
	for (unsigned page = 1; page < 8 && calls_are_served(); page++) {
		CHECK_OK(fm_file_control(file, support_format("error-at=%llu", page * PAGE)));
		CHECK_EQ(call_reads(page), EFAULT);
		CHECK_OK(fm_file_control(file, "error-at=none"));
		support_expect(mm, addr + page * PAGE, page * PAGE, 64, SEED);
	}
	end();
}

static void test_later_calls(void)
{
	begin();
	if (calls_are_served()) {
		CHECK_OK(fm_file_control(file, support_format("error-at=%llu", 3 * PAGE)));
		CHECK_EQ(call_reads(3), EFAULT);
		CHECK_OK(fm_file_control(file, "error-at=none"));
		EVENTUALLY(call_reads(3) == 0);
	}
	end();
}

static void test_pin_over_mark(void)
{
	begin();
	for (unsigned page = 1; page < 8; page++) {
		CHECK_OK(fm_file_control(file, support_format("error-at=%llu", page * PAGE)));
		if (calls_are_served())
			CHECK_EQ(call_reads(page), EFAULT);
		CHECK_OK(fm_file_control(file, "error-at=none"));
		CHECK_OK(fm_pin(mm, addr + page * PAGE, PAGE, 0));
		CHECK(is_there(page));
		CHECK_EQ(call_reads(page), 0);
		CHECK_OK(fm_unpin(mm, addr + page * PAGE, PAGE));
	}
	end();
}

/* Writes to a pinned page are refused, by instruction and by system call, and the page stays. */
static void test_pinned_stays(void)
{
	begin();
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	CHECK_OK(fm_pin(mm, addr + 2 * PAGE, PAGE, 0));
	unsigned char was = addr[2 * PAGE + 5];
	for (int i = 0; i < 20 && test_trap() != FM_TRAP_CALL; i++) {
		/* A page that was moved in is protected a moment later. Bytes written until then
		 * stay in this page. */
		EVENTUALLY(fm_guard(store_byte, addr + 2 * PAGE + 5, NULL) == -EACCES);
		CHECK(is_there(2));
		CHECK_EQ(read(zero, addr + 2 * PAGE + 9, 1), -1);
		CHECK_EQ(errno, EFAULT);
		CHECK(is_there(2));
		/* Until then the kernel refuses the write with a SIGSEGV of its own. */
		EVENTUALLY(kernel_lets_write(2));
	}
	uint64_t faults = support_stats(mm).faults;
	CHECK(addr[2 * PAGE + 5] == was || addr[2 * PAGE + 5] == 1);
	CHECK_EQ(support_differs(addr + 2 * PAGE + 64, 2 * PAGE + 64, PAGE - 64, SEED), UINT64_MAX);
	CHECK_EQ(support_stats(mm).faults, faults);
	CHECK_OK(fm_unpin(mm, addr + 2 * PAGE, PAGE));
	close(zero);
	end();
}

/* A pinned page stays after its mapping has gone. An access that only the end of the mapping
 * refuses must end. */
static void test_unmapped_but_pinned(void)
{
	begin();
	CHECK_OK(fm_pin(mm, addr + 2 * PAGE, PAGE, 0));
	if (test_trap() != FM_TRAP_CALL)
		EVENTUALLY(fm_guard(store_byte, addr + 2 * PAGE, NULL) == -EACCES);
	CHECK_OK(fm_unmap(mm, addr + 2 * PAGE, PAGE));
	CHECK(is_there(2));
	if (test_trap() != FM_TRAP_CALL)
		CHECK_EQ(fm_guard(store_byte, addr + 2 * PAGE, NULL), -EFAULT);
	CHECK(is_there(2));
	CHECK_OK(fm_unpin(mm, addr + 2 * PAGE, PAGE));
	EVENTUALLY(!is_there(2));
	end();
}

static void test(void)
{
	test_next_access();
	test_later_calls();
	test_pin_over_mark();
	test_pinned_stays();
	test_unmapped_but_pinned();
}

int main(void)
{
	return support_run(test);
}
