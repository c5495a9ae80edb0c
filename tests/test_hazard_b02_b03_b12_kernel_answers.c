/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B: the answers of the kernel to MOVE and COPY. A wrapper around the call makes each
 * answer happen.
 *
 * B2   EBUSY while a page is pinned: the library retries, then copies or skips the page. EAGAIN
 *      with part of the work done: the library goes on with the rest.
 * B3   EEXIST is no error, but the library must wake the waiters.
 * B12  EINVAL for a partly locked range: the library uses COPY. This is also tested with a real
 *      mlock2().
 * B14  A hole in a slot (ENOENT), and a page of several pieces of which only a part went in or
 *      out: the library finishes the transfer or rolls the transfer back.
 *
 * After each answer all bytes are right, and no frame, charge or page is lost.
 *
 * Seen to fail with EBUSY, EINVAL, EAGAIN and ENOENT each taken for an error, and without the
 * wake-up after EEXIST.
 */
#include "hazard_support.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/uffd_abi.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include "os/fds.h"

#define FILE_BYTES (2 * MIB)
#define DONTWAKE   1

enum answer {
	AS_IT_IS,
	/* EBUSY for every third call, before the call does anything. */
	BUSY_SOMETIMES,
	/* Some pages can never be moved into the view. */
	BUSY_IN,
	/* EBUSY for every other move out of the view. */
	BUSY_OUT,
	/* Into the view: the first 4 KiB of a page go, the rest does not. */
	BUSY_HALF_WAY,
	/* Out of the view: the first 4 KiB of a page go, the rest does not. */
	BUSY_HALF_OUT,
	/* Each call does 4 KiB of a longer range. */
	AGAIN_PART,
	/* Every third call does its work, says EEXIST and wakes no thread. Linux 6.18 does so now
	 * and then. */
	EXISTS,
	/* EINVAL for all moves into the view. */
	INVALID,
	/* The slot has been emptied, for every fifth move into the view. */
	NO_ENTRY,
	ANSWERS
};
static const char *const names[ANSWERS] = {"as it is", "busy sometimes", "busy in", "busy out",
					   "busy half way", "busy half out", "again, in part",
					   "exists", "invalid", "no entry"};

static _Atomic enum answer answer;
static _Atomic uint64_t calls, given;
static struct frame_pool *pool;

int __real_trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		     uint64_t *ret_done);
int __real_trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		     uint64_t *ret_done);
int __wrap_trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		     uint64_t *ret_done);
int __wrap_trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		     uint64_t *ret_done);

static bool into_slot(uint64_t dst)
{
	uint64_t slots = (uint64_t)(uintptr_t)pool->slots;
	return dst >= slots && dst < slots + pool->slots_len;
}

/* Choose few pages: the library tries each of them many times. */
static bool always_busy(uint64_t addr)
{
	return addr / PAGE % 32 == 0;
}

static int say(int err, uint64_t *ret_done)
{
	given++;
	*ret_done = 0;
	return err;
}

/* Return the number of the userfaultfd in the calling thread's descriptor table. A thread of the
 * library has a table of its own. */
static int uffd_number(const struct trap *trap)
{
	return os_fds_own() ? trap->own_fd : trap->fd;
}

/* Do the call without waking a thread, then answer EEXIST. */
static int exists(struct trap *trap, bool move, uint64_t dst, uint64_t src, uint64_t *ret_done)
{
	struct abi_move m = {.dst = dst, .src = src, .len = PAGE, .mode = DONTWAKE};
	struct uffdio_copy c = {.dst = dst, .src = src, .len = PAGE, .mode = DONTWAKE};
	long ret = move ? os_syscall3(SYS_ioctl, uffd_number(trap), ABI_IOC_MOVE, &m)
			: os_syscall3(SYS_ioctl, uffd_number(trap), UFFDIO_COPY, &c);
	if (ret < 0)
		return say((int)ret, ret_done);
	return say(-EEXIST, ret_done);
}

static int part(struct trap *trap, uint64_t dst, uint64_t src, int err, uint64_t *ret_done)
{
	int real = __real_trap_move(trap, dst, src, PAGE, ret_done);
	given++;
	return real ? real : err;
}

