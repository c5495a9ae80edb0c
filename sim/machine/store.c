/* SPDX-License-Identifier: MIT */
/*
 * Stores whose bytes say which bytes they are: the first eight of each 512 bytes name the file,
 * the version, the page and the sector. A store fails, reads less than asked, is slow, and changes
 * behind the library's back: a new version, a smaller or larger size.
 */
#include "sim.h"

#include <stdlib.h>

struct sim_store sim_store[SIM_FILES];

uint64_t store_tag(uint32_t file, uint32_t version, uint64_t index, uint32_t sector)
{
	return 0xf1ull << 56 | (uint64_t)file << 48 | (uint64_t)version << 44 | index << 3 | sector;
}

/* Return the workload's number of a page, or SIM_PAGES if the workload never touches the page. The
 * workload touches two pages past the end, too. */
uint32_t store_place(const struct sim_store *s, uint64_t index)
{
	uint64_t n = (index - s->base) / s->stride;
	return index >= s->base && (index - s->base) % s->stride == 0 && n < s->pages + 2 ? (uint32_t)n
										     : SIM_PAGES;
}

void store_note_error(struct sim_store *s, uint64_t offset, uint64_t len)
{
	s->any_error_step = sim.step;
	/* the whole unit of the page cache gets the error */
	uint64_t first = offset / s->page_size * s->page_size / OS_PAGE;
	for (uint64_t i = first;
	     i < (offset + len + s->page_size - 1) / s->page_size * s->page_size / OS_PAGE; i++)
		if (store_place(s, i) < SIM_PAGES)
			s->error_step[store_place(s, i)] = sim.step;
}

bool store_is_bad(struct sim_store *s, uint64_t offset, uint64_t len)
{
	for (uint64_t at = offset; at < offset + len; at += OS_PAGE) {
		uint32_t n = store_place(s, at / OS_PAGE);
		if (n < SIM_PAGES && s->bad[n])
			return true;
	}
	return false;
}

int store_random_error(void)
{
	static const int errors[] = {-EIO,   -EIO,    -ENOSPC, -EAGAIN, -EBUSY,
				     -EINTR, -EFAULT, -EACCES, -ENXIO,  -ENOMEM};
	return errors[sim_below(sizeof(errors) / sizeof(*errors))];
}

void store_change(struct sim_store *s, uint64_t size)
{
	if (s->version + 1 == sizeof(s->size) / sizeof(*s->size))
		return;
	mark(store_changed);
	s->size[s->version + 1] = size;
	s->holes[s->version + 1] = s->holes[s->version];
	s->version++;
	s->since[s->version] = sim.step;
	event("object %llu: version %llu, %llu bytes", s->id, s->version, size, 0);
}

/* Turn pages n to n + count - 1 into zeros. */
void store_punch(struct sim_store *s, uint32_t n, uint32_t count)
{
	uint32_t before = s->version;
	store_change(s, s->size[s->version]);
	if (s->version == before)
		return;
	mark(store_punched);
	s->holes[s->version] |= ((1ull << count) - 1) << n;
	event("object %llu: a hole of %llu pages from page %llu on", s->id, count,
	      s->base + n * s->stride, 0);
}

/* Return the bytes of a version at a sector. */
static uint64_t content(const struct sim_store *s, uint32_t version, uint64_t index,
			uint32_t sector)
{
	uint32_t n = store_place(s, index);
	bool there = index * OS_PAGE + sector * SIM_SECTOR < s->size[version];
	if (s->writable && n < SIM_PAGES)
		return there ? written_stored(s, n, sector) : 0;
	return there && !(n < SIM_PAGES && s->holes[version] >> n & 1)
		       ? store_tag(s->id, version, index, sector)
		       : 0;
}

/* ------------------------------------------------------------------ the device */

void store_write(struct sim_store *s, const struct iovec *iov, int iov_count, uint64_t offset,
		 uint64_t from, uint64_t to)
{
	uint64_t at = 0, size = s->size[s->version];
	for (int i = 0; i < iov_count; i++) {
		for (size_t in = 0; in < iov[i].iov_len; in += SIM_SECTOR, at += SIM_SECTOR) {
			uint64_t pos = offset + at, slot = (uint64_t)iov[i].iov_base + in;
			if (at < from || at >= to || pos >= size)
				continue;
			check_device_writes(slot & ~(uint64_t)(OS_PAGE - 1));
			*(uint64_t *)slot = content(s, s->version, pos / OS_PAGE,
						    (uint32_t)(pos % OS_PAGE / SIM_SECTOR));
		}
	}
}

