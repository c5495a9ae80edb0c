/* SPDX-License-Identifier: MIT */
/* The part of explore.c for the search: go from one schedule to the next. */
#ifndef FM_SIM_EXPLORE_H
#define FM_SIM_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void explore_begin(void);  /* the first schedule: all choices are 0 */
bool explore_learnt(void); /* true: since the last call, more words turned out to be shared */
void explore_forget(void); /* the next world begins */
bool explore_next(uint32_t surprises);
uint32_t explore_length(void); /* number of choices of the last run */
void explore_words(char *to, size_t size);
bool explore_parse(const char *text);

#endif
