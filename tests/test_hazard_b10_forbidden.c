/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B7 and B10.
 *
 * B10: a seccomp filter forbids userfaultfd with EPERM, or with ENOSYS as containers do.
 * /dev/userfaultfd is closed, too. fm_mm_create() fails with that errno and logs one line that says
 * what is missing and what to do.
 *
 * B7: under the inline trap the kernel kills a thread that blocks SIGBUS at the thread's first
 * fault, as documented. The thread neither hangs nor reads zeros. The thread trap serves such a
 * thread.
 *
 * Seen to fail with say_why_not() left out, and with a thread trap that also asks for SIGBUS
 * (tests/HAZARDS.md).
 */
#include "hazard_support.h"

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static unsigned lines;
static char said[512];

static void on_log(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	if (level > FM_LOG_WARNING)
		return;
	lines++;
	snprintf(said, sizeof(said), "%s", line);
}

static void forbid(unsigned error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = filter};

	/* Root may open /dev/userfaultfd, so give up root. */
	if (geteuid() == 0) {
		CHECK_EQ(setgroups(0, NULL), 0);
		CHECK_EQ(setgid(65534), 0);
		CHECK_EQ(setuid(65534), 0);
	}
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static int forbidden_child(void *arg)
{
	unsigned error = (unsigned)(uintptr_t)arg;
	const struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = MIB,
					      .trap = test_trap(), .install = FM_INSTALL_AUTO,
					      .log = on_log};
	fm_mm *mm = NULL;

	forbid(error);
	/* Here every user may open /dev/userfaultfd. */
	if (error == EPERM && access("/dev/userfaultfd", R_OK | W_OK) == 0)
		return 0;
	CHECK_EQ(fm_mm_create(&options, &mm), -(int)error);
	CHECK(!mm);
	/* The thread trap also logs that it would have served no system calls. */
	CHECK(lines >= 1 && lines <= 2);
	if (!strstr(said, "seccomp") || !strstr(said, "userfaultfd"))
		CHECK_FAIL("the log does not say what is missing: %s", said);
	return 0;
}

static int blocked_child(void *arg)
{
	sigset_t set;
	(void)arg;
	support_no_core();
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "memory:64K?seed=1", NULL);
	const volatile unsigned char *map = support_map(file, 0, 64 * KIB);
	unsigned char plain;
	size_t len;

	CHECK_OK(fm_file_read(file, &plain, 1, 4097, &len));
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	return map[4097] == plain ? 0 : 3;
}

int main(void)
{
	hazard_watch("a forbidden userfaultfd or a blocked signal makes the test hang");
	CHECK_EQ(support_child(forbidden_child, (void *)(uintptr_t)EPERM), 0);
	CHECK_EQ(support_child(forbidden_child, (void *)(uintptr_t)ENOSYS), 0);
	if (test_trap() != FM_TRAP_CALL) {
		int status = support_child(blocked_child, NULL);
		if (test_trap() == FM_TRAP_THREAD)
			CHECK_EQ(status, 0);
		else
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	}
	return 0;
}
