/* SPDX-License-Identifier: MIT */
/* The I/O engine, with and without a ring: every request is done once and in the right order,
 * whatever the store does, and nothing is left behind. */
#include "io/engine.h"
#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"
#include "own_fds.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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
static unsigned notes;
static char dir[] = "/tmp/fm-io-XXXXXX";

/* ------------------------------------------------------------------ helpers */

static void note(void *arg, const char *line)
{
	(void)arg;
	CHECK(*line && !strchr(line, '\n'), "not a line: '%s'", line);
	notes++;
}

static struct io_engine *engine_with(unsigned depth, unsigned workers)
{
	struct io_engine_options options = {
		.queue_depth = depth,
		.workers_max = workers,
		.no_uring = no_uring,
		.note = note,
	};
	struct io_engine *engine = NULL;
	int error = io_engine_create(&options, &engine);

	CHECK(!error && engine, "create: %d", error);
	return engine;
}

static struct fm_store *opened(const char *uri)
{
	struct fm_store *store = NULL;
	char text[400] = "";
	int error = store_open(uri, 0, text, sizeof(text), &store);

	CHECK(!error && store, "'%s' gives %d: %s", uri, error, text);
	return store;
}

static void control(struct fm_store *store, const char *key, const char *value)
{
	int error = store->ops->control(store, key, value);

	CHECK(!error, "%s=%s gives %d", key, value, error);
}

/* A request and a count of how often it was done. */
struct job {
	struct io_request request;
	uint32_t done;  /* atomic, futex */
	unsigned char *buf;
	unsigned chain; /* how often `done` submits the request again */
	struct io_engine *engine;
};

static void job_done(struct io_request *request)
{
	struct job *job = request->owner;

	if (job->chain) {
		job->chain--;
		io_submit(job->engine, request);
		return;
	}
	(void)atomic_add(&job->done, 1);
	os_futex_wake(&job->done, 1, OS_FUTEX_ANY);
}

/* Make a read of `len` bytes at `offset`, in two segments if len exceeds 4096. */
static struct job *job_new(struct fm_store *store, uint64_t offset, size_t len,
			   enum io_priority priority)
{
	struct job *job = calloc(1, sizeof(*job));
	size_t first = len > 4096 ? 4096 : len;

	job->buf = aligned_alloc(4096, (len + 8191) / 4096 * 4096);
	memset(job->buf, 0xee, len);
	job->request.store = store;
	job->request.offset = offset;
	job->request.iov[0] = (struct iovec){job->buf, first};
	job->request.iov[1] = (struct iovec){job->buf + first, len - first};
	job->request.iov_count = len > first ? 2 : 1;
	job->request.priority = priority;
	job->request.done = job_done;
	job->request.owner = job;
	return job;
}

static void job_submit(struct io_engine *engine, struct job *job)
{
	os_sigmask mask = os_signals_block();

	job->engine = engine;
	io_submit(engine, &job->request);
	os_signals_restore(mask);
}

static void job_cancel(struct io_engine *engine, struct job *job)
{
	os_sigmask mask = os_signals_block();

	io_cancel(engine, &job->request);
	os_signals_restore(mask);
}

static void job_promote(struct io_engine *engine, struct job *job)
{
	os_sigmask mask = os_signals_block();

	io_promote(engine, &job->request);
	os_signals_restore(mask);
}

static int job_wait(struct job *job)
{
	while (!atomic_get(&job->done))
		(void)os_futex_wait(&job->done, 0, OS_FUTEX_ANY, OS_FOREVER);
	CHECK(atomic_get(&job->done) == 1, "done %u times", job->done);
	CHECK(atomic_get(&job->request.state) == IO_DONE, "state %u", job->request.state);
	return job->request.error;
}

static void job_free(struct job *job)
{
	CHECK(atomic_get(&job->done) == 1, "done %u times", job->done);
	free(job->buf);
	free(job);
}

/* Wait until a request is with its store. */
static void job_wait_issued(struct job *job)
{
	while (atomic_get(&job->request.state) != IO_ISSUED)
		os_sleep_until(os_now_ns() + 100000);
}

static void pause_ms(unsigned ms)
{
	os_sleep_until(os_now_ns() + ms * OS_NSEC_PER_MSEC);
}

static void expect_bytes(struct job *job, struct fm_store *plain, size_t len)
{
	unsigned char *want = malloc(len + 1);
	struct iovec iov = {want, len};
	size_t done = 0;

	CHECK(job->request.bytes_done == len, "%zu of %zu bytes", job->request.bytes_done, len);
	CHECK(!plain->ops->read(plain, &iov, 1, job->request.offset, &done) && done == len,
	      "plain read: %zu", done);
	CHECK(!memcmp(job->buf, want, len), "other bytes");
	free(want);
}

