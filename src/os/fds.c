/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of the library's own.
 *
 * A program may do anything to its table of descriptors: closefrom(3), dup2() over any number,
 * a double close, unshare(). A mapping made by mmap() survives all of that, and so must a
 * mapping of the library.
 *
 * Tables. There are two: the program's table, and the library's table. A thread called fm-fds,
 * the holder, leaves the program's table (close_range() with CLOSE_RANGE_UNSHARE, else
 * unshare()). The holder keeps nothing of that table: no pipe or socket of the program stays
 * open because of the library. The holder starts all other threads of the library, and they
 * have its table: the I/O thread and its ring, workers, the writer, the trap's handler. So an
 * open file's numbers are:
 *
 *     what                    in the library's table  in the program's table
 *     a store's file          buffered, direct        one, for reads by the faulting thread
 *     a userfaultfd           one                     one, for the faulting thread's ioctls
 *     a private scratch file  one                     one, for reads by the faulting thread
 *     the ring, eventfds      one                     none; fm_event_fd() and fm_queue_fd()
 *                                                     give one away
 *     the stats page's memfd  one                     none
 *
 * Use by threads. A thread of the library uses the numbers of the library's table, which no
 * other thread can close or replace. A thread of the program may use a number of the program's
 * table only for reading, or for an ioctl that no other kind of file knows. After the call the
 * thread asks whether the number still stands for the same device and inode. If so, the number
 * did so during the call: a closed number does not come back as the library's file. If not, the
 * result is thrown away. The call is then made by a thread of the library (os_fds_call()), or
 * with a new number (os_fd_fetch()). Only threads of the library make writes, flushes and
 * changes of size.
 *
 * A new file is opened by the caller, with the caller's rights and working directory. The
 * holder takes the file from there by pidfd_getfd(), or by SCM_RIGHTS. An event is a number in
 * the library's table too (struct os_bell): a thread of the program asks the holder to write to
 * the event. A function that the program gave the library (its log function) is called by a
 * thread with the program's table, fm-call, because the function knows the program's numbers.
 *
 * If the kernel refuses a second table, all numbers are in the program's table. Then numbers
 * are compared before each write, and a lost number is an error. The userfaultfd alone is kept
 * by a bare thread (os_fd_keep()): with the last reference the kernel would remove the
 * registration, and pages would read as zeros.
 *
 * Owns the single struct fds. A forked child finds the struct zeroed, and so begins anew.
 * `lock` protects the lists of jobs; a job is on the stack of the thread that waits for the
 * job. May call: the kernel; pthread_create() in the holder.
 */
#include "os/fds.h"

#include "os/atomic.h"
#include "os/bells.h"
#include "os/fds_numbers.h"
#include "os/fds_private.h"
#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/un.h>

struct job {
	struct job *next;
	long (*fn)(void *arg);
	void *arg;
	long result;
	uint32_t done; /* futex */
};

enum fds_state { FDS_NONE = 0, FDS_APART, FDS_SHARED };

static struct fds *the_fds; /* atomic; never freed */
static __thread bool has_own_table __attribute__((tls_model("initial-exec")));

/* ------------------------------------------------------------------ jobs */

struct fds *fds_now(void)
{
	return atomic_get(&the_fds);
}

static void jobs_push(struct jobs *jobs, struct job *job)
{
	if (!jobs->first)
		jobs->end = &jobs->first;
	job->next = NULL;
	*jobs->end = job;
	jobs->end = &job->next;
}

/* Take the first job from a list. The lock is held. */
static struct job *jobs_pop(struct jobs *jobs)
{
	struct job *job = jobs->first;

	if (job)
		jobs->first = job->next;
	return job;
}

void fds_word_raise(uint32_t *word)
{
	(void)atomic_add(word, 1u);
	os_futex_wake(word, 1, OS_FUTEX_ANY);
}

static void job_run(struct job *job)
{
	job->result = job->fn(job->arg);
	atomic_set(&job->done, 1u);
	os_futex_wake(&job->done, 1, OS_FUTEX_ANY);
}

/* Queue a job for a thread of the other side, and wait for the result. Signals are blocked
 * meanwhile: a fault in a signal handler could need the lock. */
