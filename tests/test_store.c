/* SPDX-License-Identifier: MIT */
/*
 * Stores read in the calling thread: the bytes, the tails, the faults, and when readers are
 * released.
 */
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"
#include "own_fds.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

static char dir[] = "/tmp/fm-store-XXXXXX";

static struct fm_store *opened(const char *uri)
{
	struct fm_store *store = NULL;
	char text[400] = "";
	int error = store_open(uri, 0, text, sizeof(text), &store);

	CHECK(!error && store, "'%s' gives %d: %s", uri, error, text);
	return store;
}

static void closed(struct fm_store *store)
{
	store->ops->close(store);
}

static void control(struct fm_store *store, const char *key, const char *value)
{
	int error = store->ops->control(store, key, value);

	CHECK(!error, "%s=%s gives %d", key, value, error);
}

static int read_once(struct fm_store *store, void *buf, size_t len, uint64_t offset,
		     size_t *ret_done)
{
	struct iovec iov = {buf, len};

	return store->ops->read(store, &iov, 1, offset, ret_done);
}

static unsigned count_fds(void)
{
	DIR *fds = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(fds))
		count++;
	closedir(fds);
	return count;
}

static unsigned char byte_at(uint64_t offset)
{
	return (unsigned char)(offset * 7 + offset / 251 + 3);
}

static void make_file(const char *name, size_t size)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	unsigned char *bytes = malloc(size + 1);

	for (size_t i = 0; i < size; i++)
		bytes[i] = byte_at(i);
	CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size, "%s: %s", name, strerror(errno));
	close(fd);
	free(bytes);
}

/* ------------------------------------------------------------------ memory */

static uint64_t splitmix64_at(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void test_memory(void)
{
	struct fm_store *store = opened("memory:1T?seed=42");
	uint64_t at = (1ull << 39) + 5, end = 1ull << 40;
	unsigned char a[37], b[3];
	struct iovec iov[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
	size_t done = 0;

	CHECK(!store->ops->read(store, iov, 2, at, &done) && done == 40, "%zu", done);
	for (unsigned i = 0; i < 40; i++) {
		unsigned char got = i < 37 ? a[i] : b[i - 37];
		uint64_t word = splitmix64_at(42, (at + i) / 8);

		CHECK(got == (unsigned char)(word >> ((at + i) % 8 * 8)), "byte %u", i);
	}
	CHECK(!store->ops->read(store, iov, 2, end - 38, &done) && done == 38, "%zu", done);
	CHECK(!store->ops->read(store, iov, 2, end, &done) && done == 0, "%zu", done);
	CHECK(!store->ops->read(store, iov, 2, end + 9, &done) && done == 0, "%zu", done);
	/* Check the published first output of splitmix64 for the state 0. */
	closed(store);
	store = opened("memory:8");
	CHECK(!read_once(store, a, 8, 0, &done) && done == 8, "%zu", done);
	CHECK(a[7] == 0xe2 && a[6] == 0x20 && a[1] == 0xcd && a[0] == 0xaf, "not splitmix64");
	closed(store);
}

/* ------------------------------------------------------------------ files */

static void test_file_tail(const char *parameters, size_t size)
{
	unsigned char *pages = aligned_alloc(4096, 3 * 4096);
	struct iovec iov[3] = {{pages, 4096}, {pages + 4096, 4096}, {pages + 8192, 4096}};
	struct fm_store *store;
	char uri[64];
	unsigned shorts = 0;
	size_t done = 99;

	make_file("tail", size);
	snprintf(uri, sizeof(uri), "file:tail%s", parameters);
	store = opened(uri);
	CHECK(store_size(store) == size, "%llu", (unsigned long long)store_size(store));
	memset(pages, 0xee, 3 * 4096);
	CHECK(!store_read_full(store, iov, 3, 0, &done, &shorts), "%s of %zu", uri, size);
	CHECK(done == size, "%s: %zu of %zu bytes", uri, done, size);
	for (size_t i = 0; i < size; i++)
		CHECK(pages[i] == byte_at(i), "%s: byte %zu of %zu", uri, i, size);
	for (size_t page = 0; page < size; page += 4096) {
		size_t want = size - page < 4096 ? size - page : 4096;

		CHECK(!store_read_full(store, iov, 1, page, &done, &shorts), "page %zu", page);
		CHECK(done == want && pages[0] == byte_at(page), "page %zu: %zu", page, done);
	}
	for (size_t at = 0; at < size; at += 1001) { /* nothing is aligned */
		CHECK(!read_once(store, pages + 3, 100, at, &done), "at %zu", at);
		CHECK(done == (size - at < 100 ? size - at : 100), "at %zu: %zu", at, done);
		CHECK(pages[3] == byte_at(at), "at %zu", at);
	}
	closed(store);
	free(pages);
}

/* Tell whether the kernel's page cache holds this page. */
static bool is_cached(const char *name, uint64_t offset)
{
	unsigned char resident = 0;
	int fd = open(name, O_RDWR);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, (off_t)offset);

	CHECK(map != MAP_FAILED && !mincore(map, 4096, &resident), "%s", strerror(errno));
	munmap(map, 4096);
	close(fd);
	return resident & 1;
}

/* Aligned reads bypass the page cache, even after unaligned reads went through the page cache. */
static void test_file_direct(void)
{
	unsigned char *page = aligned_alloc(4096, 8192);
	struct fm_store *store;
	int fd, direct;
	size_t done;

	make_file("direct", 64 << 10);
	fd = open("direct", O_RDONLY);
	direct = open("direct", O_RDONLY | O_DIRECT);
	if (fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) || direct < 0 ||
	    is_cached("direct", 32768)) {
		printf("this file system has no direct reads: not tested\n");
	} else {
		store = opened("direct");
		CHECK(!read_once(store, page, 4096, 32768, &done) && done == 4096, "%zu", done);
		CHECK(!is_cached("direct", 32768), "an aligned read went through the page cache");
		CHECK(!read_once(store, page + 1, 10, 0, &done) && done == 10, "%zu", done);
		CHECK(!read_once(store, page, 10, 0, &done) && done == 10, "%zu", done);
		CHECK(is_cached("direct", 0), "an unaligned read did not go through the page cache");
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		CHECK(!read_once(store, page, 4096, 32768, &done) && done == 4096, "%zu", done);
		CHECK(!is_cached("direct", 32768), "an aligned read no longer reads directly");
		closed(store);
		store = opened("file:direct?direct=0");
		CHECK(!read_once(store, page, 4096, 32768, &done) && done == 4096, "%zu", done);
		CHECK(is_cached("direct", 32768), "direct=0 reads directly");
		closed(store);
	}
	close(fd);
	if (direct >= 0)
		close(direct);
	unlink("direct");
	free(page);
}