/* Do one read and check its result. */
static void read_is(struct io_engine *engine, struct fm_store *store, struct fm_store *plain,
		    uint64_t offset, size_t len, int error, size_t bytes)
{
	struct job *job = job_new(store, offset, len, IO_DEMAND);
	int got;

	job_submit(engine, job);
	got = job_wait(job);
	CHECK(got == error, "%zu at %llu gives %d", len, (unsigned long long)offset, got);
	if (!error)
		expect_bytes(job, plain, bytes);
	job_free(job);
}

/* ------------------------------------------------------------------ stores of this test */

/* A store that blocks in `read`, without submit_read, until the gate opens. */
struct gate_store {
	struct fm_store store;
	uint32_t open; /* atomic, futex */
	uint32_t inside;
};

static int gate_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	struct gate_store *gate = (struct gate_store *)store;

	(void)atomic_add(&gate->inside, 1);
	while (!atomic_get(&gate->open))
		(void)os_futex_wait(&gate->open, 0, OS_FUTEX_ANY, OS_FOREVER);
	*ret_done = 0;
	for (int i = 0; i < iov_count; i++) {
		memset(iov[i].iov_base, (int)(offset & 0xff), iov[i].iov_len);
		*ret_done += iov[i].iov_len;
	}
	return 0;
}

static const struct fm_store_ops gate_ops = {.name = "gate", .read = gate_read};

static struct gate_store gate_make(uint32_t open)
{
	return (struct gate_store){
		.store = {.ops = &gate_ops, .size_bytes = 1 << 30},
		.open = open,
	};
}

static void gate_release(struct gate_store *gate)
{
	atomic_set(&gate->open, 1);
	os_futex_wake(&gate->open, 1 << 20, OS_FUTEX_ANY);
}

/* A store whose object is shorter than its size: it brings `left` bytes, then nothing. */
struct liar_store {
	struct fm_store store;
	size_t left;
};

static int liar_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	struct liar_store *liar = (struct liar_store *)store;
	size_t bytes = store_iov_bytes(iov, iov_count);

	(void)offset;
	*ret_done = bytes < liar->left ? bytes : liar->left;
	liar->left -= *ret_done;
	return 0;
}

static int liar_submit_read(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request)
{
	size_t done = 0;
	int error = liar_read(store, request->rest, request->rest_count, 0, &done);

	io_complete(engine, request, error, done);
	return 0;
}

static const struct fm_store_ops liar_ops = {
	.name = "liar",
	.read = liar_read,
	.submit_read = liar_submit_read,
};

/* A store that reads a pipe by the ring: the read ends when the test writes to the pipe. */
struct pipe_store {
	struct fm_store store;
	int fds[2];
	int own; /* the read end, in the descriptor table of the I/O thread */
	unsigned uninvited; /* cancels to come that the engine does not ask for */
	uint32_t started;   /* atomic */
};

static int pipe_submit_read(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request)
{
	struct pipe_store *pipes = (struct pipe_store *)store;
	int error = io_ring_read(engine, request, pipes->own);

	if (!error && pipes->uninvited) {
		pipes->uninvited--;
		io_ring_cancel(engine, request);
	}
	(void)atomic_add(&pipes->started, 1);
	return error;
}

static void pipe_cancel(struct fm_store *store, struct io_engine *engine,
			struct io_request *request)
{
	(void)store;
	io_ring_cancel(engine, request);
}

static void pipe_close(struct fm_store *store)
{
	(void)store; /* pipe_unmake() closes the pipe */
}

static const struct fm_store_ops pipe_ops = {
	.name = "pipe",
	.submit_read = pipe_submit_read,
	.cancel = pipe_cancel,
	.close = pipe_close,
};

static void pipe_make(struct pipe_store *pipes, unsigned uninvited)
{
	*pipes = (struct pipe_store){
		.store = {.ops = &pipe_ops, .caps = FM_STORE_SUBMIT, .size_bytes = 1 << 30},
		.uninvited = uninvited,
	};
	CHECK(!pipe(pipes->fds), "%s", strerror(errno));
	CHECK(!os_fds_get(), "the library's table of descriptors cannot be made");
	pipes->own = os_fd_give(pipes->fds[0]);
	CHECK(pipes->own >= 0, "%d", pipes->own);
}

static void pipe_unmake(struct pipe_store *pipes)
{
	if (pipes->own != pipes->fds[0])
		os_fd_close_own(pipes->own);
	os_fds_put();
	close(pipes->fds[0]);
	close(pipes->fds[1]);
}

/* ------------------------------------------------------------------ the bytes */

static void make_file(const char *name, size_t size)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	unsigned char *bytes = malloc(size + 1);

	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)(i * 7 + i / 251 + 3);
	CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size, "%s: %s", name, strerror(errno));
	close(fd);
	free(bytes);
}

