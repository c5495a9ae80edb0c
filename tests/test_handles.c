/* SPDX-License-Identifier: MIT */
/*
 * A process has several handles of one file: by the same name, by another name, by a URI; for
 * reading and for writing, in each order; at the same time and one after the other. Each handle
 * sees at once what another handle writes, and no write is lost. If the handles cannot share one
 * cache, the second open fails with an error, and the log names the first handle.
 *
 * Seen to fail: before commit 397b36e (both syncs return 0 and one write is lost; ESTALE for the
 * reader); without page_begin_again() (a write is lost); with object_leave() before
 * writeback_close() (test_reopened_while_closing).
 */
#include "write_support.h"

#define SEED 11
#define PAGES 64
#define LEN (PAGES * PAGE)

static fm_mm *mm;
static char logged[512];

static void note_line(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	snprintf(logged, sizeof(logged), "%s", line);
}

static fm_mm *mm_make(void)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = 4 * MIB,
					.trap = test_trap(),
					.install = test_install(),
					.log = note_line};
	fm_mm *made;

	CHECK_OK(fm_mm_create(&options, &made));
	return made;
}

/* One byte that is accessed atomically: some bytes are read while another thread writes them. */
struct one_byte {
	unsigned char *at, byte;
};

static void store_body(void *arg)
{
	struct one_byte *one = arg;
	__atomic_store_n(one->at, one->byte, __ATOMIC_RELAXED);
}

static void load_body(void *arg)
{
	struct one_byte *one = arg;
	one->byte = __atomic_load_n(one->at, __ATOMIC_RELAXED);
}

static void write_byte(void *addr, unsigned char byte)
{
	struct one_byte one = {addr, byte};
	CHECK_OK(test_trap() == FM_TRAP_CALL ? write_to(mm, addr, &byte, 1)
					     : fm_guard(store_body, &one, NULL));
}

static int byte_at(const void *addr)
{
	struct one_byte one = {(unsigned char *)(uintptr_t)addr, 0};
	int err = test_trap() == FM_TRAP_CALL ? support_read(mm, addr, &one.byte, 1)
					      : fm_guard(load_body, &one, NULL);
	return err ? err : one.byte;
}

static int file_byte(const char *path, uint64_t offset)
{
	unsigned char byte = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
	close(fd);
	return byte;
}

static int open_as(fm_mm *in, const char *uri, uint32_t flags, fm_file **ret_file)
{
	struct fm_file_options options = {.size = sizeof(options), .flags = flags};
	return fm_file_open(in, uri, &options, ret_file);
}

/* Two handles for writing each write one byte of the same page. The bytes are neighbours. */
static void two_writers(const char *first, const char *second)
{
	fm_file *a = write_open(mm, first), *b = write_open(mm, second);
	unsigned char *m = write_map(a, 0, LEN), *n = write_map(b, 0, LEN);

	CHECK(a != b);
	CHECK_EQ(support_stats(mm).files, 1);
	CHECK_EQ(byte_at(m), byte_at(n));
	write_byte(m, '1');
	write_byte(n + 1, '2');
	CHECK_EQ(byte_at(n), '1');
	CHECK_EQ(byte_at(m + 1), '2');
	CHECK_OK(fm_file_sync(a, 0, 0, 0));
	CHECK_OK(fm_file_sync(b, 0, 0, 0));
	CHECK_EQ(file_byte(first, 0), '1');
	CHECK_EQ(file_byte(first, 1), '2');
	/* One handle ends, and the other handle goes on. */
	CHECK_OK(fm_unmap(mm, m, LEN));
	CHECK_OK(fm_file_close(a));
	write_byte(n + 5 * PAGE, '3');
	CHECK_OK(fm_file_close(b));
	CHECK_EQ(file_byte(first, 5 * PAGE), '3');
	write_byte(n + 6 * PAGE, '4');
	CHECK_OK(fm_unmap(mm, n, LEN));
	write_files_gone(mm);
	CHECK_EQ(file_byte(first, 6 * PAGE), '4');
}

static void test_names(void)
{
	const char *path = support_file(LEN, SEED), *link_path = support_format("%s.link", path);
	char hard[300], soft[300], by_uri[300];

	snprintf(soft, sizeof(soft), "%s", link_path);
	snprintf(hard, sizeof(hard), "%s.hard", path);
	snprintf(by_uri, sizeof(by_uri), "file:%s?direct=0", path);
	CHECK(!symlink(path, soft) && !link(path, hard));
	two_writers(path, path);
	two_writers(path, soft);
	two_writers(hard, path);
	two_writers(path, by_uri);
	CHECK(!unlink(soft) && !unlink(hard));
}

