/* SPDX-License-Identifier: MIT */
/* Queues of ranges that are brought in while the program does something else. */
#ifndef FM_MM_FAULT_BATCH_H
#define FM_MM_FAULT_BATCH_H

#include "filemap.h"

#include <stddef.h>
#include <stdint.h>

struct fm_mm;

int queue_begin(struct fm_queue *queue, const struct fm_range *ranges, size_t count,
		size_t *ret_begun);
int queue_completions(struct fm_queue *queue, struct fm_range *ranges, size_t count,
		      uint64_t timeout_ns, size_t *ret_count);
int queue_fd(struct fm_queue *queue, int *ret_fd);
int queue_create(struct fm_mm *mm, uint32_t entries, struct fm_queue **ret_queue);
int queue_destroy(struct fm_queue *queue);
void queues_end(struct fm_mm *mm);
void queues_forget(void);

#endif
