/* SPDX-License-Identifier: MIT */
/*
 * Errors of a store, and changes of a file. Each waiter of a failed attempt gets the attempt's
 * errno, once. The next access tries again. A file that changed under its snapshot gives ESTALE
 * or its new bytes, never a mixture.
 *
 * Seen to fail: with a failed page that stays failed (test_each_attempt); without the check for a
 * change after a read (test_changed); with the errno not carried over the retry (test_waiters).
 */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define SEED 11

static const struct fm_file_options alone = {.size = sizeof(alone), .readahead_bytes = UINT32_MAX};
static fm_mm *mm;

static int touch(const unsigned char *addr)
{
	unsigned char byte;
	return support_read(mm, addr, &byte, 1);
}

static fm_file *open_faulty(uint64_t size, const struct fm_file_options *options)
{
	return support_open(mm, support_format("faulty:%s", support_file(size, SEED)), options);
}

static void end(fm_file *file, void *addr, size_t len)
{
	CHECK_OK(fm_unmap(mm, addr, len));
	CHECK_OK(fm_file_close(file));
}

/* One access gives one error. The retry neither swallows nor repeats the error. */
static void test_each_attempt(void)
{
	fm_file *file = open_faulty(64 * PAGE, &alone);
	unsigned char *addr = support_map(file, 0, 64 * PAGE);
	struct fm_stats before, after;

	CHECK_OK(fm_file_control(file, "error-every=1"));
	for (int i = 0; i < 5; i++) {
		before = support_stats(mm);
		CHECK_EQ(touch(addr + 3 * PAGE), -EIO);
		after = support_stats(mm);
		CHECK_GE(after.reads - before.reads, 1);
		CHECK_LE(after.reads - before.reads, 2);
		CHECK_GE(after.read_errors, before.read_errors + 1);
		CHECK_EQ(after.faults, before.faults + 1);
		CHECK_EQ(after.faults_sigbus, before.faults_sigbus + 1);
	}
	CHECK_OK(fm_file_control(file, "error=ENOLINK"));
	CHECK_EQ(touch(addr + 3 * PAGE), -ENOLINK);
	/* An errno that has a meaning of its own inside the library is reported as EIO. */
	CHECK_OK(fm_file_control(file, "error=EAGAIN"));
	CHECK_EQ(touch(addr + 3 * PAGE), -EIO);
	CHECK_OK(fm_file_control(file, "error=EFAULT"));
	CHECK_EQ(touch(addr + 4 * PAGE), -EIO);
	CHECK_OK(fm_file_control(file, "error-every=0"));
	support_expect(mm, addr, 0, 64 * PAGE, SEED);
	end(file, addr, 64 * PAGE);
}

/* With readahead, a bad page spoils no other page. If every third read fails, trying again
 * helps. */
static void test_at_and_every(void)
{
	fm_file *file = open_faulty(256 * PAGE, NULL);
	unsigned char *addr = support_map(file, 0, 256 * PAGE);

	CHECK_OK(fm_file_control(file, support_format("error-at=%llu", 100 * PAGE + 17)));
	for (unsigned page = 0; page < 256; page++) {
		int err = touch(addr + page * PAGE);
		CHECK_EQ(err, page == 100 ? -EIO : 0);
	}
	CHECK_OK(fm_file_control(file, "error-at=none"));
	support_expect(mm, addr, 0, 256 * PAGE, SEED);
	CHECK_OK(fm_advise(mm, addr, 256 * PAGE, FM_ADVICE_DONTNEED));
	CHECK_OK(fm_file_control(file, "error-every=3"));
	unsigned errors = 0;
	for (unsigned page = 0; page < 256; page++) {
		int err, tries = 0;
		while ((err = touch(addr + page * PAGE)) && tries++ < 10) {
			CHECK_EQ(err, -EIO);
			errors++;
		}
		CHECK_EQ(err, 0);
		support_expect(mm, addr + page * PAGE, page * PAGE, PAGE, SEED);
	}
	CHECK_LE(errors, 256);
	end(file, addr, 256 * PAGE);
}

/* A short read is continued, and every byte is the right byte. */
static void test_short(void)
{
	fm_file *file = open_faulty(64 * PAGE + 33, NULL);
	unsigned char *addr = support_map(file, 0, 65 * PAGE);

	CHECK_OK(fm_file_control(file, "short-every=1"));
	support_expect(mm, addr, 0, 64 * PAGE + 33, SEED);
	CHECK_GT(support_stats(mm).read_short, 0);
	end(file, addr, 65 * PAGE);
}

