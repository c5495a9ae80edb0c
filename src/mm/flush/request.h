/* SPDX-License-Identifier: MIT */
/* Write requests: taken, ended, given back; what a failed write leaves behind. */
#ifndef FM_MM_FLUSH_REQUEST_H
#define FM_MM_FLUSH_REQUEST_H

#include "io/io.h"
#include "mm/base/gate.h"
#include "mm/base/mm.h"
#include "os/os.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fm_file;

#ifdef FM_SIM
#define WRITE_PAGES_MAX 8u
#define BATCH 16u
#else
#define WRITE_PAGES_MAX 64u
#define BATCH 256u /* pages that are put in order at a time */
#endif

/* How pages are gathered for a write. */
enum {
	HOW_DEMAND = 1u << 0, /* somebody waits */
	HOW_WAIT = 1u << 1,   /* for requests and page locks */
	HOW_FORCE = 1u << 2,  /* what cannot be taken out is written where it is */
};

struct write_request {
	struct io_request io;
	struct fm_file *file;
	struct write_request *next;
	uint32_t count;
	uint32_t page[WRITE_PAGES_MAX];
	uint64_t started_ns;
	uint32_t unmap_seq; /* the view's, when it began */
	bool ends;          /* it has the file's last page, in part: nothing can follow */
	uint32_t flush_failures; /* the file's, when it began */
	bool in_place;      /* some page is written from the view, where it stays */
	bool missing;       /* it came upon a page that was not there */
	bool taken;         /* of a file's own: it is in use; wb->lock */
};

struct writeback {
	struct fm_mm *mm;
	struct os_thread thread;
	uint32_t stop; /* atomic */
	struct os_lock lock;
	struct write_request *free; /* lock */
	struct gate freed;          /* one has been given back */
	uint32_t starved;           /* somebody found none; atomic */
	struct write_request
		*late; /* atomic stack: ended, and some of its pages may not be mapped any more */
	struct fm_file *closing;    /* atomic stack */
	struct fm_file *closing_list; /* the thread's */
	uint64_t aged_ns;           /* the thread's: when the bits of age were last made */
	uint64_t sweep_ns;          /* the thread's: not before */
	uint32_t sweep_pass;        /* the thread's */
	uint32_t cursor[MM_POOLS_MAX];
	uint32_t count;
	size_t len;
	struct write_request request[];
};

struct write_request *write_request_get(struct writeback *wb, struct fm_file *file, unsigned how,
					uint64_t until_ns);
uint32_t write_request_put(struct writeback *wb, struct write_request *req);
void file_write_ended(struct fm_file *file);
void file_note_failure(struct fm_file *file, int error);
void file_tell_failure(struct fm_file *file, uint64_t offset, uint64_t len, int error);
void write_request_end(struct writeback *wb, struct write_request *req);
void write_done(struct io_request *io);
bool write_rests(struct fm_file *file, uint64_t now);
struct write_request *writeback_request_alloc(void);

#endif
