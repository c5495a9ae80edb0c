/* SPDX-License-Identifier: MIT */
/* A file: the members that every folder uses, and those that belong to one folder each. */
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
struct io_request;
struct record;
struct replay;
struct write_request;

enum handle_state { HANDLE_CLOSED, HANDLE_OPEN, HANDLE_IN_THE_MAKING };

struct file_dirt;
struct file_reads;
struct file_writes;
struct write_streams;

struct fm_file {
	struct fm_mm *mm;
	struct fm_store *store;
	struct frame_pool *pool;
	struct view view;
	uint32_t refs; /* atomic */
	uint32_t handles; /* the program's that are open, of this cache; atomic */
	/* The program's handle: see handle.c. A further handle has only this, `mm`, `error_told`
	 * and `on_write_error`. */
	struct fm_file *cache;   /* whose pages it shows: itself, but for a further handle */
	struct fm_file *further; /* the cache's next further handle; atomic, never taken out before
				    the cache's end */
	uint32_t open;           /* enum handle_state; atomic */
	bool may_write;
	uint32_t telling;        /* threads that call the handles' on_write_error; atomic */
	/* Its place among the process's objects: objects_lock, in handle.c. */
	struct fm_file *object_next;
	bool listed;
	bool ending;     /* its last reference has gone */
	bool settling;   /* being opened, or upgraded: it cannot be shared yet */
	bool will_write; /* ...for writing */
	enum {
		LOCK_NONE,
		LOCK_READING,
		LOCK_WRITING
	} locked;        /* against other processes; or, of one being opened, wanted */
	bool alone;      /* it is to have a cache beside another's; the opening thread's */
	uint64_t reserve_bytes;   /* likewise; 0: see view_slack() */
	uint64_t deadline_ns;
	uint32_t changed_policy;
	struct fm_file *next, **pprev; /* mm->files; mm->files_lock */
	struct fm_file *reap_next;
	/* Open for writing: see writeback.c. */
	_Atomic bool writable; /* false may become true: see file_upgrade() */
	bool scratch;          /* a private mapping's: written back for want of memory only */
	struct fm_file *base;  /* ...whose bytes it has where nothing was written */
	fm_write_error_fn on_write_error;
	void *on_write_error_arg;
	uint32_t error_told; /* how many of the failures some call of this handle has told; atomic */
	bool recorded; /* touches of its pages are noted one by one: see fill/record.c */
	const char *uri;
	/* The parts that belong to one folder each. Only that folder, and those above it, know what
	 * is in them. */
	struct file_dirt *dirt;               /* cache/dirty.h */
	struct write_streams *write_streams; /* view/run_in.h */
	struct file_reads *reads;            /* fill/share.h */
	struct file_writes *writes;          /* flush/request.h */
};

/* Changes with fm_truncate(), and where another version of the object is taken over. The store
 * keeps the only account. */
static inline uint64_t file_size(const struct fm_file *file)
{
	return store_size(file->store);
}

#endif
