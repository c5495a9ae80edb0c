/* SPDX-License-Identifier: MIT */
/*
 * The end of a run: all mappings and files go, and what was written must be in the stores.
 * May call: sim.h.
 */
#ifndef FM_SIM_END_H
#define FM_SIM_END_H

#include "sim.h"

void end_check_views(void);
void end_need_written(uint32_t need[][SIM_PAGES][SIM_TAGS]);
void end_process_ends(uint32_t need[][SIM_PAGES][SIM_TAGS]);
void end_give_all_back(uint32_t need[][SIM_PAGES][SIM_TAGS], bool ends);

#endif