int __wrap_trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		     uint64_t *ret_done)
{
	uint64_t number = ++calls;
	bool out = !pool || into_slot(dst);

	if (!pool)
		return __real_trap_move(trap, dst, src, len, ret_done);
	switch (answer) {
	case BUSY_SOMETIMES:
		if (number % 3 == 0)
			return say(-EBUSY, ret_done);
		break;
	case BUSY_IN:
		if (!out && always_busy(dst))
			return say(-EBUSY, ret_done);
		break;
	case BUSY_OUT:
		if (out && number % 2)
			return say(-EBUSY, ret_done);
		break;
	case BUSY_HALF_WAY:
		if (!out && len == pool->page_size && len > PAGE)
			return part(trap, dst, src, -EAGAIN, ret_done);
		if (!out && always_busy(dst))
			return say(-EBUSY, ret_done);
		break;
	case BUSY_HALF_OUT:
		if (out && len == pool->page_size && len > PAGE && number % 2)
			return part(trap, dst, src, -EAGAIN, ret_done);
		if (out && len < pool->page_size)
			return say(-EBUSY, ret_done);
		break;
	case AGAIN_PART:
		if (len > PAGE)
			return part(trap, dst, src, -EAGAIN, ret_done);
		if (number % 4 == 0)
			return say(-EAGAIN, ret_done);
		break;
	case EXISTS:
		if (!out && number % 3 == 0)
			return exists(trap, true, dst, src, ret_done);
		break;
	case INVALID:
		if (!out)
			return say(-EINVAL, ret_done);
		break;
	case NO_ENTRY:
		if (!out && number % 5 == 0) {
			/* Empty only the first page of a run. The library checks the other pages
			 * when they are wanted. A frame taken from another page before that would
			 * have no memory, and under the call trap nothing would fill the frame. */
			madvise((void *)(uintptr_t)src, pool->page_size, MADV_DONTNEED);
			given++;
		}
		break;
	default:
		break;
	}
	return __real_trap_move(trap, dst, src, len, ret_done);
}

int __wrap_trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		     uint64_t *ret_done)
{
	uint64_t number = ++calls;

	if (answer == EXISTS && number % 3 == 0)
		return exists(trap, false, dst, src, ret_done);
	if (answer == AGAIN_PART && number % 4 == 0)
		return say(-EAGAIN, ret_done);
	if (answer == AGAIN_PART && len > PAGE) {
		given++;
		int real = __real_trap_copy(trap, dst, src, PAGE, ret_done);
		return real ? real : -EAGAIN;
	}
	return __real_trap_copy(trap, dst, src, len, ret_done);
}

static struct {
	fm_mm *mm;
	fm_file *file;
	char *map;
} shared;

/* Read from the thread's own place to the end of the file. The pool is at most half as large as the
 * file, so that pages leave the view again. */
static void *reader(void *arg)
{
	uint64_t at = (uint64_t)(uintptr_t)arg * 256 * KIB;
	hazard_same(shared.mm, shared.file, shared.map + at, at, FILE_BYTES - at);
	return NULL;
}

static void run(enum answer which, uint32_t page_size)
{
	const struct fm_file_options options = {.size = sizeof(options), .page_size = page_size};
	pthread_t thread[4];

	fm_mm *mm = shared.mm = support_mm(fm_budget_min(page_size));
	fm_file *file = shared.file = support_open(mm, "memory:2M?seed=5", &options);
	char *map = shared.map = support_map(file, 0, FILE_BYTES);
	pool = file->pool;
	calls = given = 0;
	answer = which;
	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, reader, (void *)i), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	if (mm->install == FM_INSTALL_MOVE && which != AS_IT_IS &&
	    !(page_size == PAGE && which == BUSY_HALF_OUT) && !given)
		CHECK_FAIL("%s, %u-byte pages: the answer did not occur", names[which], page_size);
	answer = AS_IT_IS;
	hazard_same(mm, file, map, 0, FILE_BYTES);
	/* A page that was left half way would count as emptied. */
	if (which != NO_ENTRY && support_stats(mm).emptied_behind)
		CHECK_FAIL("%s, %u-byte pages: a page was emptied", names[which], page_size);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	EVENTUALLY(support_stats(mm).files == 0);
	EVENTUALLY(support_stats(mm).frames_used == 0);
	EVENTUALLY(support_stats(mm).charged_bytes <= mm->budget_bytes);
	support_mm_end(mm);
	pool = NULL;
}

/* The program locks a part of the view in memory, so the kernel itself answers EINVAL. */
static void test_mlock(void)
{
	fm_mm *mm = support_mm(128 * PAGE);
	fm_file *file = support_open(mm, "memory:2M?seed=5", NULL);
	char *map = support_map(file, 0, FILE_BYTES);

	if (syscall(SYS_mlock2, map + 16 * PAGE, 32 * PAGE, 1 /* MLOCK_ONFAULT */) < 0) {
		printf("mlock2: %s: not tried\n", strerror(errno));
	} else {
		for (int i = 0; i < 3; i++)
			hazard_same(mm, file, map, 0, FILE_BYTES);
		munlock(map + 16 * PAGE, 32 * PAGE);
		hazard_same(mm, file, map, 0, FILE_BYTES);
	}
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	/* Under TSan both page sizes would take minutes, and the larger size involves no further
	 * thread. */
	for (uint32_t page_size = 4096; page_size <= (SUPPORT_TSAN ? 4096u : 65536u); page_size *= 16)
		for (int which = 0; which < ANSWERS; which++) {
			hazard_watch(support_format("%s, %u-byte pages: a thread waits for ever", names[which],
						    page_size));
			run((enum answer)which, page_size);
		}
	hazard_watch("a partly locked view is never filled");
	test_mlock();
	return 0;
}
