/* SPDX-License-Identifier: MIT */
/* MOVE between a slot and a view, with the repeats that the kernel asks for. */
#ifndef FM_MM_VIEW_TRANSFER_H
#define FM_MM_VIEW_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct page;

#define BUSY_TRIES 50
#define BUSY_PAUSE_NS 20000u

/* The program has put other memory, or none, where the page would go: to the program -EFAULT. */
#define FOREIGN (-EADDRNOTAVAIL)

struct transfer {
	struct fm_mm *mm;
	uint64_t dst, src, len;
	uint64_t done;
	unsigned busy, nomem;
	bool existed, copied, missing, back; /* back: a taking-out that is undone */
	struct page *leaves; /* it is taken out of the view, where it is protected: see
				move_had_worked() */
};

uint64_t move_uncounted(struct fm_mm *mm, uint64_t dst, uint64_t src, uint64_t len);
int move_after_exist(struct fm_mm *mm, uint64_t dst, uint64_t src);
int transfer_in(struct transfer *t, bool move);
int transfer_back(struct transfer *t);
int transfer_out(struct transfer *t);
int move_page(struct fm_mm *mm, uint64_t dst, uint64_t src);

#endif
