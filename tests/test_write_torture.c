/* SPDX-License-Identifier: MIT */
/*
 * Several threads write to the same pages without a pause, each thread to words of its own. Other
 * threads sync the pages, advise, invalidate, and let system calls read into pinned pages. The
 * budget forces evictions. No write is lost on the way. At the end the file has the bytes that
 * memory has.
 *
 *   test_write_torture [--seconds N]    for each of five settings; 0.6 by default
 *
 * Seen to fail: with pages of writable files that come in by MOVE and are protected afterwards
 * (break/c07_protected_after.patch).
 */
#include "write_support.h"


#define PAGES 192u
#define LEN (PAGES * PAGE)
#define WRITERS 3u
#define SECTOR 512u                    /* system calls read into the first sector of each page */
#define WORDS (PAGE / 8)
#define FIRST_WORD (SECTOR / 8)

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;
static const char *path;
static enum fm_trap trap;
static atomic_bool stop;
static uint64_t model[PAGES][WORDS]; /* the owner of a word writes its model */
static int source_fd;
static unsigned char source[64 * KIB] __attribute__((aligned(4096)));
static atomic_ullong written, synced, pinned, advised;

static uint64_t any(uint64_t *state)
{
	*state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
	return *state >> 8;
}

static unsigned owner(unsigned word)
{
	return word % WRITERS;
}

/* Write to neighbouring pages too, in the order of the file: these pages are installed together. */
static void *writer(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg, page = 0;
	uint64_t random = 77777 + self;

	while (!stop) {
		page = any(&random) % 4 ? (page + 1) % PAGES : (unsigned)(any(&random) % PAGES);
		unsigned word = FIRST_WORD + (unsigned)(any(&random) % (WORDS - FIRST_WORD - WRITERS));
		while (owner(word) != self)
			word++;
		volatile uint64_t *at = (volatile uint64_t *)(addr + page * PAGE) + word;
		if (*at != model[page][word])
			CHECK_FAIL("page %u, word %u of writer %u: %llu, not %llu", page, word,
				   self, (unsigned long long)*at,
				   (unsigned long long)model[page][word]);
		if (any(&random) % 4 == 0) /* only read: others write to the clean page */
			continue;
		*at = ++model[page][word];
		written++;
	}
	return NULL;
}

static void *syncer(void *arg)
{
	uint64_t random = 31 + (uintptr_t)arg;
	while (!stop) {
		uint64_t first = any(&random) % PAGES, count = 1 + any(&random) % (PAGES - first);
		CHECK_OK(fm_sync(mm, addr + first * PAGE, count * PAGE, any(&random) % 4 ? 0 : FM_SYNC_ASYNC));
		synced++;
	}
	return NULL;
}

static void *adviser(void *arg)
{
	uint64_t random = 4711 + (uintptr_t)arg;
	while (!stop) {
		uint64_t first = any(&random) % PAGES, count = 1 + any(&random) % (PAGES - first);
		if (count > 24)
			count = 24;
		int err = 0;
		switch (any(&random) % 4) {
		case 0: err = fm_advise(mm, addr + first * PAGE, count * PAGE, FM_ADVICE_DONTNEED); break;
		case 1: err = fm_advise(mm, addr + first * PAGE, count * PAGE, FM_ADVICE_COLD); break;
		case 2: err = fm_advise(mm, addr + first * PAGE, count * PAGE, FM_ADVICE_WILLNEED); break;
		default: err = fm_invalidate(file, first * PAGE, count * PAGE);
		}
		CHECK(!err || err == -EBUSY);
		advised++;
	}
	return NULL;
}

/* Read into the first sector of a pinned page, by a direct read if possible. */
static void *pinner(void *arg)
{
	uint64_t random = 99 + (uintptr_t)arg;
	while (!stop) {
		unsigned page = (unsigned)(any(&random) % PAGES);
		uint64_t from = any(&random) % (sizeof(source) / SECTOR) * SECTOR;
		unsigned char *at = addr + page * PAGE;
		int err = fm_pin(mm, at, SECTOR, FM_WRITE);
		if (err == -ENOMEM)
			continue;
		CHECK_OK(err);
		CHECK_EQ(memcmp(at, model[page], SECTOR), 0);
		CHECK_EQ(pread(source_fd, at, SECTOR, (off_t)from), (ssize_t)SECTOR);
		memcpy(model[page], source + from, SECTOR);
		CHECK_EQ(memcmp(at, model[page], SECTOR), 0);
		CHECK_OK(fm_unpin(mm, at, SECTOR));
		pinned++;
	}
	return NULL;
}

