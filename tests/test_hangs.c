/* SPDX-License-Identifier: MIT */
/*
 * Dead stores must not hold up live stores through anything that both need:
 *   - 1,200 threads wait for a dead store in the thread trap. A fault on another file must end.
 *   - The writes of two files never end. A sync of a third file must end.
 *   - 200 threads wait for room for dirty pages of a dead file. Writes to another file must go on.
 *   - Four threads punch a file without a pause. A sync of the whole file must end.
 *   - A callback calls fm_mm_destroy() of its own address space. The call must return.
 *   - A write of a file with a deadline never ends. Each call that changes or drops a range of the
 *     file must end.
 * The test measures no time: a watchdog ends a test that hangs.
 */
#include "hazard_support.h"

#include <pthread.h>
#include <unistd.h>

#define WAITERS (SUPPORT_SANITIZED ? 400u : 1200u)
#define WRITERS 200u /* each writer holds a frame and waits for room */
#define DEAD_BYTES (64 * MIB)
#define LIVE_BYTES (16 * MIB)

static fm_mm *mm_of(enum fm_trap trap, uint64_t budget)
{
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = budget, .trap = trap};
	fm_mm *mm;
	int error = fm_mm_create(&options, &mm);

	if (error == -ENOSYS || error == -EPERM || error == -EOPNOTSUPP)
		SKIP("no trap: %s", strerror(-error));
	CHECK_OK(error);
	return mm;
}

static char *open_and_map(fm_mm *mm, const char *uri, uint64_t len, bool writable,
			  fm_file **ret_file)
{
	struct fm_file_options open_for = {.size = sizeof(open_for),
					   .flags = writable ? FM_FILE_WRITE : 0};
	struct fm_map_options map_for = {.size = sizeof(map_for), .flags = writable ? FM_MAP_WRITE : 0};
	void *addr;

	CHECK_OK(fm_file_open(mm, uri, &open_for, ret_file));
	CHECK_OK(fm_map(*ret_file, 0, len, &map_for, &addr));
	return addr;
}

/* ------------------------------------------------------------------ stuck threads */

/* A thread whose access does not end before the mm ends. */
struct stuck {
	pthread_t thread;
	fm_mm *mm;
	volatile char *at;
	bool write;
};

static void touch(void *arg)
{
	struct stuck *s = arg;

	if (s->write)
		*s->at = 1;
	else
		(void)*s->at;
}

static void *stuck_main(void *arg)
{
	support_catch(touch, arg);
	return NULL;
}

static void stuck_start(struct stuck *s, fm_mm *mm, char *at, bool write)
{
	pthread_attr_t attr;

	*s = (struct stuck){.mm = mm, .at = at, .write = write};
	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_setstacksize(&attr, SUPPORT_SANITIZED ? 512 * KIB : 128 * KIB), 0);
	CHECK_EQ(pthread_create(&s->thread, &attr, stuck_main, s), 0);
	pthread_attr_destroy(&attr);
}

static void stuck_join(struct stuck *s, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		CHECK_EQ(pthread_join(s[i].thread, NULL), 0);
}

/* ------------------------------------------------------------------ the tests */

static void test_waiters(void)
{
	static struct stuck stuck[WAITERS];
	fm_mm *mm = mm_of(FM_TRAP_THREAD, 64 * MIB);
	fm_file *dead_file, *live_file;
	char *dead = open_and_map(mm, "faulty:memory:64M?stuck=1", DEAD_BYTES, false, &dead_file);
	char *live = open_and_map(mm, "memory:16M", LIVE_BYTES, false, &live_file);

	for (unsigned i = 0; i < WAITERS; i++)
		stuck_start(&stuck[i], mm, dead + i * 7 * PAGE, false);
	EVENTUALLY(support_stats(mm).requests > 0);
	support_sleep_ms(300); /* until most threads wait; with fewer threads the test shows less */
	for (unsigned i = 0; i < 64; i++)
		(void)((volatile char *)live)[i * 33 * PAGE];
	CHECK_OK(fm_mm_destroy(mm));
	stuck_join(stuck, WAITERS);
}

/* Make many pages of a dead file dirty, no two of them neighbours. The file's writes then take
 * all the requests that the file may have. */
static void dirty_scattered(char *map, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		map[i * 2 * PAGE] = 1;
}

static void test_dead_writers(enum fm_trap trap)
{
	fm_mm *mm = mm_of(trap, 8 * MIB);
	fm_file *dead[2], *live_file;
	char *map[2];

	for (unsigned i = 0; i < 2; i++) {
		map[i] = open_and_map(mm, support_format("faulty:memory:%uM", 64 + i), DEAD_BYTES,
				      true, &dead[i]);
		CHECK_OK(fm_file_control(dead[i], "write-stuck=1"));
		dirty_scattered(map[i], 60);
		CHECK_OK(fm_file_sync(dead[i], 0, DEAD_BYTES, FM_SYNC_ASYNC));
	}
	char *live = open_and_map(mm, "faulty:memory:16M", LIVE_BYTES, true, &live_file);
	for (unsigned i = 0; i < 200; i++) {
		live[i * 3 * PAGE] = 7;
		if (i % 20 == 0)
			CHECK_OK(fm_file_sync(live_file, 0, LIVE_BYTES, 0));
	}
	CHECK_OK(fm_file_sync(live_file, 0, LIVE_BYTES, 0));
	for (unsigned i = 0; i < 2; i++)
		CHECK_OK(fm_file_control(dead[i], "write-stuck=0"));
	CHECK_OK(fm_mm_destroy(mm));
}

