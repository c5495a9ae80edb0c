/* SPDX-License-Identifier: MIT */
/*
 * filemap-exercise does random operations on one file, as a program might do them through its
 * mappings. Each operation is checked against a model in memory. A synced range is also checked
 * in the file itself. The idea comes from fsx (Apple, 1991). No code of fsx is used.
 *
 *   filemap-exercise [--ops N] [--seed S] [--trap inline|thread|call] [--install move|copy]
 *                    [--budget BYTES] [--size BYTES] [--folder DIR] [--faults] [--verbose]
 *
 * One seed gives one sequence of operations. A failure prints the number of the operation, the
 * operations before it, and the command that repeats the sequence. What the library's own threads
 * do meanwhile is not repeated. With --faults the store is slow now and then and cuts transfers
 * short. --size sets the largest size of the file.
 */
#include "write_support.h"

#include <getopt.h>
#include <stdarg.h>
#include <inttypes.h>
#include <sys/mman.h>

#define MAPS 8
#define HISTORY 64

static struct {
	uint64_t ops, seed, budget, most;
	const char *trap, *install, *folder;
	bool faults, verbose;
} option = {.ops = 100000,
	    .seed = 1,
	    .budget = 128 * KIB,
	    .most = MIB,
	    .trap = "inline",
	    .install = "move"};

static uint64_t op, random_state;
static fm_mm *mm;
static fm_file *file;
static char path[256];
static int plain_fd, direct_fd, source_fd;
static unsigned char *model, *scratch,
	*source; /* `most` bytes each; in the model, zeros follow the file's last byte */
static uint64_t size;

static struct mapping {
	unsigned char *addr;
	uint64_t offset, len; /* multiples of the page size */
	bool writable;
} map[MAPS];
static unsigned maps;

static struct {
	uint64_t op;
	const char *name;
	uint64_t a, b;
} history[HISTORY];

/* ------------------------------------------------------------------ messages */

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;
	fflush(stdout);
	for (uint64_t i = 0; i < HISTORY; i++) {
		uint64_t at = (op + 1 + i) % HISTORY;
		if (history[at].name)
			fprintf(stderr, "%9" PRIu64 " %-10s %#" PRIx64 " %#" PRIx64 "\n",
				history[at].op, history[at].name, history[at].a, history[at].b);
	}
	fprintf(stderr, "seed %" PRIu64 ", operation %" PRIu64 ", size %#" PRIx64 ": ", option.seed,
		op, size);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr,
		"\nrepeat: filemap-exercise --ops %" PRIu64 " --seed %" PRIu64
		" --trap %s --install %s --budget %" PRIu64 " --size %" PRIu64 "%s\n",
		op + 1, option.seed, option.trap, option.install, option.budget, option.most,
		option.faults ? " --faults" : "");
	if (path[0])
		unlink(path);
	exit(1);
}

static void note(const char *name, uint64_t a, uint64_t b)
{
	history[op % HISTORY].op = op;
	history[op % HISTORY].name = name;
	history[op % HISTORY].a = a;
	history[op % HISTORY].b = b;
	if (option.verbose)
		printf("%9" PRIu64 " %-10s %#" PRIx64 " %#" PRIx64 "\n", op, name, a, b);
}

static void well(const char *what, int err)
{
	if (err)
		fail("%s: %s", what, strerror(-err));
}

/* ------------------------------------------------------------------ random choices */

static uint64_t any(uint64_t below)
{
	random_state += 0x9e3779b97f4a7c15ull;
	uint64_t z = random_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	return below ? z % below : 0;
}

/* Choose a length: mostly up to three pages, sometimes whole pages, now and then up to `most`. */
static uint64_t any_len(uint64_t most)
{
	uint64_t len = any(4) == 0 ? PAGE * (1 + any(4)) : any(8) == 0 ? 1 + any(most) : 1 + any(3 * PAGE);
	return len < most ? len : most;
}

/* Choose a range within the file. Returns false if the range is empty. */
static bool any_range(uint64_t *at, uint64_t *len)
{
	if (!size)
		return false;
	*at = any(3) ? any(size) : any((size + PAGE - 1) / PAGE) * PAGE;
	*len = any_len(size - *at);
	return *len > 0;
}