static void test_file(void)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000};
	static const char *const uris[] = {"file:f", "file:f?direct=0", "faulty:f?delay=100us",
					   "faulty:f?short-every=1"};
	struct io_engine *engine = engine_with(0, 0);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (size_t j = 0; j < sizeof(uris) / sizeof(uris[0]); j++) {
			size_t size = sizes[i];
			struct fm_store *store, *plain;

			make_file("f", size);
			store = opened(uris[j]);
			plain = opened("file:f?direct=0");
			CHECK(!unlink("f"), "%s", strerror(errno));
			read_is(engine, store, plain, 0, 131072, 0, size);
			read_is(engine, store, plain, 0, 4096, 0, size < 4096 ? size : 4096);
			read_is(engine, store, plain, size, 4096, 0, 0);
			read_is(engine, store, plain, size + 4096, 10, 0, 0);
			if (size > 4096)
				read_is(engine, store, plain, 4096, 8192, 0,
					size - 4096 < 8192 ? size - 4096 : 8192);
			if (size > 3)
				read_is(engine, store, plain, 3, 9000, 0,
					size - 3 < 9000 ? size - 3 : 9000);
			store->ops->close(store);
			plain->ops->close(plain);
		}
	io_engine_destroy(engine);
}

/* Open a descriptor that gives EINVAL for every pread(). Returns -1 if there is none here. */
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

/* The file system refuses direct reads with EINVAL: a stand-in that can only do that replaces the
 * direct descriptor. */
static void test_direct_refused(void)
{
	struct io_engine *engine;
	struct fm_store *store, *plain;
	int stand_in = open_unreadable(), direct = -1;

	make_file("f", 100000);
	store = opened("f");
	plain = opened("file:f?direct=0");
	if (stand_in >= 0)
		direct = own_direct_replace(stand_in);
	if (direct >= 0) {
		engine = engine_with(0, 0);
		read_is(engine, store, plain, 98304, 4096, 0, 100000 - 98304);
		read_is(engine, store, plain, 0, 8192, 0, 8192);
		read_is(engine, store, plain, 8192, 65536, 0, 65536);
		io_engine_destroy(engine);
	} else {
		printf("no stand-in for a direct descriptor here: EINVAL is not tested\n");
	}
	if (stand_in >= 0)
		close(stand_in);
	store->ops->close(store);
	if (direct >= 0)
		close(direct);
	plain->ops->close(plain);
	unlink("f");
}

static void test_short(void)
{
	struct io_engine *engine = engine_with(0, 0);
	struct fm_store *store = opened("faulty:memory:1M?short-every=1");
	struct fm_store *plain = opened("memory:1M");

	for (int i = 0; i < 50; i++) {
		struct job *job = job_new(store, 8192, 65536, IO_DEMAND);

		job_submit(engine, job);
		CHECK(!job_wait(job) && job->request.shorts > 0, "%u shorts", job->request.shorts);
		expect_bytes(job, plain, 65536);
		job_free(job);
	}
	read_is(engine, store, plain, (1 << 20) - 5000, 8192, 0, 5000);
	io_engine_destroy(engine);
	store->ops->close(store);
	plain->ops->close(plain);
}

static void test_nothing_before_the_end(void)
{
	struct io_engine *engine = engine_with(0, 0);

	for (int caps = 0; caps <= 1; caps++) {
		struct liar_store liar = {.store = {.ops = &liar_ops,
						    .caps = caps ? FM_STORE_SUBMIT : 0,
						    .size_bytes = 1 << 20}};

		read_is(engine, &liar.store, NULL, 0, 4096, -EIO, 0);
		liar.left = 5000;
		read_is(engine, &liar.store, NULL, 0, 8192, -EIO, 0);
		liar.left = 0;
	}
	io_engine_destroy(engine);
}

static void test_errors(void)
{
	struct io_engine *engine = engine_with(0, 0);
	struct fm_store *store = opened("faulty:memory:1M?error-every=3&error=ENOSPC");
	struct fm_store *plain = opened("memory:1M");

	for (int i = 1; i <= 9; i++)
		read_is(engine, store, plain, 0, 4096, i % 3 ? 0 : -ENOSPC, 4096);
	control(store, "error-every", "0");
	control(store, "error-at", "10000");
	read_is(engine, store, plain, 8192, 4096, -ENOSPC, 0);
	read_is(engine, store, plain, 12288, 4096, 0, 4096);
	read_is(engine, store, plain, 0, 0, 0, 0);
	io_engine_destroy(engine);
	store->ops->close(store);
	plain->ops->close(plain);
}

/* ------------------------------------------------------------------ stuck, slow, cancelled */

enum release { BY_CONTROL, BY_CANCEL, BY_ABORT };
#define STUCK 20

