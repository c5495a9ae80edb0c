/* SPDX-License-Identifier: MIT */
/* The scenarios of run_program in which the program changes its mapping, or its descriptors. */
#include "run_program.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------ changes of the mapping */

static sigjmp_buf caught;
static siginfo_t caught_info;

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	caught_info = *info;
	siglongjmp(caught, 1);
}

static int signal_of(volatile unsigned char *addr, bool write)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, before[2];
	volatile int signo = 0;

	CHECK_EQ(sigaction(SIGBUS, &action, &before[0]), 0);
	CHECK_EQ(sigaction(SIGSEGV, &action, &before[1]), 0);
	CHECK(before[0].sa_handler == SIG_DFL && before[1].sa_handler == SIG_DFL);
	if (sigsetjmp(caught, 1)) {
		signo = caught_info.si_signo;
		CHECK_EQ(caught_info.si_errno, 0);
		CHECK(caught_info.si_addr == (void *)(uintptr_t)addr);
	} else if (write) {
		*addr = 1;
	} else {
		(void)*addr;
	}
	CHECK_EQ(sigaction(SIGBUS, &before[0], NULL), 0);
	CHECK_EQ(sigaction(SIGSEGV, &before[1], NULL), 0);
	return signo;
}

/* What was handed over for the program's call must not be handed over once more for a writer. */
static void open_for_writing(void)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0);
	close(fd);
}

