/* SPDX-License-Identifier: MIT */
/*
 * A mapping must survive what a program does to its descriptors. The program closes all
 * descriptors from 3 on, as daemons do. Or the program puts another file at each number, or has a
 * thread that leaves the table. Afterwards pages are read, written and synced, a new file is
 * opened, and the mm ends. The other file must not have a byte of the mapped file. Each way runs
 * in a child, which begins with a fresh table.
 *
 * The test shows hazard E5. Seen to fail on commit 190f216: zeros for data after closefrom(), the
 * other file's bytes in the mapping, and the other file's contents overwritten.
 */
#include "write_support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 256
#define ALARM_SECONDS 60

enum harm { HARM_CLOSED, HARM_REPLACED, HARM_DOUBLE_CLOSE, HARM_UNSHARED, HARM_FEW, HARMS };
static const char *const harm_names[] = {"closed", "replaced", "double close", "unshared",
					 "few numbers"};
static const char *path, *victim, *other;

static void close_all(void)
{
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
}

/* Put the victim at each number that is in use. */
static void replace_all(void)
{
	int with = open(victim, O_RDWR);

	CHECK(with >= 0);
	for (int fd = 3; fd < 1024; fd++)
		if (fd != with && fcntl(fd, F_GETFD) >= 0)
			CHECK_EQ(dup2(with, fd), fd);
}

static void close_the_files(void)
{
	char target[512];

	for (int fd = 3; fd < 1024; fd++) {
		ssize_t len = readlink(support_format("/proc/self/fd/%d", fd), target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = 0;
		if (strcmp(target, path) == 0)
			close(fd);
	}
	CHECK(open(victim, O_RDWR) >= 0);
}

static void harm(enum harm how)
{
	if (how == HARM_REPLACED)
		replace_all();
	else if (how == HARM_DOUBLE_CLOSE)
		close_the_files();
	else
		close_all();
}

struct mapped {
	fm_mm *mm;
	fm_file *file;
	unsigned char *at;
	int error;
};

static void expect_pages(const struct mapped *mapped, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++)
		support_expect(mapped->mm, mapped->at + i * PAGE, i * PAGE, PAGE, 1);
}

static void use(struct mapped *mapped)
{
	unsigned char bytes[PAGE];

	expect_pages(mapped, 20, 8);
	memset(bytes, 'W', sizeof(bytes));
	for (unsigned i = 10; i < 14; i++)
		CHECK_OK(write_to(mapped->mm, mapped->at + i * PAGE, bytes, sizeof(bytes)));
	CHECK_OK(fm_sync(mapped->mm, mapped->at, PAGES * PAGE, 0));
	CHECK_OK(fm_punch(mapped->file, 40 * PAGE, PAGE));
	expect_pages(mapped, 100, 40);
}

static void *use_unshared(void *arg)
{
	CHECK_EQ(unshare(CLONE_FILES), 0);
	close_all();
	use(arg);
	return NULL;
}

static void expect_file(void)
{
	static unsigned char bytes[PAGES * PAGE];
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
	close(fd);
	for (size_t i = 10 * PAGE; i < 14 * PAGE; i++)
		CHECK_EQ(bytes[i], 'W');
	for (size_t i = 40 * PAGE; i < 41 * PAGE; i++)
		CHECK_EQ(bytes[i], 0);
	support_fill(bytes + 10 * PAGE, 10 * PAGE, 4 * PAGE, 1);
	support_fill(bytes + 40 * PAGE, 40 * PAGE, PAGE, 1);
	CHECK_EQ(support_differs(bytes, 0, sizeof(bytes), 1), UINT64_MAX);
}

