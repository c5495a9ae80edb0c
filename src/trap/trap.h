/* SPDX-License-Identifier: MIT */
/*
 * Traps: how page faults reach the library, and how pages get into and out of views. Every
 * userfaultfd ioctl is in uffd.c, behind the operations below. The registry tells which view
 * contains an address, from any thread and in signal context.
 * May call: os.h. The trap reaches mm only through struct trap_client.
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

/* A piece of address space that belongs to a view. `pins` counts the faults in the region; the
 * region outlives the last of these faults. */
struct view_region {
	uint64_t base, len;
	void *owner;
	struct trap *trap;
	struct region_parts *parts; /* NULL: all is reserved; see parts.h */
	uint32_t pins; /* atomic, futex */
	bool opened;
	uint64_t released_start, released_end; /* atomic; see release.h */
};

/* Find the region that contains an address and pin the region. Returns NULL if no view contains
 * the address. Signal-safe; never blocks. */
struct view_region *region_find(uint64_t addr);
void region_pin(struct view_region *region);
void region_unpin(struct view_region *region);

/* ---- what the trap asks of mm */

struct trap_fault {
	uint64_t addr;
	bool write;
	bool repeated;        /* thread trap: the thread was served this address before */
	uint64_t instruction; /* hash of the instruction pointer and the registers; 0 if unknown */
};

#define TRAP_PROGRESS_BYTES 32 /* bytes that mm keeps for a thread from fault to fault */

struct trap_client {
	/* Serve a fault in the thread that took the fault. The region is pinned. Returns 0, or
	 * negative errno with *ret_error and, if the mapping has a callback, *ret_fn and
	 * *ret_arg. */
	int (*fault)(struct view_region *region, const struct trap_fault *fault,
		     struct fm_error *ret_error, fm_error_fn *ret_fn, void **ret_arg);
	/* Serve a fault in the handler thread; never blocks. After -EAGAIN the client calls
	 * `again(cookie)`, in any thread and with no lock held, when a retry is worthwhile. The
	 * retry passes the same `state`: state_bytes long, zeroed for the first call. `progress`
	 * is TRAP_PROGRESS_BYTES for each thread. */
	int (*fault_nowait)(struct view_region *region, const struct trap_fault *fault, void *state,
			    void (*again)(void *cookie), void *cookie, void *progress,
			    struct fm_error *ret_error, fm_error_fn *ret_fn, void **ret_arg);
	size_t state_bytes;
};

/* ---- a trap: one userfaultfd and its handler */

struct trap_options {
	enum fm_trap kind;
	bool want_move;     /* MOVE in and out: regions opened writable, pages protected */
	bool no_move;       /* behave as if the kernel had no MOVE */
	bool silent;        /* FM_MM_NO_SIGNALS */
	const struct trap_client *client;
	void (*note)(void *arg, const char *line); /* told what is missing, and the remedy */
	void *note_arg;
};

int trap_create(const struct trap_options *options, struct trap **ret_trap);
void trap_stop(struct trap *trap); /* no fault is served from here on; handler has ended */
void trap_destroy(struct trap *trap);
/* Wait for threads that were told an error: a thread takes its error when it next runs, before
 * its region goes. Not for ever: a thread told in a system call never asks for the error. */
void trap_drain(struct trap *trap);
bool trap_has_move(const struct trap *trap);
/* A fault may come from a system call, which waits for the fault with its locks held. */
bool trap_serves_calls(const struct trap *trap);
const char *trap_kind_name(enum fm_trap kind);

/* Reserve aligned address space (PROT_NONE) and open this region for the trap. `huge` is as for
 * trap_region_huge(). Returns 0, or negative errno such as -ENOMEM: see also parts.h. */
int trap_region_open(struct trap *trap, struct view_region *region, uint64_t len, uint64_t align,
		     bool huge, void *owner);
/* Let huge pages come in by one MOVE: a read fault on an empty place makes no page table any
 * more. Such a fault takes longer; a write fault clears a huge page in vain. Takes the kernel's
 * mmap_lock. */
void trap_region_huge(struct view_region *region);
/* Remove the region from the registry, and unmap the region if no fault is in progress there.
 * Returns false if a fault still is: call again. */
bool trap_region_close(struct view_region *region);

/* Tell whether the program has allowed the kernel to merge equal pages (PR_SET_MEMORY_MERGE)
 * since the trap was made or since trap_merging_noted(). Merged pages have lost their write
 * protection. Views and frames have opted out when this returns. Costs a system call, and more
 * only if the answer is true. */
bool trap_was_merged(struct trap *trap);
void trap_merging_noted(struct trap *trap); /* all pages that may have been written are known */

/* Get memory for frames. *ret_registered: holes must be filled with trap_fill(). */
int trap_slots_open(struct trap *trap, uint64_t len, uint64_t align, bool huge, void **ret_mem,
		    bool *ret_registered);
int trap_slots_populate(struct trap *trap, void *mem, uint64_t len); /* huge slots; may block */
void trap_slots_close(struct trap *trap, void *mem, uint64_t len);

