/* SPDX-License-Identifier: MIT */
/*
 * file:PATH: a local regular file or block device. The store owns two descriptors of the file
 * (os/fds.h): a buffered descriptor, and a direct descriptor (O_DIRECT) if the file system
 * grants it. The direct descriptor serves reads and writes that are aligned for it; the store
 * chooses for each transfer. If opening made the file, the store also owns a descriptor of the
 * file's folder, until the store is closed. No lock; only flags change. `read`, `write`,
 * `flush` and `version` are signal-safe. A throttled O_DIRECT preadv cannot be interrupted:
 * where a deadline matters, read through the ring.
 *
 * The two descriptors see the same bytes. Before a direct read the kernel writes back what the
 * page cache has dirty of the range. Before and after a direct write the kernel drops what the
 * cache has of the range. This holds page by page. It fails if a buffered write of the tail
 * dirties a folio larger than a page, and with that folio stale bytes of the page before the
 * tail, while a direct write to that page is under way (file systems on iomap before 6.6). Only
 * readahead makes such folios here, so the buffered descriptor of a file that is written by
 * both descriptors has no readahead. May call: io.h, os.h.
 */
#include "store/file.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_give.h"
#include "store/file_calls.h"
#include "store/file_keep.h"
#include "store/file_open.h"
#include "store/file_read_write.h"
#include "store/file_shape.h"
#include "store/file_version.h"
#include "store/here.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int lock_fd(int fd, short type, int *ret_holder)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	int error = errno == EACCES ? -EAGAIN : -errno;
	*ret_holder = -1;
	if (error == -EAGAIN && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK)
		*ret_holder = (int)lock.l_pid;
	return error;
}

struct lock_call {
	struct file_store *file;
	bool exclusive;
	int *ret_holder;
};

/* Lock the file, or change the kind of lock. The lock belongs to an open file description.
 * After file_upgrade() the reader's lock still belongs to the reader's former description, and
 * would conflict with the writer's lock. */
static long lock_call(void *arg)
{
	const struct lock_call *call = arg;
	struct file_store *file = call->file;
	int former = file->buffered == &file->here[0] ? -1 : file->here[0].own, error, ignored;

	if (former >= 0)
		(void)lock_fd(former, F_UNLCK, &ignored);
	error = lock_fd(file->buffered->own, call->exclusive ? F_WRLCK : F_RDLCK, call->ret_holder);
	if (error && former >= 0)
		(void)lock_fd(former, F_RDLCK, &ignored);
	return error;
}

static int file_lock(struct fm_store *store, bool exclusive, int *ret_holder)
{
	struct lock_call call = {(struct file_store *)store, exclusive, ret_holder};

	return (int)os_fds_call(lock_call, &call);
}

/* Put the writer's descriptors in the place of the reader's. The reader's descriptors stay
 * open: a thread may be about to use them. */
static int file_upgrade(struct fm_store *store, struct fm_store *writer)
{
	struct file_store *file = (struct file_store *)store, *from = (struct file_store *)writer;

	file->here[2] = from->here[0];
	file->here[3] = from->here[1];
	file->buffered = &file->here[2];
	file->direct = &file->here[3];
	file->folder_fd = from->folder_fd;
	atomic_set(&file->name_unsynced, atomic_get(&from->name_unsynced));
	for (int i = 0; i < 2; i++)
		from->here[i].own = from->here[i].fd = -1;
	from->folder_fd = -1;
	file->keep = from->keep; /* no thread writes to a file that is open for reading */
	atomic_or(&store->caps, writer->caps);
	return 0;
}

void file_store_close(struct fm_store *store)
{
	struct file_store *file = (struct file_store *)store;

	for (size_t i = 0; i < sizeof(file->here) / sizeof(file->here[0]); i++)
		here_close(&file->here[i]);
	if (file->folder_fd >= 0)
		os_fd_close_own(file->folder_fd);
	free(file);
	os_fds_put();
}

static const struct fm_store_ops file_ops = {
	.name = "file",
	.read = file_store_read,
	.submit_read = file_store_submit,
	.cancel = file_store_cancel,
	.version = file_store_version,
	.write = file_store_write_anywhere,
	.submit_write = file_store_submit,
	.flush = file_store_flush_anywhere,
	.submit_flush = file_store_submit_flush,
	.resize = file_store_resize_anywhere,
	.punch = file_store_punch_anywhere,
	.reserve = file_store_reserve_anywhere,
	.upgrade = file_upgrade,
	.lock = file_lock,
	.keep = file_store_keep,
	.alive = file_store_alive,
	.keep_begin = file_store_keep_begin,
	.keep_write = file_store_keep_write,
	.keep_flush = file_store_keep_flush,
	.close = file_store_close,
};

static int file_parameters(const char *parameters, bool *ret_direct, char *error_text,
			   size_t error_text_len)
{
	const char *cursor = parameters;
	char key[64], value[64];
	int error = 0;

	while (store_next_parameter(&cursor, key, sizeof(key), value, sizeof(value), &error)) {
		if (strcmp(key, "direct"))
			return store_say(-EINVAL, error_text, error_text_len,
					 "file:…: unknown parameter '%s'; known parameters: direct, "
					 "deadline",
					 key);
		if (strcmp(value, "0") && strcmp(value, "1"))
			return store_say(-EINVAL, error_text, error_text_len,
					 "file:…: bad direct '%s': write 0 or 1", value);
		*ret_direct = value[0] == '1';
	}
	return error ? store_say(error, error_text, error_text_len, "file:…: bad parameter '%s'",
				 cursor)
		     : 0;
}

/* Make a store without descriptors. On failure `error_text` says why. */
int file_store_alloc(unsigned flags, const char *name, char *error_text, size_t error_text_len,
		      struct file_store **ret_file)
{
	struct file_store *file = calloc(1, sizeof(*file));
	int error;

	if (!file)
		return store_say(-ENOMEM, error_text, error_text_len, "%s: %s", name, strerror(ENOMEM));
	error = os_fds_get();
	if (error) {
		free(file);
		return store_say(error, error_text, error_text_len,
				 "%s: the thread that holds the file's descriptors cannot be "
				 "started: %s", name, strerror(-error));
	}
	file->store.ops = &file_ops;
	file->store.caps = FM_STORE_READ_INLINE | FM_STORE_SUBMIT;
	if (flags & FM_STORE_OPEN_WRITE)
		file->store.caps |= FM_STORE_WRITE | FM_STORE_KEEPS;
	file->buffered = &file->here[0];
	file->direct = &file->here[1];
	for (size_t i = 0; i < sizeof(file->here) / sizeof(file->here[0]); i++)
		file->here[i].own = file->here[i].fd = -1;
	file->folder_fd = -1;
	*ret_file = file;
	return 0;
}

int store_file_open(const char *path, unsigned flags, const char *parameters, char *error_text,
		    size_t error_text_len, struct fm_store **ret_store)
{
	struct opened opened = {-1, -1, -1};
	struct file_store *file;
	bool direct = true;
	int error = file_parameters(parameters, &direct, error_text, error_text_len);

	if (error)
		return error;
	if (!*path)
		return store_say(-EINVAL, error_text, error_text_len,
				 "file: has no path; give file:PATH");
	error = file_store_alloc(flags, path, error_text, error_text_len, &file);
	if (error)
		return error;
	error = file_store_open_fds(file, &opened, path, flags, direct, error_text, error_text_len);
	if (error) {
		file_store_opened_close(&opened);
		file_store_close(&file->store);
		return error;
	}
	*ret_store = &file->store;
	return 0;
}
