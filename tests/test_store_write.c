/* SPDX-License-Identifier: MIT */
/* Stores written in the calling thread. The test reads back what each descriptor wrote. Files
 * grow, are cut and are punched. Refused opens name their reason, and full devices their errno. */
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"
#include "own_fds.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
	CHECK(!(store->caps & FM_STORE_WRITE) == !(flags & FM_STORE_OPEN_WRITE), "'%s': caps %x",
	      uri, store->caps);
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

static int write_once(struct fm_store *store, const void *buf, size_t len, uint64_t offset,
		      size_t *ret_done)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	return store->ops->write(store, &iov, 1, offset, ret_done);
}

static void written(struct fm_store *store, const void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	size_t done = 0;
	int error = store_write_full(store, &iov, 1, offset, &done);

	CHECK(!error && done == len, "%zu at %llu gives %d after %zu", len,
	      (unsigned long long)offset, error, done);
}

/* The bytes that the object must have. */
struct model {
	unsigned char *bytes;
	size_t size;
};

/* Compare by aligned reads of pages, which are direct if possible. Then compare by one buffered
 * read of odd address and length. */
static void model_is(struct fm_store *store, const struct model *model, const char *where)
{
	unsigned char *page = aligned_alloc(4096, 4096), *all = malloc(model->size + 2);
	struct iovec whole = {all + 1, model->size}, one = {page, 4096};
	unsigned shorts;
	size_t done = 0;

	CHECK(store_size(store) == model->size, "%s: %llu bytes, not %zu", where,
	      (unsigned long long)store_size(store), model->size);
	for (size_t at = 0; at < model->size; at += 4096) {
		size_t want = model->size - at < 4096 ? model->size - at : 4096;

		CHECK(!store_read_full(store, &one, 1, at, &done, &shorts) && done == want,
		      "%s: %zu at %zu", where, done, at);
		for (size_t i = 0; i < want; i++)
			CHECK(page[i] == model->bytes[at + i], "%s: byte %zu of %zu is %u, not %u", where, at + i,
			      model->size, page[i], model->bytes[at + i]);
	}
	CHECK(!store_read_full(store, &whole, 1, 0, &done, &shorts) && done == model->size,
	      "%s: %zu", where, done);
	CHECK(!memcmp(all + 1, model->bytes, model->size), "%s: other bytes by one read", where);
	free(page);
	free(all);
}

static struct model model_of(struct fm_store *store)
{
	struct model model = {malloc(4 << 20), store_size(store)};
	struct iovec iov = {model.bytes, model.size};
	unsigned shorts;
	size_t done = 0;

	CHECK(!store_read_full(store, &iov, 1, 0, &done, &shorts) && done == model.size, "%zu", done);
	return model;
}

static void model_write(struct fm_store *store, struct model *model, unsigned char value,
			size_t len, uint64_t offset, size_t skew)
{
	unsigned char *buf = aligned_alloc(4096, (len + skew + 8191) / 4096 * 4096);

	for (size_t i = 0; i < len; i++)
		buf[skew + i] = model->bytes[offset + i] = (unsigned char)(value + i / 512 + i);
	written(store, buf + skew, len, offset);
	free(buf);
}

static void model_resize(struct fm_store *store, struct model *model, size_t size)
{
	int error = store_resize(store, size);

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

/* Make each kind of write, over earlier writes and over bytes just read. Read the bytes back each
 * time, by both ways. */
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
	model_write(store, &model, 4, 12288, 4096, 0); /* aligned, over dirty cached pages */
	model_is(store, &model, uri);
	model_write(store, &model, 5, 4096, 8192, 5); /* the address is not aligned */
	model_write(store, &model, 6, 4096, 12288, 0);
	model_write(store, &model, 7, 1000, 40960, 0); /* the tail */
	model_write(store, &model, 8, 4096, 36864, 0);
	model_is(store, &model, uri);
	flushed(store);
	model_write(store, &model, 14, 50, 9000, 0);
	model_is(store, &model, uri);
	model_resize(
		store, &model,
		45056); /* the tail is now a whole page, and was dirty in the page cache before */
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
	model_punch(store, &model, 86016, 4096); /* the hole contains the end */
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
	if (flags & FM_STORE_OPEN_CREATE) { /* open the object again, read-only */
		store = opened(uri, 0);
		model_is(store, &model, "opened again");
		CHECK(!(store->caps & FM_STORE_WRITE), "the store is writable without FM_STORE_OPEN_WRITE");
		closed(store);
	}
	free(model.bytes);
}

