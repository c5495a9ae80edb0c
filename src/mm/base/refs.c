/* SPDX-License-Identifier: MIT */
/*
 * References to files. A fault handler may put the last reference, so the file goes onto a list
 * that the background thread empties.
 */
#include "mm/base/refs.h"

#include "mm/base/bell.h"
#include "mm/base/common.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "os/atomic.h"

void file_get(struct fm_file *file)
{
	uint32_t old = atomic_add(&file->refs, 1u);
	mm_assert(old > 0);
	(void)old;
}

/* Take a reference to a file that may be about to end. Returns false if the last reference has
 * already been put. */
bool file_try_get(struct fm_file *file)
{
	uint32_t refs = atomic_get(&file->refs);
	do {
		if (!refs)
			return false;
	} while (!atomic_cas(&file->refs, &refs, refs + 1));
	return true;
}

void file_push(struct fm_file **list, struct fm_file *file)
{
	struct fm_file *head = atomic_get(list);
	do {
		file->reap_next = head;
	} while (!atomic_cas(list, &head, file));
}

/* Put a reference. The function never frees the file itself, so it is signal-safe. */
void file_put(struct fm_file *file)
{
	struct fm_mm *mm = file->mm;
	if (atomic_sub(&file->refs, 1u) != 1)
		return;
	file_push(&mm->reap_list, file);
	background_kick(mm);
}
