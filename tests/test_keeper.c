/* SPDX-License-Identifier: MIT */
/*
 * FM_KEEP: what comes after the program. A successor begins at once, with this library or without,
 * after kill -9 or by exec(). The test also looks at what the keeper has and what the keeper may
 * do. Threads may outlive the main thread.
 *
 * Seen to fail: each part with the keeper as it was before. That keeper wrote over the successor's
 * bytes, kept ports and locks, and was root.
 */
#include "hazard_support.h"

#include "os/syscall.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES   (2 * MIB)
#define PAGES   (BYTES / PAGE)
#define WAIT_NS (30000 * MS_NS)
#define THREADS 2u
#define WORDS   4096u /* a word in every 512 bytes */

/* Memory that parent and child share. */
static struct shared {
	_Atomic uint32_t ready, keeper, opened, ran;
	_Atomic int result[4];
	_Atomic uint64_t told[WORDS];
} * shared;

static const char *path;
static fm_mm *mm;
static char *addr;

static void begin(void)
{
	struct fm_mm_options mm_options = {
		.size = sizeof(mm_options), .budget_bytes = 16 * MIB, .flags = FM_KEEP};
	struct fm_file_options options = {.size = sizeof(options), .flags = FM_FILE_WRITE};
	struct fm_map_options map_options = {.size = sizeof(map_options), .flags = FM_MAP_WRITE};
	fm_file *file;
	void *to;

	CHECK_OK(fm_mm_create(&mm_options, &mm));
	CHECK_OK(fm_file_open(mm, path, &options, &file));
	CHECK_OK(fm_map(file, 0, BYTES, &map_options, &to));
	addr = to;
	shared->keeper = (uint32_t)mm->keeper.pid;
}

static void make_file(void)
{
	path = support_path();
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, BYTES) == 0);
	close(fd);
	memset(shared, 0, sizeof(*shared));
}

/* Write every second page, so that the keeper needs as many writes. */
static void write_pages(char what)
{
	for (uint64_t i = 0; i < PAGES; i += 2)
		((volatile char *)addr)[i * PAGE] = what;
}

static void expect_pages(char what)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	for (uint64_t i = 0; i < PAGES; i += 2) {
		char got = 0;
		CHECK_EQ(pread(fd, &got, 1, (off_t)(i * PAGE)), 1);
		if (got != what)
			CHECK_FAIL("page %llu has %#x, not '%c'", (unsigned long long)i, got, what);
	}
	close(fd);
}

static pid_t child(void (*body)(void))
{
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		support_no_core();
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed check leaves no child behind */
		body();
		_exit(0);
	}
	return pid;
}

static pid_t ready_child(void (*body)(void))
{
	int status = 0;
	pid_t pid = child(body), ended = 0;
	EVENTUALLY(shared->ready || (ended = waitpid(pid, &status, WNOHANG)) != 0);
	if (!shared->ready)
		CHECK_FAIL("the child has ended: waitpid() %d, errno %d, status %#x", (int)ended, errno,
			   (unsigned)status);
	return pid;
}

