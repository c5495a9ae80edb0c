/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of our own.
 *
 * A program may do anything to its table of descriptors: closefrom(3), dup2() over any number, a double close, unshare().
 * A mapping made by mmap() lives on through all of that, and so must ours.
 *
 * Tables. There are two: the program's, and one of our own. A thread called fm-fds, the holder, leaves the program's table
 * (close_range() with CLOSE_RANGE_UNSHARE, else unshare()) and keeps nothing of it: no pipe or socket of the program stays
 * open because of us. All other threads of the library are started by the holder and have its table: the I/O thread and
 * its ring, workers, the writer, the trap's handler. So an open file's numbers are:
 *
 *     what                      in our table            in the program's table
 *     a store's file            buffered, direct        one, for reads by the faulting thread
 *     a userfaultfd             one                     one, for the faulting thread's ioctls
 *     a private scratch file    one                     one, for reads by the faulting thread
 *     the ring, eventfds        one                     none; fm_event_fd() and fm_queue_fd() give one away
 *     the stats page's memfd    one                     none
 *
 * Who may use which. A thread of ours uses the numbers of our table, which nobody else can close or replace. A thread of the
 * program may use a number of the program's table for reading only, or for an ioctl that no other kind of file knows; after
 * the call it asks whether the number still stands for the same device and inode. If so it did during the call: a number
 * that was closed does not come back as our file. If not, the result is thrown away and the call is made by a thread of ours
 * (os_fds_call()), or with a new number (os_fd_fetch()). Writes, flushes and changes of size are made by threads of ours only.
 * A new file is opened by the caller, with the caller's rights and working directory, and the holder takes it from there by
 * pidfd_getfd(), or by SCM_RIGHTS. An event is a number in our table too (struct os_bell): a thread of the program asks the
 * holder to write to it. What the program gave us to call (its log function) is called by a thread with the program's table,
 * fm-call, since what it knows are the program's numbers.
 *
 * Where the kernel refuses a second table, all numbers are in the program's; then numbers are compared before each write, and
 * what was lost is an error. The userfaultfd alone is kept by a bare thread (os_fd_keep()): with its last reference the
 * kernel would take the registration away, and pages would read as zeros.
 *
 * Owns the one struct fds, which a forked child finds zeroed, so that it begins anew. `lock` protects the lists of jobs; a
 * job is on the stack of the thread that waits for it. May call: the kernel; pthread_create() in the holder.
 */
#include "os/fds.h"

#include "os/atomic.h"
#include "os/syscall.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define HIGH_MOST 512 /* where our numbers begin at most: half of the usual limit of 1024 */
#define LOW_END 3     /* the first number that is not stdin, stdout or stderr */
#define CALLERS_MOST 64u
#define EVENTS_MOST 512

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#define PIDFD_OF_THREAD O_EXCL /* Linux 6.9 */

struct job {
	struct job *next;
	long (*fn)(void *arg);
	void *arg;
	long result;
	uint32_t done; /* futex */
};

struct jobs {
	struct job *first, **end;
};

enum fds_state { FDS_NONE = 0, FDS_APART, FDS_SHARED };

struct fds {
	struct os_lock making;  /* held while the threads are started and ended */
	uint32_t users;         /* under `making` */
	uint32_t state;         /* enum fds_state; atomic */
	struct os_lock lock;
	struct jobs quick;      /* for the holder, which never waits for a store */
	struct jobs slow;       /* for callers */
	struct jobs outward;    /* for the thread with the program's table */
	uint32_t holder_word, slow_word, outward_word; /* futexes: raised when there is something to do */
	uint32_t begun;         /* of the callers; atomic */
	uint32_t callers, idle; /* threads for `slow`; `idle` under the lock */
	uint32_t stop;          /* atomic */
	struct os_bell *bells;  /* to be rung; an atomic stack */
	pthread_t holder, outward_thread, caller[CALLERS_MOST];
	uint32_t holder_tid, outward_tid, caller_tid[CALLERS_MOST];
	uint32_t ready; /* futex */
	int post;               /* a socket of our table, to which new descriptors may be sent; -1: none */
	struct sockaddr_un post_name;
	socklen_t post_name_len;
	struct event {
		uint32_t used; /* atomic */
		int fd;        /* the program's */
		struct os_bell bell;
	} event[EVENTS_MOST];
};

