/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B: system calls that are given an address in a mapping.
 *
 * B1   Under the inline and the call trap a cold address gives EFAULT, and EIO from
 *      /proc/self/mem. The call never hangs and never gets zeros. After fm_pin() the call works.
 *      The thread trap serves the call if the kernel grants that. fm_file_read() into a mapping
 *      is an error.
 * B8   Options and URIs that lie in a cold mapping are read by the library, with no lock held.
 * B16  A page that a pipe refers to (vmsplice) stays where it is while the page is pinned, under
 *      any memory pressure.
 * B17  A kernel-mode fault of a thread with a pending signal repeats its message without end.
 *      The library takes the messages as one fault.
 *
 * Seen to fail (tests/HAZARDS.md): B1 with an fm_pin() that brings in one page only. B8 with
 * options that are read while signals are blocked. B16 with a clock that does not look at pins. B17
 * with a known() that finds no entry.
 */
#include "hazard_support.h"

#include <fcntl.h>
#include <sys/uio.h>

#define FILE_BYTES (4 * MIB)

static bool calls_are_served(fm_mm *mm, const char *cold)
{
	int fd[2];
	CHECK_EQ(pipe(fd), 0);
	ssize_t put = write(fd[1], cold, 64);
	int error = errno;
	close(fd[0]);
	close(fd[1]);
	(void)mm;
	if (put < 0)
		CHECK_EQ(error, EFAULT);
	return put == 64;
}

