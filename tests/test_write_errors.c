/* SPDX-License-Identifier: MIT */
/*
 * Stores that refuse writes, or refuse to make written bytes durable. Pages stay dirty and
 * readable. Each fm_sync() under way, the next fm_sync(), the callback and the statistics report
 * the errno. Once the store works again, a later sync writes everything. A thread that writes
 * meanwhile does not hang, and other threads do not stall.
 *
 * Seen to fail:
 *   test_refused: page_write_end() ignores the error.
 *   test_told: errors are reported twice, or never.
 *   test_over_the_limit: dirty_must_wait() is blind to `failing`.
 *   test_flush: page_flush_end() forgets the error.
 *   test_others: the only limit is for all files together.
 *   test_others: the background ends its pass at a file that has its share of requests.
 *   test_end: pins are looked for on locked pages.
 *   test_truncate_refused: a truncate keeps pages that were read while the truncate failed.
 */
#include "write_support.h"

#include <limits.h>

#define SEED 71
#define PAGES 128
#define LEN (PAGES * PAGE)

static fm_mm *mm;
static fm_file *file;
static const char *path;
static unsigned char *addr;

static atomic_uint calls;
static atomic_int last_error;
static _Atomic uint64_t last_offset, last_len;

static void on_error(void *arg, uint64_t offset, uint64_t len, int error)
{
	CHECK(arg == &calls);
	calls++;
	last_error = error;
	last_offset = offset;
	last_len = len;
}

static const struct fm_file_options reporting = {.size = sizeof(reporting), .flags = FM_FILE_WRITE,
						 .on_write_error = on_error, .on_write_error_arg = &calls};

static void begin(uint64_t budget)
{
	hazard_watch("a call, or an access, never ended");
	mm = support_mm(budget);
	path = support_file(LEN, SEED);
	file = support_open(mm, support_format("faulty:%s", path), &reporting);
	addr = write_map(file, 0, LEN);
	calls = 0;
	last_error = 0;
}

static void end(void)
{
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void set(const char *setting)
{
	CHECK_OK(fm_file_control(file, setting));
}

static void test_refused(const char *name, int error)
{
	begin(16 * MIB); /* so large that the background does not write */
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	set(support_format("write-error=%s", name));
	set("write-error-every=1");
	CHECK_EQ(fm_sync(mm, addr, LEN, 0), error);
	CHECK_EQ(fm_file_sync(file, 0, 0, 0), error); /* written again and refused again */
	CHECK_EQ(last_error, error);
	CHECK_GT(calls, 0);
	CHECK_LT(last_offset, LEN);
	CHECK(last_len && last_offset + last_len <= LEN);
	struct fm_stats stats = support_stats(mm);
	CHECK_GE(stats.write_errors, 2);
	CHECK_EQ(stats.dirty_pages, PAGES);
	CHECK_EQ(stats.dirty_lost, 0);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_advise(mm, addr, LEN, FM_ADVICE_DONTNEED));
	CHECK_EQ(fm_invalidate(file, 0, 0), error);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	write_pattern(mm, addr + 50, 50, 5000, SEED + 2); /* pages already dirty */
	CHECK_EQ(fm_file_sync(file, 0, 0, 0), error);
	set("write-error-every=0");
	int err = fm_sync(mm, addr, LEN, 0); /* the background may have failed meanwhile */
	CHECK(!err || err == error);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	CHECK_EQ(support_stats(mm).dirty_pages, 0);
	write_expect_file(path, 0, 50, SEED + 1);
	write_expect_file(path, 50, 5000, SEED + 2);
	write_expect_file(path, 5050, LEN - 5050, SEED + 1);
	end();
}

/* One page of many fails: the other pages are written, and a sync of a range without the page
 * works. */
static void test_at(void)
{
	begin(4 * MIB);
	set(support_format("write-error-at=%llu", 77 * PAGE + 9));
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	EVENTUALLY(fm_sync(mm, addr, 70 * PAGE, 0) ==
		   0); /* the sync also reports a failure of the background at page 77 */
	write_expect_file(path, 0, 70 * PAGE, SEED + 1);
	CHECK_EQ(fm_sync(mm, addr, LEN, 0), -EIO);
	CHECK_GE(support_stats(mm).dirty_pages, 1);
	write_expect_file(path, 77 * PAGE, PAGE, SEED);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	set("write-error-at=none");
	(void)fm_sync(mm, addr, LEN, 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 1);
	end();
}