/* A handle for reading stands beside a handle for writing. Either handle may be opened first. */
static void reader_and_writer(bool reader_first)
{
	const char *path = support_file(LEN, SEED);
	fm_file *reader = NULL, *writer = NULL;
	unsigned char *r = NULL, *w = NULL;

	for (int i = 0; i < 2; i++) {
		if (reader_first == (i == 0)) {
			reader = support_open(mm, path, NULL);
			r = support_map(reader, 0, LEN);
			support_expect(mm, r, 0, LEN / 2, SEED);
		} else {
			writer = write_open(mm, path);
			w = write_map(writer, 0, LEN);
		}
	}
	CHECK_EQ(support_stats(mm).files, 1);
	write_byte(w, 'N');
	write_byte(w + 40 * PAGE, 'N');
	CHECK_EQ(byte_at(r), 'N');
	CHECK_OK(fm_sync(mm, w, LEN, 0));
	CHECK_EQ(byte_at(r), 'N');
	CHECK_EQ(byte_at(r + 40 * PAGE), 'N');
	CHECK_EQ(byte_at(r + 50 * PAGE), support_byte(50 * PAGE, SEED));
	/* The handle for reading may not do what the handle for writing may do. */
	struct fm_map_options options = {.size = sizeof(options), .flags = FM_MAP_WRITE};
	void *addr;
	CHECK_EQ(fm_map(reader, 0, LEN, &options, &addr), -EACCES);
	CHECK_EQ(fm_truncate(reader, 0), -EACCES);
	CHECK_EQ(fm_punch(reader, 0, PAGE), -EACCES);
	CHECK_EQ(fm_reserve(reader, 0, PAGE), -EACCES);
	/* Both handles have one size. */
	uint64_t size = 0;
	CHECK_OK(fm_truncate(writer, LEN + 10));
	CHECK_OK(fm_file_size(reader, &size));
	CHECK_EQ(size, LEN + 10);
	CHECK_OK(fm_file_close(writer));
	CHECK_EQ(fm_map(reader, 0, LEN, &options, &addr), -EACCES);
	write_byte(w + 3, 'M'); /* the closed writer's mapping lives on */
	CHECK_EQ(byte_at(r + 3), 'M');
	CHECK_OK(fm_unmap(mm, w, LEN)); /* w and r are the same address, mapped twice */
	CHECK_EQ(byte_at(r + 3), 'M');
	CHECK_OK(fm_unmap(mm, r, LEN));
	CHECK_OK(fm_file_close(reader));
	write_files_gone(mm);
	CHECK_EQ(file_byte(path, 3), 'M');
	CHECK_EQ(file_byte(path, 40 * PAGE), 'N');
}

/* Handles for reading share a cache if page_size, `changed` and the deadline are the same. A new
 * open of a changed file reads the file again. */
static void test_readers(void)
{
	const char *path = support_file(LEN, SEED);
	struct fm_file_options large = {.size = sizeof(large), .page_size = 64 * KIB};
	struct fm_file_options single = {.size = sizeof(single), .readahead_bytes = UINT32_MAX};
	fm_file *a = support_open(mm, path, &single), *b = support_open(mm, path, NULL),
		*c = support_open(mm, path, &large), *d;
	unsigned char *m = support_map(a, 0, LEN), *n;
	int fd;

	CHECK_EQ(support_stats(mm).files, 2);
	CHECK_EQ(open_as(mm, path, FM_FILE_WRITE, &d), -EBUSY); /* two caches cannot become one */
	CHECK_OK(fm_file_close(c));
	c = support_open(mm, support_format("file:%s?record=%s", path, support_path()),
			 NULL); /* a recording needs a cache of its own */
	CHECK(c->cache != a->cache && b->cache == a->cache);
	CHECK_OK(fm_file_close(c));
	support_expect(mm, m, 0, PAGE, SEED);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0 && !ftruncate(fd, 2 * PAGE) && pwrite(fd, "new", 3, PAGE) == 3);
	close(fd);
	d = support_open(mm, path, NULL);
	n = support_map(d, 0, 2 * PAGE);
	CHECK_EQ(byte_at(n + PAGE), 'n');
	CHECK_EQ(byte_at(m + PAGE), -ESTALE);
	CHECK_OK(fm_unmap(mm, n, 2 * PAGE));
	CHECK_OK(fm_file_close(d));
	EVENTUALLY(support_stats(mm).files == 1);
	/* A writer takes over a cache whose file was found changed. */
	d = write_open(mm, path);
	CHECK_EQ(byte_at(m + PAGE), 'n');
	CHECK_OK(fm_file_close(d));
	CHECK_OK(fm_unmap(mm, m, LEN));
	CHECK_OK(fm_file_close(a));
	CHECK_OK(fm_file_close(b));
	write_files_gone(mm);
}