uint64_t store_part(const struct sim_store *s, uint64_t offset, uint64_t part)
{
	uint64_t size = s->size[s->version], rest = offset < size ? size - offset : 0;
	return part < rest ? part : rest;
}

/* Return false if the device gets EFAULT, since some memory is missing. That may happen only in a
 * run in which memory runs short. */
bool store_has_memory(const struct iovec *iov, int iov_count)
{
	bool there = true;
	for (int i = 0; i < iov_count; i++)
		for (size_t in = 0; in < iov[i].iov_len; in += OS_PAGE)
			there &= kernel_slot_present(((uint64_t)iov[i].iov_base + in) & ~(uint64_t)(OS_PAGE - 1));
	return there || !sim.opt.famine_256;
}

/* ------------------------------------------------------------------ the lock of an object */

static void wait_unlocked(struct sim_store *s)
{
	while (s->locked)
		sim_wait_for(WAIT_CHANNEL, (uint64_t)&s->locked, OS_FOREVER);
}

void store_lock(struct sim_store *s)
{
	wait_unlocked(s);
	s->locked = true;
}

void store_unlock(struct sim_store *s)
{
	s->locked = false;
	sim_notify(WAIT_CHANNEL, (uint64_t)&s->locked);
	io_look_again();
}

/* Read in the faulting thread. The bytes come in two parts, with time in between. */
static int sim_read(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done)
{
	struct sim_store *s = (struct sim_store *)store;
	uint64_t len = store_iov_bytes(iov, iov_count), size, part;
	check_may_block("a read");
	mark(inline_reads);
	event("reads object %llu, %llu bytes at page %llu", s->id, len, offset / OS_PAGE, 0);
	if (!store_has_memory(iov, iov_count))
		return -EFAULT;
	if (!s->lockless)
		wait_unlocked(s);
	part = sim_below((uint32_t)(len / SIM_SECTOR)) * SIM_SECTOR;
	sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns));
	part = store_part(s, offset, part);
	store_write(s, iov, iov_count, offset, 0, part);
	if (part && !s->aborted)
		sim_sleep(sim_chance(sim.opt.slow_256) ? 50000000 : 1 + sim_below((uint32_t)sim.opt.io_ns));
	if (s->aborted)
		return -ECANCELED;
	if (sim_chance(sim.opt.error_256) || store_is_bad(s, offset, len)) {
		mark(inline_errors);
		s->refused++;
		store_note_error(s, offset, len);
		event("the read fails", 0, 0, 0, 0);
		return store_random_error();
	}
	size = s->size[s->version];
	if (part && sim_chance(sim.opt.short_256)) {
		*ret_done = part;
		return 0;
	}
	store_write(s, iov, iov_count, offset, part, len);
	*ret_done = offset >= size ? 0 : offset + len > size ? size - offset : len;
	event("the read ends, %llu bytes", *ret_done, 0, 0, 0);
	return 0;
}

int store_read_full(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done, unsigned *ret_short)
{
	struct iovec rest[IO_SEGMENTS_MAX];
	size_t done = 0, got;
	memcpy(rest, iov, (size_t)iov_count * sizeof(*iov));
	for (;;) {
		int n = 0;
		size_t skip = done;
		for (int i = 0; i < iov_count; i++) {
			size_t cut = skip < iov[i].iov_len ? skip : iov[i].iov_len;
			skip -= cut;
			if (cut < iov[i].iov_len)
				rest[n++] = (struct iovec){(char *)iov[i].iov_base + cut,
							   iov[i].iov_len - cut};
		}
		if (!n || offset + done >= store_reach(store))
			break;
		int err = store->ops->read(store, rest, n, offset + done, &got);
		if (err)
			return err;
		if (!got && offset + done < store_size(store))
			return -EIO;
		if (!got) /* while the object gets shorter, only the store knows its end */
			break;
		done += got;
		if (done < store_iov_bytes(iov, iov_count) && offset + done < store_size(store))
			++*ret_short;
	}
	*ret_done = done;
	return 0;
}

static int sim_version(struct fm_store *store, struct fm_store_version *ret_version)
{
	struct sim_store *s = (struct sim_store *)store;
	check_may_block("a query of the version");
	sim_point();
	if (s->no_version)
		return -EOPNOTSUPP;
	*ret_version = (struct fm_store_version){.size = s->size[s->version], .version = {s->version}};
	sim_point(); /* the answer is on its way, and the store may change meanwhile */
	if (!sim_below(8))
		sim_sleep(1000 + sim_below(1000000));
	return 0;
}

static void sim_store_abort(struct fm_store *store)
{
	struct sim_store *s = (struct sim_store *)store;
	s->aborted = true;
	io_hurry(s);
}

