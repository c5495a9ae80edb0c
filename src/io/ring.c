/* SPDX-License-Identifier: MIT */
/*
 * The io_uring. Only the I/O thread opens, uses and closes the ring, since requests die with the
 * thread that submitted them. Owns the ring; no lock. The futex `sleeping` wakes the thread out
 * of the ring. Before Linux 6.7 a bell does: ring.c opens the bell, and engine.c closes the bell
 * when no thread can ring any more. A completion with -ECANCELED that was not requested, or an
 * interruption, is submitted again.
 * May call: os.h, liburing.
 */
#include "io/engine.h"

#include "os/bells.h"
#include "os/fds.h"
#include "os/fds_numbers.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <string.h>

#define RING_ENTRIES     256
#define RING_COMPLETIONS 4096 /* for several stores, each with its queue depth under way */
#define RING_TRIES_MAX   100  /* then the kernel's answer counts as an error */
/* The kernel uses threads of its own for requests that cannot start without blocking. By default
 * there are 4 of these threads for each CPU, and one dead FUSE server would occupy all of
 * them. */
#define RING_KERNEL_WORKERS 1024

struct io_ring {
	struct io_uring uring;
	uint64_t event; /* buffer for the eventfd's read */
	bool event_armed;
	bool has_futex; /* the ring waits for the futex `sleeping` (Linux 6.7): no descriptor is
			   needed to wake the thread */
};

/* user_data: a request, or one of these values */
#define DATA_CANCEL ((void *)1)
#define DATA_EVENT  ((void *)2)

/* ------------------------------------------------------------------ opening and closing */

static int uring_init(struct io_uring *uring)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		.cq_entries = RING_COMPLETIONS,
	};
	int error = io_uring_queue_init_params(RING_ENTRIES, uring, &params);

	if (error == -EINVAL) { /* before 6.1 */
		params = (struct io_uring_params){
			.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
			.cq_entries = RING_COMPLETIONS,
		};
		error = io_uring_queue_init_params(RING_ENTRIES, uring, &params);
	}
	if (error == -EINVAL) { /* before 5.6 */
		params = (struct io_uring_params){0};
		error = io_uring_queue_init_params(RING_ENTRIES, uring, &params);
	}
	return error;
}

#define OP_FUTEX_WAIT                                                                              \
	51 /* of <linux/io_uring.h>, and FUTEX2_SIZE_U32 | FUTEX2_PRIVATE of <linux/futex.h> */
#define FUTEX_WORD    (2 | 128)

static bool uring_has_futex(struct io_uring *uring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
	bool has = probe && io_uring_opcode_supported(probe, OP_FUTEX_WAIT);

	io_uring_free_probe(probe);
	return has;
}

/* Move the ring's descriptor to a high number. If there is no free high number, the number
 * stays. */
static void uring_high(struct io_uring *uring)
{
	int fd = os_fd_high(uring->ring_fd);

	if (fd >= 0)
		uring->ring_fd = uring->enter_ring_fd = fd;
}

int ring_open(struct io_engine *engine)
{
	struct os_fds_low low;
	unsigned kernel_workers[2] = {RING_KERNEL_WORKERS, 0};
	struct io_ring *ring = os_meta_alloc(sizeof(*ring));
	int error;

	if (!ring)
		return -ENOMEM;
	os_fds_low_take(&low);
	error = uring_init(&ring->uring);
	if (!error)
		uring_high(&ring->uring);
	os_fds_low_give(&low);
	if (error)
		goto out_free;
	ring->has_futex = uring_has_futex(&ring->uring);
	if (!ring->has_futex) {
		/* The bell is blocking: the ring's read of the bell waits until the bell is
		 * written. */
		error = os_bell_open(&engine->bell, 0);
		if (error)
			goto out_exit;
	}
	if (!os_fds_own()) /* then the ring is used without its number, which the program may
			      close (Linux 5.18) */
		(void)io_uring_register_ring_fd(&ring->uring);
	(void)io_uring_register_iowq_max_workers(&ring->uring, kernel_workers);
	engine->ring = ring;
	return 0;

out_exit:
	io_uring_queue_exit(&ring->uring);
out_free:
	os_meta_free(ring, sizeof(*ring));
	return error;
}

void ring_close(struct io_engine *engine)
{
	struct io_ring *ring = engine->ring;

	if (!ring)
		return;
	io_uring_queue_exit(&ring->uring);
	engine->ring = NULL;
	os_meta_free(ring, sizeof(*ring));
}

/* ------------------------------------------------------------------ submitting */

static struct io_uring_sqe *ring_sqe(struct io_ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	if (!sqe) {
		(void)io_uring_submit(&ring->uring);
		sqe = io_uring_get_sqe(&ring->uring);
	}
	return sqe;
}

