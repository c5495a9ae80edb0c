/* SPDX-License-Identifier: MIT */
/*
 * Hot sets: text files that say which ranges of an object were touched, in the order of their
 * first touch.
 *
 *	filemap-hotset 1		each section begins with this line
 *	uri file:/data/index		the object of the ranges: see store_uri_name()
 *	size 1073741824			of the object, when the object was opened
 *	version 1764000000000000000	its second store version word then: a file's mtime
 *	page 4096			the unit in which touches were seen
 *	ranges 2			how many ranges follow
 *	lost 0				touches for which there was no space left
 *	8192 4096			OFFSET LENGTH, in bytes
 *	0 4096
 *
 * A file has one section, or several in sequence. All lines except the first and the ranges may
 * be left out. No lock, no state. May call: store.h, libc. Ordinary context only.
 */
#ifndef FM_HOTSET_H
#define FM_HOTSET_H

#include "store/store.h"

#include <limits.h>

#define HOTSET_RANGES_MAX (1u << 22)

/* In bytes in the file and when saved; in pages when loaded. */
struct hotset_range {
	uint64_t start, count;
};

/* ------------------------------------------------------------------ reading */

struct hotset_wanted {
	const char *uri;     /* of the object: in a file of several sections, the object's own are taken */
	bool strictly;       /* also in a file of one section */
	uint64_t size_bytes; /* of the object now: ranges beyond are left out */
	uint32_t shift;      /* of its page size */
	uint64_t pages_max;
};

struct hotset {
	struct hotset_range *range; /* hotset_free() */
	size_t count;
	uint64_t pages;
	uint64_t size_bytes, version; /* of the object, when the set was made; 0: not told */
	bool found; /* a section belongs to this object */
};

/* Load the ranges to read, in the order to read them. They are batches in the order of touch,
 * each larger than the previous batch; a batch is sorted and merged. Returns 0; -ENOENT;
 * -EINVAL or -EFBIG: not a hot set, `why` says which line; -ENOMEM; or the error of reading the
 * file. */
int hotset_load(const char *path, const struct hotset_wanted *wanted, char *why, size_t why_len,
		struct hotset *ret_set);
void hotset_free(struct hotset *set);

/* ------------------------------------------------------------------ writing */

struct hotset_about {
	uint64_t size_bytes, version, page_size, lost;
};

/* Where to write, and for which object. The folder is kept open, so that chdir() does not
 * change the target. */
struct hotset_target {
	int dir_fd;
	char name[NAME_MAX + 1];
	char *uri;
};

/* Open the target. Returns 0, or negative errno with a line in `why`: errors show now, not at
 * the end. */
int hotset_target_open(const char *path, const char *uri, char *why, size_t why_len,
		       struct hotset_target *ret_target);
void hotset_target_close(struct hotset_target *target);
/* Write the ranges, each byte once, at the place of its first touch. The file is replaced as a
 * whole, or stays as it was. */
int hotset_save(const struct hotset_target *target, const struct hotset_about *about,
		const struct hotset_range *range, size_t count);

/* ------------------------------------------------------------------ requests of URIs */

enum hotset_asked { HOTSET_NO, HOTSET_BY_URI, HOTSET_BY_ENVIRONMENT };
/* Get the `hotset` parameter of a URI that store_open() has accepted, or $FILEMAP_HOTSET. */
enum hotset_asked hotset_to_read(const char *uri, char path[PATH_MAX]);
/* Get the `record` parameter, or a unique file name in the folder $FILEMAP_RECORD. */
enum hotset_asked hotset_to_write(const char *uri, char path[PATH_MAX]);

#endif
