/* SPDX-License-Identifier: MIT */
/* Readahead: which pages to read beside the one that is wanted. */
#ifndef FM_MM_FILL_STREAMS_H
#define FM_MM_FILL_STREAMS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct fm_file;

/* One reader's way through a file. Plain numbers, here and in ra_state: races only cost guesses. */
#define RA_STREAMS 16

struct ra_stream {
	uint64_t last;  /* the page it has come to */
	uint64_t edge;  /* the next one, in its direction, that has not been asked for */
	int64_t stride; /* pages from one to the next; 0: not known yet */
	int32_t step;   /* what lay between its first page and another stream's; 0: nothing near */
	uint32_t size;  /* of its last window, in pages */
	uint32_t used;  /* ra_state.clock by then; 0: it is none */
};

struct ra_state {
	struct ra_stream stream[RA_STREAMS];
	uint32_t clock;     /* faults that looked for a stream */
	uint32_t max_pages; /* of a window; 0: no readahead */
	uint32_t most;      /* at present */
	uint32_t wasted;    /* pages thrown away untouched, of late */
};

/* Whether huge pages can come into its view, which is for streams. */
enum file_huge { HUGE_NO, HUGE_WANTED, HUGE_YES };

bool file_takes_groups(const struct fm_file *file);
void ra_init(struct fm_file *file, uint32_t max_bytes);
void stream_put(struct ra_stream *s, const struct ra_stream *now);
uint64_t stream_steps_to(const struct ra_stream *s, uint64_t index);
struct ra_stream *stream_find(struct ra_state *ra, uint64_t index, struct ra_stream *ret);
struct ra_stream *stream_leaping(struct fm_file *file, uint64_t index, struct ra_stream *ret);
struct ra_stream *stream_new(struct ra_state *ra, uint64_t index, struct ra_stream *ret);
void stream_move(struct ra_state *ra, struct ra_stream *s, uint64_t index);
uint32_t stream_grow(struct fm_file *file, struct ra_stream *s, bool waited);
void stream_weigh_waste(struct ra_state *ra, bool hit);
void ra_tick(struct ra_state *ra);
void ra_late(struct fm_file *file, uint64_t index);
void ra_shrink(struct fm_file *file);

#endif