static struct fds *the_fds; /* atomic; never freed */
static __thread bool has_own_table __attribute__((tls_model("initial-exec")));

/* ------------------------------------------------------------------ numbers */

static bool number_is_free(int fd)
{
	return os_syscall3(SYS_fcntl, fd, F_GETFD, 0) == -EBADF;
}

void os_fds_low_take(struct os_fds_low *low)
{
	low->count = 0;
	for (int fd = 0; fd < LOW_END; fd++) {
		if (!number_is_free(fd))
			continue;
		long taken = os_syscall4(SYS_openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC, 0);
		if (taken < 0)
			return;
		if (taken >= LOW_END) { /* another thread was faster */
			os_syscall1(SYS_close, taken);
			return;
		}
		low->fd[low->count++] = (int)taken;
	}
}

void os_fds_low_give(struct os_fds_low *low)
{
	for (int i = 0; i < low->count; i++) {
		long flags = os_syscall3(SYS_fcntl, low->fd[i], F_GETFL, 0);
		if (flags >= 0 && (flags & O_PATH)) /* the program may have put its own there */
			os_syscall1(SYS_close, low->fd[i]);
	}
	low->count = 0;
}

/* Half of the limit: the other half is the program's, which may count on low numbers (select()). */
static int high_begin(void)
{
	struct rlimit limit = {.rlim_cur = 0};
	os_syscall4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	unsigned long half = limit.rlim_cur / 2;
	return half > HIGH_MOST ? HIGH_MOST : half < LOW_END ? LOW_END : (int)half;
}

int os_fd_high(int fd)
{
	int begin;
	long high = -EMFILE;

	if (fd < 0)
		return fd;
	begin = high_begin();
	if (fd >= begin)
		return fd;
	high = os_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, begin);
	if (high < 0 && fd >= LOW_END) /* the upper half is full */
		return fd;
	if (high < 0)
		high = os_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, LOW_END);
	os_syscall1(SYS_close, fd);
	return (int)high;
}

int os_fd_open(int dir_fd, const char *path, int flags, mode_t mode)
{
	struct os_fds_low low;
	long fd;

	os_fds_low_take(&low);
	do {
		fd = os_syscall4(SYS_openat, dir_fd, path, flags | O_CLOEXEC | O_NOCTTY, mode);
	} while (fd == -EINTR);
	fd = os_fd_high((int)fd);
	os_fds_low_give(&low);
	return (int)fd;
}

int os_fd_id(int fd, struct os_fd_id *ret_id)
{
	struct statx stx;
	long err = os_syscall5(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &stx);

	if (!err)
		*ret_id = os_fd_id_of(&stx);
	return (int)err;
}

bool os_fd_is(int fd, const struct os_fd_id *id)
{
	struct os_fd_id now = {0, 0};

	return fd >= 0 && os_fd_id(fd, &now) == 0 && now.dev == id->dev && now.ino == id->ino;
}

/* ------------------------------------------------------------------ jobs */

static struct fds *fds_now(void)
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

/* The lock is held. */
static struct job *jobs_pop(struct jobs *jobs)
{
	struct job *job = jobs->first;

	if (job)
		jobs->first = job->next;
	return job;
}

static void word_raise(uint32_t *word)
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