static void body(enum harm how)
{
	struct rlimit few = {16, 16};
	struct mapped mapped, later;
	pthread_t thread;

	if (how == HARM_FEW)
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
	mapped.mm = support_mm(0);
	mapped.file = write_open(mapped.mm, path);
	mapped.at = write_map(mapped.file, 0, PAGES * PAGE);
	expect_pages(&mapped, 0, 2);
	write_to(mapped.mm, mapped.at + 10 * PAGE, "before", 6);
	if (how == HARM_UNSHARED) {
		CHECK_EQ(pthread_create(&thread, NULL, use_unshared, &mapped), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	} else {
		harm(how);
		use(&mapped);
	}
	later.file = support_open(mapped.mm, other, NULL);
	later.at = support_map(later.file, 0, 16 * PAGE);
	support_expect(mapped.mm, later.at, 0, 16 * PAGE, 3);
	CHECK_OK(fm_unmap(mapped.mm, later.at, 16 * PAGE));
	CHECK_OK(fm_file_close(later.file));
	CHECK_OK(fm_unmap(mapped.mm, mapped.at, PAGES * PAGE));
	CHECK_OK(fm_file_close(mapped.file));
	CHECK_OK(fm_mm_destroy(mapped.mm));
	expect_file();
}

static void expect_victim(void)
{
	static unsigned char bytes[PAGES * PAGE];
	int fd = open(victim, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(read(fd, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
	CHECK_EQ(read(fd, bytes, 1), 0);
	close(fd);
	fd = open(victim, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(fd, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
	close(fd);
	CHECK_EQ(support_differs(bytes, 0, sizeof(bytes), 2), UINT64_MAX);
}

/* ------------------------------------------------------------------ no second table */

static void forbid_tables(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static bool was_told;

static void note(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	was_told |= strstr(line, "close_range") != NULL;
}

/* Check that a touch shows the right bytes or fails. Under the thread trap a touch could end with
 * SIGSEGV; main() skips these cases there. */
static void expect_no_wrong_byte(const struct mapped *mapped, unsigned page)
{
	unsigned char bytes[PAGE];

	if (!support_read(mapped->mm, mapped->at + page * PAGE, bytes, sizeof(bytes)))
		CHECK_EQ(support_differs(bytes, page * PAGE, sizeof(bytes), 1), UINT64_MAX);
}

static void body_forbidden(enum harm how)
{
	struct fm_mm_options options = {.size = sizeof(options), .log = note, .trap = test_trap()};
	struct mapped mapped;

	forbid_tables();
	CHECK_OK(fm_mm_create(&options, &mapped.mm));
	CHECK(was_told);
	mapped.file = write_open(mapped.mm, path);
	mapped.at = write_map(mapped.file, 0, PAGES * PAGE);
	expect_pages(&mapped, 0, 2);
	CHECK_OK(write_to(mapped.mm, mapped.at + 10 * PAGE, "before", 6));
	harm(how);
	/* a write that has worked is dirty, or told as lost */
	CHECK(fm_sync(mapped.mm, mapped.at, PAGES * PAGE, 0) < 0);
	support_no_core();
	for (unsigned i = 100; i < 104; i++)
		expect_no_wrong_byte(&mapped, i);
}

static void in_child(enum harm how, bool forbidden)
{
	int status = 0;

	path = support_file(PAGES * PAGE, 1);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		alarm(ALARM_SECONDS);
		if (forbidden)
			body_forbidden(how);
		else
			body(how);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	/* Without its descriptors, the thread trap cannot tell an error to a thread that it stops. */
	if (forbidden && test_trap() == FM_TRAP_THREAD && WIFSIGNALED(status) &&
	    WTERMSIG(status) == SIGSEGV)
		status = 0;
	if (status)
		CHECK_FAIL("%s%s: status %x", harm_names[how], forbidden ? ", no second table" : "",
			   (unsigned)status);
	expect_victim();
}

int main(void)
{
	static char other_path[96], victim_path[96]; /* support_file() keeps eight names */

	snprintf(other_path, sizeof(other_path), "%s", support_file(16 * PAGE, 3));
	snprintf(victim_path, sizeof(victim_path), "%s", support_file(PAGES * PAGE, 2));
	other = other_path;
	victim = victim_path;
	for (enum harm how = 0; how < HARMS; how++)
		in_child(how, false);
	for (unsigned i = 0; i < 4; i++) { /* what the library does just then varies */
		in_child(HARM_CLOSED, true);
		in_child(HARM_REPLACED, true);
	}
	return 0;
}
