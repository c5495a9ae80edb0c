/* SPDX-License-Identifier: MIT */
/* Transfers move a page between a slot and a view by MOVE, and repeat as the kernel
 * asks. */
#ifndef FM_MM_VIEW_TRANSFER_H
#define FM_MM_VIEW_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct page;

#define BUSY_TRIES 50
#define BUSY_PAUSE_NS 20000u

/* The program has put other memory, or none, where the page would go. The program gets
 * -EFAULT. */
#define FOREIGN (-EADDRNOTAVAIL)

struct transfer {
	struct fm_mm *mm;
	uint64_t dst, src, len;
	uint64_t done;
	unsigned busy, nomem;
	bool existed, copied, missing, back; /* back: the transfer undoes a taking-out */
	/* first page that is taken out of the view, where the page is protected: see
	 * move_had_worked() */
	struct page *leaves;
};

uint64_t move_uncounted(struct fm_mm *mm, uint64_t dst, uint64_t src, uint64_t len);
int move_after_exist(struct fm_mm *mm, uint64_t dst, uint64_t src);
int transfer_in(struct transfer *t, bool move);
int transfer_back(struct transfer *t);
int transfer_out(struct transfer *t);
int move_page(struct fm_mm *mm, uint64_t dst, uint64_t src);

#endif
