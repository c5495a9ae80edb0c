/* SPDX-License-Identifier: MIT */
/*
 * The one exit of a try, where the answer is compared with the truth table. Debug builds and the
 * simulator compare. The simulator also counts each row in each column. In a release build ROW()
 * and fault_exit() do nothing.
 */
#ifndef FM_MM_FAULT_EXIT_H
#define FM_MM_FAULT_EXIT_H

#include "mm/fault/vmf.h"

#include <stdbool.h>

#ifdef FM_DEBUG
#define ROW(name) fault_row(vmf, ROW_##name)
void fault_rows_begin(struct fault *vmf);
void fault_row(struct fault *vmf, enum fault_row row);
unsigned fault_exit(const struct fault *vmf, bool dropped, unsigned ret);
#else
#define ROW(name) ((void)0)
#define fault_rows_begin(vmf) ((void)0)
static inline unsigned fault_exit(const struct fault *vmf, bool dropped, unsigned ret)
{
	(void)vmf;
	(void)dropped;
	return ret;
}
#endif

#endif
