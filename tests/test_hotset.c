/* SPDX-License-Identifier: MIT */
/*
 * record= writes the pages that are touched, in the order of their first touch, and reports lost
 * touches. hotset= reads these pages before they are asked for, while free frames last, and takes
 * no frame from a page. A malformed list is refused with one line.
 *
 * Seen to fail: test_order with ranges written as noted, test_overflow with lost touches not
 * counted. test_log with a range extended by a plain store, test_batches with an unsorted plan.
 * test_small_budget with free frames ignored, test_closed_meanwhile with a closed file read on.
 * test_sections with the sections of all files taken.
 */
#include "inside.h"
#include "support.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED 23
#define LINES_MAX 8192
#define HOTSET_TEST_RANGES 4194305u

/* ------------------------------------------------------------------ lists */

struct list {
	unsigned long long ranges, lost, size, page;
	char uri[256];
	unsigned count;
	struct {
		unsigned long long start, len;
	} line[LINES_MAX];
};

static struct list list;

static void read_list(const char *path)
{
	char line[512];
	FILE *f = fopen(path, "r");

	list = (struct list){0};
	if (!f)
		CHECK_FAIL("%s: %s", path, strerror(errno));
	CHECK(fgets(line, sizeof(line), f));
	CHECK_STR(line, "filemap-hotset 1\n");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "ranges %llu", &list.ranges) == 1 ||
		    sscanf(line, "lost %llu", &list.lost) == 1 ||
		    sscanf(line, "size %llu", &list.size) == 1 ||
		    sscanf(line, "page %llu", &list.page) == 1 ||
		    sscanf(line, "uri %255s", list.uri) == 1 || strncmp(line, "version ", 8) == 0)
			continue;
		CHECK_LT(list.count, LINES_MAX);
		CHECK_EQ(sscanf(line, "%llu %llu", &list.line[list.count].start, &list.line[list.count].len), 2);
		list.count++;
	}
	fclose(f);
	CHECK_EQ(list.count, list.ranges);
}

static const char *write_list(const char *text)
{
	const char *path = support_path();
	FILE *f = fopen(path, "w");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
	return path;
}

/* ------------------------------------------------------------------ the log */

static char told[512];
static unsigned told_count;

static void tell(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	snprintf(told, sizeof(told), "%s", line);
	__atomic_add_fetch(&told_count, 1u, __ATOMIC_SEQ_CST);
}

static fm_mm *telling_mm(uint64_t budget)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = budget,
					.trap = test_trap(),
					.install = test_install(),
					.log = tell};
	fm_mm *mm = NULL;
	int error = fm_mm_create(&options, &mm);
	if (error == -ENOSYS || error == -EPERM || error == -EOPNOTSUPP)
		SKIP("fm_mm_create: %s", strerror(-error));
	CHECK_OK(error);
	__atomic_store_n(&told_count, 0u, __ATOMIC_SEQ_CST);
	return mm;
}

/* ------------------------------------------------------------------ opening, touching */

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static uint64_t mapped;

static void open_file(const char *uri, uint64_t size)
{
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX};
	file = support_open(mm, uri, &options);
	addr = support_map(file, 0, mapped = size);
}

static void close_file(void)
{
	CHECK_OK(fm_unmap(mm, addr, mapped));
	CHECK_OK(fm_file_close(file));
}

static void touch(uint64_t page)
{
	unsigned char byte;
	CHECK_OK(support_read(mm, addr + page * PAGE + 7, &byte, 1));
}

/* Wait until the hot set has been read and no more pages come. */
static void wait_for_pages(uint64_t pages)
{
	EVENTUALLY(support_stats(mm).hotset_pages >= pages && !support_stats(mm).requests);
	CHECK_EQ(support_stats(mm).hotset_pages, pages);
}

/* ------------------------------------------------------------------ recording */

