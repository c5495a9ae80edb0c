/* SPDX-License-Identifier: MIT */
/* The large world: the state of the program, its files and their pages during a run. */
#ifndef FM_SIM_WORLD_H
#define FM_SIM_WORLD_H

#include "sim.h"

#define WORKERS_MAX 8
#define QUEUE_MAX 12

/* What the oracle knows of one page of an object. */
struct known {
	int least, most;   /* times mapped */
	uint64_t map_step, unmap_step; /* last step at which such a call began or ended */
	uint32_t mapping, unmapping;   /* calls under way */
	uint32_t pinned, pinning; /* pinning: also while fm_pin() or fm_unpin() runs */
	uint64_t unpin_step; /* step at which the last fm_unpin() or failed fm_pin() ended */
	/* A truncate or a punch has taken a counted pin, so the pin's fm_unpin() takes another
	 * pin. */
	bool pins_lost;
	bool emptied_once;
	uint64_t resized_step; /* last step at which a truncate or a punch began or ended */
	uint32_t resizing;
};

/* A size that an object had between two steps. */
struct size {
	uint64_t bytes, from, until;
};

#define SIZES_MAX 64u
#define STILL UINT64_MAX

struct world {
	struct fm_file *file[SIM_FILES];
	struct known known[SIM_FILES][SIM_PAGES];
	uint64_t view[SIM_FILES]; /* base address */
	uint32_t pages[SIM_FILES]; /* pages in use, with those past the end */
	uint32_t files, workers, ops;
	uint64_t deadline_ns[SIM_FILES];
	uint32_t changed[SIM_FILES];
	uint32_t frames, budget_slack;
	bool tables_few;
	bool stopping, closing[SIM_FILES];
	uint32_t calls; /* calls of the interface under way */
	uint32_t weight[OP_COUNT], weights;
	uint64_t instructions, pin_ns, no_memory;
	bool keeps_pins; /* pins stay until the end of the run */
	bool writes; /* most objects are open for writing, and are written to */
	bool amends; /* one object is written page by page, and most of its pages are cached */
	bool toggles; /* an object changes between its full size and one page */
	struct fm_queue *queue;
	uint32_t flying_most; /* number of ranges that the queue holds */
	struct flying {
		bool used;
		uint32_t f, first, last;
		uint64_t begun;
	} flying[QUEUE_MAX];
	struct fm_mm_options mm_options;
	bool destroy_inside;
	bool alone; /* no readahead */
	struct size size[SIM_FILES][SIZES_MAX]; /* sizes of the objects open for writing */
	uint32_t sizes[SIM_FILES];
	bool resizing[SIM_FILES]; /* a thread changes the object's size */
	uint32_t syncs[SIM_FILES]; /* syncs under way */
	uint64_t sync_step[SIM_FILES]; /* step at which a sync last began or ended */
	uint64_t passed[SIM_THREADS]; /* number of a thread's wait during which an unmap ended */
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
