/* SPDX-License-Identifier: MIT */
/*
 * The search runs the schedules of a small world one after the other, depth first. Each run starts
 * from the beginning.
 *
 * The path has the choice made at each point where something else could happen. Choice 0 is what
 * happens without interference: a thread goes on, and if the thread must wait, the next thread in
 * turn goes on. Any other choice is a surprise:
 *   - a thread is preempted, or a thread other than the next one goes on
 *   - a timer ends although a thread could go on
 *   - the machine fails where it need not (SIM_ASK)
 * A schedule has a limited number of surprises (after Emmi, Qadeer, Rakamaric, "Delay-bounded
 * scheduling", 2011). A run with n points has about n^N / N! schedules with N surprises, however
 * many threads there are.
 */
#include "sim.h"

#include "search/explore.h"

#include <stdio.h>
#include <stdlib.h>

#define POINTS 100000u

struct choice {
	uint8_t chosen, options; /* options: 0: not known yet */
	bool matters; /* false: try only the first choice */
};

static struct choice path[POINTS];
static uint32_t at, length;

void explore_begin(void)
{
	at = length = 0;
}

/* ------------------------------------------------------------------ which points matter */

/*
 * If no other thread uses a word, or all threads only read the word, a preemption before the
 * word's use makes no difference. The same preemption at the next use has the same effect. The
 * search learns during the runs which threads use which words. A search is complete only when a
 * pass has learnt nothing new.
 *
 * The search does not see a use without an atomic operation or a lock (readahead's window, where a
 * race only spoils a guess). So the search is complete except for preemptions that only such a use
 * could tell apart.
 */
#define WORDS (1u << 16)
static struct word {
	uint64_t at;
	uint32_t readers, writers; /* masks of threads, over all runs */
} words[WORDS];
static uint32_t words_used;
static bool learnt;

void explore_forget(void)
{
	memset(words, 0, sizeof(words));
	words_used = 0;
	learnt = false;
}

bool explore_learnt(void)
{
	bool was = learnt;
	learnt = false;
	return was;
}

static bool is_shared(const struct word *w)
{
	uint32_t users = w->readers | w->writers;
	return w->writers && (users & (users - 1));
}

bool explore_matters(const void *word, bool writes)
{
	uint64_t addr = (uint64_t)word;
	uint32_t i = (uint32_t)(addr * 0x9e3779b97f4a7c15ull >> 48) % WORDS;
	while (words[i].at && words[i].at != addr)
		i = (i + 1) % WORDS;
	struct word *w = &words[i];
	if (!w->at && ++words_used > WORDS / 2)
		sim_fail("there are more words than the search has room for");
	w->at = addr;
	bool before = is_shared(w);
	*(writes ? &w->writers : &w->readers) |= 1u << sim.self->id;
	learnt |= is_shared(w) && !before;
	return is_shared(w);
}

/* ------------------------------------------------------------------ choices */

static uint32_t decide(uint32_t options, bool matters)
{
	if (!sim.choosing || options < 2)
		return 0;
	if (at == POINTS)
		sim_fail("there are more choices than a path has room for");
	struct choice *c = &path[at];
	if (at++ >= length) {
		*c = (struct choice){0, (uint8_t)options, matters};
		length = at;
	}
	if (!c->options) {
		c->options = (uint8_t)options;
		c->matters = matters;
	}
	if (c->options != options)
		sim_fail("choice %u had %u answers, but has %u now: the run does not repeat itself",
			 at - 1, c->options, options);
	if (c->chosen >= options)
		sim_fail("choice %u has %u answers, and no answer %u; the schedule belongs to another "
			 "program",
			 at - 1, options, c->chosen);
	return c->chosen;
}

bool explore_ask(void)
{
	return decide(2, true);
}

/* List the ready threads in turn, from the thread that may go on, or from the thread after the one
 * that must wait. */
static uint32_t list_ready(struct sim_thread *self, uint32_t *ids)
{
	uint32_t n = 0, from = sim.self->id + (self ? 0 : 1);
	for (uint32_t i = 0; i < sim.threads; i++) {
		uint32_t id = (from + i) % sim.threads;
		if (sim.ready >> id & 1)
			ids[n++] = id;
	}
	return n;
}

/* List the threads that wait for a time that may come early. */
static uint32_t list_timers(uint32_t *ids)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && sim.thread[i].wake_at < sim.now_ns + OS_NSEC_PER_SEC)
			ids[n++] = i;
	return n;
}

/* Choose the thread that goes on. self: the thread that could go on, or NULL. */
struct sim_thread *explore_choose(struct sim_thread *self, bool matters)
{
	uint32_t ids[2 * SIM_THREADS] = {0}, ready = list_ready(self, ids), timers = 0;
	if (sim.choosing)
		timers = list_timers(ids + ready);
	uint32_t chosen = decide(ready + timers, matters);
	struct sim_thread *next = &sim.thread[ids[chosen]];
	if (chosen >= ready)
		sim_pass_time_to(next->wake_at);
	return next;
}

uint32_t explore_length(void)
{
	return at;
}

/* Prepare the next schedule with at most `surprises` surprises. Returns false after the last
 * schedule. */
bool explore_next(uint32_t surprises)
{
	uint32_t used = 0;
	for (uint32_t i = 0; i < length; i++)
		used += path[i].chosen > 0;
	while (length) {
		struct choice *c = &path[length - 1];
		used -= c->chosen > 0;
		if (c->matters && c->chosen + 1u < c->options && used < surprises) {
			c->chosen++;
			at = 0;
			return true;
		}
		length--;
	}
	return false;
}

/* Write the schedule as "POINT=CHOICE,...": the surprises only. */
void explore_words(char *to, size_t size)
{
	size_t len = 0;
	to[0] = 0;
	for (uint32_t i = 0; i < at && len + 24 < size; i++)
		if (path[i].chosen)
			len += (size_t)snprintf(to + len, size - len, "%s%u=%u", len ? "," : "", i, path[i].chosen);
	if (!len)
		snprintf(to, size, "0=0");
}

/* Read a schedule. Returns false if the text is no schedule. */
bool explore_parse(const char *text)
{
	explore_begin();
	memset(path, 0, sizeof(path));
	while (*text) {
		char *end;
		unsigned long point = strtoul(text, &end, 10), choice;
		if (end == text || *end != '=' || *text < '0' || *text > '9' || point >= POINTS ||
		    point + 1 < length)
			return false;
		text = end + 1;
		choice = strtoul(text, &end, 10);
		if (end == text || *text < '0' || *text > '9' || choice > 255 ||
		    (*end && (*end != ',' || !end[1])))
			return false;
		path[point].chosen = (uint8_t)choice;
		length = (uint32_t)point + 1;
		text = *end ? end + 1 : end;
	}
	return true;
}