/* ---- all waiters of one attempt */

#define WAITERS 12
static unsigned char *wanted;
static atomic_uint ready, with_error;
static int expected;

static void *waiter(void *arg)
{
	(void)arg;
	ready++;
	int err = touch(wanted);
	if (err) {
		CHECK_EQ(err, expected);
		with_error++;
	}
	return NULL;
}

static void start_waiters(fm_file *file, pthread_t *thread)
{
	expected = -EIO;
	ready = with_error = 0;
	CHECK_OK(fm_file_control(file, "stuck=1"));
	for (int i = 0; i < WAITERS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, waiter, NULL), 0);
	EVENTUALLY(ready == WAITERS);
	support_sleep_ms(20); /* most threads wait by now */
	CHECK_OK(fm_file_control(file, "stuck=0"));
	for (int i = 0; i < WAITERS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
}

static void test_waiters(void)
{
	fm_file *file = open_faulty(64 * PAGE, &alone);
	unsigned char *addr = support_map(file, 0, 64 * PAGE);
	pthread_t thread[WAITERS];

	/* One read fails, and the next read would succeed. A thread that waited for the failed
	 * read gets that read's errno nevertheless. */
	with_error = 0;
	for (unsigned round = 0; with_error < 2; round++) {
		CHECK_LT(round, 30);
		end(file, addr, 64 * PAGE);
		file = open_faulty(64 * PAGE, &alone);
		addr = support_map(file, 0, 64 * PAGE);
		for (unsigned page = 0; page < 30; page++)
			CHECK_EQ(touch(addr + page * PAGE), 0);
		CHECK_OK(fm_file_control(file, "error-every=31")); /* the next read fails */
		wanted = addr + 40 * PAGE;
		start_waiters(file, thread);
		CHECK_GE(with_error, 1);
	}
	CHECK_OK(fm_file_control(file, "error-every=1"));
	wanted = addr + 50 * PAGE;
	start_waiters(file, thread);
	CHECK_EQ(with_error, WAITERS);
	/* The error is reported once: the next access begins a new attempt. */
	CHECK_OK(fm_file_control(file, "error-every=0"));
	CHECK_EQ(touch(wanted), 0);
	support_expect(mm, addr, 0, 64 * PAGE, SEED);
	end(file, addr, 64 * PAGE);
}

/* ---- a file that changes */

static void rewrite(const char *path, uint64_t size, unsigned seed)
{
	unsigned char buf[PAGE];
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		support_fill(buf, at, sizeof(buf), seed);
		CHECK_EQ(pwrite(fd, buf, sizeof(buf), (off_t)at), (ssize_t)sizeof(buf));
	}
	close(fd);
}

static void test_changed(void)
{
	const char *path = support_file(32 * PAGE, SEED);
	fm_file *file = support_open(mm, path, &alone);
	unsigned char *addr = support_map(file, 0, 32 * PAGE);

	for (unsigned page = 0; page < 8; page++)
		CHECK_EQ(touch(addr + page * PAGE), 0);
	support_sleep_ms(20); /* longer than the grain of the file system's clock */
	rewrite(path, 32 * PAGE, SEED + 1);
	for (unsigned page = 8; page < 32; page++)
		CHECK_EQ(touch(addr + page * PAGE), -ESTALE);
	support_expect(mm, addr, 0, 8 * PAGE, SEED); /* read before the change */
	CHECK_EQ(support_stats(mm).files_changed, 1);
	end(file, addr, 32 * PAGE);
	/* The file, opened again, has the new bytes. */
	file = support_open(mm, path, &alone);
	addr = support_map(file, 0, 32 * PAGE);
	support_expect(mm, addr, 0, 32 * PAGE, SEED + 1);
	end(file, addr, 32 * PAGE);
}