static void released(const char *uri, enum release how, const char *key, const char *value)
{
	struct io_engine *engine = engine_with(8, 0); /* some requests wait, some are issued */
	struct fm_store *store = opened(uri);
	struct job *jobs[STUCK];

	for (int i = 0; i < STUCK; i++) {
		jobs[i] = job_new(store, (uint64_t)i * 4096, 4096, IO_DEMAND);
		job_submit(engine, jobs[i]);
	}
	job_wait_issued(jobs[0]);
	control(store, "seed", "9"); /* has every request look at the settings again */
	pause_ms(5);
	for (int i = 0; i < STUCK; i++)
		CHECK(!atomic_get(&jobs[i]->done), "%s: request %d did not wait", uri, i);
	if (how == BY_CONTROL)
		control(store, key, value);
	else if (how == BY_ABORT)
		store->ops->abort(store);
	for (int i = STUCK - 1; how == BY_CANCEL && i >= 0; i--)
		job_cancel(engine, jobs[i]);
	for (int i = 0; i < STUCK; i++) {
		int error = job_wait(jobs[i]);

		CHECK(error == (how == BY_CONTROL ? 0 : -ECANCELED), "%s: request %d: %d", uri, i,
		      error);
		job_cancel(engine, jobs[i]); /* too late: nothing happens */
	}
	if (how == BY_CANCEL) { /* other requests are served as before */
		control(store, key, value);
		struct job *job = job_new(store, 0, 4096, IO_DEMAND);

		job_submit(engine, job);
		CHECK(!job_wait(job), "%s: after the cancels: %d", uri, job->request.error);
		job_free(job);
	}
	io_engine_destroy(engine);
	for (int i = 0; i < STUCK; i++)
		job_free(jobs[i]);
	store->ops->close(store);
}

static void test_release(void)
{
	make_file("f", 100000);
	released("faulty:memory:1M?stuck=1", BY_CONTROL, "stuck", "0");
	released("faulty:memory:1M?stuck=1", BY_CANCEL, "stuck", "0");
	released("faulty:memory:1M?stuck=1", BY_ABORT, NULL, NULL);
	released("faulty:f?delay=1000s", BY_CONTROL, "delay", "0");
	released("faulty:f?delay=900s..1000s", BY_CANCEL, "delay", "0");
	released("faulty:f?delay=1000s", BY_ABORT, NULL, NULL);
	released("faulty:faulty:memory:1M?stuck=1", BY_CANCEL, "stuck", "0");
	released("faulty:memory:1M?rate=1", BY_CONTROL, "rate", "100M");
	released("faulty:memory:1M?rate=1", BY_CANCEL, "rate", "0");
	unlink("f");
}

/* The inner of two filters holds the requests; the outer filter passes the cancel on. */
static void test_nested(void)
{
	struct fm_store *inner = NULL, *outer = NULL;
	struct io_engine *engine = engine_with(0, 0);
	struct job *job;

	CHECK(!store_faulty_open(opened("memory:1M"), "stuck=1", NULL, 0, &inner), "inner");
	CHECK(!store_faulty_open(inner, "delay=1ms&short-every=2", NULL, 0, &outer), "outer");
	job = job_new(outer, 0, 8192, IO_DEMAND);
	job_submit(engine, job);
	job_wait_issued(job);
	pause_ms(10);
	CHECK(!atomic_get(&job->done), "the inner filter lets it through");
	job_cancel(engine, job);
	CHECK(job_wait(job) == -ECANCELED, "%d", job->request.error);
	job_free(job);
	job = job_new(outer, 0, 8192, IO_DEMAND);
	job_submit(engine, job);
	pause_ms(10);
	control(inner, "stuck", "0");
	CHECK(!job_wait(job), "%d", job->request.error);
	job_free(job);
	io_engine_destroy(engine);
	outer->ops->close(outer);
}

static void test_cancel_queued(void)
{
	struct io_engine *engine = engine_with(1, 0);
	struct fm_store *store = opened("faulty:memory:1M?stuck=1");
	struct job *first = job_new(store, 0, 4096, IO_DEMAND);
	struct job *second = job_new(store, 4096, 4096, IO_DEMAND);
	struct job *third = job_new(store, 8192, 4096, IO_SPECULATIVE);

	job_submit(engine, first);
	job_wait_issued(first);
	job_submit(engine, second);
	job_submit(engine, third);
	CHECK(atomic_get(&second->request.state) == IO_QUEUED, "%u", second->request.state);
	job_cancel(engine, second);
	job_cancel(engine, third);
	CHECK(job_wait(second) == -ECANCELED, "%d", second->request.error);
	CHECK(job_wait(third) == -ECANCELED, "%d", third->request.error);
	CHECK(!atomic_get(&first->done), "the first request ended, too");
	control(store, "stuck", "0");
	CHECK(!job_wait(first), "%d", first->request.error);
	io_engine_destroy(engine);
	job_free(first);
	job_free(second);
	job_free(third);
	store->ops->close(store);
}

