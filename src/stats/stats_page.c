/* SPDX-License-Identifier: MIT */
/*
 * The writer's side of the stats page: a memfd of exactly one struct stats_page, in the library's
 * own descriptor table (os/fds.h). Readers find this table by the thread named fm-fds. The page
 * is mapped shared and populated, since recording must never fault. Then the memfd is sealed: no
 * process can resize the file, and only this mapping can write to the file. A forked child keeps
 * the mapping. The child's records would count as the parent's, which is harmless, and readers
 * skip the child by the pid in the page.
 * Takes no lock. May call: the kernel (not signal-safe), os.
 */
#include "stats/stats.h"
#include "stats/stats_layout.h"

#include "os/fds.h"
#include "os/fds_give.h"
#include "os/fds_numbers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

_Static_assert(offsetof(struct stats_page, magic) == 0, "readers look here first");
_Static_assert(offsetof(struct stats_page, faults) % 8 == 0, "no torn counters");

static uint64_t unix_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void fill_header(struct stats_page *page, const char *trap, const char *install)
{
	/* Every byte is written, so every page is populated, and writable in the page table. */
	memset(page, 0, sizeof(*page));
	page->version = stats_version();
	page->pid = (uint32_t)getpid();
	page->size_bytes = sizeof(*page);
	page->created_unix_ns = unix_now_ns();
	snprintf(page->trap, sizeof(page->trap), "%s", trap);
	snprintf(page->install, sizeof(page->install), "%s", install);
	/* The magic is written last: a reader that sees the magic sees all other members. */
	__atomic_store_n(&page->magic, STATS_MAGIC, __ATOMIC_RELEASE);
}

int stats_page_create(const char *trap, const char *install, struct stats_page **ret_page,
		      int *ret_fd)
{
	struct stats_page *page = MAP_FAILED;
	int own, fd, error;

	error = os_fds_get();
	if (error)
		return error;
	fd = os_fd_make(memfd_create(STATS_MEMFD_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (fd < 0) {
		os_fds_put();
		return fd;
	}
	if (ftruncate(fd, sizeof(*page)) < 0)
		goto fail;
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (page == MAP_FAILED)
		goto fail;
	fill_header(page, trap, install);
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		goto fail;
	own = os_fd_give(fd);
	if (own < 0) {
		errno = -own;
		goto fail;
	}
	if (os_fds_apart())
		close(fd);
	*ret_page = page;
	*ret_fd = own;
	return 0;
fail:
	error = -errno;
	if (page != MAP_FAILED)
		munmap(page, sizeof(*page));
	close(fd);
	os_fds_put();
	return error;
}

void stats_page_destroy(struct stats_page *page, int fd)
{
	if (!page)
		return;
	munmap(page, sizeof(*page));
	os_fd_close_own(fd);
	os_fds_put();
}