/* Open a descriptor whose preads all fail with EINVAL. Returns -1 if this machine has none. */
static int open_unreadable(void)
{
	static const char *const names[] = {"/dev/kvm", "/dev/loop-control", "/dev/userfaultfd"};
	char byte;

	for (int i = 0; i < 3; i++) {
		int fd = open(names[i], O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && pread(fd, &byte, 1, 0) < 0 && errno == EINVAL)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

/* The file system refuses direct reads with EINVAL. A stand-in whose preads fail with EINVAL
 * replaces the direct descriptor. */
static void test_file_direct_refused(void)
{
	unsigned char *page = aligned_alloc(4096, 4096);
	struct fm_store *store;
	int stand_in = open_unreadable(), direct = -1;
	size_t done = 0;

	make_file("refused", 5000);
	store = opened("refused");
	if (stand_in >= 0)
		direct = own_direct_replace(stand_in);
	if (direct >= 0) {
		for (int i = 0; i < 2; i++) {
			CHECK(!read_once(store, page, 4096, 4096, &done), "tail");
			CHECK(done == 5000 - 4096 && page[0] == byte_at(4096), "%zu", done);
			CHECK(!read_once(store, page, 4096, 0, &done), "page");
			CHECK(done == 4096 && page[0] == byte_at(0), "%zu", done);
		}
	} else {
		printf("no stand-in for a direct descriptor here: EINVAL is not tested\n");
	}
	if (stand_in >= 0)
		close(stand_in);
	closed(store);
	if (direct >= 0)
		close(direct);
	unlink("refused");
	free(page);
}

static void test_file_unlinked(void)
{
	struct fm_store *store;
	unsigned char *page = aligned_alloc(4096, 4096);
	size_t done;

	make_file("gone", 8192);
	store = opened("gone");
	CHECK(!unlink("gone"), "%s", strerror(errno));
	CHECK(!read_once(store, page, 4096, 4096, &done) && done == 4096, "direct: %zu", done);
	CHECK(page[9] == byte_at(4096 + 9), "other bytes");
	CHECK(!read_once(store, page, 10, 3, &done) && done == 10, "buffered: %zu", done);
	CHECK(page[0] == byte_at(3), "other bytes");
	closed(store);
	free(page);
}

static void test_file_version(void)
{
	struct fm_store_version now;
	struct fm_store *store;

	make_file("version", 100);
	store = opened("version");
	CHECK(!store->ops->version(store, &now), "version");
	CHECK(store_version_same(&now, &store->opened), "the version changed by itself");
	CHECK(now.size == 100 && now.version[1], "no version");
	CHECK(!chmod("version", 0640) && !rename("version", "version2") &&
		      !rename("version2", "version"),
	      "%s", strerror(errno));
	CHECK(!store->ops->version(store, &now), "version");
	CHECK(store_version_same(&now, &store->opened), "a chmod or a rename changed the version");
	CHECK(!truncate("version", 101), "%s", strerror(errno));
	CHECK(!store->ops->version(store, &now), "version");
	CHECK(now.size == 101, "size %llu", (unsigned long long)now.size);
	CHECK(store_size(store) == 100, "the size when opened has changed");
	closed(store);
}

/* ------------------------------------------------------------------ whole reads */

/* A store whose reads are short. `steps` has an entry for each read: the most bytes to read, 0 for
 * no bytes, or a negative errno. */
struct scripted {
	struct fm_store store;
	const int *steps;
	unsigned reads;
};

static int scripted_read(struct fm_store *store, const struct iovec *iov, int iov_count,
			 uint64_t offset, size_t *ret_done)
{
	struct scripted *scripted = (struct scripted *)store;
	int step = scripted->steps[scripted->reads++];
	size_t done = 0;

	if (step < 0)
		return step;
	for (int i = 0; i < iov_count; i++)
		for (size_t j = 0; j < iov[i].iov_len && done < (size_t)step; j++, done++)
			((unsigned char *)iov[i].iov_base)[j] = byte_at(offset + done);
	*ret_done = done;
	return 0;
}

static const struct fm_store_ops scripted_ops = {.name = "scripted", .read = scripted_read};

static void full_is(const int *steps, uint64_t size, int error, size_t done_expected,
		    unsigned shorts_expected)
{
	struct scripted scripted = {.store = {.ops = &scripted_ops, .size_bytes = size},
				    .steps = steps};
	unsigned char a[10], b[1], c[20];
	struct iovec iov[4] = {{a, 10}, {b, 1}, {b, 0}, {c, 20}};
	size_t done = 99;
	unsigned shorts = 99;
	int got = store_read_full(&scripted.store, iov, 4, 1000, &done, &shorts);

	CHECK(got == error, "gives %d", got);
	if (error) {
		CHECK(done == 99 && shorts == 99, "a failed read wrote its results");
		return;
	}
	CHECK(done == done_expected && shorts == shorts_expected, "%zu bytes, %u shorts", done,
	      shorts);
	for (size_t i = 0; i < done; i++) {
		unsigned char byte = i < 10 ? a[i] : i < 11 ? b[0] : c[i - 11];

		CHECK(byte == byte_at(1000 + i), "byte %zu", i);
	}
}

static void test_read_full(void)
{
	full_is((int[]){31}, 5000, 0, 31, 0);
	full_is((int[]){10, 21}, 5000, 0, 31, 1);
	full_is((int[]){3, 7, 1, 1, 19}, 5000, 0, 31, 3);
	full_is((int[]){12, 5, 14}, 5000, 0, 31, 2);
	full_is((int[]){0}, 5000, -EIO, 0, 0);
	full_is((int[]){30, 0}, 5000, -EIO, 0, 0);
	full_is((int[]){5, -ENXIO}, 5000, -ENXIO, 0, 0);
	full_is((int[]){10}, 1010, 0, 10, 0);
	full_is((int[]){4, 6}, 1010, 0, 10, 1);
	full_is((int[]){0}, 1000, 0, 0, 0);
	full_is((int[]){0}, 900, 0, 0, 0);
	full_is((int[]){4, 0}, 1010, -EIO, 0, 0);
}

/* ------------------------------------------------------------------ the faulty filter */

static void test_error_every(void)
{
	struct fm_store *store = opened("faulty:memory:1M?error-every=3&error=ENOSPC");
	char buf[16];
	size_t done;

	for (int i = 1; i <= 12; i++) {
		int error = read_once(store, buf, 16, 0, &done);

		CHECK(error == (i % 3 ? 0 : -ENOSPC), "read %d gives %d", i, error);
	}
	control(store, "error", "121");
	control(store, "error-every", "1");
	CHECK(read_once(store, buf, 16, 0, &done) == -121, "the number of an errno");
	control(store, "error-every", "0");
	CHECK(!read_once(store, buf, 16, 0, &done), "errors do not end");
	closed(store);
}

static void test_error_at(void)
{
	struct fm_store *store = opened("faulty:memory:1M?error-at=8K");
	char buf[4096];
	size_t done;

	CHECK(!read_once(store, buf, 4096, 4096, &done), "just before");
	CHECK(read_once(store, buf, 4096, 8192, &done) == -EIO, "first byte");
	CHECK(read_once(store, buf, 4096, 4097, &done) == -EIO, "last byte");
	CHECK(!read_once(store, buf, 4096, 8193, &done), "just after");
	control(store, "error-at", "0");
	CHECK(read_once(store, buf, 1, 0, &done) == -EIO, "offset 0");
	control(store, "error-at", "none");
	CHECK(!read_once(store, buf, 1, 0, &done), "the error does not end");
	closed(store);
}

/* Short reads are a function of the seed. Reading on after a short read gives the same bytes. */
static void test_short(void)
{
	struct fm_store *plain = opened("memory:1M?seed=7");
	struct fm_store *first = opened("faulty:memory:1M?short-every=1&seed=7");
	struct fm_store *same = opened("faulty:memory:1M?short-every=1&seed=7");
	struct fm_store *other = opened("faulty:memory:1M?short-every=1&seed=8");
	static char a[8192], b[8192];
	struct iovec iov[2] = {{b, 100}, {b + 100, 8092}};
	size_t done[3];
	unsigned differ = 0, shorts = 0;

	for (int i = 0; i < 20; i++) {
		CHECK(!read_once(first, a, 1000, 0, &done[0]), "first");
		CHECK(!read_once(same, a, 1000, 0, &done[1]), "same");
		CHECK(!read_once(other, a, 1000, 0, &done[2]), "other");
		CHECK(done[0] > 0 && done[0] < 1000, "the read is not short: %zu", done[0]);
		CHECK(done[0] == done[1], "%zu and %zu with one seed", done[0], done[1]);
		differ += done[0] != done[2];
	}
	CHECK(differ, "another seed gives the same lengths");
	CHECK(!read_once(plain, a, 8192, 4096, &done[0]), "plain");
	for (int i = 0; i < 20; i++) {
		memset(b, 0, sizeof(b));
		CHECK(!store_read_full(first, iov, 2, 4096, &done[0], &shorts), "full");
		CHECK(done[0] == 8192 && shorts > 0, "%zu, %u shorts", done[0], shorts);
		CHECK(!memcmp(a, b, 8192), "other bytes");
	}
	closed(plain);
	closed(first);
	closed(same);
	closed(other);
}

/*
 * Measure some reads. Callers check lower bounds only: a busy machine makes reads later, never
 * earlier.
 */
static uint64_t reads_ns(struct fm_store *store, unsigned reads, size_t len)
{
	uint64_t begun = os_now_ns();
	char buf[4096];
	size_t done;

	for (unsigned i = 0; i < reads; i++)
		CHECK(!read_once(store, buf, len, 0, &done) && done == len, "read %u", i);
	return os_now_ns() - begun;
}

static void test_slow(void)
{
	struct fm_store *store = opened("faulty:memory:1M");

	control(store, "delay", "2ms");
	CHECK(reads_ns(store, 5, 16) >= 10 * OS_NSEC_PER_MSEC, "delay");
	control(store, "delay", "1ms..3ms");
	CHECK(reads_ns(store, 5, 16) >= 5 * OS_NSEC_PER_MSEC, "random delay");
	control(store, "delay", "0");
	control(store, "rate", "400K");
	CHECK(reads_ns(store, 5, 4096) >= 50 * OS_NSEC_PER_MSEC, "rate");
	control(store, "rate", "0");
	control(store, "iops", "500");
	CHECK(reads_ns(store, 6, 16) >= 10 * OS_NSEC_PER_MSEC, "iops");
	closed(store);
}

struct reader {
	pthread_t thread;
	struct fm_store *store;
	uint32_t begun, ended; /* atomic */
	int error;
};

static void *reader_main(void *arg)
{
	struct reader *reader = arg;
	char buf[16];
	size_t done = 0;

	atomic_set(&reader->begun, 1);
	reader->error = read_once(reader->store, buf, 16, 0, &done);
	atomic_set(&reader->ended, 1);
	return NULL;
}

#define READERS 8

/* READERS threads read and wait. Setting key=value must release all readers with `error`. If key is
 * NULL, an abort must release the readers. */
static void released_by(const char *uri, const char *key, const char *value, int error)
{
	struct fm_store *store = opened(uri);
	struct reader readers[READERS] = {0};

	for (int i = 0; i < READERS; i++) {
		readers[i].store = store;
		CHECK(!pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), "%d", i);
	}
	for (int i = 0; i < READERS; i++)
		while (!atomic_get(&readers[i].begun))
			os_sleep_until(os_now_ns() + 100000);
	os_sleep_until(os_now_ns() + 20 * OS_NSEC_PER_MSEC); /* most readers sleep by now */
	for (int i = 0; i < READERS; i++)
		CHECK(!atomic_get(&readers[i].ended), "%s: reader %d did not wait", uri, i);
	control(store, "seed", "3"); /* the readers look again, and go on waiting */
	for (int i = 0; i < READERS; i++)
		CHECK(!atomic_get(&readers[i].ended), "%s: reader %d let go", uri, i);
	if (key)
		control(store, key, value);
	else
		store->ops->abort(store);
	for (int i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		CHECK(readers[i].error == error, "%s: reader %d: %d", uri, i, readers[i].error);
	}
	if (!key) { /* an abort lasts for ever */
		struct reader late = {.store = store};

		reader_main(&late);
		CHECK(late.error == error, "after abort: %d", late.error);
	}
	closed(store);
}

static void test_release(void)
{
	released_by("faulty:memory:1M?delay=1000s", "delay", "0", 0);
	released_by("faulty:memory:1M?delay=1000s..2000s", "delay", "1ms", 0);
	released_by("faulty:memory:1M?stuck=1", "stuck", "0", 0);
	released_by("faulty:memory:1M?rate=1&delay=1000s", NULL, NULL, -ECANCELED);
	released_by("faulty:memory:1M?stuck=1", NULL, NULL, -ECANCELED);
	released_by("faulty:faulty:memory:1M?stuck=1", NULL, NULL, -ECANCELED);
	released_by("faulty:memory:1M?rate=1", "rate", "0", 0);
	released_by("faulty:memory:1M?rate=1", "rate", "100M", 0);
}

static void test_control_refused(void)
{
	struct fm_store *store = opened("faulty:faulty:memory:1M");

	CHECK(store->ops->control(store, "dely", "1ms") == -EOPNOTSUPP, "unknown");
	CHECK(store->ops->control(store, "direct", "1") == -EOPNOTSUPP, "not while it runs");
	CHECK(store->ops->control(store, "delay", "1") == -EINVAL, "bad time");
	CHECK(store->ops->control(store, "error", "EIOU") == -EINVAL, "bad errno");
	CHECK(store->ops->control(store, "rate", "-1") == -EINVAL, "bad size");
	closed(store);
}

int main(void)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8191, 12288};
	unsigned fds;

	CHECK(mkdtemp(dir) && !chdir(dir), "%s: %s", dir, strerror(errno));
	fds = count_fds();
	test_memory();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		test_file_tail("", sizes[i]);
		test_file_tail("?direct=1", sizes[i]);
		test_file_tail("?direct=0", sizes[i]);
	}
	test_file_direct();
	test_file_direct_refused();
	test_file_unlinked();
	test_file_version();
	test_read_full();
	test_error_every();
	test_error_at();
	test_short();
	test_slow();
	test_release();
	test_control_refused();
	CHECK(count_fds() == fds, "descriptors: %u, then %u", fds, count_fds());
	unlink("tail");
	unlink("version");
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	return 0;
}