static void refused(fm_mm *in, const char *uri, uint32_t flags, const char *first)
{
	fm_file *file;

	logged[0] = 0;
	CHECK_EQ(open_as(in, uri, flags, &file), -EBUSY);
	if (!strstr(logged, first))
		CHECK_FAIL("'%s' does not name '%s'", logged, first);
}

/* Handles of two mms, or with other filters, have caches of their own. Such handles can be open
 * together only while no handle writes. */
static void test_refused(void)
{
	const char *path = support_file(LEN, SEED);
	fm_mm *other = mm_make();
	fm_file *a = write_open(mm, path), *b, *c;
	char faulty[300];

	snprintf(faulty, sizeof(faulty), "faulty:%s?delay=0", path);
	refused(other, path, 0, path);
	refused(other, path, FM_FILE_WRITE, path);
	refused(mm, faulty, 0, path);
	CHECK_OK(fm_file_close(a));
	a = support_open(mm, path, NULL);
	CHECK_OK(open_as(other, path, 0, &b));
	CHECK_OK(open_as(other, faulty, 0, &c));
	refused(mm, path, FM_FILE_WRITE, path);
	refused(other, path, FM_FILE_WRITE, path);
	CHECK_OK(fm_file_close(a));
	CHECK_OK(fm_file_close(b));
	refused(other, path, FM_FILE_WRITE, "faulty:");
	CHECK_OK(fm_file_close(c));
	CHECK_OK(open_as(other, path, FM_FILE_WRITE, &b));
	CHECK_OK(open_as(other, support_format("memory:%u", 4096u), FM_FILE_WRITE,
			 &c)); /* a memory store has no identity */
	CHECK_OK(open_as(mm, support_format("memory:%u", 4096u), FM_FILE_WRITE, &a));
	CHECK_OK(fm_file_close(a));
	CHECK_OK(fm_mm_destroy(other)); /* ends b and c, too */
	a = write_open(mm, path);
	/* A new file of the same name is another file. */
	CHECK(!unlink(path));
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && !ftruncate(fd, PAGE));
	close(fd);
	b = write_open(mm, path);
	EVENTUALLY(support_stats(mm).files == 2); /* the earlier files have ended */
	CHECK_OK(fm_file_close(a));
	CHECK_OK(fm_file_close(b));
	write_files_gone(mm);
}

/* fm_pin() of a reader: the pinned pages may not go, so that no writer can open the file. */
static void test_pinned(void)
{
	const char *path = support_file(LEN, SEED);
	fm_file *reader = support_open(mm, path, NULL), *writer;
	unsigned char *r = support_map(reader, 0, LEN);

	CHECK_OK(fm_pin(mm, r, PAGE, 0));
	refused(mm, path, FM_FILE_WRITE, "fm_pin()");
	CHECK_OK(fm_unpin(mm, r, PAGE));
	writer = write_open(mm, path);
	CHECK_OK(fm_file_close(writer));
	CHECK_OK(fm_unmap(mm, r, LEN));
	CHECK_OK(fm_file_close(reader));
	write_files_gone(mm);
}

/* The file is closed and unmapped, and its pages are being written. A new open reads what was
 * written last. */
static void test_reopened_while_closing(void)
{
	const char *path = support_file(LEN, SEED);

	for (unsigned round = 1; round <= 10; round++) {
		fm_file *file = write_open(mm, path);
		unsigned char *addr = write_map(file, 0, LEN);
		CHECK_OK(fm_file_close(file));
		write_pattern(mm, addr, 0, LEN, SEED + round);
		CHECK_OK(fm_unmap(mm, addr, LEN));
		file = support_open(mm, path, NULL);
		addr = support_map(file, 0, LEN);
		support_expect(mm, addr, 0, LEN, SEED + round);
		CHECK_OK(fm_unmap(mm, addr, LEN));
		CHECK_OK(fm_file_close(file));
	}
	write_files_gone(mm);
}

/* ---- a writer comes while threads read */

static atomic_bool stop;

struct reader {
	pthread_t thread;
	const unsigned char *addr;
};