static void kill_child(pid_t pid)
{
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

static void writes_and_waits(void)
{
	begin();
	write_pages('A');
	shared->ready = 1;
	for (;;)
		pause();
}

/* ------------------------------------------------------------------ a successor */

static void put_new(int fd)
{
	for (uint64_t i = 0; i < PAGES; i += 2)
		CHECK_EQ(pwrite(fd, "N", 1, (off_t)(i * PAGE)), 1);
	CHECK_EQ(fdatasync(fd), 0);
}

/* The successor does not use the library. If the successor has the file open all the time, there is
 * no lease that it could wait for. */
static void test_stranger(bool has_it_open)
{
	for (unsigned round = 0; round < 4; round++) {
		make_file();
		int fd = has_it_open ? open(path, O_RDWR | O_CLOEXEC) : -1;
		kill_child(ready_child(writes_and_waits));
		if (!has_it_open)
			fd = open(path, O_RDWR | O_CLOEXEC);
		CHECK(fd >= 0);
		put_new(fd);
		close(fd);
		int err = fm_keeper_wait(path, WAIT_NS);
		CHECK(!err || err == -ESTALE);
		expect_pages('N');
		unlink(path);
	}
}

/* A reader with the library sees all bytes. A supervisor waits for the keeper without opening the
 * file. */
static void test_reader(void)
{
	make_file();
	kill_child(ready_child(writes_and_waits));
	fm_mm *own = support_mm(MIB);
	fm_file *file = support_open(own, path, NULL);
	char *seen = support_map(file, 0, BYTES), got;
	for (uint64_t i = 0; i < PAGES; i += 2) {
		CHECK_OK(support_read(own, seen + i * PAGE, &got, 1));
		CHECK_EQ(got, 'A');
	}
	CHECK_OK(fm_mm_destroy(own));
	unlink(path);

	make_file();
	kill_child(ready_child(writes_and_waits));
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	expect_pages('A');
	unlink(path);
}

static void test_wait(void)
{
	CHECK_EQ(fm_keeper_wait(NULL, 0), -EINVAL);
	CHECK_EQ(fm_keeper_wait("/nothing/there", 0), -ENOENT);
	make_file();
	CHECK_OK(fm_keeper_wait(path, 0));
	pid_t pid = ready_child(writes_and_waits);
	CHECK_EQ(fm_keeper_wait(path, 20 * MS_NS), -ETIMEDOUT);
	/* Other processes may open the file while the program lives. */
	fm_mm *own = support_mm(MIB);
	support_open(own, path, NULL);
	CHECK_OK(fm_mm_destroy(own));
	kill_child(pid);
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	unlink(path);
}

/* ------------------------------------------------------------------ exec() */

static void forbid(int call)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, filter};

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static bool kcmp_forbidden, has_child;

static void becomes_another(void)
{
	if (kcmp_forbidden)
		forbid(SYS_kcmp);
	begin();
	write_pages('A');
	if (has_child) { /* the child inherits all descriptors there are */
		pid_t pid = fork();
		if (!pid) {
			sleep(3);
			_exit(0);
		}
	}
	execl("/proc/self/exe", "test_keeper", "second", path, (char *)NULL);
}

/* The program after exec() sees what the program before had written, and its own writes stay. */
static int second(const char *file_path)
{
	path = file_path;
	begin();
	for (uint64_t i = 0; i < PAGES; i += 2)
		if (addr[i * PAGE] != 'A')
			return 3;
	write_pages('B');
	if (fm_sync(mm, addr, BYTES, 0))
		return 4;
	return fm_mm_destroy(mm) ? 5 : 0;
}

static void test_exec(void)
{
	for (unsigned round = 0; round < 6; round++) {
		int status;
		make_file();
		kcmp_forbidden = round % 2;
		has_child = round >= 4;
		pid_t pid = child(becomes_another);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 0);
		CHECK_OK(fm_keeper_wait(path, WAIT_NS));
		expect_pages('B');
		unlink(path);
	}
}

/* ------------------------------------------------------------------ generations */

/* Thread n writes the words n, n + THREADS, and so on. The thread reports a value after it has
 * written the value. */
static void *generation_writer(void *arg)
{
	uint64_t n = (uint64_t)(uintptr_t)arg, random = (uint64_t)getpid() * 977 + n;

	for (;;) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		uint64_t word = (random >> 33) % (WORDS / THREADS) * THREADS + n;
		volatile uint64_t *at = (volatile uint64_t *)(void *)(addr + word * 512);
		uint64_t value = shared->told[word] + 1;
		*at = value;
		if ((random >> 20) % 64 == 0)
			CHECK_OK(fm_sync(mm, addr + (word * 512 & ~(PAGE - 1)), PAGE, 0));
		shared->told[word] = value;
	}
	return NULL;
}