long fds_job_wait(struct fds *fds, struct jobs *jobs, uint32_t *word, long (*fn)(void *), void *arg)
{
	struct job job = {.fn = fn, .arg = arg};
	os_sigmask mask = os_signals_block();
	bool more;

	os_lock(&fds->lock);
	jobs_push(jobs, &job);
	more = jobs == &fds->slow && !fds->idle;
	os_unlock(&fds->lock);
	fds_word_raise(word);
	if (more) /* the holder starts another thread */
		fds_word_raise(&fds->holder_word);
	while (!atomic_get(&job.done))
		os_futex_wait(&job.done, 0, OS_FUTEX_ANY, OS_FOREVER);
	os_signals_restore(mask);
	return job.result;
}

long fds_holder_call(struct fds *fds, long (*fn)(void *), void *arg)
{
	return has_own_table ? fn(arg) : fds_job_wait(fds, &fds->quick, &fds->holder_word, fn, arg);
}

long os_fds_call_quick(long (*fn)(void *arg), void *arg)
{
	return os_fds_apart() ? fds_holder_call(fds_now(), fn, arg) : fn(arg);
}

long os_fds_call(long (*fn)(void *arg), void *arg)
{
	struct fds *fds = fds_now();

	if (has_own_table || !os_fds_apart())
		return fn(arg);
	return fds_job_wait(fds, &fds->slow, &fds->slow_word, fn, arg);
}

/* ------------------------------------------------------------------ threads */

struct start {
	void *(*fn)(void *arg);
	void *arg;
	pthread_t *handle;
	uint32_t taken; /* futex */
};

static void *own_thread_main(void *arg)
{
	struct start *start = arg;
	void *(*fn)(void *) = start->fn;
	void *fn_arg = start->arg;

	has_own_table = true;
	atomic_set(&start->taken, 1u);
	os_futex_wake(&start->taken, 1, OS_FUTEX_ANY);
	return fn(fn_arg);
}

/* Start a thread. Runs in a thread that has the library's table. */
static long thread_start(void *arg)
{
	struct start *start = arg;
	int err = pthread_create(start->handle, NULL, own_thread_main, start);

	while (!err && !atomic_get(&start->taken))
		os_futex_wait(&start->taken, 0, OS_FUTEX_ANY, OS_FOREVER);
	return err;
}

int os_fds_thread(void *ret_handle, void *(*fn)(void *arg), void *arg)
{
	struct start start = {.fn = fn, .arg = arg, .handle = ret_handle};
	struct fds *fds = fds_now();

	if (!os_fds_apart())
		return pthread_create(ret_handle, NULL, fn, arg);
	return (int)fds_holder_call(fds, thread_start, &start);
}

static void *caller_main(void *arg)
{
	struct fds *fds = arg;
	uint32_t at = atomic_add(&fds->begun, 1u);

	fds->caller_tid[at] = os_gettid();
	for (;;) {
		uint32_t word = atomic_get(&fds->slow_word);
		os_lock(&fds->lock);
		struct job *job = jobs_pop(&fds->slow);
		bool more = fds->slow.first && !fds->idle;
		os_unlock(&fds->lock);
		if (more)
			fds_word_raise(&fds->holder_word);
		if (job) {
			job_run(job);
		} else if (atomic_get(&fds->stop)) {
			return NULL;
		} else {
			os_lock(&fds->lock);
			fds->idle++;
			os_unlock(&fds->lock);
			os_futex_wait(&fds->slow_word, word, OS_FUTEX_ANY, OS_FOREVER);
			os_lock(&fds->lock);
			fds->idle--;
			os_unlock(&fds->lock);
		}
	}
}

static void *outward_main(void *arg)
{
	struct fds *fds = arg;

	fds->outward_tid = os_gettid();
	for (;;) {
		uint32_t word = atomic_get(&fds->outward_word);
		os_lock(&fds->lock);
		struct job *job = jobs_pop(&fds->outward);
		os_unlock(&fds->lock);
		if (job)
			job_run(job);
		else if (atomic_get(&fds->stop))
			return NULL;
		else
			os_futex_wait(&fds->outward_word, word, OS_FUTEX_ANY, OS_FOREVER);
	}
}

struct outward {
	void (*fn)(void *arg);
	void *arg;
};

static long outward_run(void *arg)
{
	struct outward *call = arg;

	call->fn(call->arg);
	return 0;
}

void os_call_out(void (*fn)(void *arg), void *arg)
{
	struct fds *fds = fds_now();
	struct outward call = {fn, arg};

	if (has_own_table)
		fds_job_wait(fds, &fds->outward, &fds->outward_word, outward_run, &call);
	else
		fn(arg);
}

