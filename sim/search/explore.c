/* SPDX-License-Identifier: MIT */
/*
 * The schedules of a small world, one after another: depth first, each run from the start.
 *
 * Owns the path: at each point where something else could happen, what was chosen. Choice 0 is what
 * happens by itself: a thread goes on, and where it can't, the next one in turn does. Any other
 * choice is a surprise: a thread is preempted, or not the next one goes on; a time comes though
 * somebody could go on; the machine does what it need not (SIM_ASK). A schedule has only so many
 * surprises (after Emmi, Qadeer, Rakamaric, "Delay-bounded scheduling", 2011): with n points in a
 * run there are about n^N / N! schedules with N of them, however many threads there are. May call:
 * sched.
 */
#include "sim.h"

#include "search/explore.h"

#include <stdio.h>
#include <stdlib.h>

#define POINTS 100000u

struct choice {
	uint8_t chosen, options; /* options: 0 not known yet */
	bool matters; /* else only the first is tried */
};

static struct choice path[POINTS];
static uint32_t at, length;

void explore_begin(void)
{
	at = length = 0;
}

/* ------------------------------------------------------------------ which points matter */

/*
 * To preempt a thread before it uses a word is to preempt it before what it uses next, if nobody
 * else uses this one, or all only read it. Who uses what is learnt as the runs go by; a search is
 * only over when it has learnt nothing new. What is used without an atomic or a lock (readahead's
 * window, whose races cost guesses) is not seen here: the search is complete but for preemptions
 * that only such a use could tell apart.
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
		sim_fail("more words than the search can remember");
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
		sim_fail("more choices than a path holds");
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
		sim_fail("choice %u had %u answers, and has %u now: the run does not repeat itself",
			 at - 1, c->options, options);
	if (c->chosen >= options)
		sim_fail("choice %u has %u answers: there is no %u; the schedule is another "
			 "program's",
			 at - 1, options, c->chosen);
	return c->chosen;
}

bool explore_ask(void)
{
	return decide(2, true);
}

/* In turn, from the one after the thread that had to stop. */
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

/* Who waits for a time, and may have it come early. */
static uint32_t list_timers(uint32_t *ids)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].state == SIM_BLOCKED && sim.thread[i].wake_at < sim.now_ns + OS_NSEC_PER_SEC)
			ids[n++] = i;
	return n;
}

/* Who goes on; self: the thread that could, or NULL. */
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

/* Set out for the next schedule with no more surprises than these; false: that was the last. */
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

/* "POINT=CHOICE,...": what is not as it would be by itself. */
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

/* False: that is no schedule. */
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
