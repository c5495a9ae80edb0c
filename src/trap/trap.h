/* SPDX-License-Identifier: MIT */
/*
 * Traps: how faults reach us, and how pages get into and out of views. Every userfaultfd ioctl is
 * in uffd.c, behind the operations below. The registry tells, from any thread and in signal
 * context, whose view an address is in. May call: os.h. mm is reached only through struct
 * trap_client.
 */
#ifndef FM_TRAP_H
#define FM_TRAP_H

#include "filemap.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trap;
struct view_region;

/* ---- regions and the registry */

/* A piece of address space that belongs to somebody's view. `pins` counts the faults in it; the
 * region outlives the last. */
struct view_region {
	uint64_t base, len;
	void *owner;
	struct trap *trap;
	uint32_t pins; /* atomic, futex */
	bool opened;
};

/* Find the view an address is in and pin it; NULL if it is in none. Signal-safe, never waits. */
struct view_region *region_find(uint64_t addr);
void region_pin(struct view_region *region);
void region_unpin(struct view_region *region);

/* ---- what the trap asks of mm */

struct trap_fault {
	uint64_t addr;
	bool write;
	bool repeated;        /* thread trap: the thread asked for this address before, and was served */
	uint64_t instruction; /* the instruction and its registers, mixed; 0 when not known */
};

#define TRAP_PROGRESS_BYTES 32 /* what mm remembers of a thread from fault to fault */

struct trap_client {
	/* Serve a fault in the thread that had it. The region is pinned. 0, or the negative errno with
	 * *ret_error and, when the mapping has one, its callback. */
	int (*fault)(struct view_region *region, const struct trap_fault *fault,
		     struct fm_error *ret_error, fm_error_fn *ret_fn, void **ret_arg);
	/* The same for the handler thread: never waits. -EAGAIN: `again(cookie)` will be called, in
	 * any thread and no lock held, when it is worth calling this once more with the same
	 * `state`, which is zeroed for the first call and state_bytes long. `progress` is
	 * TRAP_PROGRESS_BYTES for each thread. */
	int (*fault_nowait)(struct view_region *region, const struct trap_fault *fault, void *state,
			    void (*again)(void *cookie), void *cookie, void *progress,
			    struct fm_error *ret_error, fm_error_fn *ret_fn, void **ret_arg);
	size_t state_bytes;
};

/* ---- a trap: one userfaultfd and its handler */

struct trap_options {
	enum fm_trap kind;
	bool want_move;     /* both sides: regions are opened writable and protected by hand */
	bool no_move;       /* pretend that the kernel has none */
	const struct trap_client *client;
	void (*note)(void *arg, const char *line); /* what is missing and what to do about it */
	void *note_arg;
};

int trap_create(const struct trap_options *options, struct trap **ret_trap);
void trap_stop(struct trap *trap); /* no fault is served from here on; handler threads are gone */
void trap_destroy(struct trap *trap);
/* Threads that were told an error get to it when they next run: wait for them, before their region
 * goes. Not for ever: one that was told in a system call never asks what it was. */
void trap_drain(struct trap *trap);
bool trap_has_move(const struct trap *trap);
/* A fault may be a system call's, which waits for it with the locks that it holds. */
bool trap_serves_calls(const struct trap *trap);
const char *trap_kind_name(enum fm_trap kind);

/* Reserve address space (PROT_NONE), align it, and open it for the trap; `huge`: as
 * trap_region_huge(). -ENOMEM and the like. */
int trap_region_open(struct trap *trap, struct view_region *region, uint64_t len, uint64_t align,
		     bool huge, void *owner);
/* From here on a read that faults where nothing is makes no page table, so that a huge page can
 * come in by one MOVE. Such a fault takes longer, and one that writes clears a huge page in vain.
 * Takes the kernel's mmap_lock. */
void trap_region_huge(struct view_region *region);
/* The least of the process's limits on address space and on writable memory; UINT64_MAX: there is
 * none. */
uint64_t trap_address_limit(void);
/* Out of the registry, and, if no fault is in it any more, unmapped. False: not yet; call again. */
bool trap_region_close(struct view_region *region);

/* The program has allowed the kernel to merge equal pages (PR_SET_MEMORY_MERGE) since the trap was
 * made or since trap_merging_noted(); what was merged has lost its write protection. Views and
 * frames have opted out by the return. Costs a system call; more only where true. */
bool trap_was_merged(struct trap *trap);
void trap_merging_noted(struct trap *trap); /* all that may have been written to since is known */

/* Memory for frames: `registered` tells whether holes have to be filled with trap_fill(). */
int trap_slots_open(struct trap *trap, uint64_t len, uint64_t align, bool huge, void **ret_mem,
		    bool *ret_registered);
int trap_slots_populate(struct trap *trap, void *mem, uint64_t len); /* huge slots; may block */
void trap_slots_close(struct trap *trap, void *mem, uint64_t len);

