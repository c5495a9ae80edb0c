/* SPDX-License-Identifier: MIT */
/*
 * The store and the settings that the files of faulty: share. May call: store.h.
 */
#ifndef FM_STORE_FAULTY_H
#define FM_STORE_FAULTY_H

#include "io/io.h"
#include "os/os.h"
#include "store/store.h"

#define FAULTY_NOWHERE UINT64_MAX /* error-at=none */

/* What happens to one kind of request. */
struct faulty_faults {
	uint64_t delay_ns[2]; /* at least, at most */
	uint64_t error;       /* positive errno */
	uint64_t error_every; /* 0: never */
	uint64_t error_at;
	uint64_t short_every; /* 0: never */
	uint64_t stuck;
};

#define FAULTY_OPS 3 /* enum io_op */

_Static_assert(IO_READ < FAULTY_OPS && IO_WRITE < FAULTY_OPS && IO_FLUSH < FAULTY_OPS,
	       "each kind has its faults");

struct faulty_settings {
	struct faulty_faults faults[FAULTY_OPS];
	uint64_t rate; /* of reads: bytes a second; 0: no limit */
	uint64_t iops; /* of reads; 0: no limit */
	uint64_t seed;
};

struct faulty_store {
	struct fm_store store; /* first */
	struct fm_store *inner;
	struct fm_store *lose; /* atomic: over inner, made when lose=1 is first set; NULL: not yet */
	uint32_t losing;       /* atomic: `lose` is to be used */
	struct faulty_settings set;
	uint32_t generation; /* futex: raised by every change */
	uint32_t limits;     /* raised when rate or iops change: shares are dealt out anew */
	uint32_t aborted;
	uint64_t counted[FAULTY_OPS]; /* requests counted so far */
	uint64_t rate_free_ns; /* when the next read may have its bytes */
	uint64_t iops_free_ns; /* when the next read may start */
	struct os_lock lock;
	unsigned waiting;         /* requests whose timer belongs to this store */
	struct io_engine *engine; /* the engine of those requests; valid while waiting > 0 */
};

#endif
