/* SPDX-License-Identifier: MIT */
/*
 * The store of a private mapping: a store over another store, which it borrows and never writes
 * to. Written bytes go to a scratch file without a name, at the same offset. A bit for each
 * 4096 bytes tells that the bytes are in the scratch file. All other bytes are read from the
 * store below.
 *
 * Owns the scratch file and the bits: address space in proportion to the object, memory in
 * proportion to the written bytes. No lock: a page's bit is set after the page's bytes are in
 * the scratch file, and cleared only when the store below has become shorter. A reader of a
 * page never reads while the page is written (the page lock ensures that). The store's size is
 * that of the store below. `read` and `write` are signal-safe. No submit: workers make the
 * requests. May call: os.h.
 */
#include "store.h"

#include "os/atomic.h"
#include "os/fds.h"
#include "os/fds_numbers.h"
#include "os/os.h"
#include "store/here.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLACK_BYTES (1ull << 30) /* how far the object may seem to reach beyond its end */

struct private_store {
	struct fm_store store; /* first */
	struct fm_store *base;
	struct store_here scratch;
	uint64_t *bits;
	size_t bits_len;
};

static bool is_scratched(struct private_store *own, uint64_t offset)
{
	uint64_t piece = offset / OS_PAGE;

	return atomic_get(&own->bits[piece / 64]) >> (piece % 64) & 1;
}

/* Count the bytes from `offset` on, at most `len`, that are in one place: the scratch file or
 * the store below. */
static uint64_t same_place(struct private_store *own, uint64_t offset, uint64_t len)
{
	bool first = is_scratched(own, offset);
	uint64_t at = (offset / OS_PAGE + 1) * OS_PAGE;

	while (at < offset + len && is_scratched(own, at) == first)
		at += OS_PAGE;
	return at < offset + len ? at - offset : len;
}

static int read_one(struct private_store *own, const struct iovec *iov, uint64_t offset,
		    size_t *ret_done)
{
	ssize_t n;

	if (!is_scratched(own, offset))
		return own->base->ops->read(own->base, iov, 1, offset, ret_done);
	n = here_preadv(&own->scratch, iov, 1, offset);
	if (n < 0)
		return (int)n;
	*ret_done = (size_t)n;
	return 0;
}

/* Read all bytes at once if all are in the store below; else read short, up to where the place
 * changes. */
static int private_read(struct fm_store *store, const struct iovec *iov, int iov_count,
			uint64_t offset, size_t *ret_done)
{
	struct private_store *own = (struct private_store *)store;
	uint64_t size = store_reach(store), left = offset < size ? size - offset : 0;
	size_t len = store_iov_bytes(iov, iov_count);
	struct iovec part;

	if (len > left)
		len = (size_t)left;
	if (!len) {
		*ret_done = 0;
		return 0;
	}
	if (!is_scratched(own, offset) && same_place(own, offset, len) == len)
		return own->base->ops->read(own->base, iov, iov_count, offset, ret_done);
	part = iov[0];
	if (part.iov_len > len)
		part.iov_len = len;
	part.iov_len = (size_t)same_place(own, offset, part.iov_len);
	return read_one(own, &part, offset, ret_done);
}

struct scratch_write {
	struct store_here *scratch;
	const struct iovec *iov;
	int iov_count;
	uint64_t offset;
};

static long scratch_write(void *arg)
{
	const struct scratch_write *write = arg;
	int fd = here_writable(write->scratch);

	return fd < 0 ? fd : os_pwritev(fd, write->iov, write->iov_count, write->offset);
}

static int private_write(struct fm_store *store, const struct iovec *iov, int iov_count,
			 uint64_t offset, size_t *ret_done)
{
	struct private_store *own = (struct private_store *)store;
	ssize_t n = os_fds_call(scratch_write,
				&(struct scratch_write){&own->scratch, iov, iov_count, offset});

	if (n < 0)
		return (int)n;
	/* A page that was written in part is completed by the next write; the page's bit is set
	 * by the write of its last byte. */
	for (uint64_t at = offset; at < offset + (uint64_t)n; at = (at / OS_PAGE + 1) * OS_PAGE) {
		uint64_t end = (at / OS_PAGE + 1) * OS_PAGE;

		if (end <= offset + (uint64_t)n || offset + (uint64_t)n >= store_size(store))
			atomic_or(&own->bits[at / OS_PAGE / 64], 1ull << (at / OS_PAGE % 64));
	}
	*ret_done = (size_t)n;
	return 0;
}

