/* SPDX-License-Identifier: MIT */
/*
 * Support that the library's tests share: files with known bytes, accesses whose signals are
 * caught, waits for background work, and the leak check that ends each test.
 */
#ifndef FM_TESTS_SUPPORT_H
#define FM_TESTS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "check.h"

#if defined(__SANITIZE_ADDRESS__)
#define SUPPORT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SUPPORT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SUPPORT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SUPPORT_TSAN 1
#endif
#endif
#ifndef SUPPORT_ASAN
#define SUPPORT_ASAN 0
#endif
#ifndef SUPPORT_TSAN
#define SUPPORT_TSAN 0
#endif
#define SUPPORT_SANITIZED (SUPPORT_ASAN || SUPPORT_TSAN)

#define KIB   1024ull
#define MIB   (1024ull * 1024)
#define PAGE  4096ull
#define MS_NS 1000000ull

/* ---- a test and its leak check */

/* Run the test two to five times, with the leak check after each run. Descriptors, threads and
 * the library's regions must be as before. Heap and address space must not grow with each run.
 * Returns 0 for main(). Installs the handlers of support_catch() before the library's handlers. */
int support_run(void (*test)(void));
/* Do the same in two calls, for a test that runs once. Heap and address space are not compared. */
void support_start(void);
void support_end(void);

/* Make an mm with the settings of the test matrix (see test_mm_create()). */
fm_mm *support_mm(uint64_t budget_bytes);
/* Destroy the mm after the test has unmapped and closed everything. Checks first that all gauges
 * fall to zero. */
void support_mm_end(fm_mm *mm);
struct fm_stats support_stats(fm_mm *mm);
/* Return the number of faults when the number no longer changes. Under the thread trap a thread
 * may continue before its fault is counted. */
uint64_t support_faults_settled(fm_mm *mm);

unsigned
support_threads(void); /* without the threads that the kernel made for an io_uring */
unsigned support_fds(void);
/* Return the bytes of the library's regions: anonymous memory that fork() does not copy, or
 * wipes. */
uint64_t support_regions(void);

/* Poll until `cond` is true. The check fails after 20 s, times support_slower(). */
#define EVENTUALLY(cond)                                                                           \
	do {                                                                                       \
		uint64_t until_ns = support_now_ns() + 20000 * MS_NS * support_slower();           \
		while (!(cond)) {                                                                  \
			if (support_now_ns() > until_ns)                                           \
				CHECK_FAIL("%s: did not become true", #cond);                          \
			support_sleep_ms(1);                                                       \
		}                                                                                  \
	} while (0)
uint64_t support_now_ns(void);
/* Return FM_TEST_SLOWER, or 1 if the variable is not set. The number tells how many times slower
 * than usual this machine is, for example an emulated machine. For bounds against hangs. */
unsigned support_slower(void);
void support_sleep_ms(unsigned ms);

/* ---- bytes */

/* Return the byte at an offset of a file that support_file() made. The byte is never 0. */
unsigned char support_byte(uint64_t offset, unsigned seed);
void support_fill(void *buf, uint64_t offset, size_t len, unsigned seed);
/* Return the first offset in [offset, offset+len) where `buf` differs from the file's bytes, or
 * UINT64_MAX if nothing differs. */
uint64_t support_differs(const void *buf, uint64_t offset, size_t len, unsigned seed);
/* Make a file of `size` bytes, which is removed when the process ends. Returns the file's path,
 * in the storage of support_path(). */
const char *support_file(uint64_t size, unsigned seed);
/* Return a new path in this process's own folder. No file has that path yet. The string is
 * overwritten when eight more paths have been made. */
const char *support_path(void);
/* Open with these options, or with NULL, and check that the open succeeded. */
fm_file *support_open(fm_mm *mm, const char *uri, const struct fm_file_options *options);
void *support_map(fm_file *file, uint64_t offset, size_t len);
/* Format like printf() into static storage of the thread, for URIs. The fourth later call of the
 * thread overwrites the string. */
const char *support_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- accesses */

/* Copy bytes out of a mapping, under every trap. Under the call trap each page is pinned first.
 * Returns 0 or a negative errno. */
int support_read(fm_mm *mm, const void *addr, void *buf, size_t len);
/* Do the same, and check the bytes against the file's bytes at this offset. */
#define support_expect(mm, addr, offset, len, seed)                                                \
	support_expect_at(__LINE__, mm, addr, offset, len, seed)
void support_expect_at(int line, fm_mm *mm, const void *addr, uint64_t offset, size_t len,
		       unsigned seed);

struct support_signal {
	int signo; /* 0: no signal came */
	int code, error;
	void *addr;
};
/* Run `body` and return the SIGBUS or SIGSEGV that ended `body`. May be called in any thread. */
struct support_signal support_catch(void (*body)(void *arg), void *arg);
struct support_signal support_load(const volatile void *addr);
struct support_signal support_store(volatile void *addr);
/* Check that an access ended with this signal and errno. `addr` is compared exactly. */
#define support_expect_signal(got, signo, error, addr)                                             \
	support_expect_signal_at(__LINE__, got, signo, error, addr)
void support_expect_signal_at(int line, struct support_signal got, int signo, int error,
			      const volatile void *addr);

/* ---- children */

/* Fork. The child runs fn(arg) and calls _exit() with the result. Returns the wait status. */
int support_child(int (*fn)(void *arg), void *arg);
/* Turn core dumps of the calling process off, for a child that is meant to die of a signal. */
void support_no_core(void);

#endif