/* A cancel ends a read in the kernel. If the engine did not ask, the read is submitted again. */
static void test_ring_cancel(void)
{
	struct io_engine *engine = engine_with(0, 0);
	struct pipe_store pipes;
	struct job *job;

	pipe_make(&pipes, 0);
	job = job_new(&pipes.store, 0, 4, IO_DEMAND);
	job_submit(engine, job);
	while (!atomic_get(&pipes.started))
		pause_ms(1);
	pause_ms(5);
	job_cancel(engine, job);
	CHECK(job_wait(job) == -ECANCELED, "%d", job->request.error);
	job_free(job);
	pipe_unmake(&pipes);

	pipe_make(&pipes, 1);
	job = job_new(&pipes.store, 0, 8, IO_DEMAND);
	job_submit(engine, job);
	while (!atomic_get(&pipes.started))
		pause_ms(1);
	pause_ms(5);
	CHECK(!atomic_get(&job->done), "ended with %d", job->request.error);
	CHECK(write(pipes.fds[1], "abcd", 4) == 4, "%s", strerror(errno));
	pause_ms(5);
	CHECK(!atomic_get(&job->done), "half of the bytes count as all");
	CHECK(write(pipes.fds[1], "efgh", 4) == 4, "%s", strerror(errno));
	CHECK(!job_wait(job), "%d", job->request.error);
	CHECK(!memcmp(job->buf, "abcdefgh", 8), "other bytes");
	job_free(job);
	pipe_unmake(&pipes);
	io_engine_destroy(engine);
}

/* A cancel goes through a filter to the store that has the request. */
static void test_ring_cancel_below(void)
{
	struct io_engine *engine = engine_with(0, 0);
	struct fm_store *filter = NULL;
	struct pipe_store pipes;
	struct job *job;
	char bytes[4];

	pipe_make(&pipes, 0);
	CHECK(!store_faulty_open(&pipes.store, "delay=1ms", NULL, 0, &filter), "filter");
	for (int i = 0; i < 3; i++) {
		unsigned started = atomic_get(&pipes.started);

		job = job_new(filter, 0, 4, IO_DEMAND);
		job_submit(engine, job);
		while (atomic_get(&pipes.started) == started)
			pause_ms(1);
		job_cancel(engine, job);
		CHECK(job_wait(job) == -ECANCELED, "%d", job->request.error);
		job_free(job);
		/* The kernel has dropped the read: the test gets the bytes. */
		CHECK(write(pipes.fds[1], "abcd", 4) == 4, "%s", strerror(errno));
		pause_ms(2);
		CHECK(fcntl(pipes.fds[0], F_SETFL, O_NONBLOCK) == 0, "%s", strerror(errno));
		CHECK(read(pipes.fds[0], bytes, 4) == 4, "%s", strerror(errno));
		CHECK(fcntl(pipes.fds[0], F_SETFL, 0) == 0, "%s", strerror(errno));
	}
	io_engine_destroy(engine);
	filter->ops->close(filter);
	pipe_unmake(&pipes);
}

/* A cancelled read gives its share of the rate back. Each of the 20 reads would take 64 s. */
static void test_rate_returned(void)
{
	struct io_engine *engine = engine_with(0, 0);
	struct fm_store *store = opened("faulty:memory:1M?rate=64"), *plain = opened("memory:1M");
	struct job *jobs[STUCK];

	for (int i = 0; i < STUCK; i++) {
		jobs[i] = job_new(store, 0, 4096, IO_DEMAND);
		job_submit(engine, jobs[i]);
	}
	for (int i = 0; i < STUCK; i++)
		job_wait_issued(jobs[i]);
	pause_ms(2);
	for (int i = 0; i < STUCK; i++)
		job_cancel(engine, jobs[i]);
	for (int i = 0; i < STUCK; i++) {
		CHECK(job_wait(jobs[i]) == -ECANCELED, "%d", jobs[i]->request.error);
		job_free(jobs[i]);
	}
	read_is(engine, store, plain, 0, 1, 0, 1);
	io_engine_destroy(engine);
	store->ops->close(store);
	plain->ops->close(plain);
}

static uint64_t timer_last_ns;
static unsigned timer_calls;

static void timer_called(struct io_engine *engine, struct io_request *request)
{
	(void)engine;
	CHECK(request->timer_ns >= timer_last_ns, "%llu after %llu",
	      (unsigned long long)request->timer_ns, (unsigned long long)timer_last_ns);
	CHECK(!request->timer_slot, "still in the heap");
	timer_last_ns = request->timer_ns;
	timer_calls++;
}

