/* SPDX-License-Identifier: MIT */
/*
 * The end of a run: all mappings and files are closed, and the stores must have all written bytes.
 */
#ifndef FM_SIM_END_H
#define FM_SIM_END_H

#include "sim.h"

/* Called when all is quiet. Fail the run if a page is in a view and not mapped. */
void end_check_views(void);
/* Note what each file's store must have once all is written. */
void end_need_written(uint32_t need[][SIM_PAGES][SIM_TAGS]);
/* End the process, as exit() does. The stores must then have the bytes of `need`. */
void end_process_ends(uint32_t need[][SIM_PAGES][SIM_TAGS]);
/* Unmap and close all. With `ends` the process ends meanwhile. */
void end_give_all_back(uint32_t need[][SIM_PAGES][SIM_TAGS], bool ends);

#endif
