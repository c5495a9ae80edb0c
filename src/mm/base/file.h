/* SPDX-License-Identifier: MIT */
/* A file: the members that every folder uses, and the parts that belong to a single folder. */
#ifndef FM_MM_BASE_FILE_H
#define FM_MM_BASE_FILE_H

#include "filemap.h"
#include "mm/base/gate.h"
#include "mm/base/view.h"
#include "os/os.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

struct fm_mm;
struct frame_pool;
struct file_dirt;
struct file_reads;
struct file_writes;
struct write_streams;

enum handle_state { HANDLE_CLOSED, HANDLE_OPEN, HANDLE_IN_THE_MAKING };

struct fm_file {
	struct fm_mm *mm;
	struct fm_store *store;
	struct frame_pool *pool;
	struct view view;
	uint32_t refs; /* atomic */
	uint32_t handles; /* open handles that the program has on this cache; atomic */
	/* The program's handle: see space/handle.c. A further handle uses only this
	 * group of members, `mm`, `error_told` and `on_write_error`. */
	struct fm_file *cache;   /* whose pages the handle shows; the file itself, unless further */
	struct fm_file *further; /* the cache's next further handle; atomic; stays in the list
				    until the cache's end */
	uint32_t open;           /* enum handle_state; atomic */
	bool may_write;
	uint32_t telling;        /* threads that call the handles' on_write_error now; atomic */
	/* The file's place among the process's objects: objects_lock, in space/handle.c. */
	struct fm_file *object_next;
	bool listed;
	bool ending;     /* the last reference has been put */
	bool settling;   /* being opened, or upgraded: cannot be shared yet */
	bool will_write; /* the opening or upgrade is for writing */
	enum {
		LOCK_NONE,
		LOCK_READING,
		LOCK_WRITING
	} locked;        /* lock against other processes; while the file is opened: lock wanted */
	bool alone;      /* gets a cache beside another file's; only the opening thread's */
	uint64_t reserve_bytes;   /* as asked for; a private mapping has its base's; 0: see view_slack() */
	uint64_t deadline_ns;
	uint32_t changed_policy;
	struct fm_file *next, **pprev; /* mm->files; mm->files_lock */
	struct fm_file *reap_next;
	/* For files open for writing: see flush/writer.c. */
	_Atomic bool writable; /* false may become true: see file_upgrade() */
	bool scratch;          /* of a private mapping: written back only when memory is short */
	struct fm_file *base;  /* supplies a scratch file's bytes where nothing was written */
	fm_write_error_fn on_write_error;
	void *on_write_error_arg;
	uint32_t error_told; /* failures that calls of this handle have returned; atomic */
	bool recorded; /* touches of the file's pages are noted one by one: fill/record.c */
	const char *uri;
	/* Each part below belongs to one folder. Only that folder, and the folders above, know
	 * what the part contains. */
	struct file_dirt *dirt;               /* cache/file_dirt.h */
	struct write_streams *write_streams; /* view/run_in.h */
	struct file_reads *reads;            /* fill/file_reads.h */
	struct file_writes *writes;          /* flush/file_writes.h */
};

/* Return the file's size. The size changes with fm_truncate(), and when the file takes over
 * another version of the object. Only the store keeps the size. */
static inline uint64_t file_size(const struct fm_file *file)
{
	return store_size(file->store);
}

#endif
