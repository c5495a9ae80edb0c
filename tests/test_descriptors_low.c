/* SPDX-License-Identifier: MIT */
/*
 * No descriptor of the library is ever one of the numbers 0 to 2. If the program has closed these
 * numbers, its standard output would otherwise be written into a file of the library. The test
 * makes everything that opens a descriptor while the three numbers are free. The test shows
 * hazard E5. Seen to fail: without os_fd_high() in os_fd_open() (fd 0 and 1 are the file), and
 * without os_fd_high() in uring_high().
 */
#include "write_support.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define LOW 3

static int saved[LOW];

static void close_low(void)
{
	for (int fd = 0; fd < LOW; fd++) {
		saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 800);
		close(fd);
	}
}

static bool give_back_low(void)
{
	bool all_free = true;

	for (int fd = 0; fd < LOW; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			all_free = false;
		if (saved[fd] >= 0) {
			dup2(saved[fd], fd);
			close(saved[fd]);
		}
	}
	return all_free;
}

static void test(void)
{
	struct fm_file_options options = {.size = sizeof(options), .flags = FM_FILE_WRITE};
	struct fm_map_options copy = {.size = sizeof(copy), .flags = FM_MAP_PRIVATE | FM_MAP_WRITE};
	const char *path = support_file(16 * PAGE, 1);
	ssize_t written[LOW];
	fm_queue *queue = NULL;
	fm_file *file = NULL;
	char *at = NULL, *own = NULL;
	int fd = -1, queue_fd = -1;

	close_low();
	fm_mm *mm = support_mm(0);
	int err = fm_file_open(mm, path, &options, &file);
	if (!err)
		at = write_map(file, 0, 16 * PAGE);
	if (!err)
		err = fm_map(file, 0, 16 * PAGE, &copy, (void **)&own);
	if (!err)
		err = fm_event_fd(mm, &fd);
	if (!err)
		err = fm_queue_create(mm, 16, &queue);
	if (!err)
		err = fm_queue_fd(queue, &queue_fd);
	for (int i = 0; i < LOW; i++)
		written[i] = write(i, "what is meant for somebody else", 31);
	if (!err && write_to(mm, at + PAGE, "ours", 4) == 0)
		err = fm_sync(mm, at, 16 * PAGE, 0);
	bool all_free = give_back_low();
	CHECK_OK(err);
	CHECK(all_free);
	CHECK(fd >= LOW && queue_fd >= LOW);
	for (int i = 0; i < LOW; i++)
		CHECK(written[i] < 0);
	CHECK_OK(fm_queue_destroy(queue));
	CHECK_OK(fm_unmap(mm, own, 16 * PAGE));
	CHECK_OK(fm_unmap(mm, at, 16 * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	unsigned char bytes[PAGE];
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(read(fd, bytes, sizeof(bytes)) == sizeof(bytes));
	CHECK(support_differs(bytes, 0, sizeof(bytes), 1) == UINT64_MAX);
	close(fd);
}

int main(void)
{
	return support_run(test);
}
