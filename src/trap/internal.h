/* SPDX-License-Identifier: MIT */
/* What the trap's files share: struct trap. */
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
	(-0x666d) /* si_code of a SIGBUS that we send a thread ourselves; its si_value is the      \
		     address */

struct handler; /* thread.c */
struct telling; /* tell.c */

struct trap {
	enum fm_trap kind;
	int fd;     /* the userfaultfd in the program's table, for the program's threads; atomic */
	int own_fd; /* and in ours */
	struct os_fd_id id;
	uint32_t renewals;   /* of `fd`; atomic */
	struct os_fd_kept kept; /* where there is no table of our own: keeps the userfaultfd */
	struct os_bell bell; /* wakes the handler thread; its fd is -1 without one */
	bool has_move, has_wp, has_poison;
	bool user_mode_only;
	const struct trap_client *client;
	struct handler *handler;
	char *scratch; /* UFFD_SCRATCHES times TRAP_TOGETHER bytes, nobody's, to be filled and moved
			  from; or NULL */
	uint32_t scratch_busy; /* a bit each; atomic */
	char *fetched;         /* a page without memory, into which trap_fetch() may copy; or NULL */
	uint32_t merges; /* the program allows the kernel to merge equal pages, and all that is ours
			    has opted out; atomic */
	struct os_lock fetch_lock; /* protects it; held over two system calls, by background threads
				      only */
	struct telling *telling; /* from handler_start() to the trap's end */
	struct {
		uint64_t start, end; /* atomic; 0: none */
	} slots[TRAP_SLOTS_MAX];     /* the frames' memory, by which the handler knows a hole in it */
};

/* Of thread.c, for trap.c. */
int handler_start(struct trap *trap);
void handler_stop(struct trap *trap);
bool handler_is_busy(struct trap *trap);
bool handler_is_elsewhere(struct trap *trap, uint32_t tid, uint64_t addr);
/* Of tell.c, for thread.c and trap.c. */
int telling_open(struct trap *trap);
void telling_close(struct trap *trap);
void tell_error(struct trap *trap, uint32_t tid, uint64_t addr, bool write,
		const struct fm_error *error, fm_error_fn fn, void *arg);
void tell_forget(struct trap *trap, uint32_t tid);
void tell_sweep(struct trap *trap);
bool tell_pending(struct trap *trap);
bool tell_was_refusing(struct trap *trap, uint64_t addr);
/* Of inline.c, for tell.c. */
int trap_sigsegv_install(void);

#endif
