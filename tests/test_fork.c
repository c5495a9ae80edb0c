/* SPDX-License-Identifier: MIT */
/*
 * fork(): the child owns nothing of the parent. A view is SIGSEGV in the child, never zeros,
 * whatever the child maps meanwhile. Calls on the parent's objects give -EOWNERDEAD, also if the
 * child has an mm of its own, which works. exec() leaves nothing behind. The parent and its
 * threads notice nothing.
 *
 * Seen to fail: without MADV_DONTFORK on views (the child reads bytes); without the child's
 * PROT_NONE mappings in the views' places (test_own_memory); without the check of the owner
 * (test_owner_dead); with a thread's number kept over fork() (test_own_mm).
 */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED 31
#define PAGES 64u

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;

static void begin(uint64_t budget)
{
	mm = support_mm(budget);
	file = support_open(mm, support_file(PAGES * PAGE, SEED), NULL);
	addr = support_map(file, 0, PAGES * PAGE);
	support_expect(mm, addr, 0, 8 * PAGE, SEED);
}

static void end(void)
{
	support_expect(mm, addr, 0, PAGES * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

#define DIES(status, signo) (WIFSIGNALED(status) && WTERMSIG(status) == (signo))
#define ENDS_WELL(status) (WIFEXITED(status) && WEXITSTATUS(status) == 0)

/* ---- what the children do: 0 is success */

static int touch(void *arg)
{
	return *(volatile unsigned char *)arg ? 1 : 2;
}

static int guarded_touch(void *arg)
{
	unsigned char byte;
	return support_read(mm, arg, &byte, 1) ? 3 : 4;
}

#define EXPECT_DEAD(call)                                                                          \
	do {                                                                                       \
		if ((call) != -EOWNERDEAD)                                                         \
			return __LINE__ % 250 + 1;                                                 \
	} while (0)

static int all_calls(void)
{
	struct fm_stats stats = {.size = sizeof(stats)};
	void *map = NULL;
	fm_file *other = NULL;
	uint64_t size = 0;
	size_t len = 0;
	char buf[8];

	EXPECT_DEAD(fm_map(file, 0, PAGE, NULL, &map));
	EXPECT_DEAD(fm_unmap(mm, addr, PAGE));
	EXPECT_DEAD(fm_advise(mm, addr, PAGE, FM_ADVICE_WILLNEED));
	EXPECT_DEAD(fm_advise(mm, addr, PAGE, FM_ADVICE_DONTNEED));
	EXPECT_DEAD(fm_residency(mm, addr, PAGE, (unsigned char *)buf));
	EXPECT_DEAD(fm_fault_in(mm, addr, PAGE, 0));
	EXPECT_DEAD(fm_pin(mm, addr, PAGE, 0));
	EXPECT_DEAD(fm_unpin(mm, addr, PAGE));
	EXPECT_DEAD(fm_stats(mm, &stats));
	EXPECT_DEAD(fm_file_open(mm, "memory:1M", NULL, &other));
	EXPECT_DEAD(fm_file_size(file, &size));
	EXPECT_DEAD(fm_file_read(file, buf, sizeof(buf), 0, &len));
	EXPECT_DEAD(fm_file_control(file, "delay=1ms"));
	EXPECT_DEAD(fm_file_close(file));
	EXPECT_DEAD(fm_mm_destroy(mm));
	return 0;
}

static int owner_dead(void *arg)
{
	(void)arg;
	return all_calls();
}

static fm_mm *own_mm(void)
{
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 4 * MIB,
					.trap = test_trap(), .install = test_install()};
	fm_mm *own = NULL;
	return fm_mm_create(&options, &own) ? NULL : own;
}

/* Make the calls beside mms of the child's own, which may lie where the parent's mm lay. */
static int own_works(void *arg)
{
	fm_mm *own[3];

	for (int i = 0; i < 3; i++) {
		own[i] = own_mm();
		if (!own[i])
			return 1;
		int wrong = all_calls();
		if (wrong)
			return wrong;
		fm_file *mine;
		void *map;
		if (fm_file_open(own[i], arg, NULL, &mine) || fm_map(mine, 0, 8 * PAGE, NULL, &map))
			return 2;
		unsigned char buf[8 * PAGE];
		if (support_read(own[i], map, buf, sizeof(buf)))
			return 3;
		if (support_differs(buf, 0, sizeof(buf), SEED) != UINT64_MAX)
			return 4;
	}
	for (int i = 0; i < 3; i++)
		if (fm_mm_destroy(own[i]))
			return 5;
	return all_calls();
}

/* The library reports errors to the child's thread as to the parent's thread. The child's thread
 * has another number. */
static int own_errors(void *arg)
{
	fm_mm *own = own_mm();
	fm_file *bad;
	void *map;

	(void)arg;
	alarm(60);
	if (!own || fm_file_open(own, "faulty:memory:1M?error-every=1", NULL, &bad) ||
	    fm_map(bad, 0, MIB, NULL, &map))
		return 1;
	if (support_load((char *)map + 5 * PAGE).signo != SIGBUS ||
	    support_store((char *)map + 9 * PAGE).signo != SIGSEGV)
		return 2;
	alarm(0);
	return fm_mm_destroy(own) ? 3 : 0;
}

static int may_have(void *hint, size_t len)
{
	unsigned char *got = mmap(hint, len, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return got == MAP_FAILED ? 1 : got < addr + PAGES * PAGE && got + len > addr ? 2 : 0;
}

/* Whatever the child maps or allocates, with or without a hint, no part of it lies in a view. The
 * view stays without access. */
static int own_memory(void *arg)
{
	for (unsigned i = 0; i < 64; i++) {
		int wrong = may_have(addr + i % PAGES * PAGE, PAGE);
		wrong = wrong ? wrong : may_have(NULL, i % 3 ? 64 * MIB : 64 * PAGE);
		if (wrong)
			return wrong;
		unsigned char *piece = malloc(i * 1000);
		if (piece && piece >= addr && piece < addr + PAGES * PAGE)
			return 3;
	}
	return touch(arg);
}

static int exits(void *arg)
{
	(void)arg;
	fflush(NULL);
	return 0;
}

/* ---- tests */

static void test_touch(void)
{
	begin(4 * MIB);
	CHECK(DIES(support_child(touch, addr), SIGSEGV)); /* installed in the parent */
	CHECK(DIES(support_child(touch, addr + 40 * PAGE + 1), SIGSEGV)); /* absent */
	if (test_trap() != FM_TRAP_CALL)
		CHECK(DIES(support_child(guarded_touch, addr), SIGSEGV));
	CHECK(ENDS_WELL(support_child(exits, NULL)));
	end();
}

static void test_own_memory(void)
{
	begin(4 * MIB);
	CHECK(DIES(support_child(own_memory, addr), SIGSEGV));
	CHECK(DIES(support_child(own_memory, addr + 40 * PAGE), SIGSEGV));
	end();
}

static void test_owner_dead(void)
{
	begin(4 * MIB);
	int status = support_child(owner_dead, NULL);
	if (!ENDS_WELL(status))
		CHECK_FAIL("the line of the call, modulo 250, is %d", WEXITSTATUS(status) - 1);
	end();
}

static void test_own_mm(void)
{
	if (SUPPORT_TSAN) /* TSan does not let such a child start threads */
		return;
	begin(4 * MIB);
	int status = support_child(own_works, (void *)(uintptr_t)support_file(8 * PAGE, SEED));
	if (!ENDS_WELL(status))
		CHECK_FAIL("status %#x", status);
	end();
	if (test_trap() != FM_TRAP_CALL) {
		CHECK_EQ(own_errors(NULL), 0);
		CHECK(ENDS_WELL(support_child(own_errors, NULL)));
	}
}

static void check_cloexec(void)
{
	DIR *dir = opendir("/proc/self/fd");

	CHECK(dir);
	for (const struct dirent *entry; (entry = readdir(dir));) {
		int fd = atoi(entry->d_name);
		char target[256] = "";
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (entry->d_name[0] == '.' || fd < 3 || n < 0)
			continue;
		bool ours = strstr(target, "userfaultfd") || strstr(target, "memfd") ||
			    strstr(target, "io_uring") || strstr(target, "eventfd") ||
			    strstr(target, "filemap-test");
		if (ours && !(fcntl(fd, F_GETFD) & FD_CLOEXEC))
			CHECK_FAIL("fd %d, %s, would survive exec", fd, target);
	}
	closedir(dir);
}

static int execs(void *arg)
{
	(void)arg;
	execl("/bin/true", "true", (char *)NULL);
	return 126;
}

static void test_exec(void)
{
	begin(4 * MIB);
	check_cloexec();
	CHECK(ENDS_WELL(support_child(execs, NULL)));
	pid_t child = vfork();
	if (!child) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(126);
	}
	int status = 0;
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(ENDS_WELL(status));
	CHECK_EQ(system("exit 0"), 0);
	end();
}

/* A child that owns nothing forks a grandchild. */
static int forks_again(void *arg)
{
	int status = support_child(touch, arg);
	if (!DIES(status, SIGSEGV))
		return 1;
	return ENDS_WELL(support_child(owner_dead, NULL)) ? 0 : 2;
}

static void test_grandchild(void)
{
	begin(4 * MIB);
	CHECK(ENDS_WELL(support_child(forks_again, addr)));
	end();
}

static atomic_bool stop;
static void *faulter(void *arg)
{
	uint64_t page = (uintptr_t)arg;
	while (!stop) {
		page = (page * 5 + 7) % PAGES;
		support_expect(mm, addr + page * PAGE, page * PAGE, PAGE, SEED);
	}
	return NULL;
}

/* Pages come and go while children are made. The budget is a quarter of the file. */
static void test_meanwhile(void)
{
	pthread_t thread[3];

	begin(fm_budget_min(4096));
	stop = false;
	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, faulter, (void *)i), 0);
	for (unsigned i = 0; i < 12; i++) {
		CHECK(DIES(support_child(touch, addr + i * 5 * PAGE), SIGSEGV));
		CHECK(ENDS_WELL(support_child(owner_dead, NULL)));
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	end();
}

static void test(void)
{
	test_touch();
	test_own_memory();
	test_owner_dead();
	test_own_mm();
	test_exec();
	test_grandchild();
	test_meanwhile();
}

int main(void)
{
	return support_run(test);
}
