/* SPDX-License-Identifier: MIT */
/* The search's side of explore.c: from one schedule to the next. */
#ifndef FM_SIM_EXPLORE_H
#define FM_SIM_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void explore_begin(void);  /* the first schedule: no choice made */
bool explore_learnt(void); /* since last asked: that more words are shared than was known */
void explore_forget(void); /* another world */
bool explore_next(uint32_t surprises);
uint32_t explore_length(void); /* choices of the last run */
void explore_words(char *to, size_t size);
bool explore_parse(const char *text);

#endif
