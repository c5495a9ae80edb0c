/* SPDX-License-Identifier: MIT */
/*
 * The state of the library's table, which the files of os/fds.h share. May call: fds.h.
 */
#ifndef FM_OS_FDS_PRIVATE_H
#define FM_OS_FDS_PRIVATE_H

#include "os/bells.h"
#include "os/os.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

struct job;

#define FDS_LOW_END      3 /* the first number that is not stdin, stdout or stderr */
#define FDS_CALLERS_MOST 64u
#define FDS_EVENTS_MOST  512

struct jobs {
	struct job *first, **end;
};

struct fds {
	struct os_lock making;  /* held while the threads are started and ended */
	uint32_t users;         /* under `making` */
	uint32_t state;         /* enum fds_state; atomic */
	struct os_lock lock;
	struct jobs quick;      /* for the holder, which never waits for a store */
	struct jobs slow;       /* for callers */
	struct jobs outward;    /* for the thread with the program's table */
	uint32_t holder_word, slow_word, outward_word; /* futexes: raised when there is work */
	uint32_t begun;         /* of the callers; atomic */
	uint32_t callers, idle; /* threads for `slow`; `idle` under the lock */
	uint32_t stop;          /* atomic */
	struct os_bell *bells;  /* to be rung; an atomic stack */
	pthread_t holder, outward_thread, caller[FDS_CALLERS_MOST];
	uint32_t holder_tid, outward_tid, caller_tid[FDS_CALLERS_MOST];
	uint32_t ready; /* futex */
	int post;               /* a socket of the library's table, to which threads send new
				   descriptors; -1: none */
	struct sockaddr_un post_name;
	socklen_t post_name_len;
	struct event {
		uint32_t used; /* atomic */
		int fd;        /* the program's */
		struct os_bell bell;
	} event[FDS_EVENTS_MOST];
};

/* Of fds.c. */
struct fds *fds_now(void); /* NULL: the library has no table yet */
/* Raise a futex word and wake the thread that waits for it. */
void fds_word_raise(uint32_t *word);
/* Queue a job that runs fn(arg) for a thread that serves `jobs`, and wait for the result. */
long fds_job_wait(struct fds *fds, struct jobs *jobs, uint32_t *word, long (*fn)(void *),
		  void *arg);
/* Run fn(arg) in a thread with the library's table: in the calling thread if it has that table,
 * else in the holder. */
long fds_holder_call(struct fds *fds, long (*fn)(void *), void *arg);

/* Of fds_numbers.c: test that no file is open by this number in the calling thread's table. */
bool fds_number_is_free(int fd);
/* Of fds_give.c: a job that closes the number in its argument. */
long fds_close_one(void *arg);

#endif