static void test_b01(void)
{
	unsigned char got[2 * PAGE];
	fm_mm *mm = support_mm(256 * PAGE);
	const char *path = support_file(FILE_BYTES, 1);
	fm_file *file = support_open(mm, path, NULL);
	char *map = support_map(file, 0, FILE_BYTES);
	int fd[2], out;
	size_t len;

	bool served = calls_are_served(mm, map + 100 * PAGE);
	if (test_trap() != FM_TRAP_THREAD)
		CHECK(!served);
	int self_mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	CHECK(self_mem >= 0);
	if (test_trap() != FM_TRAP_THREAD) {
		CHECK_EQ(pread(self_mem, got, 64, (off_t)(uintptr_t)(map + 300 * PAGE)), -1);
		CHECK_EQ(errno, EIO);
	}
	out = open(support_path(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(out >= 0 && pipe(fd) == 0);
	for (uint64_t at = 0; at + 2 * PAGE <= FILE_BYTES; at += 16 * PAGE + 511) {
		CHECK_OK(fm_pin(mm, map + at, 2 * PAGE, 0));
		memset(got, 0, sizeof(got));
		CHECK_EQ(pread(self_mem, got, 2 * PAGE, (off_t)(uintptr_t)(map + at)), 2 * PAGE);
		CHECK_EQ(support_differs(got, at, 2 * PAGE, 1), UINT64_MAX);
		CHECK_EQ(pwrite(out, map + at, 2 * PAGE, 0), 2 * PAGE);
		CHECK_OK(fm_unpin(mm, map + at, 2 * PAGE));
		CHECK_EQ(pread(out, got, 2 * PAGE, 0), 2 * PAGE);
		CHECK_EQ(support_differs(got, at, 2 * PAGE, 1), UINT64_MAX);
	}
	/* A read from the store into a mapping is refused. */
	int err = fm_file_read(file, map + 200 * PAGE, PAGE, 0, &len);
	CHECK(err < 0);
	support_expect(mm, map + 200 * PAGE, 200 * PAGE, PAGE, 1);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	close(self_mem);
	close(out);
	close(fd[0]);
	close(fd[1]);
}

/* Pass arguments that lie in a cold mapping. */
static void test_b08(void)
{
	struct fm_map_options options = {.size = sizeof(options)};
	const char *path = support_path(), *uri = "memory:64K";
	char page[PAGE] = {0};
	void *addr;

	/* Under the call trap a cold page is not brought in. */
	if (test_trap() == FM_TRAP_CALL)
		return;
	memcpy(page, &options, sizeof(options));
	memcpy(page + 1024, uri, strlen(uri) + 1);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, page, PAGE), PAGE);
	close(fd);

	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, path, NULL), *other;
	char *map = support_map(file, 0, PAGE);
	CHECK_OK(fm_map(file, 0, PAGE, (struct fm_map_options *)map, &addr));
	CHECK_OK(fm_advise(mm, map, PAGE, FM_ADVICE_DONTNEED));
	CHECK_OK(fm_file_open(mm, map + 1024, NULL, &other));
	CHECK_OK(fm_file_close(other));
	CHECK_OK(fm_unmap(mm, map, PAGE));
	CHECK_OK(fm_unmap(mm, map, PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_b16(void)
{
	unsigned char got[PAGE];
	fm_mm *mm = support_mm(16 * PAGE);
	fm_file *file = support_open(mm, support_file(FILE_BYTES, 1), NULL);
	char *map = support_map(file, 0, FILE_BYTES);
	int fd[2];

	CHECK_EQ(pipe(fd), 0);
	for (unsigned i = 0; i < 8; i++) {
		struct iovec iov = {map + i * 40 * PAGE, PAGE};
		CHECK_OK(fm_pin(mm, iov.iov_base, PAGE, 0));
		CHECK_EQ(vmsplice(fd[1], &iov, 1, 0), PAGE);
		support_expect(mm, map + 64 * PAGE, 64 * PAGE, 128 * PAGE, 1);
		CHECK_EQ(read(fd[0], got, PAGE), PAGE);
		CHECK_EQ(support_differs(got, i * 40 * PAGE, PAGE, 1), UINT64_MAX);
		CHECK_OK(fm_unpin(mm, iov.iov_base, PAGE));
	}
	close(fd[0]);
	close(fd[1]);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ B17 */

static struct {
	int fd;
	const char *from;
	ssize_t put;
	atomic_bool done;
} call;
static volatile sig_atomic_t alarms;

static void on_signal(int signo)
{
	(void)signo;
	alarms++;
}

static void *caller(void *arg)
{
	(void)arg;
	do {
		call.put = write(call.fd, call.from, 16);
	} while (call.put < 0 && errno == EINTR);
	call.done = true;
	return NULL;
}

static void test_b17(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	pthread_t thread;
	int fd[2];
	char got[16];
	fm_mm *mm = support_mm(64 * PAGE);
	const char *path = support_file(FILE_BYTES, 1);
	fm_file *file = support_open(mm, support_format("faulty:%s", path), NULL);
	char *map = support_map(file, 0, FILE_BYTES);

	CHECK_OK(fm_advise(mm, map, FILE_BYTES, FM_ADVICE_RANDOM));
	if (test_trap() != FM_TRAP_THREAD || !calls_are_served(mm, map + 512 * PAGE)) {
		printf("B17: system calls are not served here: not tried\n");
		goto out;
	}
	sigaction(SIGUSR1, &action, NULL);
	CHECK_EQ(pipe(fd), 0);
	CHECK_OK(fm_file_control(file, "stuck=1"));
	call.fd = fd[1];
	call.from = map + 8 * PAGE;
	EVENTUALLY(support_stats(mm).requests == 0);
	uint64_t faults = support_faults_settled(mm), reads = support_stats(mm).reads;
	CHECK_EQ(pthread_create(&thread, NULL, caller, NULL), 0);
	EVENTUALLY(support_stats(mm).requests == 1);
	for (int i = 0; i < 200; i++) {
		CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
		support_sleep_ms(1);
	}
	CHECK(!call.done);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(call.put, 16);
	CHECK_EQ(read(fd[0], got, 16), 16);
	CHECK_EQ(support_differs(got, 8 * PAGE, 16, 1), UINT64_MAX);
	EVENTUALLY(support_stats(mm).faults > faults);
	CHECK_LE(support_stats(mm).faults, faults + 2);
	CHECK_EQ(support_stats(mm).reads, reads + 1);
	close(fd[0]);
	close(fd[1]);
out:
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	hazard_watch("a system call on a mapping never ended");
	test_b01();
	test_b08();
	test_b16();
	test_b17();
	return 0;
}
