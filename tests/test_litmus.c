/* SPDX-License-Identifier: MIT */
/*
 * Memory ordering on real processors, which the simulator cannot show. A few threads call the
 * functions of src/mm in many short rounds over a small pool. docs/memory-ordering.md has the rule
 * of each part. Each part was seen to fail; its comment names the break. A part that hangs fails
 * with a message.
 */
#include "hazard_support.h"

#include <sched.h>

#define THREADS_MAX 4
#define ROUNDS (SUPPORT_SANITIZED ? 5000 : 60000)
#define FRAMES 16

static fm_mm *mm;
static struct frame_pool *pool;
static fm_file *file[2];

/* ------------------------------------------------------------------ threads that meet */

static _Atomic unsigned arrived, meetings;
static unsigned meeting_size;

/* Wait for the other threads, so that all go on as nearly together as threads can. */
static void meet(void)
{
	unsigned now = meetings;
	if (++arrived == meeting_size) {
		arrived = 0;
		meetings++;
		return;
	}
	for (unsigned spin = 0; meetings == now; spin++)
		if (spin > 2000)
			sched_yield();
}

struct racer {
	pthread_t thread;
	void (*fn)(unsigned id);
	unsigned id;
};

static void *racer_main(void *arg)
{
	struct racer *racer = arg;
	os_signals_block(); /* src/mm blocks signals whenever it takes a lock */
	meet();
	racer->fn(racer->id);
	return NULL;
}

