/* SPDX-License-Identifier: MIT */
/* Writes and flushes of the I/O engine, with and without a ring. A write is done whole, or ends
 * with an error and the number of bytes done. Writes are taken back and cancelled as reads are.
 * Errors of the store are reported, and no request is done as another operation. */
#include "io/io.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/store.h"
#include "own_fds.h"

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

/* Make a request of `len` bytes, in two segments if len exceeds 4096. A flush has no bytes. */
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

static void job_cancel(struct io_engine *engine, struct job *job)
{
	os_sigmask mask = os_signals_block();

	io_cancel(engine, &job->request);
	os_signals_restore(mask);
}

/* Wait until a request is with its store. */
static void job_wait_issued(struct job *job)
{
	while (atomic_get(&job->request.state) != IO_ISSUED)
		os_sleep_until(os_now_ns() + 100000);
}

static void control(struct fm_store *store, const char *key, const char *value)
{
	int error = store->ops->control(store, key, value);

	CHECK(!error, "%s=%s gives %d", key, value, error);
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

/* Do one request and check its result. */
static void does(struct io_engine *engine, struct fm_store *store, enum io_op op, uint64_t offset,
		 size_t len, int error, size_t bytes)
{
	struct job *job = job_new(store, op, offset, len);
	int got;

	job_submit(engine, job);
	got = job_wait(job);
	CHECK(got == error && job->request.bytes_done == bytes,
	      "op %d, %zu at %llu gives %d after %zu", op, len, (unsigned long long)offset, got,
	      job->request.bytes_done);
	job_free(job);
}

/* Check that the store has the bytes that does() wrote. */
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

	CHECK(!store_resize(store, 200000), "resize");
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
	/* Use one request for the three operations in turn. A flush ignores the segments that the
	 * request has. */
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

/* The file system refuses every direct write: a stand-in that gives EINVAL for each write replaces
 * the direct descriptor. */
static void test_direct_refused(void)
{
	struct io_engine *engine = engine_with(0);
	struct fm_store *store = opened("file:f", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	int stand_in = open("/dev/kvm", O_RDWR | O_CLOEXEC), direct = -1;

	if (stand_in < 0)
		stand_in = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	CHECK(!store_resize(store, 100000), "resize");
	if (stand_in >= 0 && pwrite(stand_in, "", 1, 0) < 0 && errno == EINVAL)
		direct = own_direct_replace(stand_in);
	if (direct >= 0) {
		for (int i = 0; i < 2; i++)
			does(engine, store, IO_WRITE, 4096 * i, 32768, 0, 32768);
		has(store, 4096, 32768);
	} else {
		printf("no stand-in for a direct descriptor here: EINVAL is not tested\n");
	}
	if (stand_in >= 0)
		close(stand_in);
	io_engine_destroy(engine);
	store->ops->close(store);
	if (direct >= 0)
		close(direct);
	unlink("f");
}

/* ------------------------------------------------------------------ stores of this test */

/* A store that answers each write by the next of the `steps`: the most bytes it takes, 0 for
 * nothing, or a negative errno. */
struct scripted {
	struct fm_store store;
	const int *steps;
	unsigned writes, flushes; /* atomic */
	int flush_error;
	char got[16384];
};

static int scripted_write(struct fm_store *store, const struct iovec *iov, int iov_count,
			  uint64_t offset, size_t *ret_done)
{
	struct scripted *scripted = (struct scripted *)store;
	int step = scripted->steps[atomic_add(&scripted->writes, 1)];
	size_t done = 0;

	if (step < 0)
		return step;
	for (int i = 0; i < iov_count; i++)
		for (size_t j = 0; j < iov[i].iov_len && done < (size_t)step; j++, done++)
			scripted->got[offset + done] = ((char *)iov[i].iov_base)[j];
	*ret_done = done;
	return 0;
}

static int scripted_flush(struct fm_store *store)
{
	struct scripted *scripted = (struct scripted *)store;

	(void)atomic_add(&scripted->flushes, 1);
	return scripted->flush_error;
}

static int scripted_submit(struct fm_store *store, struct io_engine *engine,
			   struct io_request *request)
{
	size_t done = 0;
	int error;

	CHECK(request->op != IO_READ, "a read");
	if (request->op == IO_FLUSH)
		error = scripted_flush(store);
	else
		error = scripted_write(store, request->rest, request->rest_count,
				       request->offset + request->bytes_done, &done);
	io_complete(engine, request, error, done);
	return 0;
}

/* served by workers; by the store itself; by workers, although the store submits reads itself */
static const struct fm_store_ops scripted_ops[3] = {
	{.name = "scripted", .write = scripted_write, .flush = scripted_flush},
	{.name = "scripted", .submit_write = scripted_submit, .submit_flush = scripted_submit},
	{.name = "scripted",
	 .submit_read = scripted_submit,
	 .write = scripted_write,
	 .flush = scripted_flush},
};

static void script_is(struct io_engine *engine, const int *steps, int error, size_t bytes,
		      unsigned writes)
{
	for (int i = 0; i < 3; i++) {
		struct scripted *scripted = calloc(1, sizeof(*scripted));
		struct job *job;
		int got;

		/* The size of 1 byte must not cut the write short. */
		scripted->store = (struct fm_store){
			.ops = &scripted_ops[i], .caps = i ? FM_STORE_SUBMIT : 0, .size_bytes = 1};
		scripted->steps = steps;
		job = job_new(&scripted->store, IO_WRITE, 0, 10000);
		job_submit(engine, job);
		got = job_wait(job);
		CHECK(got == error && job->request.bytes_done == bytes, "%d: gives %d after %zu", i, got,
		      job->request.bytes_done);
		CHECK(scripted->writes == writes, "%d: %u writes", i, scripted->writes);
		CHECK(!memcmp(scripted->got, job->buf, bytes), "%d: other bytes", i);
		job_free(job);
		does(engine, &scripted->store, IO_FLUSH, 0, 0, 0, 0);
		scripted->flush_error = -EDQUOT;
		does(engine, &scripted->store, IO_FLUSH, 77, 0, -EDQUOT, 0);
		CHECK(scripted->flushes == 2, "%d: %u flushes have reached the store", i, scripted->flushes);
		free(scripted);
	}
}

static void test_short(void)
{
	struct io_engine *engine = engine_with(0);

	script_is(engine, (int[]){10000}, 0, 10000, 1);
	script_is(engine, (int[]){4096, 5904}, 0, 10000, 2);
	script_is(engine, (int[]){1, 4094, 3, 5902}, 0, 10000, 4);
	script_is(engine, (int[]){0}, -EIO, 0, 1);
	script_is(engine, (int[]){9999, 0}, -EIO, 9999, 2);
	script_is(engine, (int[]){5000, -ENOSPC}, -ENOSPC, 5000, 2);
	script_is(engine, (int[]){-ENOSPC}, -ENOSPC, 0, 1);
	io_engine_destroy(engine);
}

/* A store with neither writes nor flushes. */
static void test_cannot(void)
{
	static const struct fm_store_ops ops = {.name = "cannot"};
	struct fm_store store = {.ops = &ops, .caps = FM_STORE_SUBMIT, .size_bytes = 4096};
	struct io_engine *engine = engine_with(0);

	does(engine, &store, IO_WRITE, 0, 4096, -EOPNOTSUPP, 0);
	does(engine, &store, IO_FLUSH, 0, 0, -EOPNOTSUPP, 0);
	io_engine_destroy(engine);
}

/* ------------------------------------------------------------------ faults */

static void test_faulty(const char *uri)
{
	struct io_engine *engine = engine_with(0);
	struct fm_store *store = opened(uri, FM_STORE_OPEN_WRITE);

	control(store, "write-short-every", "1");
	for (int i = 0; i < 20; i++) {
		struct job *job = job_new(store, IO_WRITE, 4096, 65536);

		job_submit(engine, job);
		CHECK(!job_wait(job) && job->request.bytes_done == 65536 && job->request.shorts > 0, "%u shorts",
		      job->request.shorts);
		job_free(job);
	}
	has(store, 4096, 65536);
	control(store, "write-short-every", "0");
	control(store, "write-error", "ENOSPC");
	control(store, "write-error-at", "8K");
	does(engine, store, IO_WRITE, 4096, 65536, -ENOSPC, 0);
	control(store, "write-error-at", "none");
	control(store, "write-error-every", "1");
	does(engine, store, IO_WRITE, 4096, 65536, -ENOSPC, 0);
	does(engine, store, IO_FLUSH, 0, 0, 0, 0);
	does(engine, store, IO_READ, 4096, 65536, 0, 65536);
	control(store, "write-error-every", "0");
	control(store, "flush-error-every", "2");
	does(engine, store, IO_WRITE, 4096, 65536, 0, 65536);
	does(engine, store, IO_FLUSH, 0, 0, -EIO, 0);
	does(engine, store, IO_FLUSH, 0, 0, 0, 0);
	control(store, "flush-error-every", "0");
	for (int is_flush = 0; is_flush < 2; is_flush++) {
		struct job *job = job_new(store, is_flush ? IO_FLUSH : IO_WRITE, 0, is_flush ? 0 : 4096);
		const char *key = is_flush ? "flush-delay" : "write-delay";
		uint64_t begun = os_now_ns();

		control(store, key, "3ms");
		job_submit(engine, job);
		CHECK(!job_wait(job) && os_now_ns() - begun >= 3 * OS_NSEC_PER_MSEC, "%s", key);
		control(store, key, "0");
		job_free(job);
	}
	io_engine_destroy(engine);
	store->ops->close(store);
}

/* A request that waits for ever ends when the setting is cleared, by a cancel or by an abort. */
static void test_stuck(const char *uri, bool is_flush)
{
	struct io_engine *engine = engine_with(1);
	struct fm_store *store = opened(uri, FM_STORE_OPEN_WRITE);
	const char *key = is_flush ? "flush-stuck" : "write-stuck";
	enum io_op op = is_flush ? IO_FLUSH : IO_WRITE;
	struct job *job, *queued;

	for (int i = 0; i < 3; i++) {
		control(store, key, "1");
		job = job_new(store, op, 4096, is_flush ? 0 : 4096);
		queued = job_new(store, op, 8192, is_flush ? 0 : 4096);
		job_submit(engine, job);
		job_wait_issued(job);
		job_submit(engine, queued);
		job_cancel(engine, queued);
		CHECK(job_wait(queued) == -ECANCELED && !queued->request.bytes_done, "a queued write: %d",
		      queued->request.error);
		os_sleep_until(os_now_ns() + 5 * OS_NSEC_PER_MSEC);
		CHECK(!atomic_get(&job->done), "the write is not stuck");
		if (i == 0)
			control(store, key, "0");
		else if (i == 1)
			job_cancel(engine, job);
		else
			store->ops->abort(store);
		CHECK(job_wait(job) == (i ? -ECANCELED : 0), "%d: %d", i, job->request.error);
		job_free(job);
		job_free(queued);
	}
	io_engine_destroy(engine);
	store->ops->close(store);
}

static unsigned char file_byte(const char *name, uint64_t offset)
{
	unsigned char byte = 0xee;
	int fd = open(name, O_RDONLY);

	CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1, "%s: %s", name, strerror(errno));
	close(fd);
	return byte;
}

/* A store that loses unflushed writes is served by workers only. The results are the same. */
static void test_lose(void)
{
	struct io_engine *engine = engine_with(0);
	struct fm_store *store =
		opened("faulty:file:f?lose=1", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);

	CHECK(!store_resize(store, 100000), "resize");
	does(engine, store, IO_WRITE, 4096, 20000, 0, 20000);
	has(store, 4096, 20000);
	CHECK(file_byte("f", 4096) == 0, "a byte that was not flushed is in the file");
	does(engine, store, IO_FLUSH, 0, 0, 0, 0);
	CHECK(file_byte("f", 4096) != 0, "a flushed byte is not in the file");
	does(engine, store, IO_WRITE, 40960, 20000, 0, 20000);
	control(store, "crash", "1");
	has(store, 4096, 20000);
	CHECK(file_byte("f", 40960) == 0, "a byte that was not flushed is not lost");
	does(engine, store, IO_FLUSH, 0, 0, 0, 0);
	CHECK(file_byte("f", 40960) == 0, "a lost byte comes back");
	io_engine_destroy(engine);
	store->ops->close(store);
	unlink("f");
}

/* ------------------------------------------------------------------ cancelled in the kernel */

/* A store that writes to a full pipe by the ring: the write ends when the test reads the pipe. */
struct pipe_store {
	struct fm_store store;
	int fds[2];
	int own; /* the write end, in the descriptor table of the I/O thread */
	unsigned uninvited; /* cancels to come that the engine does not ask for */
	uint32_t started;   /* atomic */
};

static int pipe_submit_write(struct fm_store *store, struct io_engine *engine,
			     struct io_request *request)
{
	struct pipe_store *pipes = (struct pipe_store *)store;
	int error = io_ring_write(engine, request, pipes->own);

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

/* A pipe cannot be synced: the flush gives -EINVAL. */
static int pipe_submit_flush(struct fm_store *store, struct io_engine *engine,
			     struct io_request *request)
{
	return io_ring_flush(engine, request, ((struct pipe_store *)store)->own);
}

static const struct fm_store_ops pipe_ops = {
	.name = "pipe",
	.submit_write = pipe_submit_write,
	.submit_flush = pipe_submit_flush,
	.cancel = pipe_cancel,
};

/* A pipe has a fixed number of buffers. Whole pages fill them all. */
static void test_ring_cancel(bool uninvited)
{
	struct io_engine *engine = engine_with(0);
	struct pipe_store pipes = {
		.store = {.ops = &pipe_ops, .caps = FM_STORE_SUBMIT, .size_bytes = 1 << 20},
		.uninvited = uninvited};
	unsigned char page[4096], got[4096];
	unsigned fill = 0;
	struct job *job;

	if (no_uring) {
		io_engine_destroy(engine);
		return;
	}
	memset(page, 0xfe, sizeof(page));
	CHECK(!pipe2(pipes.fds, O_NONBLOCK), "%s", strerror(errno));
	CHECK(!os_fds_get(), "the library's table of descriptors cannot be made");
	pipes.own = os_fd_give(pipes.fds[1]);
	CHECK(pipes.own >= 0, "%d", pipes.own);
	while (write(pipes.fds[1], page, 4096) == 4096)
		fill++;
	CHECK(!fcntl(pipes.fds[1], F_SETFL, 0), "%s", strerror(errno));
	does(engine, &pipes.store, IO_FLUSH, 0, 0, -EINVAL, 0);
	job = job_new(&pipes.store, IO_WRITE, 0, 4096);
	job_submit(engine, job);
	while (!atomic_get(&pipes.started))
		os_sleep_until(os_now_ns() + 100000);
	os_sleep_until(os_now_ns() + 5 * OS_NSEC_PER_MSEC);
	CHECK(!atomic_get(&job->done), "done: %d", job->request.error);
	if (!uninvited) {
		job_cancel(engine, job);
		CHECK(job_wait(job) == -ECANCELED && !job->request.bytes_done, "%d", job->request.error);
	}
	for (unsigned i = 0; i < fill; i++)
		CHECK(read(pipes.fds[0], got, 4096) == 4096 && got[0] == 0xfe, "page %u", i);
	if (uninvited) { /* the engine has submitted the write again */
		CHECK(!job_wait(job) && job->request.bytes_done == 4096, "%d", job->request.error);
		CHECK(read(pipes.fds[0], got, 4096) == 4096 && !memcmp(got, job->buf, 4096), "other bytes");
	}
	CHECK(read(pipes.fds[0], got, 4096) < 0 && errno == EAGAIN, "more bytes came");
	io_engine_destroy(engine);
	job_free(job);
	if (pipes.own != pipes.fds[1])
		os_fd_close_own(pipes.own);
	os_fds_put();
	close(pipes.fds[0]);
	close(pipes.fds[1]);
}

/* ------------------------------------------------------------------ a full file system */

static bool mounted;

static void unmount(void)
{
	if (mounted)
		(void)umount2("mnt", MNT_DETACH);
	mounted = false;
	(void)rmdir("mnt");
}

static void test_full(void)
{
	struct io_engine *engine;
	struct fm_store *store;
	struct job *job;
	size_t bytes;

	CHECK(!mkdir("mnt", 0700), "%s", strerror(errno));
	mounted = !mount("fm-test", "mnt", "tmpfs", 0, "size=256k");
	if (!mounted) {
		printf("no mount here (%s): ENOSPC is not tested\n", strerror(errno));
		rmdir("mnt");
		return;
	}
	engine = engine_with(0);
	store = opened("file:mnt/f", FM_STORE_OPEN_WRITE | FM_STORE_OPEN_CREATE);
	CHECK(!store_resize(store, 1 << 20), "resize");
	job = job_new(store, IO_WRITE, 0, 1 << 20);
	job_submit(engine, job);
	CHECK(job_wait(job) == -ENOSPC, "%d", job->request.error);
	bytes = job->request.bytes_done;
	CHECK(bytes > 4096 && bytes <= 256 << 10, "%zu bytes", bytes);
	has(store, 0, bytes);
	job_free(job);
	does(engine, store, IO_FLUSH, 0, 0, 0, 0);
	CHECK(!store->ops->punch(store, 0, 65536), "punch");
	does(engine, store, IO_WRITE, 1 << 19, 65536, 0, 65536);
	io_engine_destroy(engine);
	store->ops->close(store);
	unmount();
}

static void test_all(const char *which, bool without)
{
	way = which;
	no_uring = without;
	test_bytes("file:f", FM_STORE_OPEN_CREATE);
	test_bytes("file:f?direct=0", FM_STORE_OPEN_CREATE);
	test_bytes("memory:1M", 0);
	test_bytes("faulty:file:f", FM_STORE_OPEN_CREATE);
	test_bytes("faulty:file:f?lose=1", FM_STORE_OPEN_CREATE);
	test_direct_refused();
	test_short();
	test_cannot();
	test_faulty("faulty:memory:1M");
	test_faulty("faulty:faulty:memory:1M?lose=1");
	for (int is_flush = 0; is_flush < 2; is_flush++) {
		test_stuck("faulty:memory:1M", is_flush);
		test_stuck("faulty:memory:1M?lose=1", is_flush);
	}
	test_lose();
	test_ring_cancel(false);
	test_ring_cancel(true);
	test_full();
}

int main(void)
{
	way = "before";
	CHECK(mkdtemp(dir) && !chdir(dir), "%s: %s", dir, strerror(errno));
	atexit(unmount);
	test_all("ring", false);
	test_all("no ring", true);
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	return 0;
}
