/* SPDX-License-Identifier: MIT */
/* Stores written to, in the calling thread: the bytes are there, by whichever descriptor they went and are read; what is
 * grown, cut and punched; what is said where it cannot be; and what a full file system says. */
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);                          \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static char dir[] = "/tmp/fm-write-XXXXXX";

static struct fm_store *opened(const char *uri, unsigned flags)
{
	struct fm_store *store = NULL;
	char text[400] = "";
	int error = store_open(uri, flags, text, sizeof(text), &store);

	CHECK(!error && store, "'%s' gives %d: %s", uri, error, text);
	CHECK(!(store->caps & FM_STORE_WRITE) == !(flags & FM_STORE_OPEN_WRITE), "'%s': caps %x", uri, store->caps);
	return store;
}

static void refused(const char *uri, unsigned flags, int error, const char *word)
{
	struct fm_store *store = NULL;
	char text[400] = "";
	int got = store_open(uri, flags, text, sizeof(text), &store);

	CHECK(got == error, "'%s' gives %d, not %d", uri, got, error);
	CHECK(strstr(text, word) && !strchr(text, '\n'), "'%s' says '%s'", uri, text);
}

static void closed(struct fm_store *store)
{
	store->ops->close(store);
}

static int write_once(struct fm_store *store, const void *buf, size_t len, uint64_t offset, size_t *ret_done)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	return store->ops->write(store, &iov, 1, offset, ret_done);
}

static void written(struct fm_store *store, const void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	size_t done = 0;
	int error = store_write_full(store, &iov, 1, offset, &done);

	CHECK(!error && done == len, "%zu at %llu gives %d after %zu", len, (unsigned long long)offset, error, done);
}

/* An object's bytes as they ought to be. */
struct model {
	unsigned char *bytes;
	size_t size;
};

/* Page by page, aligned (direct where there is such a way), and in one read of odd address and length, which is buffered. */
static void model_is(struct fm_store *store, const struct model *model, const char *where)
{
	unsigned char *page = aligned_alloc(4096, 4096), *all = malloc(model->size + 2);
	struct iovec whole = {all + 1, model->size}, one = {page, 4096};
	unsigned shorts;
	size_t done = 0;

	CHECK(store->size_bytes == model->size, "%s: %llu bytes, not %zu", where, (unsigned long long)store->size_bytes,
	      model->size);
	for (size_t at = 0; at < model->size; at += 4096) {
		size_t want = model->size - at < 4096 ? model->size - at : 4096;

		CHECK(!store_read_full(store, &one, 1, at, &done, &shorts) && done == want, "%s: %zu at %zu", where, done,
		      at);
		for (size_t i = 0; i < want; i++)
			CHECK(page[i] == model->bytes[at + i], "%s: byte %zu of %zu is %u, not %u", where, at + i,
			      model->size, page[i], model->bytes[at + i]);
	}
	CHECK(!store_read_full(store, &whole, 1, 0, &done, &shorts) && done == model->size, "%s: %zu", where, done);
	CHECK(!memcmp(all + 1, model->bytes, model->size), "%s: other bytes by one read", where);
	free(page);
	free(all);
}

static struct model model_of(struct fm_store *store)
{
	struct model model = {malloc(1 << 20), store->size_bytes};
	struct iovec iov = {model.bytes, model.size};
	unsigned shorts;
	size_t done = 0;

	CHECK(!store_read_full(store, &iov, 1, 0, &done, &shorts) && done == model.size, "%zu", done);
	return model;
}

static void model_write(struct fm_store *store, struct model *model, unsigned char value, size_t len, uint64_t offset,
			size_t skew)
{
	unsigned char *buf = aligned_alloc(4096, (len + skew + 8191) / 4096 * 4096);

	for (size_t i = 0; i < len; i++)
		buf[skew + i] = model->bytes[offset + i] = (unsigned char)(value + i / 512 + i);
	written(store, buf + skew, len, offset);
	free(buf);
}

static void model_resize(struct fm_store *store, struct model *model, size_t size)
{
	int error = store->ops->resize(store, size);

	CHECK(!error, "resize to %zu gives %d", size, error);
	if (size > model->size)
		memset(model->bytes + model->size, 0, size - model->size);
	model->size = size;
}

static void model_punch(struct fm_store *store, struct model *model, size_t offset, size_t len)
{
	int error = store->ops->punch(store, offset, len);

	CHECK(!error, "punch %zu at %zu gives %d", len, offset, error);
	for (size_t i = offset; i < offset + len && i < model->size; i++)
		model->bytes[i] = 0;
}

static void flushed(struct fm_store *store)
{
	int error = store->ops->flush(store);

	CHECK(!error, "flush gives %d", error);
}

