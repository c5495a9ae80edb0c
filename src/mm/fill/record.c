/* SPDX-License-Identifier: MIT */
/*
 * Recording: which pages of a file are touched, in the order of their first touch.
 *
 * Owns struct record: a log of ranges, allocated and populated when the file is opened, with as
 * many places as the budget has pages: more could not be brought back. Faults note touches in it
 * without a lock, a system call or a page fault, and hold no lock meanwhile. What finds no place is
 * counted. The closer thread, on which no fault depends, writes the log out: when the file ends,
 * and before that once a second while something is new, for programs that are killed. mm->records
 * is changed under files_lock, and by nobody but the closer once a record is in it.
 */
#include "mm/fill/record.h"

#include "filemap.h"
#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/report.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/share.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/page.h"
#include "os/atomic.h"
#include "os/os.h"
#include "store/hotset.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define PLACES_MIN 4096u
#define COUNT_BITS 24 /* of a log word: pages; above them the first page */
#define COUNT_MAX ((1ull << COUNT_BITS) - 1)
#define LOOK_BACK 16u /* ranges that may still grow: as many readers side by side */
#define SAVE_NS OS_NSEC_PER_SEC

struct record {
	struct record *next; /* of mm->records */
	struct fm_file *file;
	struct hotset_target target;
	uint64_t touches; /* atomic; noted or lost */
	uint64_t lost;    /* atomic */
	uint64_t saved;   /* touches by the last time it was written; the closer's */
	bool written, failed; /* and told; the closer's */
	uint32_t used, places; /* used: atomic, may be more than there are */
	uint64_t word[];
};

/* The page belongs to a range, or makes it longer: done. */
static bool grow(uint64_t *word, uint64_t index)
{
	uint64_t old = atomic_get(word);
	for (;;) {
		uint64_t first = old >> COUNT_BITS, count = old & COUNT_MAX, grown;
		if (count && index >= first && index - first < count)
			return true;
		if (!count || count == COUNT_MAX) /* not filled in yet, or full */
			return false;
		if (index == first + count)
			grown = old + 1;
		else if (index + 1 == first)
			grown = index << COUNT_BITS | (count + 1);
		else
			return false;
		if (atomic_cas(word, &old, grown))
			return true;
	}
}

void record_index(struct record *record, uint64_t index)
{
	uint32_t used = atomic_get(&record->used);
	uint32_t end = used < record->places ? used : record->places;

	atomic_add(&record->touches, 1u);
	for (uint32_t back = 1; back <= LOOK_BACK && back <= end; back++)
		if (grow(&record->word[end - back], index))
			return;
	if (used < record->places)
		used = atomic_add(&record->used, 1u);
	if (used < record->places)
		atomic_set(&record->word[used], index << COUNT_BITS | 1);
	else
		atomic_add(&record->lost, 1u);
}

/* A fault has been served; the page is pinned. Noted once for as long as the page is cached.
 * Signal-safe. */
void record_touch(struct record *record, struct page *page)
{
	if (page_word(page, noted))
		return;
	page_word_set(page, noted, true);
	/* Or of a private mapping, whose pages are of 4096 bytes. */
	record_index(record, page->index >> (record->file->pool->shift - page->file->pool->shift));
}

static int save(struct record *record)
{
	struct fm_file *file = record->file;
	uint32_t used = atomic_get(&record->used), shift = file->pool->shift;
	size_t count = 0;

	if (used > record->places)
		used = record->places;
	struct hotset_range *range = calloc(used + 1, sizeof(*range));
	if (!range)
		return -ENOMEM;
	for (uint32_t i = 0; i < used; i++) {
		uint64_t word = atomic_get(&record->word[i]);
		if (word & COUNT_MAX) /* else its place has been taken, and not filled in yet */
			range[count++] = (struct hotset_range){word >> COUNT_BITS << shift, (word & COUNT_MAX) << shift};
	}
	struct hotset_about about = {
		.size_bytes = file->store->opened.size,
		.version = file->store->opened.version[1],
		.page_size = file->pool->page_size,
		.lost = atomic_get(&record->lost),
	};
	int err = hotset_save(&record->target, &about, range, count);
	free(range);
	return err;
}

static void save_and_tell(struct record *record)
{
	struct fm_mm *mm = record->file->mm;
	uint64_t touches = atomic_get(&record->touches);
	int err = save(record);

	if (err && !record->failed)
		mm_log(mm, FM_LOG_ERROR, "record %s: cannot be written: %s", record->target.name, strerror(-err));
	record->failed = err != 0;
	record->written = true;
	record->saved = touches;
}

