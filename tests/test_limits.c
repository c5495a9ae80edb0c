/* SPDX-License-Identifier: MIT */
/*
 * Limits are reported, and no number wraps. A page that is pinned 65,535 times is not pinned once
 * more. A budget above 8 TiB is refused. If the user may have no more threads, the log says what to
 * do.
 */
#include "write_support.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char said[512];

static void on_line(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	snprintf(said, sizeof(said), "%s", line);
}

static void pins_do_not_wrap(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = support_open(mm, "memory:64K", NULL);
	char *addr = support_map(file, 0, PAGE);
	unsigned char vec = 0;

	for (unsigned i = 0; i < UINT16_MAX; i++)
		CHECK_OK(fm_pin(mm, addr, PAGE, 0));
	CHECK_EQ(fm_pin(mm, addr, PAGE, 0), -EOVERFLOW);
	CHECK_OK(fm_residency(mm, addr, PAGE, &vec));
	CHECK(vec & FM_RESIDENT_PINNED);
	for (unsigned i = 0; i < UINT16_MAX; i++)
		CHECK_OK(fm_unpin(mm, addr, PAGE));
	CHECK_EQ(fm_unpin(mm, addr, PAGE), -EINVAL);
	CHECK_OK(fm_unmap(mm, addr, PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
}

static void budgets_do_not_wrap(void)
{
	static const uint64_t budget[] = {(8ull << 40) + PAGE, (16ull << 40) + MIB, UINT64_MAX};

	for (unsigned i = 0; i < sizeof(budget) / sizeof(budget[0]); i++) {
		struct fm_mm_options options = {
			.size = sizeof(options), .budget_bytes = budget[i], .log = on_line};
		fm_mm *mm;
		said[0] = 0;
		CHECK_EQ(fm_mm_create(&options, &mm), -EINVAL);
		CHECK(strstr(said, "8 TiB"));
	}
}

/* Run in a child, as an ordinary user who may have no more threads. */
static void no_threads(void)
{
	struct rlimit limit = {0, 0};
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 4 * MIB, .log = on_line};
	fm_mm *mm;

	CHECK_EQ(setrlimit(RLIMIT_NPROC, &limit), 0);
	if (geteuid() == 0)
		CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	CHECK_EQ(fm_mm_create(&options, &mm), -EAGAIN);
	CHECK(strstr(said, "RLIMIT_NPROC"));
	_exit(0);
}

int main(void)
{
	int status;
	pid_t child;

	pins_do_not_wrap();
	budgets_do_not_wrap();
	child = fork();
	if (!child)
		no_threads();
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	return 0;
}
