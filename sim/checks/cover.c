/* SPDX-License-Identifier: MIT */
/*
 * Coverage: the counters behind covered() and the truth table, the marks that follow from them, and
 * the verdict on rows that no run reached.
 */
#include "sim.h"

#include "mm/fault/vmf.h"
#include "mm/fill/windows.h"
#include "mm/frames/group.h"
#include "mm/frames/page.h"
#include "os/atomic.h"

#include <errno.h>
#include <stdio.h>

/* With this many runs, a row that no run reached is a failure: the row has become unreachable, or
 * the workload no longer leads to the row. So many runs reach the rarest row some 15 times. */
#define RUNS_ENOUGH 20000u

#define COVER_X(name, help)                                                                    \
	extern uint64_t cover_##name;                                                          \
	uint64_t cover_##name;
COVER_ALL
#undef COVER_X

/* The counters of the truth table's rows, without and with the right to drop the map lock. */
static uint64_t *const rows[ROWS][2] = {
#define COLUMNS(name, help, may_drop, may_not) {&cover_##name##_n, &cover_##name##_d},
	FAULT_TABLE(COLUMNS)
#undef COLUMNS
};

static void count_row(const struct fault *vmf, enum fault_row row)
{
	++*rows[row][fault_may_drop(vmf)];
}

void sim_watch_fault_row(const void *arg);
void sim_watch_fault_row(const void *arg)
{
	const struct fault *vmf = arg;
	count_row(vmf, vmf->last_row);
}

/* A try has ended with the page locked and uptodate. */
static void count_write(const struct fault *vmf)
{
	if (vmf->flags & FM_FAULT_WRITE)
		count_row(vmf, vmf->page->state & PG_DIRTY ? ROW_write_again : ROW_write_clean);
}

/* A try has dropped the map lock, and vmf->error tells how the wait of its last row has ended. */
static void count_dropped(const struct fault *vmf)
{
	int error = vmf->error;
	bool timeout = error == -ETIMEDOUT, killed = error == -ECANCELED;

	switch ((enum fault_row)vmf->last_row) {
	case ROW_locked:
		covered_if(error, a2_wait_failed);
		covered_if(timeout, exit_wait_timeout);
		if (killed)
			count_row(vmf, ROW_killed);
		break;
	case ROW_no_request:
		covered_if(vmf->rows & 1u << ROW_unread, exit_read_no_room);
		covered_if(timeout, exit_room_timeout);
		covered_if(killed, a9_room);
		break;
	case ROW_no_frame:
		covered_if(timeout, exit_frame_timeout);
		covered_if(killed, a9_frame);
		break;
	case ROW_throttled:
		covered_if(error, exit_throttled_error);
		break;
	case ROW_unread:
		covered_if(error, exit_read_error);
		covered_if(timeout, exit_read_timeout);
		covered_if(killed, a9_read);
		break;
	default:
		break;
	}
	bool absent = vmf->rows & 1u << ROW_absent;
	covered_if(absent && !vmf->page && !(vmf->rows & 1u << ROW_truncated), a2_no_frame);
	covered_if(absent && !vmf->page && !vmf->stale_locked, a3_no_page);
}

/* Count the hazards and exits that follow from the rows, the error and the flags of a try. */
void sim_watch_fault_exit(const void *arg);
void sim_watch_fault_exit(const void *arg)
{
	const struct fault *vmf = arg;
	const uint32_t told = 1u << ROW_read_failed | 1u << ROW_deadline | 1u << ROW_no_memory;
	bool tried = vmf->flags & FM_FAULT_TRIED;

	covered_if(tried && (vmf->rows & told), a6_error_carried);
	covered_if(tried && (vmf->rows & 1u << ROW_absent), a7_no_second_window);
	covered_if(vmf->last_row == ROW_locked && (vmf->flags & FM_FAULT_RETRY_NOWAIT), a8_nowait);
	if (vmf->last_row == ROW_uptodate)
		count_write(vmf);
	else if (fault_may_drop(vmf))
		count_dropped(vmf);
}

/* Check a window against what was asked, and count the edges that cut the window. */
void sim_watch_window(const void *arg);
void sim_watch_window(const void *arg)
{
	const struct ra_asked *asked = arg;
	const struct access *access = asked->access;
	const struct ra_window *set = asked->set;
	uint64_t from = asked->from, end = access->mapped_end, low = access->low;
	uint64_t last = set->start + (uint64_t)set->step * (set->count - 1);
	uint64_t step = (uint64_t)(asked->stride < 0 ? -asked->stride : asked->stride);

	if (!set->count) {
		covered_if(asked->count, a13_past_end);
		return;
	}
	/* A backward window may be longer than asked: it ends where a group begins. */
	bool longer = set->count >= asked->count + GROUP_PAGES;
	bool before = asked->stride < 0 && set->start < low;
	if (longer || before || last >= end)
		sim_fail("a window of %u pages from page %llu on reaches page %llu, beyond what was "
			 "asked or mapped",
			 set->count, (unsigned long long)set->start, (unsigned long long)last);
	covered_if(!set->start || !from, a13_start);
	covered_if(from >> 32, a13_past_4g);
	covered_if(asked->stride < 0 && asked->count > (from - low) / step + 1, a13_start_cut);
	covered_if(asked->stride > 0 && set->count < asked->count, a13_end);
}

void cover_collect(struct sim_cover *ret)
{
#define COVER_X(name, help) ret->name = cover_##name;
	COVER_ALL
#undef COVER_X
}

void cover_print(const struct sim_cover *cover, bool json)
{
	const char *comma = "";
#define COVER_X(name, help)                                                                    \
	if (json)                                                                              \
		printf("%s\"%s\": %llu", comma, #name, (unsigned long long)cover->name);       \
	else                                                                                   \
		printf("  %-24s %12llu  %s\n", #name, (unsigned long long)cover->name, help);  \
	comma = ", ";
	if (!json)
		printf("the fault path: table (_d, the map lock may be dropped; _n, it may not), "
		       "hazards, exits, pages:\n");
	COVER_ALL
#undef COVER_X
}

/* Return 1 if a row should have been reached and was not, else 0. */
int cover_verdict(const struct sim_cover *cover, uint64_t runs, bool json)
{
	uint32_t missed = 0;
	char names[512] = "";
	size_t len = 0;
#define COVER_X(name, help)                                                                    \
	if (!cover->name) {                                                                    \
		missed++;                                                                      \
		if (len < sizeof(names))                                                       \
			len += (size_t)snprintf(names + len, sizeof(names) - len, " %s", #name); \
	}
	COVER_ALL
#undef COVER_X
	if (!missed)
		return 0;
	if (runs < RUNS_ENOUGH) {
		if (!json)
			printf("%u rows were not reached, as is usual for fewer than %u runs\n", missed, RUNS_ENOUGH);
		return 0;
	}
	fprintf(stderr, "filemap-sim: never reached in %llu runs:%s\n", (unsigned long long)runs, names);
	return 1;
}
