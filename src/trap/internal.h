/* SPDX-License-Identifier: MIT */
/* struct trap, which the files of src/trap share. */
#ifndef FM_TRAP_INTERNAL_H
#define FM_TRAP_INTERNAL_H

#include "os/atomic.h"
#include "os/bells.h"
#include "os/fds_kept.h"
#include "os/fds_numbers.h"
#include "os/os.h"
#include "trap/trap.h"

#include <errno.h>

#define TRAP_SLOTS_MAX 16

#define TRAP_TOLD                                                                                  \
	(-0x666d) /* si_code of a SIGBUS that the library sends to a thread; si_value is the        \
		     address */

struct handler; /* thread.c */
struct telling; /* tell.c */

struct trap {
	enum fm_trap kind;
	int fd;     /* the userfaultfd in the program's table, for the program's threads; atomic */
	int own_fd; /* the userfaultfd in the library's own table */
	struct os_fd_id id;
	uint32_t renewals;   /* how often `fd` was renewed; atomic */
	struct os_fd_kept kept; /* keeps the userfaultfd if the library has no table of its own */
	struct os_bell bell; /* wakes the handler thread; fd is -1 if there is no bell */
	bool has_move, has_wp, has_poison;
	bool user_mode_only;
	bool silent; /* no signal handler is installed, and no error is told by a signal */
	const struct trap_client *client;
	struct handler *handler;
	char *scratch; /* UFFD_SCRATCHES times TRAP_TOGETHER bytes that belong to no view, to be
			  filled and moved from; or NULL */
	uint32_t scratch_busy; /* a bit for each scratch piece; atomic */
	char *fetched;         /* a page without memory, into which trap_fetch() may copy; or
				  NULL */
	uint32_t merges; /* the program allows the kernel to merge equal pages, and all memory
			    of the library has opted out; atomic */
	struct os_lock fetch_lock; /* protects `fetched`; held over two system calls, by
				      background threads only */
	struct telling *telling; /* lives from handler_start() to the trap's end */
	struct {
		uint64_t start, end; /* atomic; 0: no frames' memory here */
	} slots[TRAP_SLOTS_MAX];     /* the frames' memory: the handler recognizes a hole in a
					frame by these ranges */
};

/* Defined in thread.c, for trap.c and tell.c. */
int handler_start(struct trap *trap);
void handler_stop(struct trap *trap);
bool handler_is_busy(struct trap *trap);
bool handler_is_elsewhere(struct trap *trap, uint32_t tid, uint64_t addr);
/* Defined in tell.c, for thread.c, trap.c and inline.c. */
int telling_open(struct trap *trap);
void telling_close(struct trap *trap);
void tell_error(struct trap *trap, uint32_t tid, uint64_t addr, bool write,
		const struct fm_error *error, fm_error_fn fn, void *arg);
void tell_forget(struct trap *trap, uint32_t tid);
void tell_sweep(struct trap *trap);
bool tell_pending(struct trap *trap);
bool tell_was_refusing(struct trap *trap, uint64_t addr);
/* Defined in inline.c, for tell.c. */
int trap_sigsegv_install(void);

#endif
