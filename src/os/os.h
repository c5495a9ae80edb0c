/* SPDX-License-Identifier: MIT */
/*
 * The seam: all that src/mm may ask of the machine. real.c implements the seam with Linux; sim/
 * implements it with a deterministic world. Every function here is async-signal-safe, allocates
 * nothing by malloc, is no cancellation point and leaves errno alone, unless the function's
 * comment says otherwise. Errors are negative errno. May call: the kernel.
 */
#ifndef FM_OS_H
#define FM_OS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define OS_PAGE 4096u /* the kernel's page, the unit of views and of sizes past the end */

#define OS_NSEC_PER_SEC 1000000000ull
#define OS_NSEC_PER_MSEC 1000000ull
#define OS_FOREVER UINT64_MAX /* as a point in time: never */

/* ---- time: CLOCK_MONOTONIC, no system call where the vDSO serves it */
uint64_t os_now_ns(void);
/* CLOCK_REALTIME as file systems use it for time stamps: no later than a change that is made
 * now. */
uint64_t os_stamp_ns(void);
void os_sleep_until(uint64_t when_ns);

/* ---- futex (process-private). Waiting may end spuriously with 0.
 * os_futex_wait: 0, or -ETIMEDOUT when `until_ns` (OS_FOREVER: none) has passed. */
#define OS_FUTEX_ANY 0xffffffffu
int os_futex_wait(uint32_t *word, uint32_t value, uint32_t bits, uint64_t until_ns);
void os_futex_wake(uint32_t *word, int count, uint32_t bits);

/* ---- threads */
uint32_t os_gettid(void);
void os_relax(void); /* in a spin loop */
typedef void *(*os_thread_fn)(void *);
struct os_thread {
	unsigned long handle;
	bool started;
};
/* With all signals blocked. Not signal-safe. */
int os_thread_start(struct os_thread *thread, const char *name, os_thread_fn fn, void *arg);
void os_thread_join(struct os_thread *thread);
void os_thread_detach(struct os_thread *thread); /* no thread joins this thread */

/* ---- signals: block all that may be blocked, before a lock is taken in a public call */
typedef uint64_t os_sigmask;
os_sigmask os_signals_block(void);
void os_signals_restore(os_sigmask mask);

/* ---- events: poll() finds an event readable from a signal to the next clear. open: an event
 * or negative errno; os_event_fd(): the descriptor for the program, which may do anything with
 * it. open and close are not signal-safe. */
int os_event_open(void);
int os_event_fd(int event);
void os_event_close(int event);
void os_event_signal(int event);
void os_event_clear(int event);

/* ---- the program's side: run fn(arg) in a thread that has the program's table of descriptors,
 * and wait for the end of fn(). For functions that the program gave the library; threads of the
 * library have another table (fds.h). In a thread of the program, simply call fn(arg). */
void os_call_out(void (*fn)(void *arg), void *arg);

/* ---- what a thread keeps for itself: zeroed, 256 bytes, initial-exec */
#define OS_THREAD_LOCAL_BYTES 256
void *os_thread_local(void);

/* ---- memory */
/* Allocate anonymous memory for metadata: zeroed, populated, not inherited by fork(). Returns
 * NULL if there is none. */
void *os_meta_alloc(size_t len);
void os_meta_free(void *mem, size_t len);
/* Touch the pages of this library's code and data, so that no later access to them faults. */
void os_populate_self(void);
/* Keep the library loaded until the process ends: dlclose() does not unload the library from
 * then on. The library's code is needed by its threads, its handler of SIGBUS and its handlers
 * for the end of the process. Not signal-safe. */
void os_stay_loaded(void);
/* Make the next 2 KiB of this thread's stack present, before a lock is taken. */
void os_populate_stack(void);

/* ---- raw reads and writes, used by stores in the faulting thread and in a dying thread. Not
 * cancellation points. */
ssize_t os_preadv(int fd, const struct iovec *iov, int iov_count, uint64_t offset);
ssize_t os_pwritev(int fd, const struct iovec *iov, int iov_count, uint64_t offset);
/* Read without waiting: -EAGAIN if the read would have to wait for anything except the device;
 * -EOPNOTSUPP if the file system cannot tell. */
ssize_t os_preadv_nowait(int fd, const struct iovec *iov, int iov_count, uint64_t offset);

/* ---- a small lock: for lists and counters, held for tens of instructions and never while
 * blocking. Signals must be blocked by the caller. Zero-initialised. */
struct os_lock {
	uint32_t word; /* 0 free, 1 taken, 2 taken and threads wait */
};
void os_lock(struct os_lock *lock);
bool os_trylock(struct os_lock *lock);
void os_unlock(struct os_lock *lock);

#endif
