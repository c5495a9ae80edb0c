/* SPDX-License-Identifier: MIT */
/*
 * The functions that the machine calls when something happens, and the questions that the machine
 * asks. This header declares the functions. The checkers (checks/) and the search of schedules
 * (search/) define them. They are linked instead of called through pointers, since the machine
 * calls some of them at every step.
 */
#ifndef FM_SIM_WATCH_H
#define FM_SIM_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct io_request;
struct sim_store;
struct sim_thread;
struct view_page;

/* ---- the answers of the search (search/explore.c) */
bool explore_ask(void);
struct sim_thread *explore_choose(struct sim_thread *self, bool matters);
bool explore_matters(const void *word, bool writes);

/* ---- what threads and pages may do (checks/rules.c, checks/check.c) */
void check_may_block(const char *what);
void check_clock(void); /* a thread reads the clock */
void check_lock_taken(const char *what);
void check_nothing_held(const char *what);
void check_futex_wait(const uint32_t *word);
uint32_t check_page_locks(void);
void check_given_away(const struct io_request *request);
void check_step(void);     /* at every scheduling point */
void check_idle(void);     /* no thread can run, and time is about to pass */
void check_slots_closed(void); /* the mm is about to end */
void check_device_writes(uint64_t slot);
void check_arrival(uint64_t addr);

/* ---- what programs write (checks/written.c) */
void written_open(struct sim_store *s);
void written_check_view(struct sim_store *s, uint64_t index, const struct view_page *page);
uint64_t written_stored(const struct sim_store *s, uint32_t n, uint32_t i);
void written_put(struct sim_store *s, uint32_t n, uint32_t i, uint64_t tag, uint32_t flight);
void written_ended(struct sim_store *s, uint32_t flight);
void written_flushed(struct sim_store *s, uint32_t covers, bool well);
void written_put_zeros(struct sim_store *s, uint64_t from, uint64_t to, uint32_t flight);
void written_check_snapshot(struct sim_store *s, uint32_t n, const uint64_t *tags, uint32_t count,
			    uint64_t begun, bool pinned);

#endif
