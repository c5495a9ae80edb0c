/* SPDX-License-Identifier: MIT */
/*
 * A file that is given as a descriptor.
 * May call: file.h, os.h.
 */
#include "store/file.h"

#include "os/fds_numbers.h"
#include "store/file_open.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Return why a descriptor cannot be used as it is; NULL: the descriptor can be used. */
static const char *fd_refused(int fd, int status, unsigned flags, int *ret_error)
{
	bool write = flags & FM_STORE_OPEN_WRITE;
	int seals = write ? fcntl(fd, F_GET_SEALS) : -1;

	*ret_error = status & O_PATH ? -EBADF : -EACCES;
	if (status & O_PATH)
		return "is open with O_PATH and cannot be read; open the file with O_RDONLY or O_RDWR";
	if ((status & O_ACCMODE) == O_WRONLY)
		return "is open for writing only; open the file with O_RDWR";
	if (write && (status & O_ACCMODE) != O_RDWR)
		return "is open for reading only; FM_FILE_WRITE needs O_RDWR";
	*ret_error = -EPERM;
	if (seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
		return "is sealed against writing";
	*ret_error = 0;
	return NULL;
}

/* Share the program's open file description, if the file cannot be opened anew: the file's
 * permissions forbid that, or /proc is missing. The description's status flags are the
 * program's, and stay as they are. */
static int fd_share(int fd, int status, unsigned flags, int *ret_fd, const char **ret_why)
{
	*ret_why = NULL;
	if ((flags & FM_STORE_OPEN_WRITE) && (status & O_APPEND))
		*ret_why = "has O_APPEND, with which pwrite() appends, and the file cannot be opened "
			   "again without O_APPEND";
	if (status & (O_DIRECT | O_NONBLOCK))
		*ret_why = "has O_DIRECT or O_NONBLOCK, and the file cannot be opened again without "
			   "these flags";
	if (*ret_why)
		return -EINVAL;
	*ret_fd = os_fd_make(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	return *ret_fd < 0 ? *ret_fd : 0;
}

/* Make the store's own open file description of the file that `fd` shows: the description is
 * independent of the program's offset and status flags. Uses the calling thread's table of
 * descriptors, which may be the thread's own. */
static int fd_open(struct file_store *file, struct opened *opened, int fd, const char *name,
		   unsigned flags, char *error_text, size_t error_text_len)
{
	int status = fcntl(fd, F_GETFL), error = 0;
	struct fm_store_id same;
	struct stat wanted;
	char path[64];
	const char *why;

	if (status < 0 || fstat(fd, &wanted))
		return store_say(-errno, error_text, error_text_len, "descriptor %d: %s", fd, strerror(errno));
	file_store_identify(file, &wanted);
	same = file->store.id;
	why = fd_refused(fd, status, flags, &error);
	if (why)
		return store_say(error, error_text, error_text_len, "descriptor %d (%s) %s", fd, name, why);
	snprintf(path, sizeof(path), "/proc/self/task/%d/fd/%d", (int)gettid(), fd);
	error = file_store_open_fds(file, opened, path, flags, true, error_text, error_text_len);
	if (!error)
		return file->store.id.device != same.device || file->store.id.inode != same.inode ? -EBADF : 0;
	if (opened->buffered >= 0 ||
	    (error != -EACCES && error != -EPERM && error != -ENOENT && error != -ETXTBSY))
		return error;
	error = fd_share(fd, status, flags, &opened->buffered, &why);
	if (why)
		return store_say(error, error_text, error_text_len, "descriptor %d (%s) %s", fd, name, why);
	return error ? error
		     : file_store_open_fds(file, opened, path, flags, true, error_text,
					   error_text_len);
}

int store_open_fd(int fd, const char *name, unsigned flags, char *error_text, size_t error_text_len,
		  struct fm_store **ret_store)
{
	struct opened opened = {-1, -1, -1};
	struct file_store *file;
	int error = file_store_alloc(flags, name, error_text, error_text_len, &file);

	if (error)
		return error;
	error = fd_open(file, &opened, fd, name, flags, error_text, error_text_len);
	if (error) {
		file_store_opened_close(&opened);
		file_store_close(&file->store);
		return error;
	}
	*ret_store = &file->store;
	return 0;
}

/* Write "file:PATH" into `name`, with the path that the kernel knows for the descriptor. The
 * name is for messages, and for lists of hot sets. */
void store_fd_name(int fd, char *name, size_t name_len)
{
	char link[64], path[PATH_MAX];
	size_t used;
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/task/%d/fd/%d", (int)gettid(), fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		len = snprintf(path, sizeof(path), "descriptor %d", fd);
	path[len] = 0;
	used = (size_t)snprintf(name, name_len, "file:");
	for (const char *at = path; *at && used + 4 < name_len; at++)
		used += (size_t)snprintf(name + used, name_len - used,
					 strchr("%?", *at) ? "%%%02X" : "%c", (unsigned char)*at);
}