/* Submit a request to the ring by request->op, for the first time or again. */
static int ring_start(struct io_engine *engine, struct io_request *request, int fd)
{
	uint64_t offset = request->offset + request->bytes_done;
	struct io_uring_sqe *sqe;

	if (!engine->ring)
		return -EOPNOTSUPP;
	sqe = ring_sqe(engine->ring);
	if (!sqe) /* completions have piled up: a worker may serve the request */
		return -EOPNOTSUPP;
	if (request->op == IO_FLUSH)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (request->op == IO_WRITE)
		io_uring_prep_writev(sqe, fd, request->rest, (unsigned)request->rest_count, offset);
	else
		io_uring_prep_readv2(sqe, fd, request->rest, (unsigned)request->rest_count, offset,
				     request->ring_nowait ? RWF_NOWAIT : 0);
	io_uring_sqe_set_data(sqe, request);
	if (request->ring_async) /* by a kernel thread from the start */
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	request->ring_fd = fd;
	request->place = PLACE_RING;
	return 0;
}

int io_ring_read(struct io_engine *engine, struct io_request *request, int fd)
{
	assert(request->op == IO_READ);
	return ring_start(engine, request, fd);
}

int io_ring_write(struct io_engine *engine, struct io_request *request, int fd)
{
	assert(request->op == IO_WRITE);
	return ring_start(engine, request, fd);
}

int io_ring_flush(struct io_engine *engine, struct io_request *request, int fd)
{
	assert(request->op == IO_FLUSH);
	return ring_start(engine, request, fd);
}

/* Cancel a request in the ring. The ring keeps the order of submission, so the cancel cannot meet
 * a later use of the same request. */
void io_ring_cancel(struct io_engine *engine, struct io_request *request)
{
	struct io_uring_sqe *sqe;

	if (!engine->ring || request->place != PLACE_RING)
		return;
	sqe = ring_sqe(engine->ring);
	if (!sqe) { /* try again after completions were handled */
		os_lock(&engine->lock);
		cancel_list(engine, request);
		os_unlock(&engine->lock);
		return;
	}
	io_uring_prep_cancel(sqe, request, 0);
	io_uring_sqe_set_data(sqe, DATA_CANCEL);
}

static void event_arm(struct io_engine *engine)
{
	struct io_ring *ring = engine->ring;
	struct io_uring_sqe *sqe;

	if (ring->event_armed)
		return;
	sqe = ring_sqe(ring);
	if (!sqe)
		return;
	if (ring->has_futex) {
		memset(sqe, 0, sizeof(*sqe));
		sqe->opcode = OP_FUTEX_WAIT;
		sqe->fd = FUTEX_WORD;
		sqe->addr = (uintptr_t)&engine->sleeping;
		sqe->addr2 = 1;                                      /* the value */
		memcpy((char *)sqe + 48, &(uint64_t){OS_FUTEX_ANY}, 8); /* addr3: the mask */
	} else {
		io_uring_prep_read(sqe, engine->bell.fd, &ring->event, sizeof(ring->event), 0);
	}
	io_uring_sqe_set_data(sqe, DATA_EVENT);
	ring->event_armed = true;
}

/* ------------------------------------------------------------------ completing */

static void request_result(struct io_engine *engine, struct io_request *request, int result)
{
	bool again = result == -EINTR || (result == -EAGAIN && !request->ring_nowait) ||
		     result == -ECANCELED;

	assert(request->place == PLACE_RING);
	request->place = PLACE_STORE;
	if (again && atomic_get(&request->cancel_wanted))
		result = -ECANCELED;
	else if (again && request->ring_tries++ < RING_TRIES_MAX &&
		 !ring_start(engine, request, request->ring_fd))
		return;
	else if (again)
		result = -EIO;
	if (request->ring_fn)
		request->ring_fn(engine, request, result);
	else
		io_complete(engine, request, result < 0 ? result : 0,
			    result < 0 ? 0 : (size_t)result);
}

static void ring_reap(struct io_engine *engine)
{
	struct io_ring *ring = engine->ring;
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&ring->uring, &cqe)) {
		void *data = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&ring->uring, cqe);
		if (data == DATA_EVENT)
			ring->event_armed = false;
		else if (data != DATA_CANCEL && data)
			request_result(engine, data, result);
	}
}

void ring_submit(struct io_engine *engine)
{
	if (io_uring_sq_ready(&engine->ring->uring))
		(void)io_uring_submit(&engine->ring->uring);
}

/* Tell whether the ring has completions, without a system call. Also true if the kernel needs a
 * system call to report completions. */
bool ring_has_completed(struct io_engine *engine)
{
	struct io_uring *uring = &engine->ring->uring;

	return io_uring_cq_ready(uring) ||
	       (__atomic_load_n(uring->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN);
}

void ring_turn(struct io_engine *engine, uint64_t until_ns)
{
	struct io_ring *ring = engine->ring;
	struct __kernel_timespec ts, *timeout = NULL;
	struct io_uring_cqe *cqe;
	uint64_t now_ns, wait_ns;

	if (until_ns || !ring->has_futex)
		event_arm(engine);
	now_ns = until_ns && until_ns != OS_FOREVER ? os_now_ns() : 0;
	if (!until_ns || until_ns <= now_ns || !ring->event_armed) {
		(void)io_uring_submit_and_get_events(&ring->uring);
	} else {
		if (until_ns != OS_FOREVER) {
			wait_ns = until_ns - now_ns;
			ts.tv_sec = (long long)(wait_ns / OS_NSEC_PER_SEC);
			ts.tv_nsec = (long long)(wait_ns % OS_NSEC_PER_SEC);
			timeout = &ts;
		}
		(void)io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, timeout, NULL);
	}
	ring_reap(engine);
}