/* Choose a range of a mapping, within the file. Returns NULL if the chosen mapping does not fit. */
static struct mapping *any_mapped(bool writable, uint64_t *at, uint64_t *len)
{
	struct mapping *m = maps ? &map[any(maps)] : NULL;
	if (!m || (writable && !m->writable) || m->offset >= size)
		return NULL;
	uint64_t end = m->offset + m->len < size ? m->offset + m->len : size;
	*at = m->offset + any(end - m->offset);
	if (any(3) == 0)
		*at &= ~(PAGE - 1);
	*len = any_len(end - *at);
	return m;
}

static void any_bytes(unsigned char *to, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += 8) {
		random_state += 0x9e3779b97f4a7c15ull;
		uint64_t word = random_state * 0xd6e8feb86659fd93ull;
		word ^= word >> 32;
		memcpy(to + i, &word, len - i < 8 ? len - i : 8);
	}
}

/* ------------------------------------------------------------------ checks */

static void compare(const char *what, const unsigned char *got, uint64_t at, uint64_t len)
{
	if (memcmp(got, model + at, len) == 0)
		return;
	uint64_t i = 0, wrong = 0;
	while (got[i] == model[at + i])
		i++;
	for (uint64_t j = i; j < len; j++)
		wrong += got[j] != model[at + j];
	fail("%s: %#" PRIx64 " has %02x, not %02x, and %" PRIu64 " bytes of [%#" PRIx64
	     ", %#" PRIx64 ") are wrong",
	     what, at + i, got[i], model[at + i], wrong, at, at + len);
}

static void read_mapped(const struct mapping *m, uint64_t at, uint64_t len)
{
	well("reading", support_read(mm, m->addr + (at - m->offset), scratch, len));
	compare("memory", scratch, at, len);
}

static void compare_file(uint64_t at, uint64_t len)
{
	struct stat st;
	CHECK_EQ(fstat(plain_fd, &st), 0);
	if ((uint64_t)st.st_size != size)
		fail("the file has %#llx bytes", (unsigned long long)st.st_size);
	uint64_t first = at & ~(PAGE - 1), end = (at + len + PAGE - 1) & ~(PAGE - 1);
	bool direct = direct_fd >= 0 && any(2);
	for (uint64_t done = first; done < (end < size ? end : size);) {
		ssize_t n = pread(direct ? direct_fd : plain_fd, scratch + (done - first),
				  end - done, (off_t)done);
		if (n <= 0)
			fail("reading the file: %s", n ? strerror(errno) : "short");
		done += (uint64_t)n;
	}
	compare("the file", scratch + (at - first), at, len);
}

/* ------------------------------------------------------------------ operations */

static void op_write(void)
{
	uint64_t at, len;
	struct mapping *m = any_mapped(true, &at, &len);
	if (!m)
		return;
	note("write", at, len);
	any_bytes(model + at, len);
	well("writing", write_to(mm, m->addr + (at - m->offset), model + at, len));
}

static void op_read(void)
{
	uint64_t at, len;
	struct mapping *m = any_mapped(false, &at, &len);
	if (!m)
		return;
	note("read", at, len);
	read_mapped(m, at, len);
}

/* Touch memory past the end of the file. An access to the next page is an error. A write to the
 * rest of the last page changes nothing. */
static void op_past(void)
{
	struct mapping *m = maps ? &map[any(maps)] : NULL;
	if (!m)
		return;
	uint64_t next = (size + PAGE - 1) & ~(PAGE - 1);
	bool write = m->writable && any(2);
	note("past", size, write);
	if (next >= m->offset && next < m->offset + m->len) {
		unsigned char *at = m->addr + (next - m->offset) + any(m->offset + m->len - next), byte = 1;
		int err = write ? write_to(mm, at, &byte, 1) : support_read(mm, at, &byte, 1);
		if (err != -ENXIO)
			fail("an access past the end: %d", err);
	}
	if (write && size % PAGE && size >= m->offset && size < m->offset + m->len) {
		memset(scratch, 0xee, PAGE);
		well("writing to the tail",
		     write_to(mm, m->addr + (size - m->offset), scratch, PAGE - size % PAGE));
	}
}