static void *reading_main(void *arg)
{
	struct reader *reading = arg;
	int least[PAGES] = {0};

	for (unsigned at = 0; !stop; at = (at + 7) % PAGES) {
		int value = byte_at(reading->addr + at * PAGE);
		if (value < least[at])
			CHECK_FAIL("page %u: %d after %d", at, value, least[at]);
		least[at] = value;
		CHECK_EQ(byte_at(reading->addr + at * PAGE + 100), 200);
	}
	return NULL;
}

static const char *numbered_file(void)
{
	const char *path = support_file(LEN, SEED);
	unsigned char page[PAGE] = {0};
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	page[100] = 200;
	CHECK(fd >= 0);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(pwrite(fd, page, PAGE, (off_t)(i * PAGE)), (ssize_t)PAGE);
	close(fd);
	return path;
}

/* Each page counts upwards. Readers never see a page go back, nor other bytes. In the end all
 * pages are in the file. */
static void upgrade_beside_faults(void)
{
	const char *path = numbered_file();
	fm_file *reader = support_open(mm, path, NULL), *writer;
	struct reader reading[3] = {0};
	unsigned char *w;

	stop = false;
	for (unsigned i = 0; i < 3; i++) {
		reading[i].addr = support_map(reader, 0, LEN);
		CHECK_EQ(pthread_create(&reading[i].thread, NULL, reading_main, &reading[i]), 0);
	}
	support_sleep_ms(2);
	writer = write_open(mm, path);
	w = write_map(writer, 0, LEN);
	for (unsigned value = 1; value <= 10; value++)
		for (unsigned i = 0; i < PAGES; i++) {
			write_byte(w + i * PAGE, (unsigned char)value);
			if (value % 5 == 0 && i == PAGES / 2)
				CHECK_OK(fm_sync(mm, w, LEN, 0));
		}
	CHECK_OK(fm_sync(mm, w, LEN, 0));
	stop = true;
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(pthread_join(reading[i].thread, NULL), 0);
		CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)reading[i].addr, LEN));
	}
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(file_byte(path, i * PAGE), 10);
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	CHECK_OK(fm_unmap(mm, w, LEN));
	CHECK_OK(fm_file_close(writer));
	CHECK_OK(fm_file_close(reader));
	write_files_gone(mm);
}

/* ---- threads that open and close at once */

static const char *shared_path;

/* Open the shared file for writing. In the call trap each read of another thread pins a page for a
 * moment, and fm_file_open() refuses to make a file writable while a page is pinned. */
static fm_file *open_beside_pins(void)
{
	fm_file *file = NULL;
	int err;

	do
		err = fm_file_open(mm, shared_path, &write_options, &file);
	while (err == -EBUSY && test_trap() == FM_TRAP_CALL);
	CHECK_OK(err);
	return file;
}

/* Each thread has a page of its own, so that what a thread finds mapped depends on no other
 * thread. */
static void *opening_main(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t at = 16 * PAGE * me;

	for (unsigned round = 1; round <= 15; round++) {
		fm_file *file = open_beside_pins();
		unsigned char *addr = write_map(file, at, PAGE);
		write_byte(addr + me, (unsigned char)round);
		CHECK_EQ(byte_at(addr + me), round);
		CHECK_OK(fm_unmap(mm, addr, PAGE));
		CHECK_OK(fm_file_close(file));
		fm_file *reader = support_open(mm, shared_path, NULL);
		addr = support_map(reader, at, PAGE);
		CHECK_EQ(byte_at(addr + me), round);
		CHECK_OK(fm_unmap(mm, addr, PAGE));
		CHECK_OK(fm_file_close(reader));
	}
	return NULL;
}

static void test_all_at_once(void)
{
	pthread_t thread[4];

	shared_path = support_file(LEN, SEED);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, opening_main, (void *)i), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	write_files_gone(mm);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(file_byte(shared_path, 16 * PAGE * i + i), 15);
}

/* ---- what handles do not share */

static unsigned told[2];

static void note_error(void *arg, uint64_t offset, uint64_t len, int error)
{
	(void)offset;
	(void)len;
	(void)error;
	__atomic_add_fetch((unsigned *)arg, 1, __ATOMIC_SEQ_CST);
}

/* A failed write is reported to each handle, by the handle's callback and by its fm_file_sync().
 * A closed handle gets no report. */