static void check_all(void)
{
	unsigned char *got = malloc(LEN);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(got && fd >= 0);
	CHECK_EQ(pread(fd, got, LEN, 0), (ssize_t)LEN);
	for (unsigned page = 0; page < PAGES; page++) {
		CHECK_EQ(memcmp(addr + page * PAGE, model[page], PAGE), 0);
		for (unsigned word = 0; word < WORDS; word++) {
			uint64_t has;
			memcpy(&has, got + page * PAGE + word * 8, 8);
			if (has != model[page][word])
				CHECK_FAIL("the file's page %u, word %u: %llu, not %llu", page, word, (unsigned long long)has,
					   (unsigned long long)model[page][word]);
		}
	}
	close(fd);
	free(got);
}

static void run(enum fm_trap by, enum fm_install install, uint64_t budget, const char *uri,
		double seconds)
{
	static void *(*const work[])(void *) = {writer, writer, writer, syncer, adviser, adviser, pinner};
	enum { THREADS = sizeof(work) / sizeof(work[0]) };
	pthread_t thread[THREADS];
	struct fm_mm_options options = {
		.size = sizeof(options), .budget_bytes = budget, .trap = by, .install = install};
	int err = fm_mm_create(&options, &mm);

	if (err == -EOPNOTSUPP || err == -EPERM || err == -ENOSYS)
		return;
	CHECK_OK(err);
	trap = by;
	path = support_path();
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)LEN), 0);
	close(fd);
	memset(model, 0, sizeof(model));
	file = write_open(mm, support_format(uri, path));
	addr = write_map(file, 0, LEN);
	stop = false;
	written = synced = pinned = advised = 0;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, work[i], (void *)i), 0);
	for (uint64_t until = support_now_ns() + (uint64_t)(seconds * 1e9), now;
	     (now = support_now_ns()) < until;) {
		hazard_watch("a call, or an access, never ended");
		support_sleep_ms(until - now > 1000 * MS_NS ? 1000 : (unsigned)((until - now) / MS_NS) + 1);
	}
	stop = true;
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_OK(fm_sync(mm, addr, LEN, 0));
	check_all();
	struct fm_stats stats = support_stats(mm);
	CHECK_EQ(stats.dirty_lost, 0);
	CHECK_EQ(stats.lock_held_over_block, 0);
	CHECK(written && synced && pinned && advised);
	printf("%s %s, %llu KiB: %llu writes, %llu syncs, %llu pins, %llu advices; %llu faults, "
	       "%llu writes of the store, "
	       "%llu evictions, %llu in place\n",
	       trap_kind_name(by), install == FM_INSTALL_COPY ? "copy" : "move",
	       (unsigned long long)budget / KIB, written, synced, pinned, advised,
	       (unsigned long long)stats.faults, (unsigned long long)stats.writes,
	       (unsigned long long)stats.evictions, (unsigned long long)stats.write_in_place);
	CHECK_OK(fm_unmap(mm, addr, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	CHECK_EQ(unlink(path), 0);
}

int main(int argc, char **argv)
{
	double seconds = argc == 3 && strcmp(argv[1], "--seconds") == 0 ? atof(argv[2]) : 0.6;
	const char *from = support_file(sizeof(source), 3);

	hazard_watch("a call, or an access, never ended");
	support_fill(source, 0, sizeof(source), 3);
	source_fd = open(from, O_RDONLY | O_CLOEXEC | O_DIRECT);
	if (source_fd < 0) /* this file system has no direct reads */
		source_fd = open(from, O_RDONLY | O_CLOEXEC);
	CHECK(source_fd >= 0);
	run(FM_TRAP_INLINE, FM_INSTALL_AUTO, 40 * PAGE, "%s", seconds);
	run(FM_TRAP_INLINE, FM_INSTALL_AUTO, 2 * MIB, "%s", seconds);
	run(FM_TRAP_THREAD, FM_INSTALL_AUTO, 64 * PAGE, "%s", seconds);
	run(FM_TRAP_INLINE, FM_INSTALL_COPY, 64 * PAGE, "%s", seconds);
	run(FM_TRAP_INLINE, FM_INSTALL_AUTO, 64 * PAGE,
	    "faulty:%s?write-delay=0us..500us&delay=0us..200us&write-short-every=5", seconds);
	return 0;
}