static void test_throttled(void)
{
	static struct stuck stuck[WRITERS];
	fm_mm *mm = mm_of(FM_TRAP_THREAD, 4 * MIB); /* a quarter of 1,024 frames may be dirty */
	fm_file *dead_file, *live_file;
	char *dead = open_and_map(mm, "faulty:memory:64M", DEAD_BYTES, true, &dead_file);
	char *live = open_and_map(mm, "faulty:memory:16M", LIVE_BYTES, true, &live_file);

	CHECK_OK(fm_file_control(dead_file, "write-stuck=1"));
	dirty_scattered(dead, 200);
	for (unsigned i = 0; i < WRITERS; i++) /* the first writers take the rest of the room */
		stuck_start(&stuck[i], mm, dead + (1000 + i * 2) * PAGE, true);
	support_sleep_ms(200);
	for (unsigned i = 0; i < 1000; i++)
		live[i * PAGE] = 7;
	CHECK_OK(fm_file_control(dead_file, "write-stuck=0"));
	stuck_join(stuck, WRITERS);
	CHECK_OK(fm_mm_destroy(mm));
}

/* ------------------------------------------------------------------ a sync beside punches */

#define PUNCHERS 4u
#define PUNCHED 200u /* pages of each puncher */

struct puncher {
	pthread_t thread;
	fm_file *file;
	char *map;
	unsigned at, *stop;
};

static void *punch_main(void *arg)
{
	struct puncher *p = arg;

	while (!__atomic_load_n(p->stop, __ATOMIC_SEQ_CST)) {
		for (unsigned i = 0; i < PUNCHED; i++) /* so that a punch takes a while */
			p->map[(p->at + i) * PAGE] = 1;
		CHECK_OK(fm_punch(p->file, p->at * PAGE, PUNCHED * PAGE));
	}
	return NULL;
}

static void test_sync_beside_punches(enum fm_trap trap)
{
	struct puncher puncher[PUNCHERS];
	fm_mm *mm = mm_of(trap, 32 * MIB);
	fm_file *file;
	char *map = open_and_map(mm, support_file(LIVE_BYTES, 1), LIVE_BYTES, true, &file);
	unsigned stop = 0;

	for (unsigned i = 0; i < PUNCHERS; i++) {
		puncher[i] = (struct puncher){.file = file, .map = map, .at = PUNCHED * i, .stop = &stop};
		CHECK_EQ(pthread_create(&puncher[i].thread, NULL, punch_main, &puncher[i]), 0);
	}
	for (unsigned i = 0; i < 10; i++) {
		for (unsigned page = 0; page < 20; page++)
			map[(1000 + page) * PAGE] = (char)i;
		CHECK_OK(fm_file_sync(file, 0, LIVE_BYTES, 0));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < PUNCHERS; i++)
		CHECK_EQ(pthread_join(puncher[i].thread, NULL), 0);
	CHECK_OK(fm_mm_destroy(mm));
}

/* ------------------------------------------------------------------ calls with a deadline */

static void *truncate_main(void *arg)
{
	CHECK_EQ(fm_truncate(arg, PAGE), -ETIMEDOUT);
	return NULL;
}

/* A page of the file is under way to a store that does not answer. Nothing is lost when the store
 * answers again: a change that was given up has changed nothing. */