static struct record *first_record(struct fm_mm *mm)
{
	return __atomic_load_n(&mm->records, __ATOMIC_ACQUIRE);
}

/* Write what is new, if it is time or somebody waits for it. Returns when it is time again. */
uint64_t records_save(struct fm_mm *mm)
{
	struct record *record = first_record(mm);
	if (likely(!record))
		return OS_FOREVER;
	uint32_t wanted = atomic_get(&mm->records_wanted);
	uint64_t now = os_now_ns();
	if (!mm->records_next_ns)
		mm->records_next_ns = now + SAVE_NS;
	if (wanted == mm->records_saved && now < mm->records_next_ns)
		return mm->records_next_ns;
	for (; record; record = record->next)
		if (atomic_get(&record->touches) != record->saved)
			save_and_tell(record);
	atomic_set(&mm->records_saved, wanted);
	os_futex_wake(&mm->records_saved, 1, OS_FUTEX_ANY);
	mm->records_next_ns = os_now_ns() + SAVE_NS;
	return mm->records_next_ns;
}

/* The process is about to exit: have everything written, and wait until it is, or `until_ns`. */
void records_flush(struct fm_mm *mm, uint64_t until_ns)
{
	if (!first_record(mm))
		return;
	uint32_t wanted = atomic_add(&mm->records_wanted, 1u) + 1, saved;
	closer_kick(mm);
	while ((saved = atomic_get(&mm->records_saved)) != wanted && os_now_ns() < until_ns)
		os_futex_wait(&mm->records_saved, saved, OS_FUTEX_ANY, until_ns);
}

/* If the URI or the environment asks for it. What the environment asks for must not keep a program
 * from its file. */
int record_begin(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	char path[PATH_MAX], why[512] = "";
	enum hotset_asked asked = hotset_to_write(file->uri, path);
	uint32_t places = (uint32_t)(mm->budget_bytes / OS_PAGE);

	if (likely(asked == HOTSET_NO))
		return 0;
	if (places < PLACES_MIN)
		places = PLACES_MIN;
	struct record *record = os_meta_alloc(sizeof(*record) + places * sizeof(uint64_t));
	int err = record ? hotset_target_open(path, file->uri, why, sizeof(why), &record->target)
			 : -ENOMEM;
	if (err) {
		mm_log(mm, asked == HOTSET_BY_URI ? FM_LOG_ERROR : FM_LOG_WARNING, "%s",
		       why[0] ? why : "no memory to record in");
		os_meta_free(record, sizeof(*record) + places * sizeof(uint64_t));
		return asked == HOTSET_BY_URI ? err : 0;
	}
	record->file = file;
	record->places = places;
	file->reads->record = record;
	return 0;
}

/* The file is open: the closer may look. */
void record_list(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	os_sigmask mask = os_signals_block();
	os_lock(&mm->files_lock);
	file->reads->record->next = mm->records;
	__atomic_store_n(&mm->records, file->reads->record, __ATOMIC_RELEASE);
	os_unlock(&mm->files_lock);
	os_signals_restore(mask);
	closer_kick(mm); /* from now on it has a time to look at */
}

static bool unlist(struct fm_mm *mm, struct record *record)
{
	bool listed = false;
	os_lock(&mm->files_lock);
	for (struct record **at = &mm->records; *at && !listed; at = &(*at)->next)
		if (*at == record) {
			__atomic_store_n(at, record->next, __ATOMIC_RELEASE);
			listed = true;
			break;
		}
	os_unlock(&mm->files_lock);
	return listed;
}

/* The closer, or an opening that failed. */
void record_end(struct fm_file *file)
{
	struct record *record = file->reads->record;
	uint64_t lost = atomic_get(&record->lost);

	os_sigmask mask = os_signals_block();
	bool listed = unlist(file->mm, record);
	os_signals_restore(mask);
	if (listed &&
	    (!record->written || record->failed || record->saved != atomic_get(&record->touches)))
		save_and_tell(record); /* also that nothing was touched */
	if (listed && lost)
		mm_log(file->mm, FM_LOG_WARNING, "record %s: full: the last %llu first touches are not in it",
		       record->target.name, (unsigned long long)lost);
	hotset_target_close(&record->target);
	file->reads->record = NULL;
	file->recorded = false;
	os_meta_free(record, sizeof(*record) + record->places * sizeof(uint64_t));
}