static int private_flush(struct fm_store *store)
{
	(void)store; /* the scratch file ends with its mapping */
	return 0;
}

/* Drop bytes beyond the end after the store below has become shorter. If the store grows again,
 * these bytes must read as the store's zeros. No thread reads or writes these bytes meanwhile. */
static int private_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct private_store *own = (struct private_store *)store;
	uint64_t first = (size_bytes + OS_PAGE - 1) / OS_PAGE,
		 words = own->bits_len / sizeof(*own->bits), word = first / 64;

	if (word < words && first % 64)
		atomic_and(&own->bits[word++], (1ull << first % 64) - 1);
	for (; word < words && word * sizeof(*own->bits) % OS_PAGE; word++)
		atomic_set(&own->bits[word], 0);
	if (word < words)
		(void)madvise(own->bits + word, (words - word) * sizeof(*own->bits), MADV_DONTNEED);
	return 0;
}

static int private_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	*ret_version = store->opened;
	return 0;
}

static void private_abort(struct fm_store *store)
{
	struct fm_store *base = ((struct private_store *)store)->base;

	if (base->ops->abort)
		base->ops->abort(base);
}

static void private_close(struct fm_store *store)
{
	struct private_store *own = (struct private_store *)store;

	if (own->bits)
		munmap(own->bits, own->bits_len);
	here_close(&own->scratch);
	free(own);
	os_fds_put();
}

static const struct fm_store_ops private_ops = {
	.name = "private",
	.read = private_read,
	.abort = private_abort,
	.version = private_version,
	.write = private_write,
	.flush = private_flush,
	.resize = private_resize,
	.close = private_close,
};

/* Open a file that has no name from its beginning, or has a name for a moment only. */
static int scratch_open(const char *dir)
{
	char path[4096];
	int fd = os_fd_open(AT_FDCWD, dir, O_TMPFILE | O_RDWR, 0600);

	if (fd >= 0 || (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -EINVAL))
		return fd;
	if ((size_t)snprintf(path, sizeof(path), "%s/filemap-XXXXXX", dir) >= sizeof(path))
		return -ENAMETOOLONG;
	fd = os_fd_make(mkostemp(path, O_CLOEXEC));
	if (fd < 0)
		return fd;
	unlink(path);
	return fd;
}

int store_private_open(struct fm_store *base, char *error_text, size_t error_text_len,
		       struct fm_store **ret_store)
{
	const char *dir = secure_getenv("TMPDIR");
	struct private_store *own = calloc(1, sizeof(*own));
	int error;

	if (!own)
		return -ENOMEM;
	error = os_fds_get();
	if (error) {
		free(own);
		return error;
	}
	own->scratch.own = own->scratch.fd = -1;
	if (!dir || !*dir)
		dir = "/var/tmp";
	own->base = base;
	own->store.ops = &private_ops;
	own->store.caps = FM_STORE_WRITE | (base->caps & FM_STORE_READ_INLINE);
	own->store.below = base;
	own->store.opened = base->opened;
	own->store.deadline_ns = base->deadline_ns;
	error = scratch_open(dir);
	if (error >= 0)
		error = here_open(&own->scratch, error, false);
	if (error) {
		private_close(&own->store);
		return store_say(error, error_text, error_text_len,
				 "%s: cannot make the scratch file of a private mapping here: %s; "
				 "set TMPDIR to another folder", dir,
				 strerror(-error));
	}
	own->bits_len = (size_t)(((store_size(base) + SLACK_BYTES) / OS_PAGE / 8 + OS_PAGE) &
				 ~(uint64_t)(OS_PAGE - 1));
	own->bits = mmap(NULL, own->bits_len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (own->bits == MAP_FAILED) {
		own->bits = NULL;
		private_close(&own->store);
		return -ENOMEM;
	}
	*ret_store = &own->store;
	return 0;
}