static void test_refresh(void)
{
	const char *path = support_file(32 * PAGE, SEED);
	struct fm_file_options options = alone;
	options.changed = FM_CHANGED_REFRESH;
	fm_file *file = support_open(mm, path, &options);
	unsigned char *addr = support_map(file, 0, 40 * PAGE);

	support_expect(mm, addr, 0, 8 * PAGE, SEED);
	support_sleep_ms(20);
	rewrite(path, 32 * PAGE, SEED + 1);
	/* The first read finds the change. From then on all bytes are new. */
	CHECK_EQ(touch(addr + 9 * PAGE), 0);
	support_expect(mm, addr, 0, 32 * PAGE, SEED + 1);
	/* The file becomes shorter, then longer. */
	support_sleep_ms(20);
	CHECK_EQ(truncate(path, 10 * PAGE + 100), 0);
	CHECK_OK(fm_advise(mm, addr, 40 * PAGE, FM_ADVICE_DONTNEED));
	CHECK_EQ(touch(addr), 0);
	support_expect(mm, addr, 0, 10 * PAGE + 100, SEED + 1);
	CHECK_EQ(touch(addr + 11 * PAGE), -ENXIO);
	support_sleep_ms(20);
	rewrite(path, 36 * PAGE, SEED + 2);
	CHECK_OK(fm_advise(mm, addr, 40 * PAGE, FM_ADVICE_DONTNEED));
	CHECK_EQ(touch(addr), 0);
	support_expect(mm, addr, 0, 36 * PAGE, SEED + 2);
	end(file, addr, 40 * PAGE);
}

/* The file is truncated under its snapshot. Lost bytes give ESTALE, not zeros. */
static void test_truncated(void)
{
	const char *path = support_file(32 * PAGE, SEED);
	fm_file *file = support_open(mm, path, &alone);
	unsigned char *addr = support_map(file, 0, 32 * PAGE);

	CHECK_EQ(touch(addr), 0);
	support_sleep_ms(20);
	CHECK_EQ(truncate(path, 5 * PAGE), 0);
	CHECK_EQ(touch(addr + 20 * PAGE), -ESTALE);
	CHECK_EQ(touch(addr + 2 * PAGE), -ESTALE);
	support_expect(mm, addr, 0, PAGE, SEED);
	end(file, addr, 32 * PAGE);
}

/* Readers run while a writer rewrites the file again and again. Each page shows exactly one
 * version. */
static atomic_bool stop;
static const char *rewritten;
static bool rewritten_gently;

static void *writer(void *arg)
{
	unsigned version = 0;
	unsigned char buf[PAGE];
	int fd = open(rewritten, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	while (!stop) {
		version = version % 250 + 1;
		memset(buf, (int)version, sizeof(buf));
		for (unsigned page = 0; page < 16 && !stop; page++)
			CHECK_EQ(pwrite(fd, buf, sizeof(buf), page * (off_t)PAGE), (ssize_t)PAGE);
		/* Without a pause the file would never have a version that a refresh could read. */
		if (rewritten_gently)
			support_sleep_ms(5);
	}
	close(fd);
	return arg;
}

static void test_mixed(uint32_t policy)
{
	struct fm_file_options options = alone;
	const char *path = support_file(16 * PAGE, SEED);
	unsigned char page[PAGE];
	pthread_t thread;
	unsigned stale = 0;

	rewritten = path;
	rewritten_gently = policy == FM_CHANGED_REFRESH;
	stop = false;
	CHECK_EQ(pthread_create(&thread, NULL, writer, NULL), 0);
	support_sleep_ms(5);
	options.changed = policy;
	/* Run at least until a reader has met a change. */
	for (int round = 0; round < 20 || (policy == FM_CHANGED_ERROR && !stale); round++) {
		CHECK_LT(round, 5000);
		fm_file *file = support_open(mm, path, &options);
		unsigned char *addr = support_map(file, 0, 16 * PAGE);
		for (unsigned i = 0; i < 16; i++) {
			int err = support_read(mm, addr + i * PAGE, page, PAGE);
			CHECK(!err || (err == -ESTALE && policy == FM_CHANGED_ERROR));
			stale += err == -ESTALE;
			if (!err && page[0] != support_byte(i * PAGE, SEED))
				for (unsigned at = 1; at < PAGE; at++)
					CHECK_EQ(page[at], page[0]);
		}
		end(file, addr, 16 * PAGE);
	}
	stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void test(void)
{
	mm = support_mm(4 * MIB);
	test_each_attempt();
	test_at_and_every();
	test_short();
	test_waiters();
	test_changed();
	test_refresh();
	test_truncated();
	test_mixed(FM_CHANGED_ERROR);
	test_mixed(FM_CHANGED_REFRESH);
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
