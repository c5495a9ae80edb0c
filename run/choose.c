/* SPDX-License-Identifier: MIT */
/*
 * Which mappings are served. What is served must not be seen to differ from the kernel's mapping,
 * and must be worth it: a large part of a file, not in the page cache. In doubt the kernel serves.
 *
 * File systems. Every writer of a file must be met by a lease. That is so where all writers come
 * through this kernel's open(): on the local file systems that are listed. On NFS, FUSE and the
 * like others write behind the lease; on overlayfs, what is done to the layers.
 *
 * Owns the account of reasons. May call: filemap.h, settings.c, libc.
 */
#include "choose.h"

#include "settings.h"

#include "os/atomic.h"
#include "os/os.h"
#include "os/syscall.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 3
#endif
#ifndef STATX_ATTR_DAX
#define STATX_ATTR_DAX 0x00200000
#endif

#define REASONS    32
#define SAMPLES    256u
#define SAMPLE_LEN 16u /* pages */

struct reason {
	const char *why; /* atomic; a literal */
	uint64_t count;  /* atomic */
};

static struct reason left[REASONS], handed[REASONS];
static uint64_t served_count; /* atomic */

/* ------------------------------------------------------------------ the choice */

static const char *choose_kind(const struct wish *wish)
{
	int type = wish->flags & MAP_TYPE;

	if ((wish->flags & MAP_ANONYMOUS) || wish->fd < 0)
		return "";
	if (wish->len < settings_get()->min_bytes)
		return "small";
	if (wish->prot & PROT_EXEC)
		return "executable";
	if (wish->prot & PROT_WRITE)
		return "writable";
	if (wish->prot != PROT_READ)
		return "not readable";
	if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE)
		return "an unusual kind";
	if (wish->flags & ~(MAP_TYPE | MAP_NORESERVE))
		return "a flag that the kernel serves";
	return NULL;
}

static bool fs_is_local(int fd)
{
	static const unsigned local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
					 F2FS_SUPER_MAGIC, TMPFS_MAGIC};
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if ((unsigned)fs.f_type == local[i])
			return true;
	return false;
}

static const char *choose_file(struct wish *wish)
{
	struct statx stx;

	if (fstat(wish->fd, &wish->st))
		return "no file";
	if (!S_ISREG(wish->st.st_mode))
		return "not a regular file";
	if (wish->st.st_size <= wish->offset)
		return "past the end of the file";
	if (!fs_is_local(wish->fd))
		return "a file system without sure leases";
	if (statx(wish->fd, "", AT_EMPTY_PATH, STATX_TYPE, &stx) == 0 &&
	    (stx.stx_attributes & STATX_ATTR_DAX))
		return "memory of its own (DAX)";
	return NULL;
}