__attribute__((no_sanitize("address", "thread", "undefined"))) void os_fds_be_own(void)
{
	has_own_table = true;
}

struct number {
	int fd;
	const struct os_fd_id *id;
};

static void number_close(void *arg)
{
	const struct number *number = arg;

	if (os_fd_is(number->fd, number->id)) /* else the number is the program's by now */
		os_syscall1(SYS_close, number->fd);
}

void os_fd_close_programs(int fd, const struct os_fd_id *id)
{
	struct number number = {fd, id};

	if (fd >= 0)
		os_call_out(number_close, &number);
}

/* ------------------------------------------------------------------ the holder */

static void bells_ring(struct fds *fds)
{
	struct os_bell *bell = atomic_xchg(&fds->bells, NULL);

	while (bell) {
		struct os_bell *next = bell->next;
		int fd = bell->fd;
		uint64_t one = 1;

		atomic_set(&bell->pending, 0u);
		os_syscall3(SYS_write, fd, &one, sizeof(one));
		bell = next;
	}
}

/* Start another caller thread if slow jobs wait and no thread is idle. If no such thread can be
 * had at all, the jobs fail. */
static void callers_start(struct fds *fds)
{
	struct start start = {.fn = caller_main, .arg = fds};
	struct job *job;
	bool wanted;

	os_lock(&fds->lock);
	wanted = fds->slow.first && !fds->idle && fds->callers < FDS_CALLERS_MOST;
	os_unlock(&fds->lock);
	if (!wanted)
		return;
	start.handle = &fds->caller[fds->callers];
	if (!thread_start(&start)) {
		fds->callers++;
		return;
	}
	while (!fds->callers) {
		os_lock(&fds->lock);
		job = jobs_pop(&fds->slow);
		os_unlock(&fds->lock);
		if (!job)
			return;
		job->result = -EAGAIN;
		atomic_set(&job->done, 1u);
		os_futex_wake(&job->done, 1, OS_FUTEX_ANY);
	}
}

static void holder_serve(struct fds *fds)
{
	for (;;) {
		uint32_t word = atomic_get(&fds->holder_word);
		os_lock(&fds->lock);
		struct job *job = jobs_pop(&fds->quick);
		os_unlock(&fds->lock);
		bells_ring(fds); /* rings requested before the job, which may close the bell, or clear its
				    event */
		callers_start(fds);
		if (job)
			job_run(job);
		else if (atomic_get(&fds->stop))
			return;
		else
			os_futex_wait(&fds->holder_word, word, OS_FUTEX_ANY, OS_FOREVER);
	}
}

static void close_numbers(unsigned first, unsigned last)
{
	struct rlimit limit = {.rlim_cur = 1024};

	if (first > last || os_syscall3(SYS_close_range, first, last, 0) == 0)
		return;
	os_syscall4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	for (unsigned fd = first; fd <= last && fd < limit.rlim_cur; fd++)
		os_syscall1(SYS_close, fd);
}

/* Leave the program's table, and keep nothing of that table. */
static int leave_table(void)
{
	long err = os_syscall3(SYS_close_range, FDS_LOW_END, ~0u, CLOSE_RANGE_UNSHARE);

	if (err < 0) {
		err = os_syscall1(SYS_unshare, CLONE_FILES);
		if (err < 0)
			return (int)err;
		close_numbers(FDS_LOW_END, ~0u);
	}
	for (int fd = 0; fd < FDS_LOW_END; fd++) {
#ifdef FM_DEBUG
		if (fd == 2 && !fds_number_is_free(2)) /* the output of assert() and sanitizers */
			continue;
#endif
		os_syscall1(SYS_close, fd);
		os_syscall4(SYS_openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC, 0);
	}
	return 0;
}

/* Open the socket for new descriptors. The kernel chooses the socket's name, in the abstract
 * name space. */
static void post_open(struct fds *fds)
{
	fds->post_name = (struct sockaddr_un){.sun_family = AF_UNIX};
	fds->post_name_len = sizeof(fds->post_name);
	fds->post = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fds->post >= 0 &&
	    (bind(fds->post, (struct sockaddr *)&fds->post_name, sizeof(sa_family_t)) < 0 ||
	     getsockname(fds->post, (struct sockaddr *)&fds->post_name, &fds->post_name_len) < 0)) {
		os_syscall1(SYS_close, fds->post);
		fds->post = -1;
	}
}