static void test_errors(void)
{
	const char *uri = support_format("faulty:%s?write-error=EIO", support_file(LEN, SEED));
	struct fm_file_options options = {
		.size = sizeof(options), .flags = FM_FILE_WRITE, .on_write_error = note_error};
	fm_file *file[3];
	char kept[300];
	unsigned gone = 0;

	snprintf(kept, sizeof(kept), "%s", uri);
	for (unsigned i = 0; i < 3; i++) {
		options.on_write_error_arg = i < 2 ? &told[i] : &gone;
		file[i] = support_open(mm, kept, &options);
	}
	told[0] = told[1] = 0;
	CHECK_OK(fm_file_close(file[2]));
	unsigned char *addr = write_map(file[0], 0, LEN);
	CHECK_OK(fm_file_control(file[1], "write-error-every=1"));
	write_byte(addr, 'x');
	CHECK_NE(fm_file_sync(file[0], 0, 0, 0), 0);
	CHECK_OK(fm_file_control(file[0], "write-error-every=0"));
	CHECK_NE(fm_file_sync(file[1], 0, 0, 0), 0);
	CHECK_OK(fm_file_sync(file[0], 0, 0, 0));
	CHECK_OK(fm_file_sync(file[1], 0, 0, 0));
	CHECK_GE(told[0], 1);
	CHECK_EQ(told[0], told[1]);
	CHECK_EQ(gone, 0);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file[0]));
	CHECK_OK(fm_file_close(file[1]));
	write_files_gone(mm);
}

/* ---- other processes */

struct other {
	const char *path;
	uint32_t flags;
	int want;
};

/* Open the file in a new mm of a new process. */
static int open_elsewhere(void *arg)
{
	const struct other *other = arg;
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 4 * MIB};
	fm_file *file;
	fm_mm *own;

	if (fm_mm_create(&options, &own))
		return 2;
	int err = open_as(own, other->path, other->flags, &file);
	if (err != other->want)
		fprintf(stderr, "flags %#x: %d, not %d\n", other->flags, err, other->want);
	(void)fm_mm_destroy(own);
	return err != other->want;
}

static void elsewhere(const char *path, uint32_t flags, int want)
{
	struct other other = {path, flags, want};
	CHECK_EQ(support_child(open_elsewhere, &other), 0);
}

/* The lock: readers can stand beside readers, and nothing can stand beside a writer. A process
 * that does not ask for the lock is not held up. */
static void test_lock(void)
{
	const char *path = support_file(LEN, SEED);
	fm_file *reader, *writer;

	CHECK_OK(open_as(mm, path, FM_FILE_LOCK, &reader));
	elsewhere(path, FM_FILE_LOCK, 0);
	elsewhere(path, FM_FILE_LOCK | FM_FILE_WRITE, -EWOULDBLOCK);
	elsewhere(path, FM_FILE_WRITE, 0);
	CHECK_OK(open_as(mm, path, FM_FILE_LOCK | FM_FILE_WRITE, &writer)); /* from shared to exclusive */
	elsewhere(path, FM_FILE_LOCK, -EWOULDBLOCK);
	elsewhere(path, FM_FILE_LOCK | FM_FILE_WRITE, -EWOULDBLOCK);
	CHECK_OK(fm_file_close(writer));
	elsewhere(path, FM_FILE_LOCK, -EWOULDBLOCK); /* the cache is still open for writing */
	CHECK_OK(fm_file_close(reader));
	write_files_gone(mm);
	EVENTUALLY(mm->file_count == 0);
	elsewhere(path, FM_FILE_LOCK | FM_FILE_WRITE, 0);
	CHECK_EQ(open_as(mm, "memory:4096", FM_FILE_LOCK, &reader), -EOPNOTSUPP);
}

/* Give each part of the test the whole time. */
static void watch(void)
{
	hazard_watch("a call, or an access, never ended");
}

static void test_all(void)
{
	mm = mm_make();
	watch();
	test_names();
	watch();
	reader_and_writer(false);
	watch();
	reader_and_writer(true);
	watch();
	test_readers();
	watch();
	test_refused();
	watch();
	test_pinned();
	watch();
	test_reopened_while_closing();
	for (int i = 0; i < 3 && test_trap() != FM_TRAP_CALL;
	     i++) /* under the call trap, the readers pin pages all the time */
		watch(), upgrade_beside_faults();
	watch();
	test_all_at_once();
	watch();
	test_errors();
	if (!SUPPORT_TSAN) /* TSan refuses threads in a child */
		test_lock();
	support_mm_end(mm);
}

int main(void)
{
	watch();
	return support_run(test_all);
}
