/* SPDX-License-Identifier: MIT */
/*
 * Recording: note which pages of a file are touched, in the order of their first touch.
 *
 * Owns struct record: a log of ranges that is allocated and populated when the file is opened.
 * The log has as many places as the budget has pages: more pages could not be read back.
 * Faults note touches in the log without a lock, a system call or a page fault, and hold no
 * lock meanwhile. Touches that find no place are counted. The closer thread writes the log
 * out; no fault depends on the closer. The log is written when the file ends. While something
 * is new, the log is also written once a second, for programs that are killed. mm->records is
 * changed under files_lock. Once a record is in mm->records, only the closer changes the list.
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
#define COUNT_BITS 24 /* bits of a log word for the number of pages; the first page is above */
#define COUNT_MAX ((1ull << COUNT_BITS) - 1)
#define LOOK_BACK 16u /* ranges that may still grow: as many readers can run side by side */
#define SAVE_NS OS_NSEC_PER_SEC

struct record {
	struct record *next; /* next in mm->records */
	struct fm_file *file;
	struct hotset_target target;
	uint64_t touches; /* touches noted or lost; atomic */
	uint64_t lost;    /* atomic */
	uint64_t saved;   /* touches at the last write of the log; the closer's */
	bool written, failed; /* log written; error logged; both the closer's */
	uint32_t used, places; /* used: atomic, may exceed `places` */
	uint64_t word[];
};

/* Return whether the range holds the page. A range that ends or begins beside the page grows
 * by the page. */
static bool grow(uint64_t *word, uint64_t index)
{
	uint64_t old = atomic_get(word);
	for (;;) {
		uint64_t first = old >> COUNT_BITS, count = old & COUNT_MAX, grown;
		if (count && index >= first && index - first < count)
			return true;
		/* the word is not filled in yet, or the range is full */
		if (!count || count == COUNT_MAX)
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

/* Note a touch after a fault is served. The page is pinned. A page is noted once for as long
 * as the page is cached. Signal-safe. */
void record_touch(struct record *record, struct page *page)
{
	if (page_word(page, noted))
		return;
	page_word_set(page, noted, true);
	/* The page may belong to a private mapping, whose pages have 4096 bytes. */
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
		if (word & COUNT_MAX) /* else the place is taken, but not filled in yet */
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

/* Write the records with new touches, if the time has come or a thread waits for the write.
 * Returns the time of the next write. */
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

/* Have all records written, when the process is about to exit. Waits until the records are
 * written, or until `until_ns`. */
void records_flush(struct fm_mm *mm, uint64_t until_ns)
{
	if (!first_record(mm))
		return;
	uint32_t wanted = atomic_add(&mm->records_wanted, 1u) + 1, saved;
	closer_kick(mm);
	while ((saved = atomic_get(&mm->records_saved)) != wanted && os_now_ns() < until_ns)
		os_futex_wait(&mm->records_saved, saved, OS_FUTEX_ANY, until_ns);
}

/* Begin a record, if the URI or the environment asks for a record. A record that the
 * environment asks for must not keep a program from its file. Returns 0 or an errno. */
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
		mm_log(mm, asked == HOTSET_BY_URI ? FM_LOG_ERROR : FM_LOG_WARNING, "%s%s",
		       why[0] ? why : file->uri,
		       why[0] ? "" : ": out of memory for the record of touched pages");
		os_meta_free(record, sizeof(*record) + places * sizeof(uint64_t));
		return asked == HOTSET_BY_URI ? err : 0;
	}
	record->file = file;
	record->places = places;
	file->reads->record = record;
	return 0;
}

/* List the record, now that the file is open: from here on the closer may look at the record. */
void record_list(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	os_sigmask mask = os_signals_block();
	os_lock(&mm->files_lock);
	file->reads->record->next = mm->records;
	__atomic_store_n(&mm->records, file->reads->record, __ATOMIC_RELEASE);
	os_unlock(&mm->files_lock);
	os_signals_restore(mask);
	closer_kick(mm); /* from now on the closer has a time to watch */
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

/* Write the record a last time and free the record. Called by the closer, or by an opening
 * that failed. */
void record_end(struct fm_file *file)
{
	struct record *record = file->reads->record;
	uint64_t lost = atomic_get(&record->lost);

	os_sigmask mask = os_signals_block();
	bool listed = unlist(file->mm, record);
	os_signals_restore(mask);
	if (listed &&
	    (!record->written || record->failed || record->saved != atomic_get(&record->touches)))
		save_and_tell(record); /* an empty record is written too */
	if (listed && lost)
		mm_log(file->mm, FM_LOG_WARNING,
		       "record %s: the list is full: the last %llu touched pages are not recorded",
		       record->target.name, (unsigned long long)lost);
	hotset_target_close(&record->target);
	file->reads->record = NULL;
	file->recorded = false;
	os_meta_free(record, sizeof(*record) + record->places * sizeof(uint64_t));
}