/* ---- which calls report an error */

struct syncer {
	pthread_t thread;
	int err;
};
static atomic_uint begun;

static void *sync_all(void *arg)
{
	struct syncer *syncer = arg;
	begun++;
	syncer->err = fm_sync(mm, addr, LEN, 0);
	return NULL;
}

static void test_told(void)
{
	struct syncer syncer[4];

	begin(4 * MIB);
	/* A failure that no call waits for is reported by the next sync, even if that sync writes
	 * every page. Later syncs do not report the failure. */
	set("write-error=ENOSPC");
	set("write-error-every=1");
	write_pattern(mm, addr, 0, PAGE, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, FM_SYNC_ASYNC));
	EVENTUALLY(calls > 0 && support_stats(mm).writeback_pages == 0);
	set("write-error-every=0");
	CHECK_EQ(fm_sync(mm, addr, LEN, 0), -ENOSPC);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, PAGE, SEED + 1);
	/* All syncs under way report the failure. */
	set("write-stuck=1");
	set("write-error=EDQUOT");
	write_pattern(mm, addr, 0, LEN, SEED + 2);
	begun = 0;
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&syncer[i].thread, NULL, sync_all, &syncer[i]), 0);
	EVENTUALLY(begun == 4 && support_stats(mm).writeback_pages > 0);
	support_sleep_ms(50); /* most threads wait now; a late sync reports as the next sync */
	set("write-error-every=1");
	set("write-stuck=0");
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(pthread_join(syncer[i].thread, NULL), 0);
		CHECK_EQ(syncer[i].err, -EDQUOT);
	}
	set("write-error-every=0");
	(void)fm_sync(mm, addr, LEN, 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 2);
	end();
}

/* A page that was written and could not be made durable is dirty again, and is written again. */
static void test_flush(void)
{
	begin(16 * MIB); /* so large that the background does not write half of the file */
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	set("flush-error-every=1");
	CHECK_EQ(fm_sync(mm, addr, LEN, 0), -EIO);
	CHECK_GE(support_stats(mm).flush_errors, 1);
	EVENTUALLY(support_stats(mm).dirty_pages ==
		   PAGES); /* a page may be under write-back for the next failing flush */
	CHECK_EQ(last_len, 0);
	CHECK_EQ(last_error, -EIO);
	CHECK_EQ(fm_file_sync(file, 0, 0, 0), -EIO);
	support_expect(mm, addr, 0, LEN, SEED + 1);
	set("flush-error-every=0");
	uint64_t writes = support_stats(mm).write_bytes;
	(void)fm_sync(mm, addr, LEN, 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	CHECK_GE(support_stats(mm).write_bytes,
		 writes + LEN); /* a store may drop bytes after a failed flush */
	CHECK_EQ(support_stats(mm).unflushed_pages, 0);
	write_expect_file(path, 0, LEN, SEED + 1);
	end();
}

/* A short write is continued. */
static void test_short(void)
{
	begin(4 * MIB);
	set("write-short-every=2");
	write_pattern(mm, addr, 0, LEN, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 1);
	end();
}

/* ---- no room */

/* More pages are written than may be dirty, and the store refuses writes. The result is an error,
 * not a hang, and the bytes written before remain. */
static void test_over_the_limit(void)
{
	begin(64 * PAGE);
	set("write-error=ENOSPC");
	set("write-error-every=1");
	unsigned page = 0;
	int err = 0;
	while (page < PAGES && !err) {
		unsigned char buf[PAGE];
		support_fill(buf, page * PAGE, PAGE, SEED + 1);
		err = write_to(mm, addr + page * PAGE, buf, PAGE);
		page += !err;
	}
	CHECK_EQ(err, -ENOSPC);
	CHECK_GE(page, 4);
	support_expect(mm, addr, 0, page * PAGE, SEED + 1);
	support_expect(mm, addr + (page + 1) * PAGE, (page + 1) * PAGE, LEN - (page + 1) * PAGE,
		       SEED); /* readers go on */
	if (test_trap() != FM_TRAP_CALL) {
		struct support_signal got = support_store(addr + page * PAGE);
		CHECK_EQ(got.signo, SIGBUS);
		CHECK_EQ(got.error, ENOSPC);
	}
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	set("write-error-every=0");
	(void)fm_sync(mm, addr, LEN, 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, page * PAGE, SEED + 1);
	write_pattern(mm, addr, 0, LEN, SEED + 2); /* there is room again */
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, LEN, SEED + 2);
	end();
}