static bool path_matches(int fd)
{
	const char *match = settings_get()->match;
	char link[64], path[PATH_MAX];

	if (!match)
		return true;
	snprintf(link, sizeof(link), "/proc/self/task/%u/fd/%d", os_gettid(), fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return false;
	path[len] = 0;
	const char *slash = strrchr(path, '/');
	return fnmatch(match, path, 0) == 0 ||
	       (!strchr(match, '/') && slash && fnmatch(match, slash + 1, 0) == 0);
}

static bool address_space_is_limited(void)
{
	struct rlimit space;

	return getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY;
}

/* Count the cached pages of samples of the mapping; *ret_asked is how many were looked at. */
static uint64_t cached_in_samples(const struct wish *wish, uint64_t pages, uint64_t *ret_asked)
{
	unsigned char vec[SAMPLE_LEN];
	uint64_t step = pages / SAMPLES > SAMPLE_LEN ? pages / SAMPLES : SAMPLE_LEN, cached = 0, asked = 0;

	for (uint64_t at = 0; at < pages; at += step) {
		uint64_t count = pages - at < SAMPLE_LEN ? pages - at : SAMPLE_LEN;
		if (os_syscall3(SYS_mincore, (char *)wish->shadow + at * OS_PAGE, count * OS_PAGE, vec))
			continue;
		asked += count;
		for (uint64_t i = 0; i < count; i++)
			cached += vec[i] & 1;
	}
	*ret_asked = asked;
	return cached;
}

/* Tell whether most of the mapping is in the kernel's page cache. */
static bool is_warm(const struct wish *wish)
{
	uint64_t bytes = (uint64_t)(wish->st.st_size - wish->offset);
	uint64_t cached, pages;
	struct {
		uint64_t offset, len;
	} range;
	struct {
		uint64_t cached, dirty, writeback, evicted, recently_evicted;
	} stat = {0};

	if (bytes > wish->len)
		bytes = wish->len;
	pages = (bytes + OS_PAGE - 1) / OS_PAGE;
	range.offset = (uint64_t)wish->offset;
	range.len = bytes;
	if (os_syscall4(SYS_cachestat, wish->fd, &range, &stat, 0) == 0)
		cached = stat.cached;
	else
		cached = cached_in_samples(wish, pages, &pages);
	return cached * 2 >= pages;
}

const char *choose(struct wish *wish)
{
	const char *why = choose_kind(wish);

	if (!why && settings_get()->off)
		why = "the program has more rights than its user";
	if (!why)
		why = choose_file(wish);
	if (!why && !path_matches(wish->fd))
		why = "not matched";
	if (!why && address_space_is_limited())
		why = "the address space is limited";
	if (!why && !settings_get()->all && is_warm(wish))
		why = "in the page cache";
	return why;
}

/* ------------------------------------------------------------------ the account */

/* The reasons are literals: equal texts may have several addresses. */
static void count(struct reason *reasons, const char *why)
{
	for (int i = 0; i < REASONS; i++) {
		const char *none = NULL, *here = atomic_get(&reasons[i].why);
		if (!here && !atomic_cas(&reasons[i].why, &none, why))
			here = none;
		if (!here || !strcmp(here, why)) {
			atomic_add(&reasons[i].count, 1ull);
			return;
		}
	}
}

void choose_count(const char *why)
{
	if (!why)
		atomic_add(&served_count, 1ull);
	else if (*why)
		count(left, why);
}

void choose_count_handed(const char *why)
{
	count(handed, why);
}

void choose_forget(void)
{
	memset(left, 0, sizeof(left));
	memset(handed, 0, sizeof(handed));
	served_count = 0;
}

void choose_say(const struct wish *wish, const void *addr, const char *why)
{
	char link[64], path[PATH_MAX];
	ssize_t len;

	if (!settings_get()->verbose || (why && (!*why || !strcmp(why, "small"))))
		return;
	snprintf(link, sizeof(link), "/proc/self/task/%u/fd/%d", os_gettid(), wish->fd);
	len = readlink(link, path, sizeof(path) - 1);
	path[len < 0 ? 0 : len] = 0;
	if (why)
		say("%s: %zu bytes: the kernel serves: %s", path, wish->len, why);
	else
		say("%s: %zu bytes at %p: served", path, wish->len, addr);
}

static size_t add_reasons(char *line, size_t used, size_t most, const char *name,
			  const struct reason *reasons)
{
	used += (size_t)snprintf(line + used, most - used, ",\"%s\":{", name);
	for (int i = 0; i < REASONS && reasons[i].why && used + 128 < most; i++)
		used += (size_t)snprintf(line + used, most - used, "%s\"%s\":%llu", i ? "," : "",
					 reasons[i].why, (unsigned long long)reasons[i].count);
	used += (size_t)snprintf(line + used, most - used, "}");
	return used;
}

void choose_statistics(const struct fm_stats *stats)
{
	static char line[8192];
	const size_t most = sizeof(line) - 64;
	size_t used;

	if (!settings_get()->stats)
		return;
	used = (size_t)snprintf(line, most, "{\"pid\":%ld,\"served\":%llu", os_syscall1(SYS_getpid, 0),
				(unsigned long long)atomic_get(&served_count));
	used = add_reasons(line, used, most, "handed_over", handed);
	used = add_reasons(line, used, most, "left_to_kernel", left);
	if (stats && used + 256 < most)
		used += (size_t)snprintf(line + used, most - used,
					 ",\"faults\":%llu,\"faults_major\":%llu,\"reads\":%llu,"
					 "\"read_bytes\":%llu,\"evictions\":%llu",
					 (unsigned long long)stats->faults,
					 (unsigned long long)stats->faults_major,
					 (unsigned long long)stats->reads,
					 (unsigned long long)stats->read_bytes,
					 (unsigned long long)stats->evictions);
	snprintf(line + used, sizeof(line) - used, "}\n");
	say_statistics(line);
}
