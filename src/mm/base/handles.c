/* SPDX-License-Identifier: MIT */
/* The callbacks for failed writes of all open handles of a file. */
#include "mm/base/handles.h"

#include "mm/base/file.h"
#include "os/atomic.h"

#include <stdlib.h>

static void tell_one(struct fm_file *cache, struct fm_file *handle, uint64_t offset, uint64_t len,
		     int error)
{
	/* After the last handle has been closed, closed handles' callbacks are still called: mappings
	 * may still live. */
	uint32_t state = atomic_get(&handle->open);
	bool counts = state == HANDLE_OPEN || (state == HANDLE_CLOSED && !atomic_get(&cache->handles));

	if (counts && handle->on_write_error)
		handle->on_write_error(handle->on_write_error_arg, offset, len, error);
}

/* Call the callbacks of all open handles for a failed write. The caller holds no lock. */
void handles_tell(struct fm_file *cache, uint64_t offset, uint64_t len, int error)
{
	atomic_add(&cache->telling, 1u);
	tell_one(cache, cache, offset, len, error);
	for (struct fm_file *handle = atomic_get(&cache->further); handle; handle = handle->further)
		tell_one(cache, handle, offset, len, error);
	atomic_sub(&cache->telling, 1u);
}

void handles_free(struct fm_file *cache)
{
	for (struct fm_file *handle = cache->further, *next; handle; handle = next) {
		next = handle->further;
		free(handle);
	}
}
