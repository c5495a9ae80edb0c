/* SPDX-License-Identifier: MIT */
/* Handing requests to the I/O engine, one at a time or several together. */
#include "mm/base/submit.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"

#include <errno.h>

/* Map an errno of a store to an errno that is safe to pass up. Some errnos have a meaning of
 * our own on the way up, so a store's errno must not look like them. The errnos of writes are
 * mapped, too: a fault that has to wait for a write may end with the write's errno. */
int store_error(int err)
{
	switch (err) {
	case -EAGAIN:
	case -EBUSY:
	case -EINTR:
	case -EFAULT:
	case -EACCES:
	case -ENXIO:
		return -EIO;
	default:
		return err;
	}
}

void request_send(struct fm_mm *mm, struct io_request *io)
{
	if (self()->plugged) {
		io_submit_later(mm->io, io);
		self()->unsent = true;
	} else {
		io_submit(mm->io, io);
	}
}

/* Start to hold requests back. Requests that are made before requests_send() go to the I/O thread
 * together. Until then the thread must not wait for anything that could depend on those requests.
 * The experiment that holds the map lock over reads (FM_MM_HOLD_LOCK) cannot promise that, so
 * requests are not held back there. Returns false if requests are held back already. */
bool requests_hold(struct fm_mm *mm)
{
	bool begun = !self()->plugged;
	self()->plugged = !(mm->flags & FM_MM_HOLD_LOCK);
	return begun;
}

void requests_send(struct fm_mm *mm)
{
	bool unsent = self()->unsent;
	self()->plugged = self()->unsent = false;
	if (unsent)
		io_kick(mm->io);
}
