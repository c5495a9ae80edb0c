/* SPDX-License-Identifier: MIT */
/*
 * The large world: what is known of the program, its files and their pages while a run is
 * under way.
 * May call: sim.h.
 */
#ifndef FM_SIM_WORLD_H
#define FM_SIM_WORLD_H

#include "sim.h"

#define WORKERS_MAX 8
#define QUEUE_MAX 12

/* What is known of one page of an object. */
struct known {
	int least, most;   /* times mapped */
	uint64_t map_step, unmap_step; /* a call of that kind was under way at this step, or is */
	uint32_t mapping, unmapping;   /* under way now */
	uint32_t pinned, pinning; /* pinning: also while fm_pin() or fm_unpin() is under way */
	uint64_t unpin_step; /* when the last was over */
	bool pins_lost; /* one that is counted has gone with a truncate or a punch: its fm_unpin()
			   takes another's */
	bool emptied_once;
	uint64_t resized_step; /* a truncate, a punch or an invalidation of it was under way at this
				  step, or is */
	uint32_t resizing;
};

/* A size that an object has, or had, between two steps. */
struct size {
	uint64_t bytes, from, until;
};

#define SIZES_MAX 64u
#define STILL UINT64_MAX

struct world {
	struct fm_file *file[SIM_FILES];
	struct known known[SIM_FILES][SIM_PAGES];
	uint64_t view[SIM_FILES]; /* base */
	uint32_t pages[SIM_FILES]; /* in use, those past the end too */
	uint32_t files, workers, ops;
	uint64_t deadline_ns[SIM_FILES];
	uint32_t changed[SIM_FILES];
	uint32_t frames, budget_slack;
	bool tables_few;
	bool stopping, closing[SIM_FILES];
	uint32_t calls; /* of the interface, under way */
	uint32_t weight[OP_COUNT], weights;
	uint64_t instructions, pin_ns, no_memory;
	bool keeps_pins; /* until the end of all */
	bool writes; /* most objects are open for writing, and are written to */
	bool amends; /* one is, page after page, most of which are cached */
	bool toggles; /* objects change between all and next to nothing */
	struct fm_queue *queue;
	uint32_t flying_most; /* ranges that it holds */
	struct flying {
		bool used;
		uint32_t f, first, last;
		uint64_t begun;
	} flying[QUEUE_MAX];
	struct fm_mm_options mm_options;
	bool destroy_inside;
	bool alone; /* no readahead */
	struct size size[SIM_FILES][SIZES_MAX]; /* of those open for writing */
	uint32_t sizes[SIM_FILES];
	bool resizing[SIM_FILES]; /* by some thread */
	uint32_t syncs[SIM_FILES]; /* under way */
	uint64_t sync_step[SIM_FILES]; /* when one last began or ended */
	uint64_t passed[SIM_THREADS]; /* a thread's wait (its order) during which an unmap came and went */
};
extern struct world world;

static inline uint64_t index_of(uint32_t f, uint32_t n)
{
	return sim_store[f].base + n * sim_store[f].stride;
}

static inline uint64_t addr_of(uint32_t f, uint32_t n)
{
	return world.view[f] + index_of(f, n) * OS_PAGE;
}

#endif