static void op_truncate(void)
{
	uint64_t to = any(3) == 0 ? any(option.most / PAGE) * PAGE
		      : any(4)    ? any(option.most)
				  : size + any(2 * PAGE);
	if (to > option.most)
		to = option.most;
	if (to < size / 4 && any(4)) /* the file rarely becomes nearly empty */
		to = size - any(size / 4 + 1);
	note("truncate", size, to);
	well("fm_truncate", fm_truncate(file, to));
	if (to < size)
		memset(model + to, 0, size - to);
	size = to;
}

static void op_punch(void)
{
	uint64_t at, len;
	if (!any_range(&at, &len))
		return;
	note("punch", at, len);
	well("fm_punch", fm_punch(file, at, len));
	memset(model + at, 0, len);
}

static void op_sync(void)
{
	uint64_t at, len;
	struct mapping *m = any_mapped(false, &at, &len);
	if (!m)
		return;
	note("sync", at, len);
	if (any(4) == 0)
		well("fm_sync, asynchronous", fm_sync(mm, m->addr + (at - m->offset), len, FM_SYNC_ASYNC));
	well("fm_sync", fm_sync(mm, m->addr + (at - m->offset), len, 0));
	compare_file(at, len);
}

static void op_sync_all(void)
{
	note("sync-all", 0, size);
	well("fm_file_sync", fm_file_sync(file, 0, 0, 0));
	if (size)
		compare_file(0, size);
}

static void op_invalidate(void)
{
	uint64_t at, len;
	if (!any_range(&at, &len))
		return;
	note("invalidate", at, len);
	well("fm_invalidate", fm_invalidate(file, at, len));
	compare_file(at, len);
}

/* Change the file with pwrite(), outside the library, and tell the library with fm_invalidate(). */
static void op_others(void)
{
	uint64_t at, len;
	if (!any_range(&at, &len))
		return;
	note("others", at, len);
	well("fm_file_sync", fm_file_sync(file, at, len, 0));
	any_bytes(scratch, len);
	memcpy(model + at, scratch, len);
	if (pwrite(plain_fd, scratch, len, (off_t)at) != (ssize_t)len)
		fail("pwrite: %s", strerror(errno));
	well("fm_invalidate", fm_invalidate(file, at, len));
}

/* Let a system call write to pinned memory. */
static void op_pin(void)
{
	uint64_t at, len;
	struct mapping *m = any_mapped(true, &at, &len);
	if (!m)
		return;
	if (len > 3 * PAGE)
		len = 3 * PAGE;
	note("pin", at, len);
	unsigned char *addr = m->addr + (at - m->offset);
	uint64_t from = any(option.most - len + 1);
	well("fm_pin", fm_pin(mm, addr, len, FM_WRITE));
	ssize_t n = pread(source_fd, addr, len, (off_t)from);
	if (n != (ssize_t)len)
		fail("pread into pinned pages: %s", n < 0 ? strerror(errno) : "short");
	memcpy(model + at, source + from, len);
	if (any(2))
		well("fm_sync", fm_sync(mm, addr, len, 0));
	if (any(4) == 0) { /* the program writes, too, maybe after the sync */
		model[at] = ++*(volatile unsigned char *)addr;
	}
	compare("pinned memory", addr, at, len);
	well("fm_unpin", fm_unpin(mm, addr, len));
}

static void op_fault_in(void)
{
	uint64_t at, len;
	struct mapping *m = any_mapped(true, &at, &len);
	if (!m)
		return;
	note("fault-in", at, len);
	well("fm_fault_in", fm_fault_in(mm, m->addr + (at - m->offset), len, any(2) ? FM_WRITE : 0));
}