/* The operations on pages. Lengths are multiples of 4096. *ret_done counts bytes, also on
 * failure. These are for the fault path: they take the kernel's per-region lock only. */
int trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done);
int trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done);
int trap_copy_writable(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		       uint64_t *ret_done);
int trap_fill(struct trap *trap, uint64_t dst, uint64_t len); /* zeroed memory into holes */
/* Fill a large range, with physically contiguous pieces where the machine has such memory: a
 * device reads into contiguous memory with fewer segments. Takes the kernel's lock. */
#define TRAP_TOGETHER (2u << 20)
int trap_fill_together(struct trap *trap, uint64_t dst, uint64_t len);
/* Fill a hole of TRAP_TOGETHER bytes, aligned to its size, with one huge page. An error means
 * that no huge page is available now; *ret_done bytes are filled all the same. */
int trap_fill_whole(struct trap *trap, uint64_t dst, uint64_t len, uint64_t *ret_done);
/* These take the kernel's mmap_lock: never call them with a lock of the library held. Exception:
 * trap_discard() under a page lock, where no install of the page may come between. The lock is
 * for a dropped copy, or a page that is given up. */
int trap_protect(struct trap *trap, uint64_t addr, uint64_t len);
int trap_unprotect(struct trap *trap, uint64_t addr,
		   uint64_t len); /* the page's own lock is the exception here, too */
/* Protect huge pages, up to TRAP_HUGE_TOGETHER bytes in one call. Each huge page has one entry to
 * change, and one interruption of the other cores serves all entries. */
#define TRAP_HUGE_TOGETHER (16u << 20)
int trap_protect_huge(struct trap *trap, uint64_t addr, uint64_t len);
int trap_discard(struct trap *trap, uint64_t addr, uint64_t len);
/* Tell whether the range is still the library's, with one protection. The program may have
 * replaced or unmapped a part of a view: mmap(MAP_FIXED), munmap(), mremap(). False: a part is
 * foreign, or protections differ (ask page by page). Changes nothing. Takes the kernel's
 * per-region lock only. Linux before 5.13 cannot tell: true. */
bool trap_is_ours(struct trap *trap, uint64_t addr, uint64_t len);
int trap_descriptor(const struct trap *trap); /* the descriptor that trap_is_ours() uses */
/* Tell whether some page of the range is not the library's, whatever the protections are. */
bool trap_any_foreign(struct trap *trap, uint64_t addr, uint64_t len);
/* As trap_discard(), in a view, and only where the range still belongs to the library. */
void trap_discard_ours(struct trap *trap, uint64_t addr, uint64_t len);
/* Copy a page of a view to a slot with memory, where the kernel cannot MOVE. Takes the kernel's
 * mmap_lock, too. -EFAULT: the page is not there. */
int trap_fetch(struct trap *trap, uint64_t slot, uint64_t addr);
bool trap_readable(uint64_t addr); /* false also for an absent page and PROT_NONE */
int trap_present(
	uint64_t addr);   /* 1, 0 (also for an error mark) or negative errno */
bool trap_has_swap(void); /* the system has swap space */
bool trap_has_bytes(uint64_t addr); /* present, swapped out, or (with swap) an error mark */
static inline bool trap_all_present(uint64_t addr, uint64_t len)
{
	bool all = true;
	for (uint64_t at = addr; at < addr + len && all; at += 4096)
		all = trap_present(at) != 0;
	return all;
}
void trap_wake(struct trap *trap, uint64_t addr, uint64_t len);
/* Thread trap: a mark that told an error may be removed while pages are installed. `before` is
 * the result of trap_unmarks() before the install. False: the installed pages went with the mark.
 * The kernel is asked only if some mark was removed meanwhile. */
uint32_t trap_unmarks(struct trap *trap);
bool trap_kept(struct trap *trap, uint32_t before, uint64_t addr, uint64_t len);
/* Bracket a MOVE of writable pages into a view: no mark is removed meanwhile, so that no write is
 * lost. May wait for a removal in progress, which may wait for the kernel's lock. */
void trap_writable_begin(struct trap *trap);
void trap_writable_end(struct trap *trap);

/* ---- signals: inline.c */

/* The process's handler is installed once and stays: the program may have saved its address. */
int trap_sigbus_install(void);
bool trap_sigbus(int signo, siginfo_t *info, void *ucontext);

/* Continue after a failed access: by the mapping's callback, fm_guard(), or the program's
 * handler. Returns to have the access repeated, or to let the queued signal arrive. */
void trap_raise(const struct fm_error *error, fm_error_fn fn, void *fn_arg, siginfo_t *info,
		void *ucontext);

/* Thread trap's part of a SIGBUS: true if this thread is to be told an error here, once. */
bool trap_poison_take(struct trap *trap, uint64_t addr, struct fm_error *ret_error,
		      fm_error_fn *ret_fn, void **ret_arg);

/* Tell whether the process is a child after fork(), which owns nothing. */
bool trap_is_child(void);

#endif