static void test_order(void)
{
	static const unsigned order[] = {70, 3, 4, 5, 200, 6, 70, 3, 69, 150, 151, 100};
	static const unsigned long long want[][2] = {{69, 2}, {3, 4}, {200, 1}, {150, 2}, {100, 1}};
	const char *path = support_file(512 * PAGE, SEED), *record = support_path();

	mm = support_mm(64 * KIB); /* 16 frames: pages are evicted and read again */
	open_file(support_format("file:%s?record=%s", path, record), 512 * PAGE);
	for (unsigned i = 0; i < sizeof(order) / sizeof(*order); i++)
		touch(order[i]);
	for (unsigned i = 0; i < 5 * 40; i++) { /* touch all again, late in the log */
		touch(300 + i % 40 * 3);
		touch(order[i % 12]);
	}
	CHECK_GT(support_stats(mm).evictions, 20);
	close_file();
	support_mm_end(mm);
	read_list(record);
	CHECK_STR(list.uri, support_format("file:%s", path));
	CHECK_EQ(list.size, 512 * PAGE);
	CHECK_EQ(list.page, PAGE);
	CHECK_EQ(list.lost, 0);
	CHECK_EQ(list.count, 5 + 40);
	for (unsigned i = 0; i < 5 + 40; i++) {
		CHECK_EQ(list.line[i].start, (i < 5 ? want[i][0] : 300 + (i - 5) * 3) * PAGE);
		CHECK_EQ(list.line[i].len, (i < 5 ? want[i][1] : 1) * PAGE);
	}
	unlink(record);
}

/* More first touches than the log has places: the log keeps the first and counts the others. */
static void test_overflow(void)
{
	const char *record = support_path();
	mm = telling_mm(16 * MIB);
	open_file(support_format("memory:64M?record=%s", record), 64 * MIB);
	for (unsigned i = 0; i < 5000; i++)
		touch(3 * i);
	close_file();
	support_mm_end(mm);
	read_list(record);
	CHECK_EQ(list.count, 4096);
	CHECK_EQ(list.lost, 5000 - 4096);
	for (unsigned i = 0; i < 4096; i++)
		CHECK_EQ(list.line[i].start, 3 * i * PAGE);
	CHECK_EQ(told_count, 1);
	CHECK(strstr(told, "full") && strstr(told, "904"));
	unlink(record);
}

#define THREADS 8
#define EACH 200
static void *toucher(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	for (unsigned i = 0; i < EACH; i++) {
		touch(me * EACH + i);                          /* private pages */
		touch(THREADS * EACH + (i * 7 + me) % (2 * EACH) * 2); /* shared, with gaps */
	}
	return NULL;
}