/* ------------------------------------------------------------------ memory */

static void test_memory(void)
{
	struct fm_store *store = opened("memory:1T?seed=5", FM_STORE_OPEN_WRITE),
			*plain = opened("memory:1T?seed=5", 0);
	uint64_t at = (1ull << 39) + 4093;
	unsigned char a[20], b[20];
	struct iovec iov = {a, 20};
	size_t done = 0;

	written(store, "abcdef", 6, at + 3); /* three bytes of one page, three of the next */
	CHECK(!store->ops->read(store, &iov, 1, at, &done) && done == 20, "%zu", done);
	iov.iov_base = b;
	CHECK(!plain->ops->read(plain, &iov, 1, at, &done) && done == 20, "%zu", done);
	memcpy(b + 3, "abcdef", 6);
	CHECK(!memcmp(a, b, 20), "the wrong bytes have changed");
	CHECK(store_resize(store, (1ull << 40) + (1ull << 31)) == -EFBIG,
	      "a size beyond the maximum is accepted");
	CHECK(store_size(store) == 1ull << 40, "the size has changed");
	CHECK(!store_resize(store, (1ull << 40) + (1ull << 30)), "1 GiB more");
	CHECK(write_once(store, a, 20, (1ull << 40) + (1ull << 30) - 10, &done) == 0 && done == 10,
	      "%zu", done);
	CHECK(plain->ops->write(plain, &iov, 1, 0, &done) < 0, "not opened for writing");
	closed(store);
	closed(plain);
	store = opened("memory:10000?seed=5", FM_STORE_OPEN_WRITE);
	CHECK(!store_resize(store, 9000) && !store_resize(store, 10000), "resize");
	CHECK(!store->ops->read(store, &(struct iovec){a, 20}, 1, 8990, &done) && done == 20, "%zu", done);
	for (int i = 10; i < 20; i++)
		CHECK(!a[i], "bytes that were cut off come back");
	closed(store);
}

/* ----------------------------------------------------------------- files: opened, made, refused */

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
	CHECK(store_size(store) == 0 && !stat("new", &st) && (st.st_mode & 07777) == 0640,
	      "mode %o", st.st_mode);
	CHECK(!store_resize(store, 10), "resize");
	written(store, "0123456789", 10, 0);
	flushed(store);
	flushed(store);
	closed(store);
	/* The file exists already, and keeps its bytes. */
	store = opened("new", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	CHECK(store_size(store) == 10, "the file was emptied");
	closed(store);
	CHECK(!symlink("target", "link"), "%s", strerror(errno));
	store = opened("link", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	CHECK(!stat("target", &st), "the file was not made at the link's target");
	flushed(store);
	closed(store);
	unlink("link");
	unlink("target");
	unlink("new");
	umask(022);
	CHECK(count_fds() == fds, "descriptors: %u, then %u", fds, count_fds());
}


/* Run `fn` in a child, where `fn` may drop rights and system calls. Returns the exit status. */
static int in_child(int (*fn)(void *), void *arg)
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		status = fn(arg);
		fflush(stdout);
		_exit(status);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status), "the child: %x",
	      (unsigned)status);
	return WEXITSTATUS(status);
}

/* From now on system call `nr` fails with `error` in all threads. With `first` other than -1, only
 * calls with this first argument fail. */
static void forbid(int nr, int first, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(first < 0 ? BPF_JMP | BPF_JGE | BPF_K : BPF_JMP | BPF_JEQ | BPF_K,
			 first < 0 ? 0 : (unsigned)first, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
		      !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			       &program),
	      "%s", strerror(errno));
}

