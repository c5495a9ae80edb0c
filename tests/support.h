/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the library share: files with known bytes, accesses whose signal is caught,
 * waiting for what happens in the background, and the leak check that ends every test.
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

/* Run the test twice or more, each time with the leak check behind it: descriptors, threads, and
 * the library's regions must be as before; heap and address space must not grow with each run.
 * Returns 0 for main(). Installs the handlers of support_catch() before the library's. */
int support_run(void (*test)(void));
/* The same in two calls, for a test that runs once: without the comparison of two runs. */
void support_start(void);
void support_end(void);

/* An mm as the matrix asks for (see test_mm_create). */
fm_mm *support_mm(uint64_t budget_bytes);
/* The test has unmapped and closed everything: all gauges must fall to zero; then destroy. */
void support_mm_end(fm_mm *mm);
struct fm_stats support_stats(fm_mm *mm);
/* Faults so far, when no more come: under the thread trap a thread may go on before its fault is
 * counted. */
uint64_t support_faults_settled(fm_mm *mm);

unsigned
support_threads(void); /* of this process, without those that the kernel made for an io_uring */
unsigned support_fds(void);
/* Bytes of the library's regions: what is marked not to be copied, or to be wiped, by fork(). */
uint64_t support_regions(void);

/* Poll until cond is true; a check fails after a time that is far beyond any doubt. */
#define EVENTUALLY(cond)                                                                           \
	do {                                                                                       \
		uint64_t until_ns = support_now_ns() + 20000 * MS_NS * support_slower();           \
		while (!(cond)) {                                                                  \
			if (support_now_ns() > until_ns)                                           \
				CHECK_FAIL("%s: never came true", #cond);                          \
			support_sleep_ms(1);                                                       \
		}                                                                                  \
	} while (0)
uint64_t support_now_ns(void);
/* FM_TEST_SLOWER: how many times slower than usual this machine is, as an emulated one; 1 if not
 * set. For bounds against hangs. */
unsigned support_slower(void);
void support_sleep_ms(unsigned ms);

/* ---- bytes */

/* The byte at an offset of a file that support_file() made; never 0. */
unsigned char support_byte(uint64_t offset, unsigned seed);
void support_fill(void *buf, uint64_t offset, size_t len, unsigned seed);
/* The first offset in [offset, offset+len) where buf differs from the file's bytes; UINT64_MAX:
 * none. */
uint64_t support_differs(const void *buf, uint64_t offset, size_t len, unsigned seed);
/* A file of that many bytes; the path is good until the end of the process, as is the file. */
const char *support_file(uint64_t size, unsigned seed);
/* A path in this process's own folder; nothing is there yet. */
const char *support_path(void);
/* Open with these options (or NULL) and check that it worked. */
fm_file *support_open(fm_mm *mm, const char *uri, const struct fm_file_options *options);
void *support_map(fm_file *file, uint64_t offset, size_t len);
/* format, printf-like, in static storage of the thread: for URIs. */
const char *support_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- accesses */

/* Copy bytes out of a mapping, under every trap: call brings them in first. 0 or the negative
 * errno. */
int support_read(fm_mm *mm, const void *addr, void *buf, size_t len);
/* The same and compare with the file's bytes at this offset. */
#define support_expect(mm, addr, offset, len, seed)                                                \
	support_expect_at(__LINE__, mm, addr, offset, len, seed)
void support_expect_at(int line, fm_mm *mm, const void *addr, uint64_t offset, size_t len,
		       unsigned seed);

struct support_signal {
	int signo; /* 0: none came */
	int code, error;
	void *addr;
};
/* Run body; the SIGBUS or SIGSEGV that ended it. Any thread. */
struct support_signal support_catch(void (*body)(void *arg), void *arg);
struct support_signal support_load(const volatile void *addr);
struct support_signal support_store(volatile void *addr);
/* Expect a read or write to die of this; addr is compared exactly. */
#define support_expect_signal(got, signo, error, addr)                                             \
	support_expect_signal_at(__LINE__, got, signo, error, addr)
void support_expect_signal_at(int line, struct support_signal got, int signo, int error,
			      const volatile void *addr);

/* ---- children */

/* fork(), fn(arg) and _exit(its result) in the child; returns the wait status. */
int support_child(int (*fn)(void *arg), void *arg);
/* Like CHECK, for children of a process with threads: no exit handlers run. */
void support_no_core(void);

#endif