static void op_advise(void)
{
	static const enum fm_advice all[] = {
		FM_ADVICE_NORMAL,   FM_ADVICE_RANDOM,   FM_ADVICE_SEQUENTIAL, FM_ADVICE_WILLNEED,
		FM_ADVICE_DONTNEED, FM_ADVICE_DONTNEED, FM_ADVICE_KEEP,       FM_ADVICE_COLD};
	uint64_t at, len;
	struct mapping *m = any_mapped(false, &at, &len);
	if (!m)
		return;
	enum fm_advice advice = all[any(8)];
	note("advise", at, advice);
	well("fm_advise", fm_advise(mm, m->addr + ((at & ~(PAGE - 1)) - m->offset), len, advice));
}

static void op_map(void)
{
	if (maps == MAPS)
		return;
	struct mapping *m = &map[maps];
	uint64_t pages = option.most / PAGE + 4;
	m->offset = any(pages) * PAGE;
	m->len = (1 + any(any(2) ? pages : 8)) * PAGE;
	if (any(3) == 0) {
		m->offset = 0;
		m->len = option.most;
	}
	m->writable = any(4) != 0;
	note("map", m->offset, m->len);
	m->addr = m->writable ? write_map(file, m->offset, m->len) : support_map(file, m->offset, m->len);
	maps++;
}

/* Unmap a part of a mapping. The rest becomes one or two mappings. */
static void op_unmap(void)
{
	if (!maps)
		return;
	unsigned i = (unsigned)any(maps);
	struct mapping m = map[i];
	uint64_t pages = m.len / PAGE, first = any(2) ? 0 : any(pages),
		 count = any(2) ? pages - first : 1 + any(pages - first);
	note("unmap", m.offset + first * PAGE, count * PAGE);
	well("fm_unmap", fm_unmap(mm, m.addr + first * PAGE, count * PAGE));
	map[i] = map[--maps];
	if (first && maps < MAPS)
		map[maps++] = (struct mapping){m.addr, m.offset, first * PAGE, m.writable};
	uint64_t rest = pages - first - count, gone = (first + count) * PAGE;
	if (rest && maps < MAPS)
		map[maps++] = (struct mapping){m.addr + gone, m.offset + gone, rest * PAGE, m.writable};
	else if (rest)
		well("fm_unmap", fm_unmap(mm, m.addr + gone, rest * PAGE));
}

static void open_file(void)
{
	file = write_open(
		mm, option.faults
			    ? support_format(
				      "faulty:%s?delay=0us..50us&short-every=7&write-short-every=5",
				      path)
			    : path);
	uint64_t now;
	well("fm_file_size", fm_file_size(file, &now));
	if (now != size)
		fail("after the open, the file has %#" PRIx64 " bytes", now);
}

static void op_reopen(void)
{
	bool whole = any(4) == 0, before = any(2);
	note("reopen", whole, before);
	if (before && !whole)
		well("fm_file_close", fm_file_close(file));
	while (maps) {
		maps--;
		well("fm_unmap", fm_unmap(mm, map[maps].addr, map[maps].len));
	}
	if (!before || whole)
		well("fm_file_close", fm_file_close(file));
	if (whole) {
		struct fm_stats stats = support_stats(mm);
		if (stats.dirty_lost || stats.lock_held_over_block)
			fail("%llu dirty pages lost", (unsigned long long)stats.dirty_lost);
		well("fm_mm_destroy", fm_mm_destroy(mm));
		if (size)
			compare_file(0, size);
		mm = support_mm(option.budget);
	}
	open_file();
	map[0] = (struct mapping){write_map(file, 0, option.most), 0, option.most, true};
	maps = 1;
	if (size)
		read_mapped(&map[0], 0, size);
}

static const struct {
	void (*run)(void);
	unsigned weight;
} operations[] = {
	{op_write, 300},   {op_read, 300},   {op_past, 30},       {op_truncate, 60}, {op_punch, 40},
	{op_sync, 30},     {op_sync_all, 6}, {op_invalidate, 20}, {op_others, 10},   {op_pin, 50},
	{op_fault_in, 40}, {op_advise, 60},  {op_map, 30},        {op_unmap, 24},    {op_reopen, 2},
};

