/* SPDX-License-Identifier: MIT */
/*
 * Checks for test programs. Each program tests one behaviour. A failed check prints its place and
 * what failed, and ends the program with status 1. SKIP() prints the reason and ends the program
 * with status 77. Do not use the checks in signal handlers.
 */
#ifndef FM_TESTS_CHECK_H
#define FM_TESTS_CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filemap.h"

#define CHECK_FAIL(...)                                                                            \
	do {                                                                                       \
		fflush(stdout);                                                                    \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                    \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		exit(1);                                                                           \
	} while (0)

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			CHECK_FAIL("%s: is false", #cond);                                           \
	} while (0)

#define CHECK_OP(a, op, b)                                                                         \
	do {                                                                                       \
		long long check_a = (long long)(a), check_b = (long long)(b);                      \
		if (!(check_a op check_b))                                                         \
			CHECK_FAIL("%s %s %s: %lld and %lld", #a, #op, #b, check_a, check_b);      \
	} while (0)
#define CHECK_EQ(a, b) CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) CHECK_OP(a, !=, b)
#define CHECK_LE(a, b) CHECK_OP(a, <=, b)
#define CHECK_LT(a, b) CHECK_OP(a, <, b)
#define CHECK_GE(a, b) CHECK_OP(a, >=, b)
#define CHECK_GT(a, b) CHECK_OP(a, >, b)

#define CHECK_STR(a, b)                                                                            \
	do {                                                                                       \
		const char *check_a = (a), *check_b = (b);                                         \
		if (strcmp(check_a, check_b) != 0)                                                 \
			CHECK_FAIL("%s: \"%s\", not \"%s\"", #a, check_a, check_b);                \
	} while (0)

/* Check that a call returns 0, not a negative errno. */
#define CHECK_OK(call)                                                                             \
	do {                                                                                       \
		int check_error = (call);                                                          \
		if (check_error)                                                                   \
			CHECK_FAIL("%s: %d (%s)", #call, check_error, strerror(-check_error));     \
	} while (0)

#define SKIP(...)                                                                                  \
	do {                                                                                       \
		printf("skipped: ");                                                               \
		printf(__VA_ARGS__);                                                               \
		putchar('\n');                                                                     \
		fflush(stdout);                                                                    \
		exit(77);                                                                          \
	} while (0)

/* Return the setting of this run of the test matrix: FM_TEST_TRAP=inline|thread|call here,
 * FM_TEST_INSTALL=move|copy in test_install(). */
static inline enum fm_trap test_trap(void)
{
	const char *name = getenv("FM_TEST_TRAP");

	if (!name || strcmp(name, "inline") == 0)
		return FM_TRAP_INLINE;
	if (strcmp(name, "thread") == 0)
		return FM_TRAP_THREAD;
	if (strcmp(name, "call") == 0)
		return FM_TRAP_CALL;
	CHECK_FAIL("FM_TEST_TRAP=%s: inline, thread or call", name);
}

static inline enum fm_install test_install(void)
{
	const char *name = getenv("FM_TEST_INSTALL");

	if (!name)
		return FM_INSTALL_AUTO;
	if (strcmp(name, "move") == 0)
		return FM_INSTALL_MOVE;
	if (strcmp(name, "copy") == 0)
		return FM_INSTALL_COPY;
	CHECK_FAIL("FM_TEST_INSTALL=%s: move or copy", name);
}

/* Make an mm with the settings of the test matrix. Skips the test if this machine lacks what the
 * settings need. */
static inline fm_mm *test_mm_create(uint64_t budget_bytes)
{
	struct fm_mm_options options = {
		.size = sizeof(options),
		.budget_bytes = budget_bytes,
		.trap = test_trap(),
		.install = test_install(),
	};
	fm_mm *mm = NULL;
	int error = fm_mm_create(&options, &mm);

	if (error == -ENOSYS || error == -EPERM || error == -EOPNOTSUPP)
		SKIP("fm_mm_create: %s", strerror(-error));
	CHECK_OK(error);
	return mm;
}

#endif
