/* SPDX-License-Identifier: MIT */
/* What the files of run_program share: a file with known bytes, and what is expected. */
#ifndef FM_TESTS_RUN_PROGRAM_H
#define FM_TESTS_RUN_PROGRAM_H

#include "check.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE  4096ull
#define MIB   (1ull << 20)
#define LEN   (4 * MIB)
#define FINAL 1000u /* bytes of the last page */
#define SIZE  (LEN - PAGE + FINAL)

extern const char *path, *program;

/* The byte at an offset of the file, in a generation of its content. */
unsigned char byte_of(uint64_t offset, unsigned generation);
void write_all(int fd, unsigned generation);
void make_file(unsigned generation);

/* Tell whether the address lies in a mapping of a file: then the kernel serves the mapping. */
bool is_kernels(const volatile void *addr);
void expect_served(const volatile void *addr, bool served);
void expect_bytes(const volatile unsigned char *addr, uint64_t offset, uint64_t len,
		  unsigned generation);
/* Map a part of the file, which is served if anything is. */
unsigned char *map_part(uint64_t offset, size_t len, int flags);
unsigned char *map_file(int flags);

/* A process that opens the file for writing when it is told, and writes a generation; 0: makes the
 * file one page long. */
void writer_start(void);
void writer_tell(unsigned generation);
void writer_wait(void);
void writer_end(void);

/* For a child, or a grandchild: 0 if the bytes are right, and the kernel serves them. */
int child_reads(void *arg);
void expect_child(pid_t pid);

/* The scenarios of run_change.c. */
void scenario_change(void);
void scenario_end(void);
void scenario_close(void);
void scenario_few(void);

#endif