/* The operations on pages. Lengths are multiples of 4096. *ret_done counts bytes, also on failure.
 * Fault path: these take the kernel's per-region lock only. */
int trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done);
int trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done);
int trap_copy_writable(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		       uint64_t *ret_done);
int trap_fill(struct trap *trap, uint64_t dst, uint64_t len); /* zeroed memory into holes */
/* The same for much at once, in pieces that lie together in the machine's memory where it has such:
 * a device reads into those with fewer segments. Takes the kernel's lock. */
#define TRAP_TOGETHER (2u << 20)
int trap_fill_together(struct trap *trap, uint64_t dst, uint64_t len);
/* TRAP_TOGETHER bytes, aligned to as many, that are holes, as one huge page. An error: there is
 * none to be had now; *ret_done bytes of them are there all the same. */
int trap_fill_whole(struct trap *trap, uint64_t dst, uint64_t len, uint64_t *ret_done);
/* These take the kernel's mmap_lock: never with a lock of ours held. With a page lock only
 * trap_discard(), where an install of the page must not come between (a copy that goes, a page that
 * is given up). */
int trap_protect(struct trap *trap, uint64_t addr, uint64_t len);
int trap_unprotect(struct trap *trap, uint64_t addr,
		   uint64_t len); /* its own page lock is the exception here, too */
/* The same of huge pages, up to TRAP_HUGE_TOGETHER bytes of them in one call: each has one entry to
 * be changed, and one interruption of the other cores serves them all. */
#define TRAP_HUGE_TOGETHER (16u << 20)
int trap_protect_huge(struct trap *trap, uint64_t addr, uint64_t len);
int trap_discard(struct trap *trap, uint64_t addr, uint64_t len);
/* The program may have put other memory into a part of a view, or none: mmap(MAP_FIXED), munmap(),
 * mremap(). True: the range is still the library's, and of one protection; false: some of it is
 * not, or not of one (ask page by page). Changes nothing. Takes the kernel's per-region lock only.
 * Linux before 5.13 cannot tell: true. */
bool trap_is_ours(struct trap *trap, uint64_t addr, uint64_t len);
int trap_descriptor(const struct trap *trap); /* that trap_is_ours() asks by */
/* Some page of the range is not the library's, whatever the protections are. */
bool trap_any_foreign(struct trap *trap, uint64_t addr, uint64_t len);
/* As trap_discard(), in a view, and only where it is still the library's. */
void trap_discard_ours(struct trap *trap, uint64_t addr, uint64_t len);
/* A page of a view is copied to a slot with memory, where the kernel moves nothing. The same lock.
 * -EFAULT: it is not there. */
int trap_fetch(struct trap *trap, uint64_t slot, uint64_t addr);
bool trap_readable(uint64_t addr); /* the program may read what is there: false also of an absent
				      page, and of PROT_NONE */
int trap_present(
	uint64_t addr);   /* 1, 0 (also where a mark for an error stands) or negative errno */
bool trap_has_swap(void); /* the system has some */
bool trap_has_bytes(uint64_t addr); /* so it has, or has been swapped out; also where a mark for an
				       error stands, if the system has swap */
static inline bool trap_all_present(uint64_t addr, uint64_t len)
{
	bool all = true;
	for (uint64_t at = addr; at < addr + len && all; at += 4096)
		all = trap_present(at) != 0;
	return all;
}
void trap_wake(struct trap *trap, uint64_t addr, uint64_t len);
/* Thread trap: a mark that told an error is taken away beside installs. `before` is what
 * trap_unmarks() said before the install; false: what it put there went with the mark. The kernel
 * is asked only if some mark was taken away meanwhile. */
uint32_t trap_unmarks(struct trap *trap);
bool trap_kept(struct trap *trap, uint32_t before, uint64_t addr, uint64_t len);
/* Around a MOVE into a view of what can be written to from then on, and would be lost: no mark is
 * taken away meanwhile. May wait for one that is, which may wait for the kernel's lock. */
void trap_writable_begin(struct trap *trap);
void trap_writable_end(struct trap *trap);

/* ---- signals: inline.c */

/* The process's handler is put in place once, and stays: another program part may have saved it. */
int trap_sigbus_install(void);
bool trap_sigbus(int signo, siginfo_t *info, void *ucontext);

/* How an access that failed goes on: the mapping's callback, fm_guard(), the program's handler.
 * Returns to have the access repeated, or to let the signal that it has queued arrive. */
void trap_raise(const struct fm_error *error, fm_error_fn fn, void *fn_arg, siginfo_t *info,
		void *ucontext);

/* The thread trap's part of a SIGBUS: true when this thread is to be told an error there, which it
 * is once. */
bool trap_poison_take(struct trap *trap, uint64_t addr, struct fm_error *ret_error,
		      fm_error_fn *ret_fn, void **ret_arg);
void trap_thread_start(struct trap *trap, int *ret_err);
void trap_thread_stop(struct trap *trap);

/* A child after fork() owns nothing. */
bool trap_is_child(void);

#endif