static void test_calls_with_deadline(enum fm_trap trap)
{
	const struct fm_file_options open_for = {
		.size = sizeof(open_for), .flags = FM_FILE_WRITE, .deadline_ns = 200 * MS_NS};
	const struct fm_map_options map_for = {.size = sizeof(map_for), .flags = FM_MAP_WRITE};
	const uint64_t size = LIVE_BYTES - 100; /* the last page, too, is under way */
	fm_mm *mm = mm_of(trap, 8 * MIB);
	pthread_t thread[4];
	char stored[2];
	size_t len;
	fm_file *file;
	void *addr;

	CHECK_OK(fm_file_open(mm, support_format("faulty:%s", support_file(size, 1)), &open_for,
			      &file));
	CHECK_OK(fm_map(file, 0, size, &map_for, &addr));
	volatile char *map = addr;
	CHECK_OK(fm_file_control(file, "write-stuck=1"));
	map[7 * PAGE] = 7;
	map[size - 1] = 8;
	CHECK_OK(fm_file_sync(file, 0, size, FM_SYNC_ASYNC));
	EVENTUALLY(support_stats(mm).writeback_pages == 2);
	CHECK_EQ(fm_sync(mm, addr, size, 0), -ETIMEDOUT);
	CHECK_EQ(fm_file_sync(file, 0, size, 0), -ETIMEDOUT);
	CHECK_EQ(fm_truncate(file, PAGE), -ETIMEDOUT);
	CHECK_EQ(fm_truncate(file, size + PAGE), -ETIMEDOUT);
	CHECK_EQ(fm_punch(file, 6 * PAGE, 4 * PAGE), -ETIMEDOUT);
	CHECK_EQ(fm_punch(file, 7 * PAGE + 1, 2), -ETIMEDOUT);
	CHECK_EQ(fm_invalidate(file, 6 * PAGE, 4 * PAGE), -ETIMEDOUT);
	CHECK_EQ(fm_file_refresh(file, NULL), -ETIMEDOUT);
	for (unsigned i = 0; i < 4; i++) /* each waits for the one before, too */
		CHECK_EQ(pthread_create(&thread[i], NULL, truncate_main, file), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_OK(fm_file_control(file, "write-stuck=0"));
	CHECK_EQ(map[7 * PAGE], 7);
	map[7 * PAGE + 1] = 9;
	while (fm_file_sync(file, 0, size, 0) == -ETIMEDOUT) /* a slow machine's */
		;
	CHECK_OK(fm_file_read(file, stored, sizeof(stored), 7 * PAGE, &len));
	CHECK(len == sizeof(stored) && stored[0] == 7 && stored[1] == 9);
	CHECK_OK(fm_file_read(file, stored, sizeof(stored), size - 1, &len));
	CHECK(len == 1 && stored[0] == 8);
	CHECK_OK(fm_unmap(mm, addr, size));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
}

/* ------------------------------------------------------------------ the end, from a callback */

struct caller {
	fm_mm *mm;
	int logged, told; /* what fm_mm_destroy() returned; 1: not called */
};

static void destroy_in_log(void *arg, enum fm_log_level level, const char *line)
{
	struct caller *caller = arg;
	(void)level;
	if (caller->mm && strstr(line, "no-such-file"))
		caller->logged = fm_mm_destroy(caller->mm);
}

static void destroy_in_write_error(void *arg, uint64_t offset, uint64_t len, int error)
{
	struct caller *caller = arg;
	(void)offset, (void)len, (void)error;
	__atomic_store_n(&caller->told, fm_mm_destroy(caller->mm), __ATOMIC_SEQ_CST);
}

/* The call would wait for the callback that makes it. */
static void test_destroy_in_callback(void)
{
	struct caller caller = {.logged = 1, .told = 1};
	const struct fm_mm_options options = {.size = sizeof(options),
					      .budget_bytes = 8 * MIB,
					      .log = destroy_in_log,
					      .log_arg = &caller};
	const struct fm_file_options open_for = {.size = sizeof(open_for),
						 .flags = FM_FILE_WRITE,
						 .on_write_error = destroy_in_write_error,
						 .on_write_error_arg = &caller};
	const struct fm_map_options map_for = {.size = sizeof(map_for), .flags = FM_MAP_WRITE};
	fm_file *file;
	void *addr;

	CHECK_OK(fm_mm_create(&options, &caller.mm));
	CHECK_EQ(fm_file_open(caller.mm, "/no-such-file", NULL, &file), -ENOENT);
	CHECK_EQ(caller.logged, -EDEADLK);
	CHECK_OK(fm_file_open(caller.mm, "faulty:memory:1M?write-error-every=1", &open_for, &file));
	CHECK_OK(fm_map(file, 0, PAGE, &map_for, &addr));
	CHECK_OK(fm_fault_in(caller.mm, addr, PAGE, FM_WRITE));
	CHECK_EQ(fm_file_sync(file, 0, PAGE, 0), -EIO);
	EVENTUALLY(__atomic_load_n(&caller.told, __ATOMIC_SEQ_CST) == -EDEADLK);
	CHECK_OK(fm_file_control(file, "write-error-every=0"));
	CHECK_OK(fm_mm_destroy(caller.mm));
}

int main(void)
{
	hazard_watch("a sync beside punches does not end");
	support_start();
	test_sync_beside_punches(FM_TRAP_INLINE);
	hazard_watch("a call on a file with a deadline does not end");
	test_calls_with_deadline(FM_TRAP_INLINE);
	test_calls_with_deadline(FM_TRAP_THREAD);
	hazard_watch("fm_mm_destroy() in a callback does not return");
	test_destroy_in_callback();
	hazard_watch("two dead files delay a third");
	test_dead_writers(FM_TRAP_INLINE);
	test_dead_writers(FM_TRAP_THREAD);
	hazard_watch("writers to a dead file delay a writer to another file");
	test_throttled();
	hazard_watch("threads that wait for a dead store delay a fault on another");
	test_waiters();
	support_end();
	return 0;
}