/* The timer heap alone: expired timers come in their order, whichever timers were stopped. */
static void test_timers(void)
{
	enum { TIMERS = 500 };
	struct io_engine engine = {.bell = {.fd = -1}};
	struct io_request *requests = calloc(TIMERS, sizeof(*requests));
	uint64_t state = 1;

	CHECK(timers_reserve(&engine, TIMERS), "no memory");
	for (int round = 0; round < 50; round++) {
		unsigned stopped = 0;

		for (int i = 0; i < TIMERS; i++) {
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			io_timer_start(&engine, &requests[i], state >> 54, timer_called);
		}
		for (int i = 0; i < TIMERS / 2; i++) {
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			stopped += io_timer_stop(&engine, &requests[(state >> 33) % TIMERS]);
		}
		timer_last_ns = timer_calls = 0;
		timers_run(&engine);
		CHECK(timer_calls == TIMERS - stopped, "%u called, %u stopped", timer_calls,
		      stopped);
		CHECK(timers_next(&engine) == OS_FOREVER, "a timer is left");
	}
	os_meta_free(engine.timers, engine.timers_room * sizeof(*engine.timers));
	free(requests);
}

/* ------------------------------------------------------------------ order and fairness */

/* Return the place of a request in the order in which the requests ended, from 1. The calls of
 * `done` may have another order: the threads that make them may overtake each other. */
static unsigned place_of(struct job *const *jobs, int count, int job)
{
	unsigned place = 1;

	for (int i = 0; i < count; i++)
		place += jobs[i]->request.ended < jobs[job]->request.ended;
	return place;
}

static void ordered(struct io_engine *engine, struct fm_store *store,
		    void (*release)(struct fm_store *))
{
	enum { BLOCKER, SPEC1, SPEC2, SPEC3, DEMAND, COUNT };
	static const unsigned expected[COUNT] = {1, 4, 5, 3, 2};
	struct job *jobs[COUNT];

	for (int i = 0; i < COUNT; i++)
		jobs[i] = job_new(store, (uint64_t)i * 4096, 4096,
				  i == BLOCKER || i == DEMAND ? IO_DEMAND : IO_SPECULATIVE);
	job_submit(engine, jobs[BLOCKER]);
	job_wait_issued(jobs[BLOCKER]);
	pause_ms(2);
	for (int i = SPEC1; i < COUNT; i++)
		job_submit(engine, jobs[i]);
	pause_ms(2);
	job_promote(engine, jobs[SPEC3]);
	job_promote(engine, jobs[SPEC3]); /* a second promotion changes nothing */
	job_promote(engine, jobs[BLOCKER]);
	release(store);
	for (int i = 0; i < COUNT; i++)
		CHECK(!job_wait(jobs[i]), "%d", jobs[i]->request.error);
	for (int i = 0; i < COUNT; i++)
		CHECK(place_of(jobs, COUNT, i) == expected[i], "request %d came %u., not %u.", i,
		      place_of(jobs, COUNT, i), expected[i]);
	for (int i = 0; i < COUNT; i++)
		job_free(jobs[i]);
}

static void release_faulty(struct fm_store *store)
{
	control(store, "stuck", "0");
}

static void release_gate(struct fm_store *store)
{
	gate_release((struct gate_store *)store);
}

static void test_order(void)
{
	struct io_engine *engine = engine_with(1, 0);
	struct fm_store *store = opened("faulty:memory:1M?stuck=1");
	struct gate_store gate = gate_make(0);

	ordered(engine, store, release_faulty);
	io_engine_destroy(engine);
	store->ops->close(store);
	/* The same order holds in the queue for the only worker that a store may have. */
	engine = engine_with(0, 2);
	ordered(engine, &gate.store, release_gate);
	io_engine_destroy(engine);
}

/* Two dead stores with 100 reads each leave other stores served, by the ring and by workers. */
static void test_dead_store(void)
{
	enum { DEAD = 100 };
	struct io_engine *engine = engine_with(16, 4);
	struct fm_store *stuck = opened("faulty:memory:1M?stuck=1");
	struct fm_store *plain = opened("memory:1M");
	struct gate_store dead = gate_make(0), alive = gate_make(1);
	struct job *jobs[2 * DEAD], *job;

	make_file("f", 100000);
	struct fm_store *file = opened("f");

	for (int i = 0; i < 2 * DEAD; i++) {
		jobs[i] = job_new(i % 2 ? stuck : &dead.store, 0, 4096,
				  i % 3 ? IO_DEMAND : IO_SPECULATIVE);
		job_submit(engine, jobs[i]);
	}
	while (atomic_get(&dead.inside) < 2)
		pause_ms(1);
	read_is(engine, plain, plain, 0, 8192, 0, 8192);
	read_is(engine, file, file, 0, 8192, 0, 8192);
	job = job_new(&alive.store, 7, 8192, IO_SPECULATIVE);
	job_submit(engine, job);
	CHECK(!job_wait(job) && job->buf[0] == 7, "%d", job->request.error);
	job_free(job);
	CHECK(atomic_get(&dead.inside) == 2, "%u of 4 workers for the dead store", dead.inside);
	for (int i = 0; i < 2 * DEAD; i += 2) /* reads that wait for a worker end at once */
		job_cancel(engine, jobs[i]);
	gate_release(&dead);
	control(stuck, "stuck", "0");
	for (int i = 0, ended = 0; i < 2 * DEAD; i++) {
		int error = job_wait(jobs[i]);

		ended += !error;
		CHECK(i % 2 ? !error : !error || error == -ECANCELED, "request %d: %d", i, error);
		CHECK(i % 2 || ended - (i + 1) / 2 <= 3, "cancels came too late");
	}
	io_engine_destroy(engine);
	for (int i = 0; i < 2 * DEAD; i++)
		job_free(jobs[i]);
	stuck->ops->close(stuck);
	plain->ops->close(plain);
	file->ops->close(file);
	unlink("f");
}