static void *holder_main(void *arg)
{
	struct fds *fds = arg;
	int err = leave_table();

	has_own_table = !err;
	fds->post = -1;
	if (!err)
		post_open(fds);
	fds->holder_tid = os_gettid();
	atomic_set(&fds->state, err ? FDS_SHARED : FDS_APART);
	atomic_set(&fds->ready, 1u);
	os_futex_wake(&fds->ready, 1, OS_FUTEX_ANY);
	if (!err)
		holder_serve(fds);
	if (fds->post >= 0)
		os_syscall1(SYS_close, fds->post);
	return NULL;
}

/* ------------------------------------------------------------------ begun and ended */

static struct fds *fds_made(void)
{
	struct fds *fds = fds_now(), *none = NULL;

	if (fds)
		return fds;
	fds = os_meta_alloc(sizeof(*fds));
	if (fds && !atomic_cas(&the_fds, &none, fds)) {
		os_meta_free(fds, sizeof(*fds));
		fds = none;
	}
	return fds;
}

#define LINGER_NS (100 * OS_NSEC_PER_MSEC)

/* Wait until the thread is no longer a thread of this process. The C library's join returns a
 * moment before the kernel has finished with the thread. */
static void wait_for_end(uint32_t tid)
{
	uint64_t until = os_now_ns() + LINGER_NS;

	while (tid && os_syscall3(SYS_tgkill, os_syscall1(SYS_getpid, 0), tid, 0) == 0 &&
	       os_now_ns() < until)
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 20);
}

static void outward_end(struct fds *fds)
{
	atomic_set(&fds->stop, 1u);
	fds_word_raise(&fds->outward_word);
	pthread_join(fds->outward_thread, NULL);
	wait_for_end(fds->outward_tid);
}

/* Start the threads. `making` is held; signals are blocked. */
static int fds_begin(struct fds *fds)
{
	int err;

	fds->stop = fds->ready = fds->callers = fds->idle = fds->begun = 0;
	err = -pthread_create(&fds->outward_thread, NULL, outward_main, fds);
	if (err)
		return err;
	pthread_setname_np(fds->outward_thread, "fm-call");
	err = -pthread_create(&fds->holder, NULL, holder_main, fds);
	if (err) {
		outward_end(fds);
		return err;
	}
	pthread_setname_np(fds->holder, "fm-fds");
	while (!atomic_get(&fds->ready))
		os_futex_wait(&fds->ready, 0, OS_FUTEX_ANY, OS_FOREVER);
	return 0;
}

static void fds_end(struct fds *fds)
{
	atomic_set(&fds->stop, 1u);
	fds_word_raise(&fds->holder_word);
	pthread_join(fds->holder, NULL);
	(void)atomic_add(&fds->slow_word, 1u);
	os_futex_wake(&fds->slow_word, INT32_MAX, OS_FUTEX_ANY);
	for (uint32_t i = 0; i < fds->callers; i++)
		pthread_join(fds->caller[i], NULL);
	for (uint32_t i = 0; i < fds->callers; i++)
		wait_for_end(fds->caller_tid[i]);
	wait_for_end(fds->holder_tid);
	outward_end(fds);
	atomic_set(&fds->state, FDS_NONE);
}

int os_fds_get(void)
{
	struct fds *fds = fds_made();
	os_sigmask mask;
	int err = 0;

	if (!fds)
		return -ENOMEM;
	mask = os_signals_block();
	os_lock(&fds->making);
	if (!fds->users)
		err = fds_begin(fds);
	if (!err)
		fds->users++;
	os_unlock(&fds->making);
	os_signals_restore(mask);
	return err;
}

void os_fds_put(void)
{
	struct fds *fds = fds_now();
	os_sigmask mask = os_signals_block();

	os_lock(&fds->making);
	if (fds->users && !--fds->users)
		fds_end(fds);
	os_unlock(&fds->making);
	os_signals_restore(mask);
}

bool os_fds_apart(void)
{
	struct fds *fds = fds_now();

	return fds && atomic_get(&fds->state) == FDS_APART;
}

__attribute__((no_sanitize("address", "thread", "undefined"))) void os_fds_adopt(void)
{
	has_own_table = os_fds_apart();
}

bool os_fds_own(void)
{
	return has_own_table;
}
