/* SPDX-License-Identifier: MIT */
/* Read requests: reads of a store into pages. */
#ifndef FM_MM_FILL_REQUEST_H
#define FM_MM_FILL_REQUEST_H

#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct access;
struct fm_file;
struct frame_pool;
struct iovec;
struct page;

#define READ_PAGES_MAX                                                                             \
	256u /* per request; pages with neighbouring frames share a segment */

#ifdef FM_SIM
#define READ_SEGMENTS_MAX 3u /* the pools of a simulation are small */
#else
#define READ_SEGMENTS_MAX IO_SEGMENTS_MAX
#endif

/* The segments are the slots of the request's pages, and so tell which pages the request
 * reads. For a staged request, `first` tells the page. */
struct read_request {
	struct io_request io;
	struct fm_file *file;
	uint32_t page_count;
	uint32_t first; /* index of the first page in the pool */
	uint64_t started_ns, deadline_ns;
	uint32_t epoch; /* the file's epoch at submission */
	/* the staging slot for a request of a single page; NULL: the read goes into the frame */
	char *stage;
	uint64_t stage_addr; /* the address at which the page is wanted */
	uint32_t unmap_seq; /* the view's unmap_seq when the mapping was found */
	uint32_t busy;      /* atomic */
	bool speculative;   /* request lock */
	uint32_t cancelled; /* set under the request lock; atomic */
	uint32_t abandoned; /* the pages have been taken away; guarded as `cancelled` */
	uint32_t next_free;
};

struct page *request_segment_first(const struct frame_pool *pool, const struct iovec *segment);
struct page *request_segment_end(const struct frame_pool *pool, const struct iovec *segment);
int request_segments(const struct read_request *req, struct iovec *segments);
uint32_t request_pages(const struct read_request *req, struct page **pages);
uint32_t read_pages_most(const struct frame_pool *pool, uint32_t wanted);
bool read_fits(struct page **pages, uint32_t count, uint32_t *segments);
int read_submit(struct fm_file *file, struct page **pages, uint32_t count, bool speculative);
int read_submit_staged(struct access *access);
int read_submit_ahead(struct fm_file *file, struct page *page, char *stage, uint32_t unmap_seq);

#endif