static void sim_close(struct fm_store *store)
{
	struct sim_store *s = (struct sim_store *)store;
	if (!s->open)
		sim_fail("a store is closed twice");
	s->open = false;
}

/* ------------------------------------------------------------------ writing */

/* The library writes only through requests: see io.c. */
static int sim_write(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	(void)store;
	(void)iov;
	(void)iov_count;
	(void)offset;
	(void)ret_done;
	sim_fail("the library writes past its engine");
}

static int sim_flush(struct fm_store *store)
{
	(void)store;
	sim_fail("the library flushes past its engine");
}

/* Begin a change of the whole object. The change takes a while, and may fail. Returns the errno. */
static int change_begin(struct sim_store *s, const char *what)
{
	check_may_block(what);
	if (check_page_locks())
		sim_fail("a wait for %s happens with a page lock held", what);
	if (s->locked)
		mark(lock_waited);
	wait_unlocked(s);
	sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns));
	return sim_chance(sim.opt.error_256 / 2) ? store_random_error() : 0;
}

static uint64_t sector_at(const struct sim_store *s, uint64_t byte)
{
	uint64_t first = s->base * OS_PAGE;
	return byte <= first ? 0 : (byte - first + SIM_SECTOR - 1) / SIM_SECTOR;
}

static int sim_resize(struct fm_store *store, uint64_t size)
{
	struct sim_store *s = (struct sim_store *)store;
	uint64_t before = s->size[0], least = size < before ? size : before;
	if (io_writes_beyond(s, least))
		sim_fail("object %u gets %llu bytes, but a write past this end is under way",
			 s->id, (unsigned long long)size);
	int err = change_begin(s, "a change of an object's size");
	if (io_writes_beyond(s, least))
		sim_fail("object %u gets %llu bytes, but a write past this end is under way",
			 s->id, (unsigned long long)size);
	event("object %llu: %llu bytes, error %llu", s->id, size, -err, 0);
	if (err)
		return err;
	s->size[0] = size;
	if (size < before)
		written_put_zeros(s, sector_at(s, size), sector_at(s, before), io_new_flight());
	/* The device frees the blocks one after the other. Other threads read the object
	 * meanwhile. */
	sim_sleep((sim_chance(128) ? 20 : 1) * (1 + sim_below((uint32_t)sim.opt.io_ns)));
	return 0;
}

static int sim_punch(struct fm_store *store, uint64_t offset, uint64_t len)
{
	struct sim_store *s = (struct sim_store *)store;
	if ((offset | len) % OS_PAGE)
		sim_fail("a hole has a bad range: %llu bytes at %llu",
			 (unsigned long long)len, (unsigned long long)offset);
	int err = change_begin(s, "a hole in an object");
	event("object %llu: a hole of %llu bytes at %llu, error %llu", s->id, len, offset, -err);
	if (!err)
		written_put_zeros(s, sector_at(s, offset), sector_at(s, offset + len), io_new_flight());
	sim_sleep(1 + sim_below((uint32_t)sim.opt.io_ns));
	return err;
}

static const struct fm_store_ops sim_ops = {
	.name = "sim",
	.read = sim_read,
	.abort = sim_store_abort,
	.version = sim_version,
	.write = sim_write,
	.flush = sim_flush,
	.resize = sim_resize,
	.punch = sim_punch,
	.close = sim_close,
};

int store_open(const char *uri, unsigned flags, char *error_text, size_t error_text_len,
	       struct fm_store **ret_store)
{
	struct sim_store *s = &sim_store[uri[0] - '0'];
	(void)error_text;
	(void)error_text_len;
	s->open = true;
	s->lockless = flags & FM_STORE_OPEN_LOCKLESS;
	s->store = (struct fm_store){.ops = &sim_ops,
				     .size_bytes = s->size[0],
				     .caps = (s->inline_reads ? FM_STORE_READ_INLINE : 0u) |
					     (s->writable ? FM_STORE_WRITE : 0u),
				     .opened = {.size = s->size[0]}};
	if (s->writable != !!(flags & FM_STORE_OPEN_WRITE))
		sim_fail("object %u is opened with flags %#x", s->id, flags);
	if (s->writable)
		written_open(s);
	*ret_store = &s->store;
	return 0;
}

int store_open_fd(int fd, const char *name, unsigned flags, char *error_text, size_t error_text_len,
		  struct fm_store **ret_store)
{
	(void)fd;
	(void)name;
	(void)flags;
	(void)error_text;
	(void)error_text_len;
	(void)ret_store;
	return -EOPNOTSUPP;
}

void store_fd_name(int fd, char *name, size_t name_len)
{
	(void)fd;
	(void)name_len;
	name[0] = 0;
}

