/* SPDX-License-Identifier: MIT */
/*
 * A handle for reading whose file becomes a file for writing, because another handle of the file is
 * opened for writing:
 *   - beside threads that look whether the file has changed (a touch past the end,
 * fm_file_refresh(), a read): nothing that is written after the open is forgotten, and no older
 * size is taken over;
 *   - where the keeper (FM_KEEP) has no room for the file: the open fails, and takes no descriptor.
 */
#include "inside.h"
#include "own_fds.h"
#include "write_support.h"

#include "mm/fill/version.h"
#include "mm/view/range.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES 64
#define LEN (PAGES * PAGE)
#define SEED 11

static fm_mm *mm;
static atomic_bool stop;

/* ---- threads that look for a change while the file becomes one for writing */

struct looker {
	pthread_t thread;
	fm_file *file;
	const volatile unsigned char *past_end;
	int fd;
};

static int look_at_end(void *arg)
{
	return *((struct looker *)arg)->past_end;
}

static void look_body(void *arg)
{
	(void)look_at_end(arg);
}

/* Set mtime, so that each look finds a change, and look in three ways. */
static void *looking_main(void *arg)
{
	struct looker *looker = arg;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};

	for (long second = 1; !stop; second++) {
		bool changed;
		times[1].tv_sec = second;
		CHECK_EQ(futimens(looker->fd, times), 0);
		support_catch(look_body, looker);
		int err = fm_file_refresh(looker->file, &changed);
		if (err != -EBUSY) /* a page is written to again and again */
			CHECK_OK(err);
	}
	return NULL;
}

static int stored_byte(const char *path, uint64_t offset)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char byte;

	CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
	close(fd);
	return byte;
}

static void upgrade_beside_looks(enum fm_changed policy)
{
	const char *path = support_file(LEN, SEED);
	struct fm_file_options options = {.size = sizeof(options), .changed = policy};

	for (unsigned round = 1; round <= 20; round++) {
		fm_file *reader = support_open(mm, path, &options), *writer;
		unsigned char *r = support_map(reader, 0, LEN + 4 * PAGE), *w;
		struct looker looker[2];

		stop = false;
		for (unsigned i = 0; i < 2; i++) {
			looker[i] = (struct looker){.file = reader, .past_end = r + LEN + PAGE};
			looker[i].fd = open(path, O_RDWR | O_CLOEXEC);
			CHECK_EQ(pthread_create(&looker[i].thread, NULL, looking_main, &looker[i]), 0);
		}
		for (unsigned i = 0; i < PAGES; i++) /* may fail: the file changes all the time */
			(void)support_load(r + i * PAGE);
		writer = write_open(mm, path);
		w = write_map(writer, 0, LEN);
		for (unsigned i = 0; i < PAGES; i++)
			w[i * PAGE] = (unsigned char)round;
		for (unsigned i = 0; i < PAGES; i++)
			CHECK_EQ(((volatile unsigned char *)w)[i * PAGE], round);
		stop = true;
		for (unsigned i = 0; i < 2; i++) {
			CHECK_EQ(pthread_join(looker[i].thread, NULL), 0);
			close(looker[i].fd);
		}
		CHECK_OK(fm_sync(mm, w, LEN, 0));
		for (unsigned i = 0; i < PAGES; i++)
			CHECK_EQ(stored_byte(path, i * PAGE), round);
		CHECK_OK(fm_unmap(mm, w, LEN));
		CHECK_OK(fm_unmap(mm, r, LEN + 4 * PAGE));
		CHECK_OK(fm_file_close(writer));
		CHECK_OK(fm_file_close(reader));
		write_files_gone(mm);
	}
}

/* What a thread does that has looked whether the file is open for writing before the upgrade, and
 * goes on after it: each of the calls by itself. */
static void late_looks(void)
{
	const char *path = support_file(LEN, SEED);
	const struct fm_file_options options = {.size = sizeof(options),
						.changed = FM_CHANGED_REFRESH};
	fm_file *reader = support_open(mm, path, &options), *writer = write_open(mm, path);
	unsigned char *map = write_map(writer, 0, LEN);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool changed = false;
	uint64_t size;

	for (unsigned i = 0; i < PAGES; i++)
		map[i * PAGE] = 99;
	CHECK_EQ(pwrite(fd, "x", 1, LEN + PAGE), 1);
	close(fd);
	CHECK_OK(file_look(reader->cache));
	CHECK_OK(snapshot_renew(reader->cache, &changed));
	CHECK(!changed);
	file_forget(reader->cache);
	CHECK_OK(fm_file_size(writer, &size));
	CHECK_EQ(size, LEN);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(((volatile unsigned char *)map)[i * PAGE], 99);
	CHECK_OK(fm_sync(mm, map, LEN, 0));
	CHECK_EQ(stored_byte(path, 7 * PAGE), 99);
	CHECK_OK(fm_unmap(mm, map, LEN));
	CHECK_OK(fm_file_close(writer));
	CHECK_OK(fm_file_close(reader));
	write_files_gone(mm);
}

/* ---- a keeper without room */

#define KEPT_MOST 1024u

static long count_own(void *arg)
{
	(void)arg;
	long count = 0;
	for (int fd = 0; fd < 16384; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static long fds_in_all(void)
{
	long own = os_fds_apart() ? os_fds_call_quick(count_own, NULL) : 0;
	return own + count_own(NULL);
}

static void keeper_without_room(void)
{
	const struct fm_mm_options mm_options = {
		.size = sizeof(mm_options), .budget_bytes = 8 * MIB, .flags = FM_KEEP};
	static fm_file *kept[KEPT_MOST];
	struct rlimit limit;
	fm_file *reader, *writer;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	int error = fm_mm_create(&mm_options, &mm);
	if (error) {
		printf("no keeper here: %s\n", strerror(-error));
		return;
	}
	for (unsigned i = 0; i < KEPT_MOST; i++)
		kept[i] = write_open(mm, support_file(PAGE, SEED));
	const char *path = support_file(LEN, SEED);
	reader = support_open(mm, path, NULL);
	support_expect(mm, support_map(reader, 0, LEN), 0, LEN, SEED);
	long before = fds_in_all();
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(fm_file_open(mm, path, &write_options, &writer), -EMFILE);
	EVENTUALLY(fds_in_all() <= before);
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(fm_file_close(kept[i]));
	EVENTUALLY(fm_file_open(mm, path, &write_options, &writer) == 0);
	unsigned char *map = write_map(writer, 0, LEN);
	map[5 * PAGE] = 77;
	CHECK_OK(fm_sync(mm, map, LEN, 0));
	CHECK_EQ(stored_byte(path, 5 * PAGE), 77);
	CHECK_OK(fm_mm_destroy(mm));
}

int main(void)
{
	support_start();
	mm = support_mm(8 * MIB);
	late_looks();
	upgrade_beside_looks(FM_CHANGED_REFRESH);
	upgrade_beside_looks(FM_CHANGED_ERROR);
	support_mm_end(mm);
	keeper_without_room();
	support_end();
	return 0;
}