/* The store never recovers: the file ends all the same, reports that, and counts the lost pages. */
static void test_lost(void)
{
	begin(4 * MIB);
	set("write-error-every=1");
	for (uint64_t page = 10; page-- > 0;) /* backwards: no next page becomes dirty too */
		write_pattern(mm, (char *)addr + page * PAGE, page * PAGE, PAGE, SEED + 1);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_EQ(fm_file_close(file), -EIO);
	EVENTUALLY(support_stats(mm).files == 0);
	CHECK_EQ(support_stats(mm).dirty_lost, 10);
	CHECK_EQ(support_stats(mm).dirty_pages, 0);
	support_mm_end(mm);
	write_expect_file(path, 0, LEN, SEED);
}

/* ---- a store that does not answer */

static void *map_and_read(void *arg)
{
	fm_file *other = support_open(mm, support_file(LEN, SEED + 5), NULL);
	unsigned char *at = support_map(other, 0, LEN);
	support_expect(mm, at, 0, LEN, SEED + 5);
	CHECK_OK(fm_advise(mm, at, LEN, FM_ADVICE_DONTNEED));
	CHECK_OK(fm_unmap(mm, at, LEN));
	CHECK_OK(fm_file_close(other));
	fm_file *second = write_open(mm, support_file(LEN, SEED + 6)); /* writes of its own */
	at = write_map(second, 0, LEN);
	write_pattern(mm, at, 0, 32 * PAGE, SEED + 7);
	CHECK_OK(fm_sync(mm, at, LEN, 0));
	support_expect(mm, at, 0, 32 * PAGE, SEED + 7);
	CHECK_OK(fm_unmap(mm, at, LEN));
	CHECK_OK(fm_file_close(second));
	return arg;
}