/* Have a thread of the other side run it. Signals are blocked meanwhile: a handler's fault could need the lock. */
static long job_wait(struct fds *fds, struct jobs *jobs, uint32_t *word, long (*fn)(void *), void *arg)
{
	struct job job = {.fn = fn, .arg = arg};
	os_sigmask mask = os_signals_block();
	bool more;

	os_lock(&fds->lock);
	jobs_push(jobs, &job);
	more = jobs == &fds->slow && !fds->idle;
	os_unlock(&fds->lock);
	word_raise(word);
	if (more) /* the holder starts another */
		word_raise(&fds->holder_word);
	while (!atomic_get(&job.done))
		os_futex_wait(&job.done, 0, OS_FUTEX_ANY, OS_FOREVER);
	os_signals_restore(mask);
	return job.result;
}

static long holder_call(struct fds *fds, long (*fn)(void *), void *arg)
{
	return has_own_table ? fn(arg) : job_wait(fds, &fds->quick, &fds->holder_word, fn, arg);
}

long os_fds_call_quick(long (*fn)(void *arg), void *arg)
{
	return os_fds_apart() ? holder_call(fds_now(), fn, arg) : fn(arg);
}

long os_fds_call(long (*fn)(void *arg), void *arg)
{
	struct fds *fds = fds_now();

	if (has_own_table || !os_fds_apart())
		return fn(arg);
	return job_wait(fds, &fds->slow, &fds->slow_word, fn, arg);
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

/* In a thread that has our table. */
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
	return (int)holder_call(fds, thread_start, &start);
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
			word_raise(&fds->holder_word);
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
		job_wait(fds, &fds->outward, &fds->outward_word, outward_run, &call);
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

	if (os_fd_is(number->fd, number->id)) /* else it is the program's own by now */
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

/* Slow jobs wait and no thread is idle: start another. If there is none to be had at all, they fail. */
static void callers_start(struct fds *fds)
{
	struct start start = {.fn = caller_main, .arg = fds};
	struct job *job;
	bool wanted;

	os_lock(&fds->lock);
	wanted = fds->slow.first && !fds->idle && fds->callers < CALLERS_MOST;
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
		bells_ring(fds); /* what was asked for before the job, which may close the bell, or clear its event */
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

/* Leave the program's table, with nothing of it. */
static int leave_table(void)
{
	long err = os_syscall3(SYS_close_range, LOW_END, ~0u, CLOSE_RANGE_UNSHARE);

	if (err < 0) {
		err = os_syscall1(SYS_unshare, CLONE_FILES);
		if (err < 0)
			return (int)err;
		close_numbers(LOW_END, ~0u);
	}
	for (int fd = 0; fd < LOW_END; fd++) {
#ifdef FM_DEBUG
		if (fd == 2 && !number_is_free(2)) /* what assert() and sanitizers say */
			continue;
#endif
		os_syscall1(SYS_close, fd);
		os_syscall4(SYS_openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC, 0);
	}
	return 0;
}

/* Its name is the kernel's choice, and in the abstract name space. */
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

/* The C library's join comes a moment before the kernel has done with the thread: wait until it is no thread of this process
 * any more. */
static void wait_for_end(uint32_t tid)
{
	uint64_t until = os_now_ns() + LINGER_NS;

	while (tid && os_syscall3(SYS_tgkill, os_syscall1(SYS_getpid, 0), tid, 0) == 0 && os_now_ns() < until)
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 20);
}

static void outward_end(struct fds *fds)
{
	atomic_set(&fds->stop, 1u);
	word_raise(&fds->outward_word);
	pthread_join(fds->outward_thread, NULL);
	wait_for_end(fds->outward_tid);
}

/* `making` is held; signals are blocked. */
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
	word_raise(&fds->holder_word);
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

/* ------------------------------------------------------------------ from table to table */

struct giving {
	struct fds *fds;
	int fd;
	uint32_t tid;
	struct os_fd_id id;
};

/* In the holder: what the thread `tid` has at number `fd`. Before Linux 6.9 only of the main thread's table, which is
 * mostly the same. */
static int pull(uint32_t tid, int fd)
{
	long got, pidfd = os_syscall2(SYS_pidfd_open, tid, PIDFD_OF_THREAD);

	if (pidfd < 0)
		pidfd = os_syscall2(SYS_pidfd_open, os_syscall1(SYS_getpid, 0), 0);
	if (pidfd < 0)
		return (int)pidfd;
	got = os_syscall3(SYS_pidfd_getfd, pidfd, fd, 0);
	os_syscall1(SYS_close, pidfd);
	return (int)got;
}

static long take_pulled(void *arg)
{
	struct giving *giving = arg;
	int got = pull(giving->tid, giving->fd);

	if (got >= 0 && !os_fd_is(got, &giving->id)) {
		os_syscall1(SYS_close, got);
		got = -EBADF;
	}
	return got;
}

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* In the holder. What others may have sent to the name is thrown away. */
static long take_sent(void *arg)
{
	struct giving *giving = arg;
	union control control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	int got = -EBADF;

	while (os_syscall3(SYS_recvmsg, giving->fds->post, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) > 0) {
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
			memcpy(&got, CMSG_DATA(head), sizeof(got));
		if (got >= 0 && os_fd_is(got, &giving->id))
			return got;
		if (got >= 0)
			os_syscall1(SYS_close, got);
		got = -EBADF;
		message.msg_controllen = sizeof(control);
	}
	return got;
}

/* By a socket that is new, so that its number is nobody else's. One at a time, by `making`: the holder would throw another's
 * message away. */
static int give_by_message(struct fds *fds, struct giving *giving)
{
	union control control = {.bytes = {0}};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_name = &fds->post_name, .msg_namelen = fds->post_name_len, .msg_iov = &iov,
				 .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	os_sigmask mask = os_signals_block();
	int from = fds->post < 0 ? -EBADF : os_fd_make(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	long own = -EBADF;

	control.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					 .cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(&control.align), &giving->fd, sizeof(int));
	os_lock(&fds->making);
	if (from >= 0 && os_syscall3(SYS_sendmsg, from, &message, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		own = holder_call(fds, take_sent, giving);
	os_unlock(&fds->making);
	if (from >= 0)
		os_syscall1(SYS_close, from);
	os_signals_restore(mask);
	return (int)own;
}

int os_fd_give(int fd)
{
	struct fds *fds = fds_now();
	struct giving giving = {.fds = fds, .fd = fd, .tid = os_gettid()};
	int err, own;

	if (fd < 0 || !os_fds_apart())
		return fd;
	if (has_own_table)
		return (int)os_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, LOW_END);
	err = os_fd_id(fd, &giving.id);
	if (err)
		return err;
	own = (int)holder_call(fds, take_pulled, &giving);
	if (own < 0 && own != -EMFILE)
		own = give_by_message(fds, &giving);
	return own;
}

int os_fd_fetch(int own)
{
	struct fds *fds = fds_now();
	struct os_fds_low low;
	long got, pidfd;

	if (!os_fds_apart())
		return -EOPNOTSUPP;
	os_fds_low_take(&low);
	pidfd = os_syscall2(SYS_pidfd_open, fds->holder_tid, PIDFD_OF_THREAD);
	got = pidfd < 0 ? pidfd : os_syscall3(SYS_pidfd_getfd, pidfd, own, 0);
	if (pidfd >= 0)
		os_syscall1(SYS_close, pidfd);
	got = os_fd_high((int)got);
	os_fds_low_give(&low);
	return got < 0 ? -EOPNOTSUPP : (int)got;
}

static long close_one(void *arg)
{
	return os_syscall1(SYS_close, (long)(intptr_t)arg);
}

void os_fd_close_own(int own)
{
	if (own < 0)
		return;
	if (os_fds_apart())
		holder_call(fds_now(), close_one, (void *)(intptr_t)own);
	else
		os_syscall1(SYS_close, own);
}

/* ------------------------------------------------------------------ without a table of our own */

#define KEPT_STACK (32u << 10)
#define KEPT_READY 1u
#define KEPT_END   2u
#define KEPT_HIGHEST 65536

/* No thread of the C library's: it has no thread-locals, and a sanitizer does not know of it. */
#define BARE __attribute__((no_sanitize("address", "thread", "undefined")))

/* clone() without CLONE_FILES gives it a copy of the program's table, also where unshare() is forbidden. */
BARE static int kept_main(void *arg)
{
	struct os_fd_kept *kept = arg;
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

	for (int fd = 0; fd <= kept->highest; fd++)
		if (fd != kept->fd)
			os_syscall1(SYS_close, fd);
	os_syscall2(SYS_capset, &head, none);
	__atomic_store_n(&kept->state, KEPT_READY, __ATOMIC_SEQ_CST);
	os_syscall6(SYS_futex, OS_ARG(&kept->state), FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	while (__atomic_load_n(&kept->state, __ATOMIC_SEQ_CST) != KEPT_END)
		os_syscall6(SYS_futex, OS_ARG(&kept->state), FUTEX_WAIT_PRIVATE, KEPT_READY, 0, 0, 0);
	return 0;
}

static int highest_number(void)
{
	struct rlimit limit = {.rlim_cur = 1024};
	DIR *dir = opendir("/proc/thread-self/fd");
	struct dirent *entry;
	int highest = -1;

	while (dir && (entry = readdir(dir)))
		if (atoi(entry->d_name) > highest)
			highest = atoi(entry->d_name);
	if (dir)
		closedir(dir);
	if (highest >= 0)
		return highest;
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > KEPT_HIGHEST ? KEPT_HIGHEST : (int)limit.rlim_cur;
}

int os_fd_keep(struct os_fd_kept *kept, int fd)
{
	int flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID |
		    CLONE_CHILD_CLEARTID;
	os_sigmask mask;
	int tid;

	*kept = (struct os_fd_kept){.fd = fd, .highest = highest_number()};
	kept->stack = os_meta_alloc(KEPT_STACK);
	if (!kept->stack)
		return -ENOMEM;
	mask = os_signals_block();
	tid = clone(kept_main, (char *)kept->stack + KEPT_STACK, flags, kept, &kept->tid, NULL, &kept->tid);
	os_signals_restore(mask);
	if (tid < 0) {
		os_meta_free(kept->stack, KEPT_STACK);
		kept->stack = NULL;
		return -EAGAIN;
	}
	while (atomic_get(&kept->state) != KEPT_READY)
		os_futex_wait(&kept->state, 0, OS_FUTEX_ANY, OS_FOREVER);
	return 0;
}

void os_fd_keep_end(struct os_fd_kept *kept)
{
	if (!kept->stack)
		return;
	atomic_set(&kept->state, KEPT_END);
	os_futex_wake(&kept->state, 1, OS_FUTEX_ANY);
	while (atomic_get(&kept->tid)) /* the kernel clears it, and wakes nobody of this process alone */
		os_sleep_until(os_now_ns() + OS_NSEC_PER_MSEC / 20);
	os_meta_free(kept->stack, KEPT_STACK);
	kept->stack = NULL;
}

/* ------------------------------------------------------------------ bells and events */

static long bell_make(void *arg)
{
	return os_fd_make(eventfd(0, *(int *)arg));
}

int os_bell_open(struct os_bell *bell, int flags)
{
	*bell = (struct os_bell){.fd = -1};
	flags |= EFD_CLOEXEC;
	bell->fd = (int)(os_fds_apart() ? holder_call(fds_now(), bell_make, &flags) : bell_make(&flags));
	return bell->fd < 0 ? bell->fd : 0;
}

/* By the holder, after what it was asked to ring. */
void os_bell_close(struct os_bell *bell)
{
	struct fds *fds = fds_now();

	if (bell->fd >= 0 && os_fds_apart())
		job_wait(fds, &fds->quick, &fds->holder_word, close_one, (void *)(intptr_t)bell->fd);
	else if (bell->fd >= 0)
		os_syscall1(SYS_close, bell->fd);
	bell->fd = -1;
}

void os_bell_ring(struct os_bell *bell)
{
	struct fds *fds = fds_now();
	uint64_t one = 1;

	if (has_own_table || !os_fds_apart()) {
		os_syscall3(SYS_write, bell->fd, &one, sizeof(one));
		return;
	}
	if (atomic_xchg(&bell->pending, 1u))
		return;
	bell->next = atomic_get(&fds->bells);
	while (!atomic_cas(&fds->bells, &bell->next, bell))
		;
	word_raise(&fds->holder_word);
}

int os_event_open(void)
{
	int err = os_fds_get(), fd, at = 0;
	struct fds *fds = fds_now();
	uint32_t unused = 0;

	if (err)
		return err;
	while (at < EVENTS_MOST && !atomic_cas(&fds->event[at].used, &unused, 1u)) {
		unused = 0;
		at++;
	}
	fd = at < EVENTS_MOST ? os_fd_make(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) : -EMFILE;
	if (fd >= 0) {
		fds->event[at].bell = (struct os_bell){.fd = os_fd_give(fd)};
		fds->event[at].fd = fd;
		if (fds->event[at].bell.fd >= 0)
			return at;
		err = fds->event[at].bell.fd;
		os_syscall1(SYS_close, fd);
	} else {
		err = fd;
	}
	if (at < EVENTS_MOST)
		atomic_set(&fds->event[at].used, 0u);
	os_fds_put();
	return err;
}

int os_event_fd(int event)
{
	return fds_now()->event[event].fd;
}

static long event_drain(void *arg)
{
	struct event *event = arg;
	uint64_t count;

	return os_syscall3(SYS_read, event->bell.fd, &count, sizeof(count));
}

static bool readable(int fd)
{
	struct {
		int fd;
		short events, revents;
	} poll_fd = {.fd = fd, .events = 1};
	struct timespec now = {0};

	return os_syscall5(SYS_ppoll, &poll_fd, 1, &now, NULL, 8) == 1 && poll_fd.revents == 1;
}

static long event_write(void *arg)
{
	uint64_t one = 1;

	return os_syscall3(SYS_write, ((struct event *)arg)->bell.fd, &one, sizeof(one));
}

/* The program may have closed the number that it was given, and have put another file there. All eventfds have one inode, so
 * the number is known by what it does: it can be read when we have written to it, and not before. */
static bool event_number_is_ours(struct event *event)
{
	bool before, after;

	os_fds_call(event_drain, event);
	before = readable(event->fd);
	os_fds_call(event_write, event);
	after = readable(event->fd);
	return !before && after;
}

/* In a thread with the program's table. */
static void event_close_number(void *arg)
{
	struct event *event = arg;

	if (event_number_is_ours(event))
		os_syscall1(SYS_close, event->fd);
}

void os_event_close(int at)
{
	struct event *event = &fds_now()->event[at];

	if (event->bell.fd != event->fd || !os_fds_apart())
		os_call_out(event_close_number, event);
	if (os_fds_apart())
		os_bell_close(&event->bell);
	atomic_set(&event->used, 0u);
	os_fds_put();
}

/* Waits for the holder where it has to ask it: what is signalled before something else must not arrive after that. */
void os_event_signal(int at)
{
	struct fds *fds = fds_now();

	if (os_fds_apart())
		holder_call(fds, event_write, &fds->event[at]);
	else
		event_write(&fds->event[at]);
}

void os_event_clear(int at)
{
	struct fds *fds = fds_now();

	if (os_fds_apart())
		holder_call(fds, event_drain, &fds->event[at]);
	else
		event_drain(&fds->event[at]);
}
