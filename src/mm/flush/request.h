/* SPDX-License-Identifier: MIT */
/* Write requests: how they are taken, ended and given back, and what a failed write records. */
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
#define BATCH 256u /* pages sorted at a time */
#endif

/* Flags that say how pages are gathered for a write. */
enum {
	HOW_DEMAND = 1u << 0, /* a thread waits for the write */
	HOW_WAIT = 1u << 1,   /* may wait for requests and page locks */
	HOW_FORCE = 1u << 2,  /* write a page from the view if the page cannot be taken out */
};

struct write_request {
	struct io_request io;
	struct fm_file *file;
	struct write_request *next;
	uint32_t count;
	uint32_t page[WRITE_PAGES_MAX];
	uint64_t started_ns;
	uint32_t unmap_seq; /* the view's unmap_seq when the request began */
	bool ends;          /* has the file's last, partial page: no page can follow */
	uint32_t flush_failures; /* the file's flush_failures when the request began */
	bool in_place;      /* some page is written from the view, and stays there */
	bool missing;       /* the write met a page that was not there */
	bool taken;         /* a file's own request is in use; wb->lock */
};

struct writeback {
	struct fm_mm *mm;
	struct os_thread thread;
	uint32_t stop; /* atomic */
	struct os_lock lock;
	struct write_request *free; /* list of free requests; lock */
	struct gate freed;          /* a request has been given back */
	uint32_t starved;           /* a thread found no free request; atomic */
	struct write_request
		*late; /* atomic stack: ended requests with pages that may not be mapped any more */
	struct fm_file *closing;    /* atomic stack of files to close */
	struct fm_file *closing_list; /* files to close; the thread's */
	uint64_t aged_ns;           /* when aged_bits were last set; the thread's */
	uint64_t sweep_ns;          /* no sweep before this time; the thread's */
	uint32_t sweep_pass;        /* number of the present sweep; the thread's */
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