/* Each thread may have written one word more than it reported. */
static void check_generation(void)
{
	unsigned untold[THREADS] = {0};
	for (uint64_t word = 0; word < WORDS; word++) {
		uint64_t got = *(volatile uint64_t *)(void *)(addr + word * 512),
			 told = shared->told[word];
		if (got == told)
			continue;
		if (got != told + 1 || untold[word % THREADS]++)
			CHECK_FAIL("word %llu has %llu, but the writer reported %llu",
				   (unsigned long long)word, (unsigned long long)got,
				   (unsigned long long)told);
		shared->told[word] = got;
	}
}

static void generation(void)
{
	pthread_t thread;

	begin();
	check_generation();
	shared->ready = 1;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread, NULL, generation_writer, (void *)i), 0);
	pthread_join(thread, NULL);
}

static void test_generations(void)
{
	make_file();
	for (unsigned round = 0; round < 20; round++) {
		shared->ready = 0;
		pid_t pid = ready_child(generation);
		support_sleep_ms(round % 5 * 2);
		kill_child(pid);
	}
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	addr = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(addr != MAP_FAILED);
	check_generation();
	munmap(addr, BYTES);
	close(fd);
	unlink(path);
}

/* ------------------------------------------------------------------ threads */

static void *other_thread(void *arg)
{
	support_sleep_ms(1300); /* longer than any periodic check */
	write_pages('A');
	shared->ready = 1;
	for (;;)
		pause();
	return arg;
}

static void main_thread_ends(void)
{
	pthread_t thread;

	begin();
	CHECK_EQ(pthread_create(&thread, NULL, other_thread, NULL), 0);
	pthread_exit(NULL);
}

static void test_main_thread_ends(void)
{
	make_file();
	kill_child(ready_child(main_thread_ends));
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	expect_pages('A');
	unlink(path);
}

/* Whatever the program does to its descriptors does not reach the keeper. */
static void closes_all(void)
{
	begin();
	write_pages('A');
	CHECK_EQ(syscall(SYS_close_range, 3u, ~0u, 0), 0);
	shared->ready = 1;
	for (;;)
		pause();
}

static void test_closes_all(void)
{
	make_file();
	kill_child(ready_child(closes_all));
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	expect_pages('A');
	unlink(path);
}

/* ------------------------------------------------------------------ what the keeper has */

static int port_fd(uint16_t port)
{
	struct sockaddr_in name = {.sin_family = AF_INET,
				   .sin_port = htons(port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&name, sizeof(name)) || listen(fd, 1)) {
		close(fd);
		return -1;
	}
	return fd;
}

static uint16_t port;
static int pipe_fd[2];
static const char *lock_path;

/* The file size limit refuses half of the writes, so the keeper has to try for a while. */
static void holds_things(void)
{
	struct rlimit most = {MIB, RLIM_INFINITY}; /* half of the file */
	int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(flock(lock, LOCK_EX | LOCK_NB), 0);
	port = 20000;
	while (port_fd(port) < 0)
		port++;
	atomic_store(&shared->opened, port);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &most), 0);
	writes_and_waits();
}

static void test_holds(void)
{
	make_file();
	lock_path = support_path();
	CHECK_EQ(pipe2(pipe_fd, O_CLOEXEC), 0);
	kill_child(ready_child(holds_things));
	close(pipe_fd[1]);
	int fd = port_fd((uint16_t)shared->opened), lock = open(lock_path, O_RDWR | O_CLOEXEC);
	char byte;
	CHECK(fd >= 0);
	CHECK_EQ(flock(lock, LOCK_EX | LOCK_NB), 0);
	CHECK_EQ(read(pipe_fd[0], &byte, 1), 0);
	CHECK_EQ(fm_keeper_wait(path, 0), -ETIMEDOUT); /* the keeper is still trying */
	CHECK_EQ(kill((pid_t)shared->keeper, SIGKILL), 0);
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	close(fd);
	close(lock);
	close(pipe_fd[0]);
	unlink(lock_path);
	unlink(path);
}