/* Each kind of write, over each other and over what was read just before, read back by both ways each time. */
static void test_bytes(const char *uri, unsigned flags)
{
	struct fm_store *store = opened(uri, flags | FM_STORE_OPEN_WRITE);
	struct model model;

	model = model_of(store);
	model_resize(store, &model, 40960 + 1000);
	model_is(store, &model, uri);
	model_write(store, &model, 1, 4096, 8192, 0);
	model_is(store, &model, uri);
	model_write(store, &model, 2, 8192, 4096, 0);
	model_write(store, &model, 3, 100, 8000, 0);
	model_is(store, &model, uri);
	model_write(store, &model, 4, 12288, 4096, 0); /* aligned, over what the page cache has dirty */
	model_is(store, &model, uri);
	model_write(store, &model, 5, 4096, 8192, 5); /* the address is not */
	model_write(store, &model, 6, 4096, 12288, 0);
	model_write(store, &model, 7, 1000, 40960, 0); /* the tail */
	model_write(store, &model, 8, 4096, 36864, 0);
	model_is(store, &model, uri);
	flushed(store);
	model_resize(store, &model, 45056); /* the tail is a whole page now, and dirty in the page cache a moment ago */
	model_is(store, &model, uri);
	model_write(store, &model, 9, 4096, 40960, 0);
	model_is(store, &model, uri);
	model_resize(store, &model, 41000);
	model_is(store, &model, uri);
	model_resize(store, &model, 90000);
	model_is(store, &model, uri);
	model_write(store, &model, 10, 30000, 50000, 0);
	model_punch(store, &model, 53248, 8192);
	model_punch(store, &model, 0, 4096);
	model_is(store, &model, uri);
	model_write(store, &model, 11, 10, 53248 + 4090, 0);
	model_write(store, &model, 12, 90000 - 86016, 86016, 0);
	model_punch(store, &model, 86016, 4096); /* with the end in it */
	model_is(store, &model, uri);
	model_write(store, &model, 13, 90000 - 81920, 81920, 0);
	model_punch(store, &model, 86016, 1 << 20);
	model_is(store, &model, uri);
	model_resize(store, &model, 0);
	model_is(store, &model, uri);
	model_resize(store, &model, 5000);
	model_is(store, &model, uri);
	CHECK(!store->ops->reserve(store, 0, 1 << 20), "reserve");
	model_is(store, &model, uri);
	flushed(store);
	closed(store);
	if (flags & FM_STORE_OPEN_CREATE) { /* for others to see */
		store = opened(uri, 0);
		model_is(store, &model, "opened anew");
		CHECK(!(store->caps & FM_STORE_WRITE), "writable without being asked");
		closed(store);
	}
	free(model.bytes);
}

/* ------------------------------------------------------------------ memory */

static void test_memory(void)
{
	struct fm_store *store = opened("memory:1T?seed=5", FM_STORE_OPEN_WRITE), *plain = opened("memory:1T?seed=5", 0);
	uint64_t at = (1ull << 39) + 4093;
	unsigned char a[20], b[20];
	struct iovec iov = {a, 20};
	size_t done = 0;

	written(store, "abcdef", 6, at + 3); /* three bytes of one page, three of the next */
	CHECK(!store->ops->read(store, &iov, 1, at, &done) && done == 20, "%zu", done);
	iov.iov_base = b;
	CHECK(!plain->ops->read(plain, &iov, 1, at, &done) && done == 20, "%zu", done);
	memcpy(b + 3, "abcdef", 6);
	CHECK(!memcmp(a, b, 20), "others than those written have changed, or not those");
	CHECK(store->ops->resize(store, (1ull << 40) + (1ull << 31)) == -EFBIG, "no end to it");
	CHECK(store->size_bytes == 1ull << 40, "the size has changed");
	CHECK(!store->ops->resize(store, (1ull << 40) + (1ull << 30)), "1 GiB more");
	CHECK(write_once(store, a, 20, (1ull << 40) + (1ull << 30) - 10, &done) == 0 && done == 10, "%zu", done);
	CHECK(plain->ops->write(plain, &iov, 1, 0, &done) < 0, "not opened for writing");
	closed(store);
	closed(plain);
	store = opened("memory:10000?seed=5", FM_STORE_OPEN_WRITE);
	CHECK(!store->ops->resize(store, 9000) && !store->ops->resize(store, 10000), "resize");
	CHECK(!store->ops->read(store, &(struct iovec){a, 20}, 1, 8990, &done) && done == 20, "%zu", done);
	for (int i = 10; i < 20; i++)
		CHECK(!a[i], "what was cut off comes back");
	closed(store);
}

/* ------------------------------------------------------------------ files: opened, made, refused */

static unsigned count_fds(void)
{
	DIR *fds = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(fds))
		count++;
	closedir(fds);
	return count;
}

static void test_made(void)
{
	unsigned fds = count_fds();
	struct fm_store *store;
	struct stat st;

	refused("new", FM_STORE_OPEN_WRITE, -ENOENT, "new");
	refused("new", FM_STORE_OPEN_CREATE, -EINVAL, "writing");
	refused("nowhere/new", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE, -ENOENT, "nowhere/new");
	refused(".", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE, -EISDIR, "directory");
	umask(027);
	store = opened("new", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	CHECK(store->size_bytes == 0 && !stat("new", &st) && (st.st_mode & 07777) == 0640, "mode %o", st.st_mode);
	CHECK(!store->ops->resize(store, 10), "resize");
	written(store, "0123456789", 10, 0);
	flushed(store);
	flushed(store);
	closed(store);
	store = opened("new", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE); /* it is there: as it is */
	CHECK(store->size_bytes == 10, "emptied");
	closed(store);
	CHECK(!symlink("target", "link"), "%s", strerror(errno));
	store = opened("link", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	CHECK(!stat("target", &st), "made elsewhere");
	flushed(store);
	closed(store);
	unlink("link");
	unlink("target");
	unlink("new");
	umask(022);
	CHECK(count_fds() == fds, "descriptors: %u, then %u", fds, count_fds());
}

int main(void)
{
	unsigned fds;

	CHECK(mkdtemp(dir) && !chdir(dir), "%s: %s", dir, strerror(errno));
	fds = count_fds();
	test_bytes("file:bytes", FM_STORE_OPEN_CREATE);
	unlink("bytes");
	test_bytes("file:bytes?direct=0", FM_STORE_OPEN_CREATE);
	unlink("bytes");
	test_bytes("memory:50000?seed=3", 0);
	test_bytes("faulty:memory:50000?seed=3", 0);
	test_memory();
	test_made();
	CHECK(count_fds() == fds, "descriptors: %u, then %u", fds, count_fds());
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	return 0;
}