static void one(void)
{
	unsigned sum = 0;
	for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		sum += operations[i].weight;
	uint64_t at = any(sum);
	for (unsigned i = 0;; i++) {
		if (at < operations[i].weight) {
			operations[i].run();
			return;
		}
		at -= operations[i].weight;
	}
}

/* ------------------------------------------------------------------ begin and end */

static unsigned char *alloc_bytes(uint64_t len)
{
	void *p = mmap(NULL, len + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	return p;
}

static void begin(void)
{
	setenv("FM_TEST_TRAP", option.trap, 1);
	setenv("FM_TEST_INSTALL", option.install, 1);
	random_state = option.seed;
	model = alloc_bytes(option.most);
	scratch = alloc_bytes(option.most);
	source = alloc_bytes(option.most);
	any_bytes(source, option.most);
	source_fd = memfd_create("source", MFD_CLOEXEC);
	CHECK(source_fd >= 0 && write(source_fd, source, option.most) == (ssize_t)option.most);
	if (option.folder)
		snprintf(path, sizeof(path), "%s/filemap-exercise-%d", option.folder, (int)getpid());
	else
		snprintf(path, sizeof(path), "%s", support_path());
	size = option.most / 2 + 100;
	any_bytes(model, size);
	plain_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	CHECK(plain_fd >= 0 && write(plain_fd, model, size) == (ssize_t)size);
	direct_fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	mm = support_mm(option.budget);
	open_file();
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);
	if (*end == 'K' || *end == 'M')
		n *= *end++ == 'K' ? KIB : MIB;
	if (end == text || *end)
		CHECK_FAIL("'%s' is no number", text);
	return n;
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {{"ops", 1, 0, 'n'},     {"seed", 1, 0, 's'},
					      {"trap", 1, 0, 't'},    {"install", 1, 0, 'i'},
					      {"budget", 1, 0, 'b'},  {"size", 1, 0, 'l'},
					      {"folder", 1, 0, 'd'},  {"faults", 0, 0, 'f'},
					      {"verbose", 0, 0, 'v'}, {NULL, 0, 0, 0}};
	for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
		switch (c) {
		case 'n': option.ops = number(optarg); break;
		case 's': option.seed = number(optarg); break;
		case 't': option.trap = optarg; break;
		case 'i': option.install = optarg; break;
		case 'b': option.budget = number(optarg); break;
		case 'l': option.most = number(optarg) & ~(PAGE - 1); break;
		case 'd': option.folder = optarg; break;
		case 'f': option.faults = true; break;
		case 'v': option.verbose = true; break;
		default: exit(2);
		}
	}
	if (option.most < 16 * PAGE)
		option.most = 16 * PAGE;
}

int main(int argc, char **argv)
{
	uint64_t begun = support_now_ns(), said = begun;

	parse(argc, argv);
	begin();
	for (op = 0; op < option.ops; op++) {
		if (op % 256 == 0) {
			uint64_t now = support_now_ns();
			char words[200];
			snprintf(words, sizeof(words),
				 "seed %" PRIu64 ", operation %" PRIu64
				 " or one of 255 after it never ended",
				 option.seed, op);
			static char kept[2][200];
			memcpy(kept[op / 256 % 2], words, sizeof(words));
			hazard_watch(kept[op / 256 % 2]);
			if (now > said + 30000 * MS_NS) {
				printf("%" PRIu64 " operations, %.0f per second\n", op,
	       (double)op * 1e9 / (double)(now - begun));
				fflush(stdout);
				said = now;
			}
		}
		one();
	}
	op_sync_all();
	struct fm_stats stats = support_stats(mm);
	while (maps) {
		maps--;
		well("fm_unmap", fm_unmap(mm, map[maps].addr, map[maps].len));
	}
	well("fm_file_close", fm_file_close(file));
	if (stats.dirty_lost)
		fail("%llu dirty pages lost", (unsigned long long)stats.dirty_lost);
	support_mm_end(mm);
	compare_file(0, size);
	unlink(path);
	printf("seed %" PRIu64 ": %" PRIu64 " operations, %.0f per second\n", option.seed, op,
	       (double)op * 1e9 / (double)(support_now_ns() - begun));
	return 0;
}