/* ------------------------------------------------------------------ what the keeper may do */

/* Return the number after NAME: in /proc/PID/status. */
static uint64_t status_of(uint32_t pid, const char *name, int base)
{
	char file_path[64], line[512];
	uint64_t value = UINT64_MAX;

	snprintf(file_path, sizeof(file_path), "/proc/%u/status", pid);
	FILE *f = fopen(file_path, "re");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
			value = strtoull(line + strlen(name) + 1, NULL, base);
	fclose(f);
	return value;
}

/* The actions of an attacker who can write to the program's memory. Runs in the keeper, so only raw
 * system calls are used. */
static void evil(void *arg)
{
	(void)arg;
	shared->result[0] =
		(int)os_syscall4(SYS_openat, AT_FDCWD, (long)"/etc/passwd", O_RDONLY, 0);
	shared->result[1] = (int)os_syscall2(SYS_kill, 1, 0);
	shared->result[2] = (int)os_syscall3(SYS_execve, (long)"/bin/true", NULL, NULL);
	shared->result[3] = (int)os_syscall3(SYS_socket, AF_INET, SOCK_STREAM, 0);
	shared->ran = 1;
}

static void drops_rights(void)
{
	begin();
	write_pages('A');
	if (!geteuid())
		CHECK(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	shared->ready = 1;
	pause();
}

static void is_broken(void)
{
	begin();
	mm->keeper.fn = evil;
	shared->ready = 1;
	pause();
}

static void test_rights(void)
{
	uint32_t own = geteuid() ? geteuid() : 65534;

	make_file();
	pid_t pid = ready_child(drops_rights);
	CHECK_EQ(status_of(shared->keeper, "CapEff", 16), 0);
	CHECK_EQ(status_of(shared->keeper, "Seccomp", 10), 2);
	CHECK_EQ(status_of(shared->keeper, "NoNewPrivs", 10), 1);
	EVENTUALLY(status_of(shared->keeper, "Uid", 10) == own);
	EVENTUALLY(status_of(shared->keeper, "CapPrm", 16) ==
		   status_of((uint32_t)pid, "CapPrm", 16));
	kill_child(pid);
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	expect_pages('A');
	unlink(path);

	make_file();
	kill_child(ready_child(is_broken));
	EVENTUALLY(shared->ran);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(shared->result[i], -EPERM);
	CHECK_OK(fm_keeper_wait(path, WAIT_NS));
	unlink(path);
}

static void test(void)
{
	hazard_watch("test_wait hangs");
	test_wait();
	hazard_watch("test_reader hangs");
	test_reader();
	hazard_watch("test_stranger hangs");
	test_stranger(false);
	hazard_watch("test_stranger hangs");
	test_stranger(true);
	hazard_watch("test_exec hangs");
	test_exec();
	hazard_watch("test_generations hangs");
	test_generations();
	hazard_watch("test_main_thread_ends hangs");
	test_main_thread_ends();
	hazard_watch("test_closes_all hangs");
	test_closes_all();
	hazard_watch("test_holds hangs");
	test_holds();
	hazard_watch("test_rights hangs");
	test_rights();
}

int main(int argc, char **argv)
{
	const int shared_fd = 200;
	int result = 0;

	if (argc == 3)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd,
			      0);
	if (argc == 3)
		_exit(shared == MAP_FAILED ? 2 : second(argv[2]));
	int fd = memfd_create("shared", 0);
	CHECK(fd >= 0 && dup2(fd, shared_fd) == shared_fd && ftruncate(fd, sizeof(*shared)) == 0);
	close(fd);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
	CHECK(shared != MAP_FAILED);
	hazard_watch("the test hangs");
	support_start();
	test();
	support_end();
	return result;
}
