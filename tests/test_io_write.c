/* SPDX-License-Identifier: MIT */
/* The I/O engine writes and flushes, with a ring and without: all of it or an error that says how far it came; taken back
 * and cancelled as reads are; what the store does wrong is told and nothing is done twice as something else. */
#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d (%s): %s: ", __FILE__, __LINE__, way, #cond);                \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static const char *way; /* "ring" or "no ring" */
static bool no_uring;
static char dir[] = "/tmp/fm-io-write-XXXXXX";

/* ------------------------------------------------------------------ helpers */

static struct io_engine *engine_with(unsigned depth)
{
	struct io_engine_options options = {.queue_depth = depth, .no_uring = no_uring};
	struct io_engine *engine = NULL;
	int error = io_engine_create(&options, &engine);

	CHECK(!error && engine, "create: %d", error);
	return engine;
}

static struct fm_store *opened(const char *uri, unsigned flags)
{
	struct fm_store *store = NULL;
	char text[400] = "";
	int error = store_open(uri, flags, text, sizeof(text), &store);

	CHECK(!error && store, "'%s' gives %d: %s", uri, error, text);
	return store;
}

struct job {
	struct io_request request;
	uint32_t done; /* atomic, futex */
	unsigned char *buf;
};

static void job_done(struct io_request *request)
{
	struct job *job = request->owner;

	(void)atomic_add(&job->done, 1);
	os_futex_wake(&job->done, 1, OS_FUTEX_ANY);
}

/* `len` bytes at `offset`, in two segments where there is enough for it; of a flush nothing. */
static struct job *job_new(struct fm_store *store, enum io_op op, uint64_t offset, size_t len)
{
	struct job *job = calloc(1, sizeof(*job));
	size_t first = len > 4096 ? 4096 : len;

	job->buf = aligned_alloc(4096, (len + 8191) / 4096 * 4096);
	for (size_t i = 0; i < len; i++)
		job->buf[i] = (unsigned char)(offset / 4096 + i * 5 + i / 256 + 1);
	job->request.store = store;
	job->request.op = op;
	job->request.offset = offset;
	job->request.iov[0] = (struct iovec){job->buf, first};
	job->request.iov[1] = (struct iovec){job->buf + first, len - first};
	job->request.iov_count = op == IO_FLUSH ? 0 : len > first ? 2 : 1;
	job->request.done = job_done;
	job->request.owner = job;
	return job;
}

static void job_submit(struct io_engine *engine, struct job *job)
{
	os_sigmask mask = os_signals_block();

	io_submit(engine, &job->request);
	os_signals_restore(mask);
}

static int job_wait(struct job *job)
{
	while (!atomic_get(&job->done))
		(void)os_futex_wait(&job->done, 0, OS_FUTEX_ANY, OS_FOREVER);
	CHECK(atomic_get(&job->done) == 1, "done %u times", job->done);
	return job->request.error;
}

static void job_free(struct job *job)
{
	CHECK(atomic_get(&job->done) == 1, "done %u times", job->done);
	free(job->buf);
	free(job);
}

/* One request, as it should end. */
static void does(struct io_engine *engine, struct fm_store *store, enum io_op op, uint64_t offset, size_t len, int error,
		 size_t bytes)
{
	struct job *job = job_new(store, op, offset, len);
	int got;

	job_submit(engine, job);
	got = job_wait(job);
	CHECK(got == error && job->request.bytes_done == bytes, "op %d, %zu at %llu gives %d after %zu", op, len,
	      (unsigned long long)offset, got, job->request.bytes_done);
	job_free(job);
}

/* What does() wrote. */
static void has(struct fm_store *store, uint64_t offset, size_t len)
{
	struct job *want = job_new(store, IO_WRITE, offset, len);
	unsigned char *got = malloc(len);
	struct iovec iov = {got, len};
	unsigned shorts;
	size_t done = 0;

	CHECK(!store_read_full(store, &iov, 1, offset, &done, &shorts) && done == len, "%zu", done);
	CHECK(!memcmp(got, want->buf, len), "%zu at %llu: other bytes", len, (unsigned long long)offset);
	free(got);
	free(want->buf);
	free(want);
}

/* ------------------------------------------------------------------ the bytes */

static void test_bytes(const char *uri, unsigned flags)
{
	struct io_engine *engine = engine_with(0);
	struct fm_store *store = opened(uri, FM_STORE_OPEN_WRITE | flags);
	struct job *job;

	CHECK(!store->ops->resize(store, 200000), "resize");
	does(engine, store, IO_WRITE, 8192, 65536, 0, 65536);
	does(engine, store, IO_WRITE, 100, 10, 0, 10);
	does(engine, store, IO_WRITE, 196608, 200000 - 196608, 0, 200000 - 196608);
	does(engine, store, IO_WRITE, 4096, 4096, 0, 4096);
	does(engine, store, IO_FLUSH, 0, 0, 0, 0);
	has(store, 8192, 65536);
	has(store, 100, 10);
	has(store, 196608, 200000 - 196608);
	has(store, 4096, 4096);
	does(engine, store, IO_WRITE, 4096, 0, 0, 0);
	/* one request, as each of the three after the others, with segments that a flush takes no notice of */
	job = job_new(store, IO_WRITE, 12288, 8192);
	for (int i = 0; i < 6; i++) {
		job->request.op = (enum io_op[]){IO_WRITE, IO_FLUSH, IO_READ}[i % 3];
		job->done = 0;
		if (job->request.op == IO_READ)
			memset(job->buf, 0, 8192);
		job_submit(engine, job);
		CHECK(!job_wait(job), "%d", job->request.error);
		CHECK(job->request.bytes_done == (job->request.op == IO_FLUSH ? 0 : 8192), "%zu",
		      job->request.bytes_done);
		has(store, 12288, 8192);
	}
	job_free(job);
	io_engine_destroy(engine);
	store->ops->close(store);
	if (flags & FM_STORE_OPEN_CREATE) {
		store = opened(uri, 0);
		has(store, 12288, 8192);
		has(store, 196608, 200000 - 196608);
		store->ops->close(store);
		unlink("f");
	}
}

static void test_all(const char *which, bool without)
{
	way = which;
	no_uring = without;
	test_bytes("file:f", FM_STORE_OPEN_CREATE);
	test_bytes("file:f?direct=0", FM_STORE_OPEN_CREATE);
	test_bytes("memory:1M", 0);
	test_bytes("faulty:file:f", FM_STORE_OPEN_CREATE);
}

int main(void)
{
	way = "before";
	CHECK(mkdtemp(dir) && !chdir(dir), "%s: %s", dir, strerror(errno));
	test_all("ring", false);
	test_all("no ring", true);
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	return 0;
}