static void race(unsigned count, void (*fn)(unsigned id))
{
	struct racer racer[THREADS_MAX];
	meeting_size = count;
	for (unsigned i = 0; i < count; i++) {
		racer[i] = (struct racer){.fn = fn, .id = i};
		CHECK_EQ(pthread_create(&racer[i].thread, NULL, racer_main, &racer[i]), 0);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(racer[i].thread, NULL);
}

static unsigned random_of(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

static void delay(unsigned n)
{
	while (n--)
		os_relax();
}

/* ------------------------------------------------------------------ store, then load */

/* The only reordering that x86 has. Each of two threads writes its own word and then reads the
 * other's word. At least one thread must see the other's write. Seen to fail with an atomic_set()
 * of __ATOMIC_RELEASE. The words are used in turn while both threads run abreast. Each word has a
 * cache line of its own. */
#define WORDS 64
static struct {
	uint32_t word;
	char line[60];
} dekker[2][WORDS] __attribute__((aligned(64)));
static uint32_t dekker_saw[2][WORDS];

static void dekker_racer(unsigned id)
{
	unsigned seed = id + 1;
	for (unsigned round = 1; round < 6 * ROUNDS; round++) {
		meet();
		delay(random_of(&seed) % 8);
		for (unsigned i = 0; i < WORDS; i++) {
			atomic_set(&dekker[id][i].word, round);
			dekker_saw[id][i] = atomic_get(&dekker[!id][i].word);
		}
		meet();
		for (unsigned i = 0; i < WORDS && id == 0; i++)
			if (dekker_saw[0][i] != round && dekker_saw[1][i] != round)
				CHECK_FAIL("round %u: neither thread has seen the other's store", round);
	}
}

/* ------------------------------------------------------------------ the page lock and wake-ups */

static struct page *locked; /* pinned by the test throughout */

/* Thread 0 locks the page. All threads begin together, each after a delay of its own. */
static void begin_with_page(unsigned id, unsigned *seed)
{
	if (id == 0)
		CHECK(page_trylock(locked));
	meet();
	delay(random_of(seed) % 64);
}

/* Thread 0 unlocks the page while other threads go to sleep for the lock. No later unlock would
 * wake them. Seen to fail (a hang) with a page_unlock() that reads PG_WAITERS first and then clears
 * PG_LOCKED. */
static void wake_racer(unsigned id)
{
	unsigned seed = id + 1;
	for (unsigned round = 0; round < ROUNDS; round++) {
		begin_with_page(id, &seed);
		if (id == 0)
			page_unlock(pool, locked);
		else
			CHECK_EQ(page_wait(mm, locked, false, OS_FOREVER), 0);
		meet();
	}
}

/* The lock protects a plain variable. Seen to fail with a page_trylock() that reads the word and
 * then sets the word. */
static uint64_t protected_count;

static void lock_racer(unsigned id)
{
	unsigned seed = id + 1;
	for (unsigned round = 0; round < ROUNDS; round++) {
		while (!page_trylock(locked))
			CHECK_EQ(page_wait(mm, locked, false, OS_FOREVER), 0);
		uint64_t count = protected_count;
		delay(random_of(&seed) % 8);
		protected_count = count + 1;
		page_unlock(pool, locked);
		delay(random_of(&seed) % 8);
	}
}

/* ------------------------------------------------------------------ tickets */

static struct litmus_ticket {
	struct ticket ticket;
	_Atomic bool ran;
} tickets[THREADS_MAX];

static void ticket_ran(struct ticket *ticket)
{
	struct litmus_ticket *mine = (struct litmus_ticket *)ticket;
	mine->ran = true;
}

/* A ticket is queued while the page is unlocked: the ticket must be run or refused. Seen to fail (a
 * hang) with a page_queue_ticket() that reads PG_LOCKED and then sets PG_TICKETS whatever the word
 * has become. */
static void ticket_racer(unsigned id)
{
	unsigned seed = id + 1;
	for (unsigned round = 0; round < ROUNDS; round++) {
		begin_with_page(id, &seed);
		if (id == 0) {
			page_unlock(pool, locked);
		} else {
			tickets[id].ticket = (struct ticket){.run = ticket_ran};
			tickets[id].ran = false;
			if (page_queue_ticket(mm, locked, &tickets[id].ticket))
				while (!tickets[id].ran)
					sched_yield();
		}
		meet();
	}
}

/* ------------------------------------------------------------------ the index and frame reuse */

#define INDEXES 24 /* of each file: more than there are frames */

static uint64_t mark_of(const struct fm_file *of, uint64_t index)
{
	return (uint64_t)(uintptr_t)of + index;
}

/* Add and remove pages. The bytes of a frame are marked before the page becomes uptodate. */
static void churn(struct fm_file *of, uint64_t index)
{
	struct page *page;
	bool fresh;
	if (page_add(of, index, false, &page, &fresh) < 0)
		return;
	if (fresh) {
		*(uint64_t *)slot_of(pool, page) = mark_of(of, index);
		page_set(page, PG_UPTODATE, 0);
		lru_set(pool, page, 1, LIST_INACTIVE);
		page_unlock(pool, page);
	} else if (page_trylock(page)) {
		page_remove(pool, page);
		page_unlock(pool, page);
	}
	page_unpin(pool, page);
}

static void look_up(struct fm_file *of, uint64_t index)
{
	struct page *page = page_find(of, index);
	if (!page)
		return;
	if (__atomic_load_n(&page->file, __ATOMIC_RELAXED) != of ||
	    __atomic_load_n(&page->index, __ATOMIC_RELAXED) != index)
		CHECK_FAIL("the look-up of page %llu found another page", (unsigned long long)index);
	if (page_is(page, PG_UPTODATE) && *(uint64_t *)slot_of(pool, page) != mark_of(of, index))
		CHECK_FAIL("page %llu has another page's bytes", (unsigned long long)index);
	page_unpin(pool, page);
}

/* Seen to fail with a bucket_search() that does not check the identity again after it has the
 * pin. */
static void index_racer(unsigned id)
{
	unsigned seed = id + 1;
	for (unsigned round = 0; round < 40 * ROUNDS; round++) {
		unsigned r = random_of(&seed);
		(id & 1 ? look_up : churn)(file[r & 1], (r >> 1) % INDEXES);
	}
}

/* ------------------------------------------------------------------ the map lock and look-ups */

#define MAPPED_PAGES 8
/* This page is mapped throughout. Its neighbours come and go, so that the table moves under the
 * look-ups. */
static char *always;

/* Seen to fail with a map_lock_exclusive() that does not wait for the readers inside. Seen to fail
 * (a hang) with a map_unlock_shared() that looks for a writer before it counts itself out. */
static void map_racer(unsigned id)
{
	unsigned seed = id + 1;
	for (unsigned round = 0; round < 4 * ROUNDS; round++) {
		if (id < 2) {
			void *addr;
			uint64_t page = 1 + random_of(&seed) % (MAPPED_PAGES - 1);
			CHECK_OK(fm_map(file[id], page * PAGE, PAGE, NULL, &addr));
			CHECK_OK(fm_unmap(mm, addr, PAGE));
			continue;
		}
		for (unsigned i = 0; i < 4; i++) {
			map_lock_shared(mm->map);
			const struct vma *vma = mm_find_vma(mm, (uint64_t)(uintptr_t)always);
			bool right = vma && vma->start <= (uint64_t)(uintptr_t)always &&
				     vma->end > (uint64_t)(uintptr_t)always && vma->view == &file[0]->view;
			map_unlock_shared(mm->map);
			CHECK(right);
		}
	}
}

/* ------------------------------------------------------------------ the place of a keeper */

/* Threads keep pages and let them go while another thread empties the pin sets. At the end no pin
 * is left, and no pin was put twice. Seen to fail, in about three runs of four, with a
 * keeper_enter() that reads `busy` and then sets `busy`. */
static void keeper_racer(unsigned id)
{
	struct progress progress = {0};
	unsigned seed = id + 1;
	for (unsigned round = 0; round < 20 * ROUNDS; round++) {
		if (id == 0) { /* like a thread that closes files */
			progress_drop_all(pool);
			continue;
		}
		uint64_t instruction = id * 2 + 2 + (random_of(&seed) % 8 == 0);
		struct page *page;
		bool fresh;
		if (page_add(file[0], random_of(&seed) % INDEXES, true, &page, &fresh) < 0)
			continue;
		if (fresh)
			page_unlock_unread(pool, page);
		if (round % 2 == 0) /* otherwise all threads would wait for the same few pin sets */
			progress_begin(&progress, pool, instruction, NULL);
		if (!progress_keep(&progress, pool, page))
			page_unpin(pool, page);
		if (round % 16 == 15)
			progress_fail(&progress, pool);
	}
	progress_fail(&progress, pool);
}

static void check_no_pins(void)
{
	for (uint32_t i = 0; i < pool->frames; i++)
		for (int tries = 0; PG_PINS(atomic_get(&pool->pages[i].state)); tries++) {
			if (tries > 1000)
				CHECK_FAIL("frame %u: pins are left: %#x", i, atomic_get(&pool->pages[i].state));
			support_sleep_ms(1); /* a short pin of the background thread */
		}
}

/* ------------------------------------------------------------------ all parts */

static void with_page(void (*fn)(unsigned id), unsigned count)
{
	bool fresh;
	CHECK_OK(page_add(file[0], 0, true, &locked, &fresh));
	CHECK(fresh);
	page_unlock_unread(pool, locked);
	race(count, fn);
	page_unpin(pool, locked);
	file_invalidate(file[0], 0, 0);
}

static void litmus(void)
{
	static const struct fm_file_options options = {.size = sizeof(options),
						       .readahead_bytes = UINT32_MAX};
	mm = support_mm(FRAMES * PAGE);
	for (int i = 0; i < 2; i++)
		file[i] = support_open(mm, "memory:1M", &options);
	pool = file[0]->pool;
	always = support_map(file[0], 0, PAGE);

	hazard_watch("litmus: store, then load: hangs");
	race(2, dekker_racer);
	hazard_watch("litmus: a thread sleeps for a page lock that is free: a wake-up was lost");
	with_page(wake_racer, 2);
	with_page(wake_racer, 4);
	with_page(lock_racer, 4);
	CHECK_EQ(protected_count, 4ull * ROUNDS);
	hazard_watch("litmus: a ticket was queued for a page that is free, and is not run");
	with_page(ticket_racer, 2);
	with_page(ticket_racer, 4);
	hazard_watch("litmus: look-ups against reuse: hangs");
	race(4, index_racer);
	check_no_pins();
	hazard_watch("litmus: the map lock: hangs; a thread was not woken");
	race(4, map_racer);
	hazard_watch("litmus: pin sets: hangs");
	race(4, keeper_racer);
	progress_drop_all(pool);
	check_no_pins();
	CHECK_OK(fm_unmap(mm, always, PAGE));
	for (int i = 0; i < 2; i++)
		CHECK_OK(fm_file_close(file[i]));
	support_mm_end(mm);
}

int main(void)
{
	/* Start the watchdog's thread first, so that the thread does not count as a leak. */
	hazard_watch("litmus: hangs before it begins");
	support_start();
	litmus();
	support_end();
	return 0;
}