/* Many threads: the list has each touched page exactly once. */
static void test_threads(void)
{
	static unsigned char seen[THREADS * EACH + 4 * EACH];
	const char *record = support_path();
	pthread_t thread[THREADS];

	memset(seen, 0, sizeof(seen));
	mm = support_mm(16 * MIB);
	open_file(support_format("memory:16M?record=%s", record), 16 * MIB);
	for (unsigned i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, toucher, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	close_file();
	support_mm_end(mm);
	read_list(record);
	CHECK_EQ(list.lost, 0);
	for (unsigned i = 0; i < list.count; i++)
		for (uint64_t page = list.line[i].start / PAGE;
		     page < (list.line[i].start + list.line[i].len) / PAGE; page++) {
			CHECK_LT(page, sizeof(seen));
			CHECK_EQ(seen[page]++, 0);
		}
	for (unsigned page = 0; page < THREADS * EACH; page++)
		CHECK_EQ(seen[page], 1);
	for (unsigned page = 0; page < 4 * EACH; page++)
		CHECK_EQ(seen[THREADS * EACH + page], !(page & 1));
	unlink(record);
}

#define LOG_THREADS 4
#define LOG_EACH 1000000
static pthread_barrier_t ready;
static void *noter(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	pthread_barrier_wait(&ready);
	uint64_t middle = (me / 2 + 1) * 100000000ull; /* two threads: one goes up, one down */
	for (unsigned i = 0; i < LOG_EACH; i++)
		record_index(file->reads->record, me % 2 ? middle - 1 - i : middle + i);
	return NULL;
}

/* Threads meet in the log alone. Each touch is in the list once, or is counted as lost. */
static void test_log(void)
{
	const char *record = support_path();
	unsigned long long pages = 0;
	pthread_t thread[LOG_THREADS];

	mm = support_mm(1 * MIB);
	open_file(support_format("memory:1G?record=%s", record), MIB);
	pthread_barrier_init(&ready, NULL, LOG_THREADS);
	for (unsigned i = 0; i < LOG_THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, noter, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; i < LOG_THREADS; i++)
		pthread_join(thread[i], NULL);
	close_file();
	support_mm_end(mm);
	read_list(record);
	for (unsigned i = 0; i < list.count; i++)
		pages += list.line[i].len / PAGE;
	CHECK_EQ(pages + list.lost, LOG_THREADS * LOG_EACH);
	unlink(record);
}

/* The list is also written once a second, so that a killed program leaves a list. */
static void test_while_running(void)
{
	const char *record = support_path();
	mm = support_mm(1 * MIB);
	open_file(support_format("memory:1M?record=%s", record), 1 * MIB);
	touch(9);
	EVENTUALLY(access(record, F_OK) == 0);
	read_list(record);
	CHECK_LE(list.count, 1);
	close_file();
	support_mm_end(mm);
	read_list(record);
	CHECK_EQ(list.count, 1);
	CHECK_EQ(list.line[0].start, 9 * PAGE);
	unlink(record);
}

static void test_record_nowhere(void)
{
	static const char *const bad[] = {"/nowhere/at/all", "/", "/tmp", "/dev/null"};
	fm_file *none = NULL;
	mm = telling_mm(1 * MIB);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		told_count = 0;
		CHECK_LT(fm_file_open(mm, support_format("memory:1M?record=%s", bad[i]), NULL, &none), 0);
		CHECK_EQ(told_count, 1);
		CHECK(strstr(told, bad[i]));
	}
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ replaying */

static void test_replay(void)
{
	enum { PAGES = 300 };
	const char *path = support_file(4096 * PAGE, SEED), *hot = support_path();
	unsigned page[PAGES];

	for (unsigned i = 0; i < PAGES; i++)
		page[i] = i * 1237 % 4096; /* 1237 and 4096 are coprime: no page comes twice */
	mm = support_mm(16 * MIB);
	open_file(support_format("file:%s?record=%s", path, hot), 4096 * PAGE);
	for (unsigned i = 0; i < PAGES; i++)
		touch(page[i]);
	close_file();
	support_mm_end(mm);

	mm = telling_mm(16 * MIB);
	open_file(support_format("file:%s?hotset=%s", path, hot), 4096 * PAGE);
	wait_for_pages(PAGES);
	struct fm_stats before = support_stats(mm);
	for (unsigned i = 0; i < PAGES; i++)
		support_expect(mm, addr + page[i] * PAGE, page[i] * PAGE, PAGE, SEED);
	support_faults_settled(mm);
	struct fm_stats after = support_stats(mm);
	CHECK_EQ(before.faults, 0);
	CHECK_EQ(after.faults_major, 0);
	CHECK_GE(after.faults_minor, PAGES);
	CHECK_EQ(after.reads, before.reads);
	CHECK_EQ(after.ra_hits, PAGES);
	CHECK_EQ(told_count, 0);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* Pages are sorted and merged in batches: many neighbours in disorder need few reads. */
static void test_batches(void)
{
	char text[64 * 24 + 64] = "filemap-hotset 1\n";
	for (unsigned i = 0; i < 64; i++)
		sprintf(text + strlen(text), "%llu 4096\n", (i * 37 % 64) * PAGE);
	const char *hot = write_list(text);
	mm = support_mm(16 * MIB);
	open_file(support_format("memory:16M?hotset=%s", hot), 16 * MIB);
	wait_for_pages(64);
	CHECK_EQ(support_stats(mm).reads, 1);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* Call fm_file_hotset(): with bad arguments, and twice on one file. */
static void test_call(void)
{
	const char *hot = write_list("filemap-hotset 1\n0 100\n40960 8192\n");
	mm = telling_mm(16 * MIB);
	open_file("faulty:memory:16M?delay=20ms", 16 * MIB);
	CHECK_EQ(fm_file_hotset(NULL, hot), -EINVAL);
	CHECK_EQ(fm_file_hotset(file, NULL), -EINVAL);
	CHECK_EQ(fm_file_hotset(file, ""), -EINVAL);
	CHECK_EQ(fm_file_hotset(file, "/nowhere/at/all"), -ENOENT);
	CHECK_OK(fm_file_hotset(file, hot));
	wait_for_pages(3);
	EVENTUALLY(fm_file_hotset(file, hot) == 0); /* cached pages are skipped */
	wait_for_pages(3);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* The pages are larger than those in the list, and the file ends within a page. */
static void test_other_page_size(void)
{
	const char *hot = write_list(
		"filemap-hotset 1\nsize 204801\npage 4096\n200704 4097\n4096 4096\n8192 4096\n");
	struct fm_file_options options = {
		.size = sizeof(options), .page_size = 65536, .readahead_bytes = UINT32_MAX};
	const char *path = support_file(204801, SEED);
	mm = support_mm(16 * MIB);
	file = support_open(mm, support_format("file:%s?hotset=%s", path, hot), &options);
	addr = support_map(file, 0, mapped = 204801);
	wait_for_pages(2);
	support_expect(mm, addr + 200704, 200704, 4097, SEED);
	support_faults_settled(mm);
	CHECK_EQ(support_stats(mm).faults_major, 0);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* Huge frames, of which only a few have memory at first. */
static void test_huge_pages(void)
{
	const char *hot = write_list("filemap-hotset 1\n0 33554432\n");
	struct fm_file_options options = {
		.size = sizeof(options), .page_size = 2 * MIB, .readahead_bytes = UINT32_MAX};
	mm = support_mm(64 * MIB);
	file = support_open(mm, support_format("memory:64M?hotset=%s", hot), &options);
	addr = support_map(file, 0, mapped = 64 * MIB);
	wait_for_pages(16);
	CHECK_EQ(support_stats(mm).evictions, 0);
	touch(0);
	touch(15 * 512);
	support_faults_settled(mm);
	CHECK_EQ(support_stats(mm).faults_major, 0);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* The list is far larger than the pool. A quarter of the frames stays free, and pages in use
 * stay. */
static void test_small_budget(void)
{
	const char *hot = write_list("filemap-hotset 1\n0 1073741824\n");
	mm = telling_mm(1 * MIB); /* 256 frames */
	open_file("memory:1G", 1024 * MIB);
	for (unsigned i = 0; i < 100; i++)
		touch(100000 + 5 * i);
	uint64_t used = support_stats(mm).frames_used;
	CHECK_EQ(used, 100);
	CHECK_OK(fm_file_hotset(file, hot));
	EVENTUALLY(__atomic_load_n(&told_count, __ATOMIC_SEQ_CST) == 1 && !support_stats(mm).requests);
	struct fm_stats stats = support_stats(mm);
	CHECK(strstr(told, "no room"));
	CHECK_GT(stats.hotset_pages, 0);
	CHECK_LE(stats.hotset_pages + used, 256 - 256 / 4);
	CHECK_EQ(stats.evictions, 0);
	CHECK_EQ(stats.deactivations, 0);
	CHECK_LE(stats.charged_bytes, stats.budget_bytes);
	uint64_t major = stats.faults_major;
	for (unsigned i = 0; i < 100; i++)
		touch(100000 + 5 * i);
	support_faults_settled(mm);
	CHECK_EQ(support_stats(mm).faults_major, major);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* A slow store and a store that never answers: the file can be closed and the mm destroyed. */
static void test_closed_meanwhile(void)
{
	static char text[3000 * 16 + 64] = "filemap-hotset 1\n";
	for (unsigned i = 0, at = 17; i < 3000; i++)
		at += (unsigned)sprintf(text + at, "%llu 4096\n", i * 2 * PAGE);
	const char *hot = write_list(text);
	mm = support_mm(16 * MIB);
	open_file(support_format("faulty:memory:32M?delay=10ms&iops=100&hotset=%s", hot), 16 * MIB);
	close_file();
	support_mm_end(mm); /* all gauges are zero long before the reads would be done */
	mm = support_mm(16 * MIB);
	open_file(support_format("faulty:memory:16M?stuck=1&hotset=%s", hot), 16 * MIB);
	EVENTUALLY(support_stats(mm).hotset_pages > 0);
	CHECK_OK(fm_mm_destroy(mm));
	unlink(hot);
}

/* A failed read is not reported: the fault that wants the page reads the page again. */
static void test_errors(void)
{
	const char *hot = write_list("filemap-hotset 1\n0 40960\n");
	mm = support_mm(16 * MIB);
	open_file(support_format("faulty:memory:16M?error-every=1&hotset=%s", hot), 16 * MIB);
	EVENTUALLY(support_stats(mm).read_errors > 0 && !support_stats(mm).requests);
	CHECK_OK(fm_file_control(file, "error-every=0"));
	touch(0);
	touch(5);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* The file had another size then: the library logs one line and reads the ranges that still fit. */
static void test_changed(void)
{
	const char *path = support_file(64 * PAGE, SEED);
	const char *hot = write_list("filemap-hotset 1\nsize 16777216\nversion 5\n1048576 "
				     "4096\n8192 8192\n258048 40960\n");
	mm = telling_mm(16 * MIB);
	open_file(support_format("file:%s?hotset=%s", path, hot), 64 * PAGE);
	wait_for_pages(3);
	CHECK_EQ(told_count, 1);
	CHECK(strstr(told, "has changed since"));
	support_expect(mm, addr + 63 * PAGE, 63 * PAGE, PAGE, SEED);
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

static void test_sections(void)
{
	const char *one = support_file(64 * PAGE, SEED), *two = support_file(64 * PAGE, SEED + 1);
	char text[4096];
	snprintf(text, sizeof(text),
		 "filemap-hotset 1\nuri file:%s\nranges 1\n0 4096\nfilemap-hotset 1\nuri "
		 "file:%s\nranges 1\n4096 8192\n"
		 "filemap-hotset 1\nuri file:%s\n16384 4096\n",
		 one, two, one);
	const char *hot = write_list(text);
	mm = telling_mm(16 * MIB);
	open_file(support_format("file:%s?hotset=%s", one, hot), 64 * PAGE);
	wait_for_pages(2);
	close_file();
	open_file(support_format("file:%s?hotset=%s", two, hot), 64 * PAGE);
	wait_for_pages(2 + 2);
	close_file();
	CHECK_EQ(told_count, 0);
	open_file(support_format("memory:1M?hotset=%s", hot), MIB);
	CHECK_EQ(told_count, 1);
	CHECK(strstr(told, "no ranges for"));
	close_file();
	support_mm_end(mm);
	unlink(hot);
}

/* ------------------------------------------------------------------ malformed lists */

static void refused(const char *text, int error, const char *word)
{
	const char *hot = write_list(text);
	fm_file *none = NULL;

	__atomic_store_n(&told_count, 0u, __ATOMIC_SEQ_CST);
	CHECK_EQ(fm_file_open(mm, support_format("memory:1M?hotset=%s", hot), NULL, &none), error);
	CHECK_EQ(told_count, 1);
	if (!strstr(told, word) || !strstr(told, hot))
		CHECK_FAIL("'%s' was reported as '%s'", text, told);
	unlink(hot);
}

static void test_malformed(void)
{
	static char many[HOTSET_TEST_RANGES * 4 + 64];
	fm_file *opened = NULL;

	mm = telling_mm(1 * MIB);
	refused("", -EINVAL, "empty");
	refused("\n", -EINVAL, "line 1: not a hot set");
	refused("0 4096\n", -EINVAL, "line 1: not a hot set");
	refused("#!/bin/sh\n", -EINVAL, "line 1: not a hot set");
	refused("filemap-hotset 2\n", -EINVAL, "an unknown format");
	refused("filemap-hotset 1x\n", -EINVAL, "an unknown format");
	refused("filemap-hotset 1\n0 4096", -EINVAL, "truncated");
	refused("filemap-hotset 1\nranges 3\n0 4096\n", -EINVAL, "truncated");
	refused("filemap-hotset 1\nranges 0\n0 4096\n", -EINVAL, "number of ranges");
	refused("filemap-hotset 1\nranges 2\n0 1\nfilemap-hotset 1\n", -EINVAL, "number of ranges");
	refused("filemap-hotset 1\n0\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n0 0\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n4096 -1\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n-4096 4096\n", -EINVAL, "line 2: neither");
	refused("filemap-hotset 1\n0 4096 \n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n0  4096\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n0 4096\r\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n0x10 4096\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n99999999999999999999 1\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\n18446744073709551615 18446744073709551615\n", -EINVAL,
		"line 2: not a range");
	refused("filemap-hotset 1\n9223372036854775807 1\n", -EINVAL, "line 2: not a range");
	refused("filemap-hotset 1\nsize many\n", -EINVAL, "line 2: neither");
	refused("filemap-hotset 1\nsize\n", -EINVAL, "line 2: neither");
	refused("filemap-hotset 1\ncolour 3\n", -EINVAL, "line 2: neither");
	strcpy(many, "filemap-hotset 1\n");
	memset(many + 17, 'x', 100000);
	strcpy(many + 100017, "\n");
	refused(many, -EINVAL, "line 2: not text");
	for (unsigned i = 0; i < HOTSET_TEST_RANGES; i++)
		memcpy(many + 17 + 4 * i, "0 1\n", 5);
	refused(many, -EFBIG, "more than 4194304 ranges");

	CHECK_LT(fm_file_open(mm, "memory:1M?hotset=/tmp", NULL, &opened), 0);
	CHECK_LT(fm_file_open(mm, "memory:1M?hotset=/dev/zero", NULL, &opened), 0);
	const char *fifo = support_path();
	CHECK_EQ(mkfifo(fifo, 0600), 0);
	CHECK_EQ(fm_file_open(mm, support_format("memory:1M?hotset=%s", fifo), NULL, &opened), -EINVAL);
	unlink(fifo);
	CHECK_EQ(fm_file_open(mm, "memory:1M?hotset=", NULL, &opened), -EINVAL);
	/* A list that does not exist yet is no error: the first run may still create the list. */
	told_count = 0;
	CHECK_OK(fm_file_open(mm, "memory:1M?hotset=/nowhere/at/all", NULL, &opened));
	CHECK_EQ(told_count, 1);
	CHECK_OK(fm_file_close(opened));
	support_mm_end(mm);
}

/* Random text never crashes or hangs the library: the result is an error or a file. */
static void test_noise(void)
{
	static const char *const piece[] = {"filemap-hotset 1\n",
					    "ranges ",
					    "uri ",
					    "size ",
					    "0 ",
					    "4096",
					    "\n",
					    " ",
					    "-",
					    "18446744073709551615",
					    "9223372036854770000 4096\n",
					    "4096 4096\n",
					    "\t",
					    "x"};
	uint64_t random = 88172645463325252ull;
	fm_file *opened;

	mm = support_mm(1 * MIB);
	for (unsigned round = 0; round < 300; round++) {
		char text[1024] = "filemap-hotset 1\n";
		for (unsigned i = 0; i < round % 25; i++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			strcat(text, piece[random % (sizeof(piece) / sizeof(*piece))]);
		}
		const char *hot = write_list(text);
		int error = fm_file_open(mm, support_format("memory:1M?hotset=%s", hot), NULL, &opened);
		CHECK(error == 0 || error == -EINVAL);
		if (!error)
			CHECK_OK(fm_file_close(opened));
		unlink(hot);
	}
	support_mm_end(mm);
}

static void test(void)
{
	test_order();
	test_overflow();
	test_threads();
	test_log();
	test_while_running();
	test_record_nowhere();
	test_replay();
	test_batches();
	test_call();
	test_other_page_size();
	test_huge_pages();
	test_small_budget();
	test_closed_meanwhile();
	test_errors();
	test_changed();
	test_sections();
	test_malformed();
	test_noise();
}

int main(void)
{
	return support_run(test);
}
