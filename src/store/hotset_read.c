/* SPDX-License-Identifier: MIT */
/*
 * Hot sets: what a URI asks for, reading the file, and the order in which to read the file's
 * ranges. The code trusts no value in the file. No lock, no state except a number for file
 * names. May call: store.h, os.h, libc.
 */
#include "store/hotset.h"

#include "os/fds_numbers.h"

#include "os/atomic.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_LEN     (4 * PATH_MAX + 64)
#define BATCH_FIRST  64u /* in ranges; each batch is four times the batch before */
#define BATCH_GROWTH 4u

/* ------------------------------------------------------------------ what is asked for */

enum hotset_asked hotset_to_read(const char *uri, char path[PATH_MAX])
{
	const char *name = secure_getenv("FILEMAP_HOTSET");

	if (store_uri_value(uri, "hotset", path, PATH_MAX))
		return HOTSET_BY_URI;
	if (!name || !*name || strlen(name) >= PATH_MAX)
		return HOTSET_NO;
	strcpy(path, name);
	return HOTSET_BY_ENVIRONMENT;
}

/* Get where to record a hot set. The environment overrides the URI: the program's starter
 * decides. */
enum hotset_asked hotset_to_write(const char *uri, char path[PATH_MAX])
{
	static uint32_t last; /* atomic */
	const char *folder = secure_getenv("FILEMAP_RECORD");

	if (folder && *folder && strlen(folder) < PATH_MAX - 96) {
		/* The name includes the time: a process id may come again, and stays over an
		 * exec. */
		snprintf(path, PATH_MAX, "%s/%llu-%d-%u.hotset", folder,
			 (unsigned long long)os_now_ns(), (int)getpid(), atomic_add(&last, 1u));
		return HOTSET_BY_ENVIRONMENT;
	}
	return store_uri_value(uri, "record", path, PATH_MAX) ? HOTSET_BY_URI : HOTSET_NO;
}

/* ------------------------------------------------------------------ parsing */

struct section {
	bool matches, has_uri;
	uint64_t size_bytes, version;
	uint64_t promised; /* ranges; UINT64_MAX: not told */
	size_t first, count;
};

struct reader {
	const char *path;
	const struct hotset_wanted *wanted;
	char *name, *text; /* of the object; a line: LINE_LEN each */
	char *why;
	size_t why_len;
	unsigned long line;
	struct hotset_range *range;
	size_t count, room;
	struct section *section;
	size_t sections;
};

static int say(struct reader *r, int error, const char *what)
{
	return store_say(error, r->why, r->why_len, "hotset %s: line %lu: %s", r->path, r->line, what);
}

/* Parse a number: digits only, no larger than fits. *at moves behind the digits. */
static bool take_number(const char **at, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *p = *at;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	*at = p;
	*ret_value = value;
	return true;
}

