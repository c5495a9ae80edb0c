/* SPDX-License-Identifier: MIT */
/* Readahead streams: recognise the readers of a file and choose the size of their windows. */
#ifndef FM_MM_FILL_STREAMS_H
#define FM_MM_FILL_STREAMS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct fm_file;
struct ra_state;
struct ra_stream;

bool file_takes_groups(const struct fm_file *file);
void ra_init(struct fm_file *file, uint32_t max_bytes);
void stream_put(struct ra_stream *s, const struct ra_stream *now);
uint64_t stream_steps_to(const struct ra_stream *s, uint64_t index);
struct ra_stream *stream_find(struct ra_state *ra, uint64_t index, struct ra_stream *ret);
struct ra_stream *stream_leaping(struct fm_file *file, uint64_t index, struct ra_stream *ret);
struct ra_stream *stream_new(struct ra_state *ra, uint64_t index, struct ra_stream *ret);
void stream_move(struct ra_state *ra, struct ra_stream *s, uint64_t index);
uint32_t stream_grow(struct fm_file *file, struct ra_stream *s, bool waited);
void stream_weigh_waste(struct fm_file *file, bool hit);
void ra_tick(struct ra_state *ra);
void ra_late(struct fm_file *file, uint64_t index);
void ra_shrink(struct fm_file *file);

#endif