/* ------------------------------------------------------------------ many at once */

#define MANY       1000
#define SUBMITTERS 4

static struct job *many[MANY];
static struct io_engine *many_engine;

static void *submitter_main(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg;

	for (unsigned i = self; i < MANY; i += SUBMITTERS) {
		job_submit(many_engine, many[i]);
		if (i % 7 == 0)
			job_promote(many_engine, many[i]);
		if (i % 11 == 0)
			job_cancel(many_engine, many[i]);
		if (i % 13 == 0 && i >= 200) /* a request that has been under way for a while */
			job_cancel(many_engine, many[i - 200]);
	}
	return NULL;
}

static void many_on(const char *uri, const char *plain_uri, unsigned depth)
{
	struct fm_store *store = opened(uri), *plain = opened(plain_uri);
	pthread_t threads[SUBMITTERS];
	unsigned good = 0;

	many_engine = engine_with(depth, 0);
	for (unsigned i = 0; i < MANY; i++)
		many[i] = job_new(store, (uint64_t)i * 5000, i % 3 ? 4096 : 20000,
				  i % 2 ? IO_DEMAND : IO_SPECULATIVE);
	for (uintptr_t i = 0; i < SUBMITTERS; i++)
		CHECK(!pthread_create(&threads[i], NULL, submitter_main, (void *)i), "thread");
	for (int i = 0; i < SUBMITTERS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < MANY; i++) {
		int error = job_wait(many[i]);
		bool may_be_cancelled = i % 11 == 0 || (i + 200) % 13 == 0;

		CHECK(!error || error == -EIO || (error == -ECANCELED && may_be_cancelled),
		      "request %u: %d", i, error);
		if (error)
			continue;
		expect_bytes(many[i], plain, i % 3 ? 4096 : 20000);
		good++;
	}
	CHECK(good > MANY / 2, "only %u", good);
	io_engine_destroy(many_engine);
	for (unsigned i = 0; i < MANY; i++)
		job_free(many[i]);
	store->ops->close(store);
	plain->ops->close(plain);
}

static void test_many(void)
{
	make_file("f", 6 << 20);
	many_on("faulty:memory:6M?delay=0..20ms&short-every=5&error-every=50", "memory:6M", MANY);
	many_on("faulty:f?delay=0..5ms&short-every=5&error-every=50", "file:f?direct=0", 0);
	many_on("f", "file:f?direct=0", 0);
	many_on("memory:6M", "memory:6M", 2);
	unlink("f");
}

/* `done` may submit the request again. */
static void test_chain(void)
{
	struct io_engine *engine = engine_with(2, 0);
	struct fm_store *store = opened("memory:1M");
	struct job *job = job_new(store, 0, 4096, IO_DEMAND);

	job->chain = 2000;
	job_submit(engine, job);
	CHECK(!job_wait(job) && !job->chain, "%u left", job->chain);
	job_free(job);
	io_engine_destroy(engine);
	store->ops->close(store);
}

/* Change the settings over and over while requests come and go. */
static void *changer_main(void *arg)
{
	struct fm_store *store = arg;
	static const char *const rates[] = {"0", "1G", "100M"};

	for (int i = 0; i < 300; i++) {
		control(store, "stuck", i % 2 ? "0" : "1");
		control(store, "rate", rates[i % 3]);
		control(store, "delay", i % 2 ? "0..100us" : "1s");
	}
	control(store, "delay", "0");
	control(store, "stuck", "0");
	return NULL;
}

