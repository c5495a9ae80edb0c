/* SPDX-License-Identifier: MIT */
/*
 * The library works without any privilege. The test gives up root and all capabilities, and then
 * serves faults under each trap and install way. If the kernel refuses something, one log line says
 * what to do.
 *
 * Seen to fail with a userfaultfd opened without USER_MODE_ONLY (-EPERM), where
 * vm.unprivileged_userfaultfd is 0.
 */
#include "support.h"

#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SEED 43

static char lines[4][256];
static unsigned said;

static void hear(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (said < 4)
		snprintf(lines[said], sizeof(lines[0]), "%s", line);
	said++;
}

static void drop_privilege(void)
{
	if (getuid() == 0) {
		CHECK_EQ(setgroups(0, NULL), 0);
		CHECK_EQ(setresgid(65534, 65534, 65534), 0);
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	}
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	/* The kernel makes a process that changed its user undumpable. Its own /proc files then
	 * belong to root. */
	CHECK_EQ(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	CHECK(setuid(0) < 0);
}

static void test(void)
{
	struct fm_mm_options options = {
		.size = sizeof(options), .budget_bytes = 2 * MIB, .trap = test_trap(),
		.install = test_install(), .log = hear,
	};
	const char *path = support_file(1024 * PAGE, SEED);
	fm_mm *mm;

	said = 0;
	CHECK_OK(fm_mm_create(&options, &mm));
	/* At most one whole line says what is missing and what to do. */
	CHECK_LE(said, 1);
	if (said) {
		CHECK(!strchr(lines[0], '\n'));
		CHECK(strstr(lines[0], "set ") || strstr(lines[0], "use ") || strstr(lines[0], "allow "));
	}
	fm_file *file = support_open(mm, path, NULL);
	unsigned char *addr = support_map(file, 0, 1024 * PAGE);
	/* The file is twice the budget. */
	support_expect(mm, addr, 0, 1024 * PAGE, SEED);
	support_expect(mm, addr, 0, 1024 * PAGE, SEED);
	if (test_trap() != FM_TRAP_CALL) {
		/* A moved page is write-protected a moment later. */
		EVENTUALLY(support_store(addr + 1000 * PAGE).signo != 0);
		support_expect_signal(support_store(addr + 1000 * PAGE), SIGSEGV, EACCES,
				      addr + 1000 * PAGE);
	}
	CHECK_OK(fm_unmap(mm, addr, 1024 * PAGE));
	CHECK_OK(fm_file_close(file));
	said = 0;
	fm_file *none = NULL;
	CHECK_EQ(fm_file_open(mm, "/etc/shadow", NULL, &none), -EACCES);
	CHECK_EQ(said, 1);
	CHECK(strstr(lines[0], "/etc/shadow"));
	support_mm_end(mm);
}

int main(void)
{
	drop_privilege();
	return support_run(test);
}