/* munmap() of a part, and mmap(MAP_FIXED) over a part: the program's own memory stays as it is. */
static void change_parts(void)
{
	unsigned char vec[1];
	uint64_t middle = LEN / 2;

	unsigned char *addr = map_file(MAP_SHARED);
	expect_bytes(addr, 0, middle / 2, 0);
	CHECK_EQ(munmap(addr + middle, 4 * PAGE), 0);
	open_for_writing();
	CHECK_EQ(mincore(addr + middle, PAGE, vec), -1);
	expect_bytes(addr, 0, middle, 0);
	expect_bytes(addr + middle + 4 * PAGE, middle + 4 * PAGE, LEN - middle - 4 * PAGE, 0);
	CHECK_EQ(munmap(addr, LEN), 0);
	addr = map_file(MAP_PRIVATE);
	unsigned char *own = mmap(addr + middle, 8 * PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(own == addr + middle);
	memset(own, 'o', 8 * PAGE);
	expect_bytes(addr, 0, middle, 0);
	unsigned char *other = map_file(MAP_SHARED);
	expect_bytes(other, 0, LEN, 0);
	open_for_writing();
	for (uint64_t i = 0; i < 8 * PAGE; i++)
		CHECK_EQ(own[i], 'o');
	CHECK_EQ(munmap(addr, LEN), 0);
	CHECK_EQ(munmap(other, LEN), 0);
}

/* The same by raw system calls, of which nobody is told. */
static void change_parts_raw(void)
{
	unsigned char vec[1], *addr = map_file(MAP_SHARED);
	uint64_t middle = LEN / 2;

	CHECK_EQ(syscall(SYS_munmap, addr + middle, 4 * PAGE), 0);
	unsigned char *own = addr + 8 * PAGE;
	CHECK_EQ(syscall(SYS_mmap, own, 8 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		 (long)own);
	memset(own, 'o', 8 * PAGE);
	pid_t pid = fork();
	if (!pid) {
		expect_bytes(addr, 0, 8 * PAGE, 0);
		_exit(own[0] != 'o' || mincore(addr + middle, PAGE, vec) != -1);
	}
	expect_child(pid);
	CHECK_EQ(munmap(addr, LEN), 0);
	addr = map_file(MAP_PRIVATE);
	own = addr + middle;
	CHECK_EQ(syscall(SYS_munmap, addr, PAGE), 0);
	CHECK_EQ(syscall(SYS_mmap, own, 8 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		 (long)own);
	memset(own, 'o', 8 * PAGE);
	open_for_writing();
	for (uint64_t i = 0; i < 8 * PAGE; i++)
		CHECK_EQ(own[i], 'o');
	expect_bytes(addr + PAGE, PAGE, middle - PAGE, 0);
	expect_bytes(own + 8 * PAGE, middle + 8 * PAGE, LEN - middle - 8 * PAGE, 0);
	CHECK_EQ(munmap(addr, LEN), 0);
}

static void change_rights(void)
{
	uint64_t middle = LEN / 2;

	/* A private mapping becomes writable, and the file does not change. */
	unsigned char *other = map_file(MAP_SHARED), *addr = map_file(MAP_PRIVATE);
	CHECK_EQ(signal_of(addr + 5, true), SIGSEGV);
	CHECK_EQ(caught_info.si_code, SEGV_ACCERR);
	CHECK_EQ(mprotect(addr, middle, PROT_READ | PROT_WRITE), 0);
	memset(addr, 'p', middle);
	expect_bytes(addr + middle, middle, LEN - middle, 0);
	expect_bytes(other, 0, LEN, 0);
	CHECK_EQ(addr[middle - 1], 'p');
	CHECK_EQ(munmap(addr, LEN), 0);
	/* A shared mapping of a descriptor for reading does not become writable. */
	CHECK_EQ(mprotect(other, PAGE, PROT_READ | PROT_WRITE), -1);
	CHECK_EQ(errno, EACCES);
	expect_bytes(other, 0, LEN, 0);
	CHECK_EQ(munmap(other, LEN), 0);
}

static void change_size(void)
{
	uint64_t middle = LEN / 2;

	unsigned char *addr = map_file(MAP_SHARED);
	addr = mremap(addr, LEN, 2 * LEN, MREMAP_MAYMOVE);
	CHECK(addr != MAP_FAILED);
	expect_bytes(addr, 0, LEN, 0);
	CHECK_EQ(signal_of(addr + LEN, false), SIGBUS);
	CHECK(mremap(addr, 2 * LEN, middle, 0) == addr);
	expect_bytes(addr, 0, middle, 0);
	CHECK_EQ(munmap(addr, middle), 0);
}

static void change_advice(void)
{
	unsigned char vec[16], *addr = map_file(MAP_SHARED);

	CHECK_EQ(madvise(addr, LEN, MADV_RANDOM), 0);
	CHECK_EQ(madvise(addr, LEN, MADV_SEQUENTIAL), 0);
	CHECK_EQ(madvise(addr, LEN / 2, MADV_WILLNEED), 0);
	expect_served(addr, true);
	expect_bytes(addr, 0, LEN, 0);
	CHECK_EQ(madvise(addr, LEN, MADV_DONTNEED), 0);
	expect_bytes(addr, 0, LEN, 0);
	CHECK_EQ(posix_madvise(addr, LEN, POSIX_MADV_DONTNEED), 0);
	CHECK_EQ(madvise(addr + 1, PAGE, MADV_RANDOM), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(madvise(addr, LEN, MADV_REMOVE), -1);
	expect_bytes(addr, 0, LEN, 0);
	CHECK_EQ(munmap(addr, LEN), 0);
	addr = map_file(MAP_SHARED);
	if (mlock(addr, 16 * PAGE) == 0) {
		CHECK_EQ(mincore(addr, 16 * PAGE, vec), 0);
		for (int i = 0; i < 16; i++)
			CHECK(vec[i] & 1);
	}
	expect_bytes(addr, 0, LEN, 0);
	CHECK_EQ(munmap(addr, LEN), 0);
}

void scenario_change(void)
{
	make_file(0);
	change_parts();
	change_parts_raw();
	change_rights();
	change_size();
	change_advice();
}

/* ------------------------------------------------------------------ past the end */

void scenario_end(void)
{
	make_file(0);
	writer_start();
	unsigned char *addr = map_part(0, LEN + 8 * PAGE, MAP_SHARED);
	expect_bytes(addr, 0, LEN, 0);
	expect_served(addr, true);
	CHECK_EQ(signal_of(addr + LEN + 10, false), SIGBUS);
	CHECK_EQ(caught_info.si_code, BUS_ADRERR);
	expect_served(addr, false);
	expect_bytes(addr, 0, LEN, 0);
	CHECK_EQ(munmap(addr, LEN + 8 * PAGE), 0);
	/* a system call gets EFAULT there */
	int fds[2];
	CHECK_EQ(pipe(fds), 0);
	addr = map_part(0, LEN + 8 * PAGE, MAP_PRIVATE);
	CHECK_EQ(write(fds[1], addr + LEN, 1), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(munmap(addr, LEN + 8 * PAGE), 0);
	/* another process makes the file shorter */
	addr = map_file(MAP_SHARED);
	expect_bytes(addr, 0, 64 * PAGE, 0);
	writer_tell(0);
	writer_wait();
	CHECK_EQ(signal_of(addr + PAGE, false), SIGBUS);
	CHECK_EQ(signal_of(addr + LEN / 2, false), SIGBUS);
	expect_bytes(addr, 0, PAGE, 0);
	writer_end();
}

/* ------------------------------------------------------------------ descriptors */

static void close_all(int way)
{
	if (way == 0) {
		for (int fd = 3; fd < 70000; fd++)
			close(fd);
	} else if (way == 1) {
		CHECK_EQ(close_range(3, ~0u, 0), 0);
	} else if (way == 2) {
		closefrom(3);
	} else {
		int null = open("/dev/zero", O_RDONLY);
		for (int fd = null + 1; fd < 66000; fd++)
			if (fcntl(fd, F_GETFD) >= 0)
				CHECK_EQ(dup2(null, fd), fd);
	}
}

void scenario_close(void)
{
	make_file(0);
	for (int way = 0; way < 4; way++) {
		unsigned char *addr = map_file(way % 2 ? MAP_PRIVATE : MAP_SHARED);
		expect_bytes(addr, 0, 100 * PAGE, 0);
		close_all(way);
		expect_bytes(addr, 0, LEN, 0);
		pid_t pid = fork();
		if (!pid)
			_exit(child_reads(addr));
		expect_child(pid);
		CHECK_EQ(munmap(addr, LEN), 0);
	}
	/* The lease is still held: the next writer is met. */
	unsigned char *addr = map_file(MAP_SHARED);
	close_all(1);
	int fd = open(path, O_RDWR);
	CHECK_EQ(pwrite(fd, "y", 1, 5000), 1);
	CHECK_EQ(addr[5000], 'y');
	expect_served(addr, false);
}

void scenario_few(void)
{
	struct rlimit limit = {16, 16};

	make_file(0);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < 40; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		unsigned char *addr = mmap(NULL, LEN, PROT_READ, i % 2 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
		CHECK(addr != MAP_FAILED);
		close(fd);
		expect_bytes(addr, 0, LEN, 0);
	}
}
