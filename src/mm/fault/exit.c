/* SPDX-License-Identifier: MIT */
/* Compare the answer of each try with the truth table. Debug builds and the simulator only. */
#include "mm/fault/exit.h"

#include "mm/base/common.h"
#include "mm/fault/table.h"
#include "mm/fault/vmf.h"
#include "os/atomic.h"

#ifdef FM_DEBUG
enum answer {
	ANSWER_LOCKED,
	ANSWER_DROPPED,
	ANSWER_TICKET,
	ANSWER_SIGBUS,
	ANSWER_OOM,
	ANSWER_SEGV,
};

static const struct {
	enum answer may_drop, may_not;
} table[ROWS] = {
#define ANSWERS(name, met, may_drop, may_not) {ANSWER_##may_drop, ANSWER_##may_not},
	FAULT_TABLE(ANSWERS)
#undef ANSWERS
};

/* A try begins, and has met no row yet. */
void fault_rows_begin(struct fault *vmf)
{
	vmf->rows = 0;
}

/* Note that a try has met a row. */
void fault_row(struct fault *vmf, enum fault_row row)
{
	vmf->rows |= 1u << row;
	vmf->last_row = row;
	watched(fault_row, vmf);
}

/* Name the answer of a try. `dropped` tells that the try dropped the map lock. */
static enum answer answer_of(const struct fault *vmf, bool dropped, unsigned ret)
{
	if (ret & FM_FAULT_RETRY) {
		mm_assert(dropped || vmf->want != WANT_NOTHING);
		return dropped ? ANSWER_DROPPED : ANSWER_TICKET;
	}
	mm_assert(!dropped); /* any other answer would be taken for one with the lock held */
	if (ret & FM_FAULT_LOCKED)
		return ANSWER_LOCKED;
	mm_assert(vmf->error);
	return ret & FM_FAULT_OOM ? ANSWER_OOM : ANSWER_SIGBUS;
}

/* Check that the answer of a try is the answer that the table has for the last row that the try
 * met. Returns `ret`. */
unsigned fault_exit(const struct fault *vmf, bool dropped, unsigned ret)
{
	enum answer wanted =
		fault_may_drop(vmf) ? table[vmf->last_row].may_drop : table[vmf->last_row].may_not;
	mm_assert(vmf->rows && answer_of(vmf, dropped, ret) == wanted);
	watched(fault_exit, vmf);
	return ret;
}
#endif