/* A flush syncs the folder until the folder was synced once, and never again. */
static int folder_child(void *arg)
{
	bool first = *(bool *)arg;
	struct fm_store *store = opened("file:fresh", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	int folder = own_fd_of(dir);

	CHECK(folder >= 0, "no descriptor of the folder");
	if (first)
		flushed(store);
	forbid(SYS_fsync, folder, EDQUOT);
	for (int i = 0; i < 2; i++) {
		int error = store->ops->flush(store);

		CHECK(error == (first ? 0 : -EDQUOT), "flush %d gives %d", i, error);
	}
	closed(store);
	unlink("fresh");
	return 0;
}

static void test_folder(void)
{
	for (int first = 0; first < 2; first++)
		CHECK(!in_child(folder_child, &(bool){first}), "see above");
}

/* The file system cannot punch. */
static int punch_child(void *arg)
{
	struct fm_store *store = opened("file:holes", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	struct model model = model_of(store);

	(void)arg;
	forbid(SYS_fallocate, -1, EOPNOTSUPP);
	model_resize(store, &model, 300000);
	model_write(store, &model, 1, 300000, 0, 0);
	model_punch(store, &model, 4096, 8192);
	model_punch(store, &model, 65536, 135168);
	model_is(store, &model, "punched by zeros");
	model_punch(store, &model, 299008, 1 << 20);
	model_is(store, &model, "punched over the end by zeros");
	model_resize(store, &model, 3 << 20); /* more than one write takes */
	model_write(store, &model, 2, 3 << 20, 0, 0);
	model_punch(store, &model, 4096, (5 << 19) + 4096);
	model_is(store, &model, "punched by many zeros");
	CHECK(store->ops->reserve(store, 0, 4096) == -EOPNOTSUPP, "reserve");
	closed(store);
	unlink("holes");
	return 0;
}

/* Blocks are reserved, and a punch gives blocks back. */
static void test_blocks(void)
{
	struct fm_store *store = opened("file:blocks", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	struct stat st;

	CHECK(!store_resize(store, 1 << 20), "resize");
	CHECK(!store->ops->reserve(store, 0, 2 << 20), "reserve");
	CHECK(!stat("blocks", &st) && st.st_blocks >= (2 << 20) / 512 && st.st_size == 1 << 20,
	      "%ld blocks of %ld", (long)st.st_blocks, (long)st.st_size);
	CHECK(!store->ops->punch(store, 0, 1 << 20), "punch");
	CHECK(!stat("blocks", &st) && st.st_blocks <= (1 << 20) / 512 + 8 && st.st_size == 1 << 20,
	      "%ld blocks of %ld", (long)st.st_blocks, (long)st.st_size);
	closed(store);
	unlink("blocks");
}

/* The file system refuses every direct write: a stand-in gives EINVAL for every write. */
static void test_direct_refused(void)
{
	struct fm_store *store = opened("file:refused", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	struct model model = model_of(store);
	int stand_in = open("/dev/kvm", O_RDWR | O_CLOEXEC), direct = -1;

	if (stand_in < 0)
		stand_in = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (stand_in >= 0 && pwrite(stand_in, "", 1, 0) < 0 && errno == EINVAL)
		direct = own_direct_replace(stand_in);
	if (direct >= 0) {
		model_resize(store, &model, 20000);
		model_write(store, &model, 1, 8192, 4096, 0);
		model_write(store, &model, 2, 4096, 0, 0);
		model_is(store, &model, "refused");
		flushed(store);
	} else {
		printf("no stand-in for a direct descriptor here: EINVAL is not tested\n");
	}
	if (stand_in >= 0)
		close(stand_in);
	closed(store);
	if (direct >= 0)
		close(direct);
	unlink("refused");
	free(model.bytes);
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

/* Aligned writes bypass the page cache. Unaligned writes and direct=0 do not. */
static void test_direct(void)
{
	struct fm_store *store = opened("file:direct", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	char *page = aligned_alloc(4096, 4096);

	memset(page, 3, 4096);
	CHECK(!store_resize(store, 20000), "resize");
	written(store, page, 4096, 4096);
	if (is_cached("direct", 4096)) {
		printf("this file system has no direct writes: not tested\n");
	} else {
		written(store, page, 100, 16384);
		CHECK(is_cached("direct", 16384), "an unaligned write did not go through the page cache");
		CHECK(!is_cached("direct", 4096), "an unaligned write brought other pages into the cache");
		closed(store);
		store = opened("file:direct?direct=0", FM_STORE_OPEN_WRITE);
		written(store, page, 4096, 8192);
		CHECK(is_cached("direct", 8192), "direct=0 writes directly");
	}
	closed(store);
	unlink("direct");
	free(page);
}

/* One thread writes the tail through the page cache. Two threads write pages past the page cache,
 * and the main thread reads with readahead. No thread, and no check at the end, finds old bytes. */
struct side {
	pthread_t thread;
	struct fm_store *store;
	uint64_t offset;
	size_t len;
	unsigned char last;
	uint32_t *stop;
};

static void *side_main(void *arg)
{
	struct side *side = arg;
	unsigned char *buf = aligned_alloc(4096, 4096), *back = aligned_alloc(4096, 4096);
	struct iovec iov = {back, side->len};
	unsigned shorts;
	size_t done;

	while (!atomic_get(side->stop)) {
		memset(buf, ++side->last, 4096);
		written(side->store, buf, side->len, side->offset);
		CHECK(!store_read_full(side->store, &iov, 1, side->offset, &done, &shorts), "read");
		for (size_t i = 0; i < side->len; i++)
			CHECK(back[i] == side->last, "byte %zu of %llu is %u, not %u", i,
			      (unsigned long long)side->offset, back[i], side->last);
	}
	free(buf);
	free(back);
	return NULL;
}

static void test_coherent(void)
{
	struct fm_store *store = opened("file:both", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	uint32_t stop = 0;
	struct side sides[3] = {
		{.offset = 12288, .len = 4096},
		{.offset = 16384, .len = 1000},
		{.offset = 8192, .len = 4096},
	};
	uint64_t until = os_now_ns() + 300 * OS_NSEC_PER_MSEC;
	unsigned char bytes[17384];
	int fd;

	CHECK(!store_resize(store, 17384), "resize");
	fd = open("both", O_RDONLY);
	for (int i = 0; i < 3; i++) {
		sides[i].store = store;
		sides[i].stop = &stop;
		CHECK(!pthread_create(&sides[i].thread, NULL, side_main, &sides[i]), "%d", i);
	}
	while (os_now_ns() < until) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		CHECK(pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes), "%s", strerror(errno));
	}
	atomic_set(&stop, 1);
	for (int i = 0; i < 3; i++)
		pthread_join(sides[i].thread, NULL);
	flushed(store);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	CHECK(pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes), "%s", strerror(errno));
	for (int i = 0; i < 3; i++)
		for (size_t j = 0; j < sides[i].len; j++)
			CHECK(bytes[sides[i].offset + j] == sides[i].last, "side %d, byte %zu", i, j);
	close(fd);
	closed(store);
	unlink("both");
}

/* ------------------------------------------------------------------ what is refused */

static int no_right_child(void *arg)
{
	(void)arg;
	CHECK(!chmod(dir, 0755) && (geteuid() || !setresuid(65534, 65534, 65534)), "%s", strerror(errno));
	refused("file:mine", FM_STORE_OPEN_WRITE, -EACCES, "permission");
	refused("file:mine2", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE, -EACCES, "permission");
	closed(opened("file:mine", 0));
	return 0;
}

static void test_refused(void)
{
	char *const args[] = {"./sleep", "1000", NULL};
	pid_t pid;
	int run[2];
	char none;

	if (!geteuid()) {
		CHECK(!system("echo x > mine && chmod 644 mine"), "mine");
		CHECK(!in_child(no_right_child, NULL), "see above");
		CHECK(!chmod(dir, 0700), "%s", strerror(errno));
		unlink("mine");
	}
	CHECK(!system("cp /bin/sleep sleep"), "cp");
	CHECK(!pipe2(run, O_CLOEXEC), "%s", strerror(errno));
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(args[0], args);
		_exit(1);
	}
	close(run[1]);
	CHECK(read(run[0], &none, 1) == 0, "sleep does not run"); /* exec() closes the other end */
	close(run[0]);
	refused("file:sleep", FM_STORE_OPEN_WRITE, -ETXTBSY, "a running program");
	closed(opened("file:sleep", 0));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink("sleep");
}

/* ------------------------------------------------------------------ whole writes */

/* A store whose writes are short. `steps` has an entry for each write: the most bytes to write, 0
 * for no bytes, or a negative errno. */
struct scripted {
	struct fm_store store;
	const int *steps;
	char got[64];
};

static int scripted_write(struct fm_store *store, const struct iovec *iov, int iov_count,
			  uint64_t offset, size_t *ret_done)
{
	struct scripted *scripted = (struct scripted *)store;
	int step = *scripted->steps++;
	size_t done = 0;

	if (step < 0)
		return step;
	for (int i = 0; i < iov_count; i++)
		for (size_t j = 0; j < iov[i].iov_len && done < (size_t)step; j++, done++)
			scripted->got[offset - 1000 + done] = ((char *)iov[i].iov_base)[j];
	*ret_done = done;
	return 0;
}

static const struct fm_store_ops scripted_ops = {.name = "scripted", .write = scripted_write};

static void full_is(const int *steps, int error, size_t done_expected)
{
	struct scripted scripted = {.store = {.ops = &scripted_ops, .size_bytes = 5}, .steps = steps};
	const char *text = "abcdefghijklmnopqrstuvwxyz01234";
	struct iovec iov[5] = {{(char *)text, 0}, {(char *)text, 10}, {(char *)text + 10, 1}, {NULL, 0},
			       {(char *)text + 11, 20}};
	size_t done = 99;
	int got = store_write_full(&scripted.store, iov, 5, 1000, &done);

	CHECK(got == error && done == done_expected, "gives %d after %zu", got, done);
	CHECK(!memcmp(scripted.got, text, done), "other bytes: %.31s", scripted.got);
}

static void test_write_full(void)
{
	full_is((int[]){31}, 0, 31);
	full_is((int[]){10, 21}, 0, 31);
	full_is((int[]){3, 7, 1, 1, 19}, 0, 31);
	full_is((int[]){12, 5, 14}, 0, 31);
	full_is((int[]){0}, -EIO, 0);
	full_is((int[]){30, 0}, -EIO, 30);
	full_is((int[]){5, -ENOSPC}, -ENOSPC, 5);
	full_is((int[]){-ENOSPC}, -ENOSPC, 0);
}

/* ------------------------------------------------------------------ the faulty filter */

static void control(struct fm_store *store, const char *key, const char *value)
{
	int error = store->ops->control(store, key, value);

	CHECK(!error, "%s=%s gives %d", key, value, error);
}

static int read_at(struct fm_store *store, void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {buf, len};
	size_t done;

	return store->ops->read(store, &iov, 1, offset, &done);
}

/* Faults set for reads hit only reads, and faults set for writes hit only writes. */
static void test_faults(void)
{
	struct fm_store *store = opened(
		"faulty:memory:1M?write-error-every=3&write-error=ENOSPC&flush-error-every=2",
		FM_STORE_OPEN_WRITE);
	char buf[4096] = {1};
	uint64_t begun;
	size_t done;

	for (int i = 1; i <= 9; i++) {
		CHECK(write_once(store, buf, 16, 0, &done) == (i % 3 ? 0 : -ENOSPC), "write %d", i);
		CHECK(store->ops->flush(store) == (i % 2 ? 0 : -EIO), "flush %d", i);
		CHECK(!read_at(store, buf, 16, 0), "read %d", i);
	}
	control(store, "write-error-every", "0");
	control(store, "flush-error-every", "0");
	control(store, "write-error-at", "8K");
	CHECK(!write_once(store, buf, 4096, 4096, &done), "just before");
	CHECK(write_once(store, buf, 4096, 8192, &done) == -ENOSPC, "first byte");
	CHECK(write_once(store, buf, 4096, 4097, &done) == -ENOSPC, "last byte");
	CHECK(!write_once(store, buf, 4096, 8193, &done), "just after");
	CHECK(!read_at(store, buf, 4096, 8192), "a read");
	control(store, "write-error-at", "none");
	control(store, "error-every", "1");
	control(store, "short-every", "1");
	control(store, "stuck", "1");
	CHECK(!write_once(store, buf, 4096, 8192, &done) && done == 4096,
	      "reads' faults hit a write: %zu", done);
	control(store, "stuck", "0");
	control(store, "short-every", "0");
	control(store, "error-every", "0");
	control(store, "write-short-every", "1");
	for (int i = 0; i < 20; i++) {
		CHECK(!write_once(store, buf, 1000, 0, &done) && done > 0 && done < 1000,
	      "the write is not short: %zu", done);
		memset(buf, i, sizeof(buf));
		written(store, buf, 4096, 4096);
		memset(buf, 99, sizeof(buf));
		CHECK(!read_at(store, buf, 4096, 4096) && buf[0] == i && buf[4095] == i, "other bytes");
	}
	control(store, "write-short-every", "0");
	control(store, "write-delay", "2ms");
	control(store, "flush-delay", "3ms..4ms");
	begun = os_now_ns();
	for (int i = 0; i < 5; i++)
		CHECK(!write_once(store, buf, 16, 0, &done), "write");
	CHECK(os_now_ns() - begun >= 10 * OS_NSEC_PER_MSEC, "write-delay");
	begun = os_now_ns();
	flushed(store);
	CHECK(os_now_ns() - begun >= 3 * OS_NSEC_PER_MSEC, "flush-delay");
	CHECK(store->ops->control(store, "write-delay", "1") == -EINVAL, "bad time");
	CHECK(store->ops->control(store, "lose", "2") == -EINVAL, "bad switch");
	CHECK(store->ops->control(store, "crash", "1") == -EOPNOTSUPP, "nothing to lose");
	closed(store);
}

struct waiter {
	pthread_t thread;
	struct fm_store *store;
	bool is_flush;
	uint32_t begun, ended; /* atomic */
	int error;
};

static void *waiter_main(void *arg)
{
	struct waiter *waiter = arg;
	size_t done;

	atomic_set(&waiter->begun, 1);
	waiter->error = waiter->is_flush ? waiter->store->ops->flush(waiter->store)
					 : write_once(waiter->store, "x", 1, 0, &done);
	atomic_set(&waiter->ended, 1);
	return NULL;
}

static void released_by(const char *uri, bool is_flush, const char *key, const char *value,
			int error)
{
	struct waiter waiter = {.store = opened(uri, FM_STORE_OPEN_WRITE), .is_flush = is_flush};
	char byte;

	CHECK(!pthread_create(&waiter.thread, NULL, waiter_main, &waiter), "%s", uri);
	while (!atomic_get(&waiter.begun))
		os_sleep_until(os_now_ns() + 100000);
	os_sleep_until(os_now_ns() + 10 * OS_NSEC_PER_MSEC);
	CHECK(!atomic_get(&waiter.ended), "%s: did not wait", uri);
	CHECK(!read_at(waiter.store, &byte, 1, 0), "%s: reads wait too", uri);
	if (key)
		control(waiter.store, key, value);
	else
		waiter.store->ops->abort(waiter.store);
	pthread_join(waiter.thread, NULL);
	CHECK(waiter.error == error, "%s: %d", uri, waiter.error);
	closed(waiter.store);
}

static void test_release(void)
{
	released_by("faulty:memory:1M?write-stuck=1", false, "write-stuck", "0", 0);
	released_by("faulty:memory:1M?write-stuck=1", false, NULL, NULL, -ECANCELED);
	released_by("faulty:memory:1M?write-delay=1000s", false, "write-delay", "0", 0);
	released_by("faulty:faulty:memory:1M?write-delay=1000s", false, NULL, NULL, -ECANCELED);
	released_by("faulty:memory:1M?flush-stuck=1&lose=1", true, "flush-stuck", "0", 0);
	released_by("faulty:memory:1M?flush-delay=1000s", true, NULL, NULL, -ECANCELED);
}

/* --------------------------------------------------------- bytes that were not flushed are lost */

static unsigned char file_byte(const char *name, uint64_t offset)
{
	unsigned char byte = 0xee;
	int fd = open(name, O_RDONLY);

	CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1, "%s: %s", name, strerror(errno));
	close(fd);
	return byte;
}

#define PIECES 64

static unsigned survivors(struct fm_store *store, const char *seed, uint64_t *ret_which)
{
	char *page = aligned_alloc(4096, 4096);
	unsigned count = 0;

	memset(page, 1, 4096);
	for (uint64_t i = 0; i < PIECES; i++)
		written(store, page, 4096, i * 4096);
	flushed(store);
	memset(page, 2, 4096);
	for (uint64_t i = 0; i < PIECES; i++)
		written(store, page, 4096, i * 4096);
	control(store, "crash", seed);
	*ret_which = 0;
	for (uint64_t i = 0; i < PIECES; i++) {
		CHECK(!read_at(store, page, 4096, i * 4096), "read");
		CHECK(page[0] == page[4095] && page[0] == (char)file_byte("lost", i * 4096),
		      "torn, or not there");
		count += page[0] == 2;
		*ret_which |= page[0] == 2 ? 1ull << i : 0;
	}
	free(page);
	return count;
}

static void test_lose(void)
{
	struct fm_store *store =
		opened("faulty:file:lost?lose=1", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	uint64_t which[3];
	unsigned count;
	char buf[100];

	CHECK(!store_resize(store, PIECES * 4096 + 1000), "resize");
	written(store, "first", 5, 4094);
	CHECK(!read_at(store, buf, 5, 4094) && !memcmp(buf, "first", 5), "unflushed bytes are not read");
	CHECK(file_byte("lost", 4094) == 0, "unflushed bytes are in the file");
	flushed(store);
	CHECK(file_byte("lost", 4094) == 'f' && file_byte("lost", 4098) == 't',
	      "was flushed and is not there");
	written(store, "other", 5, 4094);
	written(store, "tail", 4, PIECES * 4096 + 996);
	control(store, "flush-error-every", "1");
	CHECK(store->ops->flush(store) == -EIO, "flush");
	control(store, "flush-error-every", "0");
	CHECK(!read_at(store, buf, 5, 4094) && !memcmp(buf, "other", 5), "a failed flush loses bytes");
	CHECK(file_byte("lost", 4094) == 'f', "a failed flush passes bytes on");
	control(store, "crash", "1");
	CHECK(!read_at(store, buf, 5, 4094) && !memcmp(buf, "first", 5), "unflushed bytes are not lost");
	CHECK(!read_at(store, buf, 4, PIECES * 4096 + 996) && !buf[0], "the tail is not lost");
	flushed(store);
	CHECK(file_byte("lost", 4094) == 'f', "lost bytes come back");
	count = survivors(store, "77", &which[0]);
	CHECK(count > PIECES / 8 && count < PIECES - PIECES / 8, "%u of %u survive", count, PIECES);
	(void)survivors(store, "77", &which[1]);
	(void)survivors(store, "78", &which[2]);
	CHECK(which[0] == which[1] && which[0] != which[2], "not decided by the seed");
	CHECK(survivors(store, "1", &which[0]) == 0, "lose=1 loses not all bytes");
	written(store, "again", 5, 4094);
	CHECK(!store_resize(store, 4096) && !store_resize(store, 9000), "resize");
	CHECK(!read_at(store, buf, 5, 4094) && !memcmp(buf, "ag\0\0\0", 5),
	      "bytes beyond the end come back");
	written(store, "again", 5, 4094);
	CHECK(!store->ops->punch(store, 4096, 4096), "punch");
	CHECK(!read_at(store, buf, 5, 4094) && !memcmp(buf, "ag\0\0\0", 5), "the hole has bytes");
	control(store, "lose", "0");
	CHECK(file_byte("lost", 4094) == 'a' && file_byte("lost", 4096) == 0, "lose=0 passes nothing on");
	written(store, "X", 1, 4094);
	CHECK(file_byte("lost", 4094) == 'X', "lose=0 keeps bytes back");
	control(store, "lose", "1");
	written(store, "Y", 1, 4094);
	CHECK(file_byte("lost", 4094) == 'X', "lose=1 does not keep bytes back");
	closed(store);
	CHECK(file_byte("lost", 4094) == 'Y', "lost without a crash");
	unlink("lost");
}

/* --------------------------------------------------------------- full and bad devices, for root */

static bool mounted; /* a tmpfs is mounted on dir/mnt */
static char loop[64]; /* our loop device, or "" */

static void unmount(void)
{
	int fd = loop[0] ? open(loop, O_RDWR | O_CLOEXEC) : -1;

	if (fd >= 0) {
		(void)ioctl(fd, LOOP_CLR_FD, 0);
		close(fd);
	}
	loop[0] = '\0';
	if (mounted)
		(void)umount2("/proc/self/cwd/mnt", MNT_DETACH);
	mounted = false;
	(void)rmdir("mnt");
}

static bool mount_small(void)
{
	CHECK(!mkdir("mnt", 0700), "%s", strerror(errno));
	mounted = !mount("fm-test", "mnt", "tmpfs", 0, "size=256k");
	if (!mounted) {
		printf("no mount here (%s): ENOSPC, EROFS and block devices are not tested\n", strerror(errno));
		rmdir("mnt");
	}
	return mounted;
}

static void test_full(void)
{
	struct fm_store *store = opened("file:mnt/f", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	char *bytes = aligned_alloc(4096, 1 << 20);
	struct iovec iov = {bytes, 1 << 20};
	size_t done = 0;
	int error;

	memset(bytes, 7, 1 << 20);
	CHECK(!store_resize(store, 1 << 20), "resize");
	CHECK(store->ops->reserve(store, 0, 1 << 20) == -ENOSPC, "more space is reserved than there is");
	error = store_write_full(store, &iov, 1, 0, &done);
	CHECK(error == -ENOSPC && done > 4096 && done <= 256 << 10, "%d after %zu", error, done);
	CHECK(write_once(store, bytes, 4096, 1 << 19, &done) == -ENOSPC,
	      "a full file system takes a write");
	CHECK(!store->ops->punch(store, 0, 65536), "punch");
	written(store, bytes, 65536, 1 << 19);
	CHECK(!store->ops->punch(store, 0, 1 << 20) && !store->ops->reserve(store, 0, 65536), "reserve");
	closed(store);
	CHECK(!mount("fm-test", "mnt", "tmpfs", MS_REMOUNT | MS_RDONLY, "size=256k"), "%s",
	      strerror(errno));
	refused("file:mnt/f", FM_STORE_OPEN_WRITE, -EROFS, "read-only file system");
	refused("file:mnt/g", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE, -EROFS, "read-only file system");
	CHECK(!mount("fm-test", "mnt", "tmpfs", MS_REMOUNT, "size=256k"), "%s", strerror(errno));
	unlink("mnt/f");
	free(bytes);
}

/* Make a loop device over `backing`. Returns false if the machine offers no loop device. */
static bool loop_make(const char *backing)
{
	int control_fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(backing, O_RDWR | O_CLOEXEC), number = -1, fd;

	if (control_fd >= 0)
		number = ioctl(control_fd, LOOP_CTL_GET_FREE);
	if (control_fd >= 0)
		close(control_fd);
	snprintf(loop, sizeof(loop), "/dev/loop%d", number);
	fd = number >= 0 ? open(loop, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0 || ioctl(fd, LOOP_SET_FD, file)) {
		printf("no loop device here (%s): block devices are not tested\n", strerror(errno));
		loop[0] = '\0';
	}
	if (fd >= 0)
		close(fd);
	close(file);
	return loop[0];
}

/* The device has less space than it reports. Buffered writes fail only at writeback. Exactly one
 * flush returns the error. */
static void test_block(void)
{
	struct fm_store *store;
	char uri[80], *page = aligned_alloc(4096, 4096);
	unsigned errors = 0;
	size_t done;

	CHECK(!system("truncate -s 64M mnt/disk"), "truncate");
	if (!loop_make("mnt/disk"))
		return;
	snprintf(uri, sizeof(uri), "file:%s", loop);
	store = opened(uri, FM_STORE_OPEN_WRITE);
	CHECK(store_size(store) == 64 << 20, "%llu", (unsigned long long)store_size(store));
	CHECK(store_resize(store, 4096) == -EOPNOTSUPP, "resize");
	CHECK(!store->ops->reserve(store, 0, 4096), "reserve");
	memset(page, 5, 4096);
	written(store, page, 4096, 8192);
	written(store, page, 100, 20000);
	flushed(store);
	CHECK(!store->ops->punch(store, 8192, 4096), "punch");
	CHECK(!read_at(store, page, 4096, 8192) && !page[0] && !page[4095], "the hole has bytes");
	CHECK(!read_at(store, page, 100, 20000) && page[0] == 5 && page[99] == 5, "other bytes");
	memset(page, 5, 4096);
	for (uint64_t at = 0; at < 2 << 20 && !errors; at += 4096) /* fills the device */
		errors = write_once(store, page, 4096, at, &done) != 0;
	CHECK(errors, "a full device takes direct writes");
	CHECK(!store->ops->flush(store), "the error of a direct write is reported twice");
	for (uint64_t at = 4 << 20; at < 6 << 20; at += 4096)
		written(store, page, 100, at + 8);
	errors = 0;
	for (int i = 0; i < 3; i++) {
		int error = store->ops->flush(store);

		CHECK(!error || error == -EIO || error == -ENOSPC, "flush gives %d", error);
		errors |= (unsigned)!!error << i;
	}
	CHECK(errors == 1, "flushes reported errors: %x", errors);
	closed(store);
	free(page);
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
	test_bytes("faulty:memory:50000?seed=3&lose=1", 0);
	test_memory();
	test_made();
	test_folder();
	CHECK(!in_child(punch_child, NULL), "see above");
	test_blocks();
	test_direct_refused();
	test_direct();
	test_coherent();
	test_refused();
	test_write_full();
	test_faults();
	test_release();
	test_lose();
	atexit(unmount);
	if (mount_small()) {
		test_full();
		test_block();
		unmount();
	}
	CHECK(count_fds() == fds, "descriptors: %u, then %u", fds, count_fds());
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	return 0;
}
