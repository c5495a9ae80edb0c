/* SPDX-License-Identifier: MIT */
/*
 * A program that knows nothing of the library, for test_run.sh: run_program SCENARIO FILE. Each
 * scenario makes FILE, maps it, does what programs do to mappings, and checks each byte and each
 * answer. The kernel's own mapping passes every scenario. With FM_RUN_SERVED=1 in the environment,
 * the scenario also checks that its mapping was served at first, and that no mapping is served
 * where the kernel must have it.
 */
#include "run_program.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const char *path, *program;

unsigned char byte_of(uint64_t offset, unsigned generation)
{
	return (unsigned char)(offset ^ offset >> 8 ^ offset >> 15 ^ generation * 37);
}

static void fill(unsigned char *buf, uint64_t offset, size_t len, unsigned generation)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = byte_of(offset + i, generation);
}

void write_all(int fd, unsigned generation)
{
	static unsigned char buf[64 << 10];

	for (uint64_t at = 0; at < SIZE; at += sizeof(buf)) {
		size_t len = SIZE - at < sizeof(buf) ? SIZE - at : sizeof(buf);
		fill(buf, at, len, generation);
		CHECK_EQ(pwrite(fd, buf, len, (off_t)at), (ssize_t)len);
	}
}

void make_file(unsigned generation)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	write_all(fd, generation);
	CHECK_EQ(fsync(fd), 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

bool is_kernels(const volatile void *addr)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[4096 + 128];
	bool kernels = false;

	CHECK(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long long start, end;
		if (sscanf(line, "%llx-%llx", &start, &end) == 2 && (uintptr_t)addr >= start &&
		    (uintptr_t)addr < end)
			kernels = strchr(line, '/') != NULL;
	}
	fclose(maps);
	return kernels;
}

void expect_served(const volatile void *addr, bool served)
{
	if (getenv("FM_RUN_SERVED"))
		CHECK_EQ(!is_kernels(addr), served);
}

void expect_bytes(const volatile unsigned char *addr, uint64_t offset, uint64_t len,
		  unsigned generation)
{
	for (uint64_t i = 0; i < len; i++) {
		unsigned char want = offset + i < SIZE ? byte_of(offset + i, generation) : 0;
		if (addr[i] != want)
			CHECK_FAIL("byte %llu: %u, not %u", (unsigned long long)(offset + i), addr[i], want);
	}
}

unsigned char *map_part(uint64_t offset, size_t len, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *addr;

	CHECK(fd >= 0);
	addr = mmap(NULL, len, PROT_READ, flags, fd, (off_t)offset);
	CHECK(addr != MAP_FAILED);
	close(fd);
	expect_served(addr, true);
	return addr;
}

unsigned char *map_file(int flags)
{
	return map_part(0, LEN, flags);
}

/* ------------------------------------------------------------------ plain reads */

static void scenario_read(void)
{
	make_file(0);
	for (int round = 0; round < 2; round++) {
		int flags = round ? MAP_PRIVATE : MAP_SHARED;
		unsigned char *addr = map_file(flags), *part = map_part(LEN / 2, LEN / 4 + 5, flags);
		int fds[2];
		unsigned char buf[512];

		for (uint64_t at = 0; at < SIZE; at += 300 * PAGE + 7) /* some first by a system call */ {
			size_t len = SIZE - at < sizeof(buf) ? SIZE - at : sizeof(buf);
			CHECK_EQ(pipe(fds), 0);
			CHECK_EQ(write(fds[1], addr + at, len), (ssize_t)len);
			CHECK_EQ(read(fds[0], buf, len), (ssize_t)len);
			expect_bytes(buf, at, len, 0);
			close(fds[0]);
			close(fds[1]);
		}
		expect_bytes(addr, 0, LEN, 0);
		expect_bytes(part, LEN / 2, LEN / 4 + 5, 0);
		errno = 0;
		CHECK_EQ(read(open(path, O_RDONLY), addr, 1), -1);
		CHECK_EQ(errno, EFAULT);
		CHECK_EQ(munmap(part, LEN / 4 + 5), 0);
		CHECK_EQ(munmap(addr, LEN), 0);
	}
	/* What the kernel serves in any case. */
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char *addr = mmap(NULL, LEN, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(addr != MAP_FAILED);
	expect_served(addr, false);
	expect_bytes(addr, 0, LEN, 0);
	munmap(addr, LEN);
	addr = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	expect_served(addr, false);
	close(fd);
}

/* ------------------------------------------------------------------ a writer comes */

#define READERS 3

static struct {
	volatile unsigned char *addr[2];
	uint32_t stop, may, must; /* the newest and the oldest generation that may be seen */
} shared;

static void *reader(void *arg)
{
	uint64_t state = (uintptr_t)arg * 77773 + 1;

	while (!__atomic_load_n(&shared.stop, __ATOMIC_SEQ_CST)) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		uint64_t at = (state >> 20) % SIZE;
		uint32_t must = __atomic_load_n(&shared.must, __ATOMIC_SEQ_CST);
		unsigned char got = shared.addr[state >> 63][at];
		uint32_t may = __atomic_load_n(&shared.may, __ATOMIC_SEQ_CST);
		bool right = false;
		for (uint32_t g = must; g <= may; g++)
			right |= got == byte_of(at, g);
		if (!right)
			CHECK_FAIL("byte %llu: %u, of no generation from %u to %u",
				   (unsigned long long)at, got, must, may);
	}
	return NULL;
}

