/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes that go on until all bytes are done. Signal-safe if the store is. May call:
 * the stores.
 */
#include "store/store.h"

#include <errno.h>

/* Read all bytes. May run in signal context: no copy of the iovecs, which could be a KiB. After
 * a short read the rest of a segment is read alone, then the segments after it. */
int store_read_full(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done, unsigned *ret_short)
{
	size_t done = 0, skip = 0; /* skip: bytes of iov[0] that are there */
	unsigned shorts = 0;

	while (iov_count > 0 && iov->iov_len == 0) {
		iov++;
		iov_count--;
	}
	while (iov_count > 0) {
		struct iovec part = {(char *)iov->iov_base + skip, iov->iov_len - skip};
		size_t got = 0, want = part.iov_len;
		int error;

		if (skip) {
			error = store->ops->read(store, &part, 1, offset + done, &got);
		} else {
			for (int i = 1; i < iov_count; i++)
				want += iov[i].iov_len;
			error = store->ops->read(store, iov, iov_count, offset + done, &got);
		}
		if (error)
			return error;
		done += got;
		if (got < want && offset + done < store_size(store)) {
			if (!got)
				return -EIO;
			shorts++;
		}
		skip += got;
		while (iov_count > 0 && skip >= iov->iov_len) {
			skip -= iov->iov_len;
			iov++;
			iov_count--;
		}
		/* While the object is made shorter, only the store knows where the object ends.
		 */
		if (!got || offset + done >= store_reach(store))
			break;
	}
	*ret_done = done;
	*ret_short = shorts;
	return 0;
}

/* Write all bytes, in the same way; also in a process that is dying. */
int store_write_full(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	size_t done = 0, skip = 0; /* skip: bytes of iov[0] that are written */
	int error = 0;

	for (;;) {
		struct iovec part;
		size_t took = 0;

		while (iov_count > 0 && skip >= iov->iov_len) {
			skip -= iov->iov_len;
			iov++;
			iov_count--;
		}
		if (iov_count <= 0)
			break;
		part = (struct iovec){(char *)iov->iov_base + skip, iov->iov_len - skip};
		error = store->ops->write(store, skip ? &part : iov, skip ? 1 : iov_count, offset + done, &took);
		if (!error && !took)
			error = -EIO;
		if (error)
			break;
		done += took;
		skip += took;
	}
	*ret_done = done;
	return error;
}