static void test_changes(void)
{
	struct io_engine *engine = engine_with(0, 0);
	struct fm_store *store = opened("faulty:memory:1M");
	struct job *jobs[20];
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, changer_main, store), "thread");
	for (int i = 0; i < 20; i++) {
		jobs[i] = job_new(store, 0, 4096, IO_DEMAND);
		jobs[i]->chain = 50;
		job_submit(engine, jobs[i]);
	}
	for (int i = 0; i < 20; i++)
		CHECK(!job_wait(jobs[i]), "%d", jobs[i]->request.error);
	pthread_join(thread, NULL);
	io_engine_destroy(engine);
	for (int i = 0; i < 20; i++)
		job_free(jobs[i]);
	store->ops->close(store);
}

/* ------------------------------------------------------------------ nothing left behind */

static unsigned count_entries(const char *path)
{
	DIR *entries = opendir(path);
	unsigned count = 0;

	while (readdir(entries))
		count++;
	closedir(entries);
	return count;
}

/* Count the threads except those that the kernel made for an io_uring. Such a thread stays for some
 * seconds after its ring has gone. */
static unsigned count_threads(void)
{
	unsigned count = 0;
	DIR *tasks = opendir("/proc/self/task");

	for (const struct dirent *entry; tasks && (entry = readdir(tasks));) {
		char path[300], name[32] = "";
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		FILE *comm = entry->d_name[0] != '.' ? fopen(path, "re") : NULL;
		count += comm && fgets(name, sizeof(name), comm) && strncmp(name, "iou-", 4) != 0;
		if (comm)
			fclose(comm);
	}
	if (tasks)
		closedir(tasks);
	return count;
}

static void test_nothing_left(unsigned fds, unsigned threads)
{
	/* A thread that has ended may stay in /proc for a moment. */
	for (int i = 0; i < 2000 && count_threads() > threads; i++)
		pause_ms(5);
	CHECK(count_threads() == threads, "%u threads, before it was %u",
	      count_threads(), threads);
	CHECK(count_entries("/proc/self/fd") == fds, "%u descriptors, before it was %u",
	      count_entries("/proc/self/fd"), fds);
}

static void test_create(void)
{
	struct io_engine *engine = NULL;

	notes = 0;
	engine = engine_with(0, 0);
	CHECK(notes == (no_uring ? 1 : 0), "the note was called %u times", notes);
	io_engine_destroy(engine);
	CHECK(!io_engine_create(NULL, &engine), "without options");
	io_engine_destroy(engine);
	io_engine_destroy(NULL);
}

/* Where io_uring is forbidden, the engine logs one line and serves reads. Called in a child. */
static void forbid_uring(int denied)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)denied),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(77);
}

static void note_remedy(void *arg, const char *line)
{
	CHECK(strstr(line, arg), "'%s' is not in '%s'", (char *)arg, line);
	notes++;
}

static void test_forbidden(int denied, const char *remedy)
{
	struct io_engine_options options = {.note = note_remedy, .note_arg = (void *)remedy};
	struct io_engine *engine = NULL;
	struct fm_store *store;
	pid_t child = fork();
	int status;

	way = "forbidden";
	if (child) {
		CHECK(waitpid(child, &status, 0) == child, "%s", strerror(errno));
		CHECK(WIFEXITED(status), "status %x", status);
		if (WEXITSTATUS(status) == 77)
			printf("seccomp is not available: %s is not tested\n", remedy);
		else if (WEXITSTATUS(status))
			exit(1);
		return;
	}
	forbid_uring(denied);
	CHECK(!io_engine_create(&options, &engine), "create");
	CHECK(notes == 1, "the note was called %u times", notes);
	make_file("f", 9000);
	store = opened("f");
	read_is(engine, store, store, 0, 9000, 0, 9000);
	io_engine_destroy(engine);
	store->ops->close(store);
	unlink("f");
	exit(0);
}

static bool ring_works(void)
{
	way = "probe";
	notes = 0;
	io_engine_destroy(engine_with(0, 0));
	return !notes;
}

static void test_all(const char *which, bool without)
{
	unsigned fds = count_entries("/proc/self/fd"), threads = count_threads();

	way = which;
	no_uring = without;
	test_create();
	test_file();
	test_short();
	test_nothing_before_the_end();
	test_errors();
	test_release();
	test_nested();
	test_cancel_queued();
	test_rate_returned();
	if (!without) {
		test_ring_cancel();
		test_ring_cancel_below();
		test_direct_refused();
	}
	test_timers();
	test_order();
	test_dead_store();
	test_chain();
	test_changes();
	test_many();
	test_nothing_left(fds, threads);
}

int main(void)
{
	bool ring;

	CHECK(mkdtemp(dir) && !chdir(dir), "%s: %s", dir, strerror(errno));
	test_forbidden(EPERM, "io_uring_disabled");
	test_forbidden(ENOSYS, "5.6");
	ring = ring_works();
	test_all("no ring", true);
	if (ring)
		test_all("ring", false);
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	if (!ring)
		printf("io_uring is not available here: only the engine without io_uring was tested\n");
	return 0;
}