/* While a file's writes never end, its pages are read and written, and all other work goes on. */
static void test_stuck(const char *what)
{
	struct syncer syncer;
	pthread_t thread;

	begin(4 * MIB);
	set(support_format("%s=1", what));
	write_pattern(mm, addr, 0, 32 * PAGE, SEED + 1);
	begun = 0;
	CHECK_EQ(pthread_create(&syncer.thread, NULL, sync_all, &syncer), 0);
	EVENTUALLY(begun && (support_stats(mm).writeback_pages || support_stats(mm).unflushed_pages));
	/* The same pages. A page being written keeps its bytes, and a new write makes the page
	 * dirty again. A view of COPY has no second slot for the new bytes. */
	support_expect(mm, addr, 0, LEN / 4, SEED + 1);
	if (test_install() != FM_INSTALL_COPY || strcmp(what, "write-stuck") != 0)
		write_pattern(mm, addr, 0, 32 * PAGE, SEED + 2);
	support_expect(mm, addr + 40 * PAGE, 40 * PAGE, LEN - 40 * PAGE, SEED);
	write_pattern(mm, addr + 40 * PAGE, 40 * PAGE, 10 * PAGE, SEED + 2);
	CHECK_EQ(pthread_create(&thread, NULL, map_and_read, NULL), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(support_stats(mm).lock_held_over_block, 0);
	set(support_format("%s=0", what));
	CHECK_EQ(pthread_join(syncer.thread, NULL), 0);
	CHECK_OK(syncer.err);
	write_pattern(mm, addr, 0, 32 * PAGE, SEED + 2);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	write_expect_file(path, 0, 32 * PAGE, SEED + 2);
	write_expect_file(path, 40 * PAGE, 10 * PAGE, SEED + 2);
	end();
}

static void *read_in_vain(void *arg)
{
	unsigned char byte;
	CHECK_LT(support_read(mm, arg, &byte, 1), 0);
	return NULL;
}

/* The end of the mm comes although a page is pinned and the read of another page never ends. */
static void test_end(void)
{
	pthread_t thread;

	begin(4 * MIB);
	write_pattern(mm, addr, 0, PAGE, SEED + 1);
	CHECK_OK(fm_pin(mm, addr, PAGE, FM_WRITE));
	set("stuck=1");
	EVENTUALLY(!__atomic_load_n(&file->view.region.pins, __ATOMIC_SEQ_CST)); /* older faults */
	CHECK_EQ(pthread_create(&thread, NULL, read_in_vain, addr + 100 * PAGE), 0);
	/* Wait for the pin of the thread's fault: a request in flight may be older readahead. After
	 * the end of the mm the thread would find no mapping and get SIGSEGV. */
	EVENTUALLY(__atomic_load_n(&file->view.region.pins, __ATOMIC_SEQ_CST));
	hazard_watch("the mm's end waits for a read that never ends");
	CHECK_OK(fm_mm_destroy(mm));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	write_expect_file(path, 0, PAGE, SEED + 1);
}

static atomic_uint filled;

/* Make every second page dirty until there is no room, so that each page needs its own request. */
static void *fill_up(void *arg)
{
	unsigned char buf[PAGE];
	int err = 0;
	for (filled = 0; filled < PAGES && !err; filled += 2) {
		support_fill(buf, filled * PAGE, PAGE, SEED + 1);
		err = write_to(mm, addr + filled * PAGE, buf, PAGE);
	}
	CHECK(!err || err == -ENOSPC);
	return arg;
}

/* A file has as many dirty pages as it may have. Its store takes none of them, or never flushes
 * them. Far more bytes than fit are written to another file, and are written back, if need be by
 * the background alone. */
static void test_others(const char *what)
{
	pthread_t filler;
	const char *own = support_file(LEN, SEED + 5);

	begin(strcmp(what, "flush-stuck") ? MIB : 64 * PAGE); /* unflushed pages have more room */
	set("write-error=ENOSPC");
	set(support_format("%s=1", what));
	filled = 0;
	CHECK_EQ(pthread_create(&filler, NULL, fill_up, NULL), 0);
	for (unsigned before = 0; !before || before != filled; support_sleep_ms(300))
		before = filled;
	fm_file *other = write_open(mm, own);
	unsigned char *at = write_map(other, 0, LEN);
	for (unsigned i = 1; i <= 3; i++) {
		hazard_watch("a writer to another file waits for the dead store");
		write_pattern(mm, at, 0, LEN, SEED + 5 + i);
		support_expect(mm, at, 0, LEN, SEED + 5 + i);
	}
	hazard_watch("the background does not write another file's dirty pages");
	if (!strcmp(what, "write-stuck")) /* at once, since many pages are dirty */
		EVENTUALLY(!__atomic_load_n(&other->dirt->dirty, __ATOMIC_SEQ_CST) &&
			   !__atomic_load_n(&other->dirt->writing, __ATOMIC_SEQ_CST));
	CHECK_OK(fm_sync(mm, at, LEN, 0));
	write_expect_file(own, 0, LEN, SEED + 8);
	CHECK_OK(fm_unmap(mm, at, LEN));
	CHECK_OK(fm_file_close(other));
	set(support_format("%s=0", what));
	CHECK_EQ(pthread_join(filler, NULL), 0);
	(void)fm_sync(mm, addr, LEN, 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	end();
}

/* ---- the store refuses a truncate late; meanwhile the page at the refused end is read */

static atomic_bool resizes, may_refuse;

static int refuse_resize(struct fm_store *store, uint64_t size_bytes)
{
	(void)store;
	(void)size_bytes;
	resizes = true;
	while (!may_refuse)
		support_sleep_ms(1);
	return -EIO;
}

static void *truncate_in_vain(void *arg)
{
	(void)arg;
	CHECK_EQ(fm_truncate(file, 20 * PAGE + 100), -EIO);
	return NULL;
}

static void test_truncate_refused(void)
{
	static struct fm_store_ops refuses; /* the file uses the operations until it is closed */
	pthread_t thread;

	begin(MIB);
	refuses = *file->store->ops;
	refuses.resize = refuse_resize;
	file->store->ops = &refuses;
	/* The I/O thread has worked since the change: so the thread sees the new operations. */
	CHECK_OK(fm_advise(mm, addr + LEN - PAGE, PAGE, FM_ADVICE_WILLNEED));
	EVENTUALLY(support_stats(mm).requests == 0);
	resizes = may_refuse = false;
	CHECK_EQ(pthread_create(&thread, NULL, truncate_in_vain, NULL), 0);
	EVENTUALLY(resizes);
	support_expect(mm, addr, 0, 20 * PAGE + 100, SEED);
	CHECK_OK(fm_pin(mm, addr + 20 * PAGE, PAGE, 0)); /* a pinned page is not read again */
	may_refuse = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	support_expect(mm, addr, 0, LEN, SEED);
	CHECK_OK(fm_unpin(mm, addr + 20 * PAGE, PAGE));
	end();
}

/* ---- many */

/* 100 failures of each kind at random places: some sync reports each kind, and nothing is lost. */
static void test_hundred(const char *name, int error, bool flush)
{
	static unsigned char model[LEN];
	uint64_t random = 88172645463325252ull + (unsigned)-error;
	unsigned told = 0, number = 0, after = 0;

	begin(MIB);
	support_fill(model, 0, LEN, SEED);
	set(support_format("%s=%s", flush ? "flush-error" : "write-error", name));
	set(support_format("%s=3", flush ? "flush-error-every" : "write-error-every"));
	struct fm_stats stats = support_stats(mm);
	for (unsigned i = 0; (flush ? stats.flush_errors : stats.write_errors) < 100; i++) {
		CHECK_LT(i, 20000);
		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		uint64_t at = random % (LEN - 300);
		number++;
		memset(model + at, (int)number, 300);
		int err = write_to(mm, addr + at, model + at, 300);
		if (err) { /* no room */
			CHECK_EQ(err, error);
			support_sleep_ms(1);
			CHECK_OK(support_read(mm, addr + at, model + at, 300)); /* partly written */
		}
		if (i % 4 == 3) {
			err = fm_sync(mm, addr + at / PAGE * PAGE, PAGE, 0);
			CHECK(!err || err == error);
			told += err != 0;
		}
		stats = support_stats(mm);
	}
	CHECK_GT(told, 0);
	EVENTUALLY(calls >= 100); /* a failure is counted before the callback runs */
	set(support_format("%s=0", flush ? "flush-error-every" : "write-error-every"));
	while (fm_sync(mm, addr, LEN, 0))
		CHECK_LT(after++, 3);
	unsigned char *got = malloc(LEN);
	CHECK(got);
	CHECK_OK(support_read(mm, addr, got, LEN));
	CHECK_EQ(memcmp(got, model, LEN), 0);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(pread(fd, got, LEN, 0), (ssize_t)LEN);
	close(fd);
	CHECK_EQ(memcmp(got, model, LEN), 0);
	free(got);
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	end();
}

static void test(void)
{
	test_refused("EIO", -EIO);
	test_refused("ENOSPC", -ENOSPC);
	test_refused("EDQUOT", -EDQUOT);
	test_refused("EROFS", -EROFS);
	test_at();
	test_told();
	test_flush();
	test_short();
	test_over_the_limit();
	test_stuck("write-stuck");
	test_stuck("flush-stuck");
	test_end();
	test_others("write-stuck");
	test_others("flush-stuck");
	test_others("write-error-every");
	test_truncate_refused();
	test_hundred("EIO", -EIO, false);
	test_hundred("ENOSPC", -ENOSPC, false);
	test_hundred("EDQUOT", -EDQUOT, false);
	test_hundred("EIO", -EIO, true);
	test_lost();
}

int main(void)
{
	hazard_watch("a call, or an access, never ended");
	support_start();
	test();
	support_end();
	return 0;
}
