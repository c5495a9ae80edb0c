/* SPDX-License-Identifier: MIT */
/*
 * A store that does not answer, and calls that wait for the store. fm_mm_destroy() returns after
 * its patience, names the reason, and leaves alone what the store still works on.
 * fm_map(FM_MAP_PRIVATE) and fm_file_close() return -ETIMEDOUT. The patience is shorter here than
 * in a program.
 *
 * Seen to fail:
 *   test_destroy: fm_mm_destroy() waits for every request to end.
 *   test_destroy: the reason is the errno of a write that has not ended.
 *   test_destroy: writes begin after the end.
 *   test_calls: file_open_private() waits for ever.
 */
#include "write_support.h"

#define PAGES 64
#define LEN (PAGES * PAGE)
#define SEED 57
#define PATIENCE_MS 700u

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static const char *path;
static char said[4][512];
static atomic_uint lines;
static atomic_uint calls;

static void log_line(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	if (level == FM_LOG_INFO || lines >= 4)
		return;
	snprintf(said[lines], sizeof(said[0]), "%s", line);
	lines++;
}

static bool was_said(const char *words)
{
	for (unsigned i = 0; i < lines; i++)
		if (strstr(said[i], words))
			return true;
	return false;
}

static void on_write_error(void *arg, uint64_t offset, uint64_t len, int error)
{
	(void)arg, (void)offset, (void)len, (void)error;
	calls++;
}

static struct fm_store_ops deaf; /* this store cannot be told of the end */
static struct fm_store *store;

/* Runs before the file is mapped: TSan sees no order between a write here and a read behind a page
 * fault. */
static void make_deaf(void)
{
	store = file->store;
	deaf = *store->ops;
	deaf.abort = NULL;
	deaf.cancel = NULL;
	store->ops = &deaf;
	CHECK_OK(fm_file_control(file, "write-stuck=1"));
}

static void begin(bool is_deaf)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = 16 * MIB,
					.trap = test_trap(),
					.install = test_install(),
					.log = log_line};
	static const struct fm_file_options writes = {.size = sizeof(writes), .flags = FM_FILE_WRITE,
						      .on_write_error = on_write_error};

	hazard_watch("a call waits for a store that does not answer");
	CHECK_OK(fm_mm_create(&options, &mm));
	lines = 0; /* an unprivileged thread trap has logged a line */
	memset(said, 0, sizeof(said));
	path = support_file(LEN, SEED);
	file = support_open(mm, support_format("faulty:%s", path), &writes);
	if (is_deaf)
		make_deaf();
	addr = write_map(file, 0, LEN);
}

/* ---- the store never ends a write, like a frozen file system */

static void test_destroy(void)
{
	unsigned threads = support_threads();

	begin(true);
	write_open(mm, support_file(LEN, SEED)); /* this file has nothing to write and closes */
	write_pattern(mm, addr, 0, 8 * PAGE, SEED + 1);
	CHECK_OK(fm_sync(mm, addr, PAGE, FM_SYNC_ASYNC));
	EVENTUALLY(support_stats(mm).writeback_pages > 0);
	uint64_t begun = support_now_ns();
	CHECK_EQ(fm_mm_destroy(mm), -EIO);
	CHECK_GE(support_now_ns() - begun, PATIENCE_MS * MS_NS);
	CHECK_LT(support_now_ns() - begun, 10000 * MS_NS);
	if (!was_said("Connection timed out") || was_said("Success"))
		CHECK_FAIL("the log says: %s", said[0]);
	CHECK(was_said("are still being written"));
	/* The store goes on. A write that was in flight may still reach the file, but no new write
	 * begins and no error is reported. */
	unsigned said_before = lines, calls_before = calls;
	CHECK_OK(store->ops->control(store, "write-stuck", "0"));
	EVENTUALLY(support_threads() <= threads);
	CHECK_EQ(lines, said_before);
	CHECK_EQ(calls, calls_before);
	write_expect_file(path, 8 * PAGE, LEN - 8 * PAGE, SEED);
}

/* The store is told of the end and drops its requests: no thread remains, no byte is written. */
static void test_destroy_told(void)
{
	unsigned threads = support_threads();

	begin(false);
	CHECK_OK(fm_file_control(file, "write-stuck=1"));
	write_pattern(mm, addr, 0, 8 * PAGE, SEED + 1);
	CHECK_EQ(fm_mm_destroy(mm), -EIO);
	EVENTUALLY(support_threads() <= threads);
	CHECK(was_said("Connection timed out"));
	write_expect_file(path, 0, LEN, SEED);
}

/* The store refuses every write: the reason is the store's errno. */
static void test_destroy_refused(void)
{
	begin(false);
	CHECK_OK(fm_file_control(file, "write-error=ENOSPC"));
	CHECK_OK(fm_file_control(file, "write-error-every=1"));
	write_pattern(mm, addr, 0, PAGE, SEED + 1);
	CHECK_EQ(fm_mm_destroy(mm), -EIO);
	CHECK(was_said("No space left"));
	write_expect_file(path, 0, LEN, SEED);
}

/* ---- calls */

static void test_calls(void)
{
	struct fm_map_options private = {.size = sizeof(private), .flags = FM_MAP_PRIVATE};
	void *other = NULL;
	unsigned char byte;

	begin(false);
	CHECK_OK(fm_file_control(file, "write-stuck=1"));
	byte = support_byte(0, SEED + 1);
	CHECK_OK(write_to(mm, addr, &byte, 1));
	CHECK_EQ(fm_map(file, 0, LEN, &private, &other), -ETIMEDOUT);
	CHECK_EQ(fm_file_close(file), -ETIMEDOUT);
	CHECK_OK(file->store->ops->control(file->store, "write-stuck", "0")); /* file is mapped */
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	CHECK_OK(fm_unmap(mm, addr, LEN));
	EVENTUALLY(support_stats(mm).files == 0);
	CHECK_OK(fm_mm_destroy(mm));
	CHECK_EQ(lines, 0);
}

int main(void)
{
	mm_patience_ns = PATIENCE_MS * MS_NS;
	hazard_watch("a call waits for a store that does not answer");
	support_start();
	test_destroy();
	test_destroy_told();
	test_destroy_refused();
	test_calls();
	support_end();
	return 0;
}