/* A process that opens the file for writing when it is told. */
static void writer_process(int commands, int answers)
{
	unsigned generation;

	while (read(commands, &generation, sizeof(generation)) == sizeof(generation)) {
		int fd = open(path, O_RDWR | O_CLOEXEC);
		CHECK(fd >= 0);
		if (generation) {
			write_all(fd, generation);
		} else { /* only makes the file what it was */
			CHECK_EQ(ftruncate(fd, PAGE), 0);
		}
		close(fd);
		CHECK_EQ(write(answers, &generation, sizeof(generation)), (ssize_t)sizeof(generation));
	}
	_exit(0);
}

static int command_fd, answer_fd;
static pid_t writer_pid;

void writer_start(void)
{
	int commands[2], answers[2];

	CHECK_EQ(pipe2(commands, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(answers, O_CLOEXEC), 0);
	writer_pid = fork();
	CHECK(writer_pid >= 0);
	if (!writer_pid) {
		close(commands[1]);
		close(answers[0]);
		writer_process(commands[0], answers[1]);
	}
	close(commands[0]);
	close(answers[1]);
	command_fd = commands[1];
	answer_fd = answers[0];
}

void writer_tell(unsigned generation)
{
	CHECK_EQ(write(command_fd, &generation, sizeof(generation)), (ssize_t)sizeof(generation));
}

void writer_wait(void)
{
	unsigned generation;

	CHECK_EQ(read(answer_fd, &generation, sizeof(generation)), (ssize_t)sizeof(generation));
}

void writer_end(void)
{
	int status;

	close(command_fd);
	close(answer_fd);
	CHECK_EQ(waitpid(writer_pid, &status, 0), writer_pid);
	CHECK_EQ(status, 0);
}

static void scenario_writer(void)
{
	pthread_t thread[READERS];

	make_file(1);
	writer_start();
	for (unsigned round = 1; round <= 24; round++) {
		shared.addr[0] = map_file(MAP_SHARED);
		shared.addr[1] = map_file(MAP_PRIVATE);
		shared.stop = 0;
		shared.may = shared.must = round;
		for (uintptr_t i = 0; i < READERS; i++)
			CHECK_EQ(pthread_create(&thread[i], NULL, reader, (void *)i), 0);
		usleep(1000 * (round % 7) * 5);
		__atomic_store_n(&shared.may, round + 1, __ATOMIC_SEQ_CST);
		writer_tell(round + 1);
		writer_wait();
		__atomic_store_n(&shared.must, round + 1, __ATOMIC_SEQ_CST);
		expect_served(shared.addr[0], false);
		expect_served(shared.addr[1], false);
		expect_bytes(shared.addr[0], 0, LEN, round + 1);
		expect_bytes(shared.addr[1], 0, LEN, round + 1);
		__atomic_store_n(&shared.stop, 1u, __ATOMIC_SEQ_CST);
		for (int i = 0; i < READERS; i++)
			pthread_join(thread[i], NULL);
		CHECK_EQ(munmap((void *)(uintptr_t)shared.addr[0], LEN), 0);
		CHECK_EQ(munmap((void *)(uintptr_t)shared.addr[1], LEN), 0);
	}
	writer_end();
	/* The program itself opens the file for writing, without waiting and with. */
	unsigned char *addr = map_file(MAP_SHARED);
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	CHECK(fd >= 0 || errno == EWOULDBLOCK);
	if (fd >= 0)
		close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	expect_served(addr, false);
	CHECK_EQ(pwrite(fd, "x", 1, 99), 1);
	CHECK_EQ(addr[99], 'x');
	close(fd);
}

/* ------------------------------------------------------------------ children */

int child_reads(void *arg)
{
	volatile unsigned char *addr = arg;
	pid_t pid;
	int status;

	if (getenv("FM_RUN_SERVED") && !is_kernels(addr))
		return 2;
	expect_bytes(addr, 0, LEN, 0);
	pid = fork(); /* a grandchild */
	if (!pid) {
		expect_bytes(addr, 0, LEN, 0);
		_exit(0);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

void expect_child(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void scenario_fork(void)
{
	static char stack[256 << 10] __attribute__((aligned(64)));
	pthread_t thread[READERS];

	make_file(0);
	unsigned char *addr = map_file(MAP_SHARED);
	unsigned char *private = map_file(MAP_PRIVATE);
	shared.addr[0] = addr;
	shared.addr[1] = private;
	for (uintptr_t i = 0; i < READERS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, reader, (void *)i), 0);
	for (int round = 0; round < 12; round++) {
		pid_t pid = round % 3 == 1 ? _Fork() : round % 3 == 2 ? 0 : fork();
		if (round % 3 == 2)
			pid = clone(child_reads, stack + sizeof(stack), SIGCHLD, addr);
		else if (!pid)
			_exit(child_reads(round % 2 ? addr : private));
		expect_child(pid);
		pid = vfork();
		if (!pid) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(1);
		}
		expect_child(pid);
		expect_served(addr, true);
	}
	char *argv[] = {(char *)(uintptr_t)program, (char *)"read", (char *)malloc(4096), NULL};
	pid_t pid;
	snprintf(argv[2], 4096, "%s.2", path);
	CHECK_EQ(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
	expect_child(pid);
	unlink(argv[2]);
	free(argv[2]);
	/* A child that outlives its parent holds no lease: the file can be opened for writing. */
	int fds[2];
	CHECK_EQ(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		pid_t last = fork();
		char byte;
		if (last)
			_exit(0);
		close(fds[1]);
		_exit((int)read(fds[0], &byte, 1));
	}
	expect_child(pid);
	shared.stop = 1;
	for (int i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	expect_bytes(addr, 0, LEN, 0);
	munmap(addr, LEN);
	munmap(private, LEN);
	CHECK(open(path, O_RDWR | O_NONBLOCK) >= 0);
}

/* ------------------------------------------------------------------ many */

static void scenario_many(void)
{
	enum { COUNT = 1000 };
	static unsigned char *addr[COUNT];

	make_file(0);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < COUNT; i++) {
		uint64_t offset = (uint64_t)i % 32 * 16 * PAGE;
		addr[i] = mmap(NULL, 32 * PAGE, PROT_READ, i % 2 ? MAP_SHARED : MAP_PRIVATE, fd,
			       (off_t)offset);
		CHECK(addr[i] != MAP_FAILED);
	}
	for (int i = 0; i < COUNT; i++) {
		uint64_t offset = (uint64_t)i % 32 * 16 * PAGE;
		expect_bytes(addr[i] + (uint64_t)i % 32 * PAGE, offset + (uint64_t)i % 32 * PAGE, PAGE, 0);
	}
	for (int i = 0; i < COUNT; i += 2)
		CHECK_EQ(munmap(addr[i], 32 * PAGE), 0);
	pid_t pid = fork();
	if (!pid) {
		for (int i = 1; i < COUNT; i += 2)
			expect_bytes(addr[i], (uint64_t)i % 32 * 16 * PAGE, PAGE, 0);
		_exit(0);
	}
	expect_child(pid);
	int writer = open(path, O_RDWR);
	CHECK(writer >= 0);
	write_all(writer, 1);
	for (int i = 1; i < COUNT; i += 2)
		expect_bytes(addr[i], (uint64_t)i % 32 * 16 * PAGE, PAGE, 1);
}

/* ------------------------------------------------------------------ the end of the process */

static void scenario_exit(void)
{
	pthread_t thread;

	make_file(0);
	shared.addr[0] = map_file(MAP_SHARED);
	shared.addr[1] = map_file(MAP_PRIVATE);
	for (uintptr_t i = 0; i < READERS; i++)
		CHECK_EQ(pthread_create(&thread, NULL, reader, (void *)i), 0);
	usleep(20000);
	exit(7); /* the readers go on meanwhile */
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} scenarios[] = {
		{"read", scenario_read}, {"writer", scenario_writer}, {"fork", scenario_fork},
		{"change", scenario_change}, {"end", scenario_end}, {"close", scenario_close},
		{"few", scenario_few}, {"many", scenario_many}, {"exit", scenario_exit},
	};

	CHECK_EQ(argc, 3);
	program = argv[0];
	path = argv[2];
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
		if (!strcmp(argv[1], scenarios[i].name)) {
			scenarios[i].run();
			return 0;
		}
	CHECK_FAIL("%s: no such scenario", argv[1]);
}
