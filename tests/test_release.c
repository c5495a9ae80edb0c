/* SPDX-License-Identifier: MIT */
/*
 * fm_release(): a range is handed back while threads read there. No thread sees a wrong byte or a
 * signal, a thread that waits for a slow read goes on in the program's own mapping, and nothing of
 * the library touches that memory afterwards. FM_MM_NO_SIGNALS: an access that fails waits until
 * its range is handed back, and then gets what the kernel gives.
 */
#include "support.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEED    77u
#define PAGES   256u
#define LEN     (PAGES * PAGE)
#define READERS 4

static const char *path;
static volatile unsigned char *where;
static uint32_t stop, rounds[READERS];

static void *reader(void *arg)
{
	uint32_t own = (uint32_t)(uintptr_t)arg, state = own * 2654435761u + 1;

	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		state = state * 1664525u + 1013904223u;
		uint64_t at = state % LEN;
		unsigned char got = where[at], want = support_byte(at, SEED);
		if (got != want)
			CHECK_FAIL("byte %llu: %u, not %u", (unsigned long long)at, got, want);
		__atomic_add_fetch(&rounds[own], 1u, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void replace(void *addr, size_t len, int fd)
{
	CHECK(mmap(addr, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == addr);
}

/* Register memory with a userfaultfd of the program's own. Memory that the program serves itself
 * looks like the library's to the library's questions. Returns the descriptor, or -1. */
static int serve_ourselves(void *addr, size_t len)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register range = {.range = {(uintptr_t)addr, len},
					.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* user mode only */);

	if (fd >= 0 && (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void test_under_load(void)
{
	bool touches = test_trap() != FM_TRAP_CALL;
	struct fm_file_options options = {.size = sizeof(options), .changed = FM_CHANGED_LEASE};
	fm_mm *mm = support_mm(32 * PAGE);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	pthread_t thread[READERS];
	char *own[4];
	int uffd[4];

	for (int round = 0; round < 4; round++) {
		fm_file *file = support_open(mm, path, &options);
		where = support_map(file, 0, LEN);
		__atomic_store_n(&stop, 0u, __ATOMIC_SEQ_CST);
		memset(rounds, 0, sizeof(rounds));
		for (uintptr_t i = 0; touches && i < READERS; i++)
			CHECK_EQ(pthread_create(&thread[i], NULL, reader, (void *)i), 0);
		for (int i = 0; touches && i < READERS; i++)
			EVENTUALLY(__atomic_load_n(&rounds[i], __ATOMIC_SEQ_CST) > 20);
		if (!touches)
			CHECK_OK(fm_fault_in(mm, (void *)(uintptr_t)where, 20 * PAGE, 0));
		CHECK_EQ(fm_release(mm, (void *)(uintptr_t)where, LEN), -EBUSY);
		replace((void *)(uintptr_t)where, LEN, fd);
		CHECK_OK(fm_release(mm, (void *)(uintptr_t)where, LEN));
		uint32_t before = __atomic_load_n(&rounds[0], __ATOMIC_SEQ_CST);
		EVENTUALLY(!touches || __atomic_load_n(&rounds[0], __ATOMIC_SEQ_CST) > before + 20);
		__atomic_store_n(&stop, 1u, __ATOMIC_SEQ_CST);
		for (int i = 0; touches && i < READERS; i++)
			pthread_join(thread[i], NULL);
		CHECK_EQ(support_differs((void *)(uintptr_t)where, 0, LEN, SEED), UINT64_MAX);
		/* The range is the program's: it is so also when the file and the mm end. */
		own[round] = mmap((void *)(uintptr_t)where, LEN, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		CHECK(own[round] == (void *)(uintptr_t)where);
		memset(own[round], 'z', LEN);
		uffd[round] = serve_ourselves(own[round], LEN);
		CHECK_OK(fm_file_close(file));
	}
	close(fd);
	support_mm_end(mm);
	for (int round = 0; round < 4; round++) {
		for (uint64_t at = 0; at < LEN; at++)
			CHECK_EQ(own[round][at], 'z');
		munmap(own[round], LEN);
		if (uffd[round] >= 0)
			close(uffd[round]);
	}
}

static void *touch_one(void *arg)
{
	CHECK_EQ(*(volatile unsigned char *)arg, support_byte(0, SEED));
	return NULL;
}

/* A thread waits for a read that takes long. The bytes come from the program's own mapping. */
static void test_slow_read(void)
{
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, support_format("faulty:file:%s?delay=300ms", path), NULL);
	unsigned char *addr = support_map(file, 0, LEN);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	pthread_t thread;

	if (test_trap() != FM_TRAP_CALL) {
		CHECK_EQ(pthread_create(&thread, NULL, touch_one, addr), 0);
		EVENTUALLY(support_stats(mm).reads > 0 || support_stats(mm).requests > 0);
	}
	replace(addr, LEN, fd);
	CHECK_OK(fm_release(mm, addr, LEN));
	if (test_trap() != FM_TRAP_CALL)
		pthread_join(thread, NULL);
	CHECK_EQ(support_differs(addr, 0, LEN, SEED), UINT64_MAX);
	munmap(addr, LEN);
	close(fd);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_refused(void)
{
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, path, NULL);
	char *addr = support_map(file, 0, 8 * PAGE);
	char *second = support_map(file, 16 * PAGE, 8 * PAGE);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	replace(addr, 8 * PAGE, fd);
	CHECK_EQ(fm_release(mm, addr, 8 * PAGE), -EINVAL); /* `second` is outside */
	CHECK_EQ(fm_release(mm, addr + 1, PAGE), -EINVAL);
	CHECK_EQ(fm_release(mm, addr, 0), -EINVAL);
	CHECK_OK(fm_unmap(mm, second, 8 * PAGE));
	CHECK_OK(fm_release(mm, addr, 8 * PAGE));
	CHECK_EQ(fm_release(mm, addr, 8 * PAGE), -EINVAL);
	/* The same bytes are mapped elsewhere from now on. */
	char *again = support_map(file, 0, 8 * PAGE);
	CHECK(again != addr);
	support_expect(mm, again, 0, 8 * PAGE, SEED);
	CHECK_OK(fm_unmap(mm, again, 8 * PAGE));
	munmap(addr, 8 * PAGE);
	close(fd);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ without signals */

static uint32_t failed;
static int failed_error;

static enum fm_error_action on_error(void *arg, const struct fm_error *error)
{
	(void)arg;
	failed_error = error->error;
	__atomic_add_fetch(&failed, 1u, __ATOMIC_SEQ_CST);
	return FM_ERROR_RAISE;
}

struct touch {
	volatile unsigned char *addr;
	struct support_signal got;
};

static void *touch_beyond(void *arg)
{
	struct touch *touch = arg;
	touch->got = support_load(touch->addr);
	return NULL;
}

static void test_no_signals(void)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = 64 * PAGE,
					.trap = FM_TRAP_THREAD,
					.flags = FM_MM_NO_SIGNALS};
	struct fm_file_options lease = {.size = sizeof(lease), .changed = FM_CHANGED_LEASE};
	struct fm_map_options map = {.size = sizeof(map), .on_error = on_error};
	struct touch touch;
	pthread_t thread;
	fm_mm *mm;
	fm_file *file;
	void *addr;

	if (test_trap() != FM_TRAP_THREAD)
		return;
	int err = fm_mm_create(&options, &mm);
	if (err == -EPERM) /* faults of system calls are not granted */
		return;
	CHECK_OK(err);
	file = support_open(mm, path, &lease);
	CHECK_EQ(fm_map(file, 0, LEN, NULL, &addr), -EINVAL);
	CHECK_OK(fm_map(file, 0, LEN + 2 * PAGE, &map, &addr));
	CHECK_EQ(support_differs(addr, 0, LEN, SEED), UINT64_MAX);
	/* A write is the kernel's SIGSEGV, from the first moment. */
	struct support_signal got = support_store(addr);
	CHECK_EQ(got.signo, SIGSEGV);
	CHECK_EQ(got.code, SEGV_ACCERR);
	CHECK_EQ(got.error, 0);
	/* A system call finds its bytes. */
	int fds[2];
	char byte;
	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(write(fds[1], (char *)addr + LEN - 1, 1), 1);
	CHECK_EQ(read(fds[0], &byte, 1), 1);
	CHECK_EQ((unsigned char)byte, support_byte(LEN - 1, SEED));
	close(fds[0]);
	close(fds[1]);
	/* Past the end: no signal from the library, and the kernel's after the release. */
	touch.addr = (unsigned char *)addr + LEN + PAGE;
	CHECK_EQ(pthread_create(&thread, NULL, touch_beyond, &touch), 0);
	EVENTUALLY(__atomic_load_n(&failed, __ATOMIC_SEQ_CST) > 0);
	CHECK_EQ(failed_error, -ENXIO);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	replace(addr, LEN + 2 * PAGE, fd);
	CHECK_OK(fm_release(mm, addr, LEN + 2 * PAGE));
	pthread_join(thread, NULL);
	CHECK_EQ(touch.got.signo, SIGBUS);
	CHECK_EQ(touch.got.error, 0);
	CHECK(touch.got.addr == (void *)(uintptr_t)touch.addr);
	munmap(addr, LEN + 2 * PAGE);
	close(fd);
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
}

static void test(void)
{
	test_no_signals();
	test_refused();
	test_slow_read();
	test_under_load();
}

int main(void)
{
	path = support_file(LEN, SEED);
	return support_run(test);
}