static int add_range(struct reader *r, const char *text)
{
	struct hotset_range range;
	uint64_t end;

	if (!take_number(&text, &range.start) || *text++ != ' ' ||
	    !take_number(&text, &range.count) || *text || !range.count ||
	    __builtin_add_overflow(range.start, range.count, &end) || end > INT64_MAX)
		return say(r, -EINVAL, "not a range: OFFSET LENGTH, in bytes");
	if (r->count == HOTSET_RANGES_MAX)
		return say(r, -EFBIG, "more than 4194304 ranges");
	if (r->count == r->room) {
		size_t room = r->room ? 2 * r->room : 1024;
		struct hotset_range *more = realloc(r->range, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->range = more;
		r->room = room;
	}
	r->range[r->count++] = range;
	r->section[r->sections - 1].count++;
	return 0;
}

static int end_section(struct reader *r)
{
	const struct section *s = r->sections ? &r->section[r->sections - 1] : NULL;

	if (s && s->promised != UINT64_MAX && s->promised != s->count)
		return say(r, -EINVAL, "the number of ranges differs from that in the section's header; "
				       "the file may be truncated");
	return 0;
}

static int begin_section(struct reader *r)
{
	int error = end_section(r);

	if (error)
		return error;
	if ((r->sections & (r->sections - 1)) == 0) { /* full: a power of two */
		struct section *more = realloc(r->section, (r->sections ? 2 * r->sections : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->section = more;
	}
	r->section[r->sections++] = (struct section){.promised = UINT64_MAX, .first = r->count};
	return 0;
}

static int take_header(struct reader *r, const char *text)
{
	struct section *s = &r->section[r->sections - 1];
	const char *value = strchr(text, ' ');
	size_t len = value ? (size_t)(value - text) : 0;
	uint64_t unused, *number = NULL;

	if (len == 3 && !memcmp(text, "uri", 3)) {
		s->has_uri = true;
		s->matches = !strcmp(value + 1, r->name);
		return 0;
	}
	if (len == 4 && !memcmp(text, "size", 4))
		number = &s->size_bytes;
	else if (len == 7 && !memcmp(text, "version", 7))
		number = &s->version;
	else if (len == 6 && !memcmp(text, "ranges", 6))
		number = &s->promised;
	else if ((len == 4 && !memcmp(text, "page", 4)) || (len == 4 && !memcmp(text, "lost", 4)))
		number = &unused;
	if (value)
		value++;
	if (!number || !take_number(&value, number) || *value)
		return say(r, -EINVAL, "neither a range nor part of a header");
	return 0;
}

static int take_line(struct reader *r, const char *text)
{
	const char *number = text + 15;
	uint64_t format;

	if (!strncmp(text, "filemap-hotset ", 15)) {
		if (!take_number(&number, &format) || *number || format != 1)
			return say(r, -EINVAL, "a hot set of an unknown format (only format 1 is known); record "
					       "the hot set again");
		return begin_section(r);
	}
	if (!r->sections)
		return say(r, -EINVAL,
			   "not a hot set: a hot set begins with 'filemap-hotset 1'; make one with "
			   "filemap record");
	if (!*text)
		return 0;
	return *text >= '0' && *text <= '9' ? add_range(r, text) : take_header(r, text);
}

static int read_lines(struct reader *r, FILE *f)
{
	char *line = r->text;
	int error = 0;

	while (!error && fgets(line, LINE_LEN, f)) {
		size_t len = strlen(line);

		r->line++;
		if (!len || line[len - 1] != '\n') /* too long, a zero byte in the line, or the last line */
			return say(r, -EINVAL, feof(f) && len ? "the last line is incomplete; the file "
							 "may be truncated" : "not text");
		line[len - 1] = '\0';
		error = take_line(r, line);
	}
	if (error)
		return error;
	if (ferror(f))
		return say(r, errno ? -errno : -EIO, "cannot be read");
	if (!r->sections)
		return say(r, -EINVAL, "the file is empty; make a hot set with filemap record");
	return end_section(r);
}

/* ------------------------------------------------------------------ the order of reading */

static int by_start(const void *a, const void *b)
{
	const struct hotset_range *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sort `count` ranges and merge what touches. Returns how many are left. */
static size_t merge(struct hotset_range *range, size_t count)
{
	size_t kept = 0;

	qsort(range, count, sizeof(*range), by_start);
	for (size_t i = 0; i < count; i++) {
		struct hotset_range *last = kept ? &range[kept - 1] : NULL;
		uint64_t end = range[i].start + range[i].count;
		if (!last || range[i].start > last->start + last->count)
			range[kept++] = range[i];
		else if (end > last->start + last->count)
			last->count = end - last->start;
	}
	return kept;
}

/* Convert from bytes to pages of the object as it is now. Ranges past the object's end, or
 * above the limit, are left out. */
static void to_pages(struct hotset *set, const struct hotset_wanted *wanted)
{
	uint64_t unit = 1ull << wanted->shift, most = wanted->pages_max;
	size_t kept = 0;

	for (size_t i = 0; i < set->count && most; i++) {
		struct hotset_range range = set->range[i];
		uint64_t end = range.start + range.count;
		if (range.start >= wanted->size_bytes)
			continue;
		if (end > wanted->size_bytes)
			end = wanted->size_bytes;
		uint64_t first = range.start >> wanted->shift,
			 count = ((end + unit - 1) >> wanted->shift) - first;
		if (count > most)
			count = most;
		most -= count;
		set->range[kept++] = (struct hotset_range){first, count};
	}
	set->count = kept;
}

static void plan(struct hotset *set, const struct hotset_wanted *wanted)
{
	size_t kept = 0;

	to_pages(set, wanted);
	for (size_t at = 0, batch = BATCH_FIRST; at < set->count; batch *= BATCH_GROWTH) {
		size_t count = set->count - at < batch ? set->count - at : batch;
		size_t merged = merge(set->range + at, count);
		memmove(set->range + kept, set->range + at, merged * sizeof(*set->range));
		kept += merged;
		at += count;
	}
	set->count = kept;
	set->pages = 0;
	for (size_t i = 0; i < kept; i++)
		set->pages += set->range[i].count;
}

/* Choose the ranges of the object's own sections: together, in their order. */
static void choose(struct reader *r, struct hotset *ret_set)
{
	bool any = r->sections == 1 && !r->wanted->strictly;
	size_t kept = 0;

	*ret_set = (struct hotset){.range = r->range};
	for (size_t i = 0; i < r->sections; i++) {
		const struct section *s = &r->section[i];
		if (!any && !s->matches)
			continue;
		if (!ret_set->found) {
			ret_set->size_bytes = s->size_bytes;
			ret_set->version = s->version;
		}
		ret_set->found = true;
		if (s->count) /* with no ranges there may be no array at all */
			memmove(r->range + kept, r->range + s->first, s->count * sizeof(*r->range));
		kept += s->count;
	}
	ret_set->count = kept;
	r->range = NULL;
}

void hotset_free(struct hotset *set)
{
	free(set->range);
}

int hotset_load(const char *path, const struct hotset_wanted *wanted, char *why, size_t why_len,
		struct hotset *ret_set)
{
	struct reader r = {.path = path, .wanted = wanted, .why = why, .why_len = why_len};
	int fd = os_fd_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0), error = 0;
	struct stat st;
	FILE *f;

	if (fd < 0)
		return store_say(fd, why, why_len, "hotset %s: %s", path, strerror(-fd));
	if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
		error = store_say(S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, why, why_len,
				  "hotset %s: not a regular file", path);
	f = error ? NULL : fdopen(fd, "r");
	if (!f) {
		close(fd);
		return error ? error : -ENOMEM;
	}
	r.name = calloc(2, LINE_LEN);
	r.text = r.name + LINE_LEN;
	error = r.name ? store_uri_name(wanted->uri, r.name, LINE_LEN) : -ENOMEM;
	if (!error)
		error = read_lines(&r, f);
	fclose(f);
	if (!error) {
		choose(&r, ret_set);
		if (ret_set->count)
			plan(ret_set, wanted);
	} else if (error == -ENOMEM) {
		store_say(error, why, why_len, "hotset %s: %s", path, strerror(ENOMEM));
	}
	free(r.name);
	free(r.range);
	free(r.section);
	return error;
}
