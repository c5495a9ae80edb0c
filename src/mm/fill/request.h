/* SPDX-License-Identifier: MIT */
/* Reads of a store into pages. */
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
	256u /* of a request; as many of them as have neighbouring frames are one segment */

#ifdef FM_SIM
#define READ_SEGMENTS_MAX 3u /* its pools are small */
#else
#define READ_SEGMENTS_MAX IO_SEGMENTS_MAX
#endif

/* Which pages it reads, the segments tell, which are their slots; of a staged one, `first`. */
struct read_request {
	struct io_request io;
	struct fm_file *file;
	uint32_t page_count;
	uint32_t first; /* its first page */
	uint64_t started_ns, deadline_ns;
	uint32_t epoch; /* of the file, when it was submitted */
	char *stage;        /* the staging slot that it reads its one page into; NULL: into the frame */
	uint64_t stage_addr; /* where the page is wanted */
	uint32_t unmap_seq; /* the view's, when it was */
	uint32_t busy;      /* atomic */
	bool speculative;   /* request lock */
	uint32_t cancelled; /* set under the request lock; atomic */
	uint32_t abandoned; /* its pages have been taken from it; as `cancelled` */
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
