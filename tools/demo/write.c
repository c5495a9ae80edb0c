/* SPDX-License-Identifier: MIT */
/*
 * What the writing loads write. Each thread has pages of its own. A write puts a number at the
 * beginning and at the end of a page, one higher than the last number. At the end, the numbers
 * in the file tell whether a write was lost, a page was torn, or a page went to the wrong
 * place.
 */
#define _GNU_SOURCE
#include "demo/write.h"

#include "command/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS (DEMO_PAGE / sizeof(uint64_t))

int write_plan_make(const struct round_spec *spec, struct round *round, struct write_plan *ret_plan)
{
	/* The last thread of LOAD_WRITE syncs and does not write. */
	struct write_plan plan = {.writers = spec->threads - (spec->load == LOAD_WRITE),
				  .pages = spec->pages};
	struct stat st;

	if (stat(spec->path, &st)) {
		round_fail(round, "%s: %s", spec->path, strerror(errno));
		return -1;
	}
	plan.file_bytes = (uint64_t)st.st_size;
	plan.last = calloc((size_t)plan.writers * plan.pages, sizeof(*plan.last));
	if (!plan.last || plan.file_bytes < write_plan_offset(&plan, plan.writers, 0)) {
		round_fail(round, "%s: too small, or out of memory", spec->path);
		return -1;
	}
	*ret_plan = plan;
	return 0;
}

unsigned write_plan_page(const struct write_plan *plan, unsigned turn)
{
	uint64_t state = (turn + 1) * 6364136223846793005ull;

	return (unsigned)((state ^ state >> 29) >> 32) % plan->pages;
}

void write_plan_write(struct write_plan *plan, unsigned index, unsigned page, unsigned char *at)
{
	volatile uint64_t *words = (volatile uint64_t *)(void *)at;
	uint64_t *last = &plan->last[(size_t)index * plan->pages + page];
	/* The first number differs from all numbers of earlier rounds, which are still in the
	 * file. */
	uint64_t value = *last ? *last + 1 : tool_now_ns() << 8;

	words[0] = value;
	words[WORDS - 1] = value;
	*last = value;
}

void write_plan_check(const struct write_plan *plan, const struct round_spec *spec,
		      struct round *round)
{
	int fd = open(spec->path, O_RDONLY | O_CLOEXEC);
	uint64_t words[WORDS];

	for (unsigned i = 0; fd >= 0 && i < plan->writers * plan->pages; i++) {
		if (!plan->last[i])
			continue;
		if (pread(fd, words, sizeof(words), (off_t)i * DEMO_PAGE) != (ssize_t)sizeof(words)) {
			round_fail(round, "%s: can't read what was written", spec->path);
			break;
		}
		if (words[0] != plan->last[i] || words[WORDS - 1] != plan->last[i])
			atomic_fetch_add(&round->wrong, 1);
	}
	if (fd < 0)
		round_fail(round, "%s: %s", spec->path, strerror(errno));
	else
		close(fd);
}
