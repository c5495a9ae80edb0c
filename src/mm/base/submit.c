/* SPDX-License-Identifier: MIT */
/* Handing requests to the I/O engine, one at a time or several together. */
#include "mm/base/submit.h"

#include "filemap.h"
#include "io/io.h"
#include "mm/base/mm.h"
#include "mm/base/self.h"

#include <errno.h>

/* Some errnos have a meaning of our own on the way up: a store's may not look like them. Of writes,
 * too: a fault that has to wait for one may end with its errno. */
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

/* Requests that are made between these two go to the I/O thread together. Nothing is waited for
 * meanwhile that could wait for them: not so in the experiment, where the map lock is held over
 * reads. False: they are held already. */
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
