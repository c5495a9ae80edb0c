/* SPDX-License-Identifier: MIT */
/*
 * Runs: neighbouring pages of a file whose frames are neighbours too go into the view, and out
 * of it, by one call.
 */
#ifndef FM_MM_VIEW_RUN_IN_H
#define FM_MM_VIEW_RUN_IN_H

struct access;
struct page;

#ifdef FM_SIM
#define STREAM_RUN 2u /* its pools are small */
#define COPY_RUN 4u
#define WRITE_RUN 4u
#else
#define STREAM_RUN 8u /* pages */
#define COPY_RUN 16u  /* they are in memory twice for a while */
#define WRITE_RUN 64u /* most of them written back in vain should the writer stop */
#endif

int install_run(struct access *access, struct page *page);

#endif
