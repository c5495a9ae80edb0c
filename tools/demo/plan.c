/* SPDX-License-Identifier: MIT */
/*
 * The pages that the load reads. The pages are read in advance with pread(), to compare with.
 */
#define _GNU_SOURCE
#include "demo/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int load_plan_make(const struct round_spec *spec, struct round *round, struct load_plan *ret_plan)
{
	struct load_plan plan = {.threads = spec->threads, .touches = spec->touches};
	size_t pages = (size_t)plan.threads * plan.touches;
	struct stat st;
	int fd = open(spec->truth, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st)) {
		round_fail(round, "%s: %s", spec->truth, strerror(errno));
		return -1;
	}
	plan.file_bytes = (uint64_t)st.st_size;
	plan.truth = mmap(NULL, pages * DEMO_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (plan.truth == MAP_FAILED) {
		round_fail(round, "out of memory for %zu pages", pages);
		close(fd);
		return -1;
	}
	for (unsigned i = 0; i < plan.threads; i++) {
		for (unsigned t = 0; t < plan.touches; t++) {
			off_t offset = (off_t)load_plan_offset(&plan, i, t);
			unsigned char *page = plan.truth + (i * plan.touches + t) * DEMO_PAGE;

			if (pread(fd, page, DEMO_PAGE, offset) != DEMO_PAGE) {
				round_fail(round, "%s: can't read %u bytes at %lld", spec->truth,
					   DEMO_PAGE, (long long)offset);
				close(fd);
				return -1;
			}
		}
	}
	/* The kernel's mmap() must find none of these pages in the page cache. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	*ret_plan = plan;
	return 0;
}

uint64_t load_plan_offset(const struct load_plan *plan, unsigned index, unsigned turn)
{
	uint64_t pages = plan->file_bytes / DEMO_PAGE;
	uint64_t step = pages / ((uint64_t)plan->threads * plan->touches);

	/* The middle of the step, because the kernel reads around the page to both sides. */
	return (((uint64_t)turn * plan->threads + index) * step + step / 2) * DEMO_PAGE;
}

const unsigned char *load_plan_truth(const struct load_plan *plan, unsigned index, unsigned turn)
{
	return plan->truth + ((size_t)index * plan->touches + turn) * DEMO_PAGE;
}