int store_write_full(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	(void)store;
	(void)iov;
	(void)iov_count;
	(void)offset;
	(void)ret_done;
	return -EOPNOTSUPP;
}

int store_private_open(struct fm_store *base, char *error_text, size_t error_text_len,
		       struct fm_store **ret_store)
{
	(void)base;
	(void)error_text;
	(void)error_text_len;
	(void)ret_store;
	return -EOPNOTSUPP;
}

/* ------------------------------------------------------------------ hot sets: for some files */

enum hotset_asked hotset_to_read(const char *uri, char path[PATH_MAX])
{
	(void)uri;
	(void)path;
	return !sim.small && sim_chance(64) ? HOTSET_BY_URI : HOTSET_NO;
}

enum hotset_asked hotset_to_write(const char *uri, char path[PATH_MAX])
{
	(void)uri;
	(void)path;
	return HOTSET_NO;
}

/* Return ranges around the workload's pages, in any order, some of them twice or past the end. */
int hotset_load(const char *path, const struct hotset_wanted *wanted, char *why, size_t why_len,
		struct hotset *ret_set)
{
	static struct hotset_range range[SIM_FILES][8];
	struct sim_store *s = &sim_store[wanted->uri[0] - '0'];
	(void)path;
	(void)why;
	(void)why_len;
	*ret_set = (struct hotset){.range = range[s->id], .count = sim_below(8), .found = true};
	for (uint32_t i = 0; i < ret_set->count; i++) {
		uint64_t page = (s->base + sim_below(s->pages + 2) * s->stride) * OS_PAGE >> wanted->shift;
		range[s->id][i] = (struct hotset_range){page, 1 + sim_below(4)};
	}
	return 0;
}

void hotset_free(struct hotset *set)
{
	(void)set;
}

int hotset_target_open(const char *path, const char *uri, char *why, size_t why_len,
		       struct hotset_target *ret_target)
{
	(void)path;
	(void)uri;
	(void)why;
	(void)why_len;
	(void)ret_target;
	return -ENOENT;
}

void hotset_target_close(struct hotset_target *target)
{
	(void)target;
}

int hotset_save(const struct hotset_target *target, const struct hotset_about *about,
		const struct hotset_range *range, size_t count)
{
	(void)target;
	(void)about;
	(void)range;
	(void)count;
	return -ENOENT;
}

/* ------------------------------------------------------------------ allowed contents */

/* Check a page of a store without versions. The page may mix versions, but inside the first size
 * the page has only the store's bytes. */
static void check_unversioned(struct sim_store *s, uint64_t index, const struct view_page *page)
{
	for (uint32_t i = 0; i < SIM_TAGS; i++) {
		uint32_t version = 0;
		bool inside = index * OS_PAGE + i * SIM_SECTOR < s->size[0], found = !inside && !page->tag[i];
		for (; inside && !found && version <= s->version;
		     version++) /* a version has no bytes past its end, not even zeros */
			found = index * OS_PAGE + i * SIM_SECTOR < s->size[version] &&
				page->tag[i] == content(s, version, index, i);
		if (!found)
			sim_fail("page %llu of object %u, which has no versions, shows %#llx at byte %u",
				 (unsigned long long)index, s->id, (unsigned long long)page->tag[i], i * SIM_SECTOR);
	}
}

static bool is_version(const struct sim_store *s, uint32_t version, uint64_t index,
		       const struct view_page *page)
{
	for (uint32_t i = 0; i < SIM_TAGS; i++)
		if (page->tag[i] != content(s, version, index, i))
			return false;
	return true;
}

/* Check that a page shows one version throughout. A snapshot (FM_CHANGED_ERROR) must show version
 * 0. */
void check_content(struct sim_store *s, uint64_t index, const struct view_page *page)
{
	uint32_t version = 0;
	if (s->writable && store_place(s, index) < SIM_PAGES) {
		written_check_view(s, index, page);
		return;
	}
	if (s->no_version) {
		check_unversioned(s, index, page);
		return;
	}
	while (version <= s->version && !is_version(s, version, index, page))
		version++;
	if (version > s->version)
		sim_fail("page %llu of object %u shows %#llx ... %#llx, which no version of the page had",
			 (unsigned long long)index, s->id, (unsigned long long)page->tag[0],
			 (unsigned long long)page->tag[SIM_TAGS - 1]);
	if (version && sim.mm && !sim.dying) {
		struct fm_file *file = sim.mm->files;
		while (file && file->store != &s->store)
			file = file->next;
		if (file && file->changed_policy == FM_CHANGED_ERROR)
			sim_fail("page %llu of object %u shows version %u, but the snapshot is version 0",
				 (unsigned long long)index, s->id, version);
	}
}
