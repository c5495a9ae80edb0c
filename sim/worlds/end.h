/* SPDX-License-Identifier: MIT */
/*
 * The end of a run: all mappings and files go, and what was written must be in the stores.
 * May call: sim.h.
 */
#ifndef FM_SIM_END_H
#define FM_SIM_END_H

#include "sim.h"

/* All is quiet: the run fails if a page is in a view and not mapped. */
void end_check_views(void);
/* What each file's store must have once all is written. */
void end_need_written(uint32_t need[][SIM_PAGES][SIM_TAGS]);
/* The process ends, as by exit(): what is needed must be in the stores then. */
void end_process_ends(uint32_t need[][SIM_PAGES][SIM_TAGS]);
/* Unmap and close all. `ends`: the process ends meanwhile. */
void end_give_all_back(uint32_t need[][SIM_PAGES][SIM_TAGS], bool ends);

#endif
