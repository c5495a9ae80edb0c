/* SPDX-License-Identifier: MIT */
/*
 * The thread trap reads the message of a fault late: another thread's install has woken the thread
 * meanwhile, its access has succeeded, and then the page was unmapped. The thread is told nothing.
 * Told of the missing mapping, it would take the error for its next access there, after the page
 * has been mapped again. The test calls tell_error() as the handler does for such a message.
 */
#include "inside.h"
#include "support.h"

#include "trap/internal.h"

#include <pthread.h>

#define LEN (16 * PAGE)

struct spinner {
	pthread_t thread;
	uint32_t tid, go; /* atomic */
	const volatile unsigned char *at;
	int got;
};

static void *spin_main(void *arg)
{
	struct spinner *spinner = arg;

	__atomic_store_n(&spinner->tid, os_gettid(), __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&spinner->go, __ATOMIC_SEQ_CST)) /* awake all the time */
		;
	struct support_signal signal = support_load(spinner->at);
	spinner->got = signal.signo ? -signal.signo : *spinner->at;
	return NULL;
}

static void test(void)
{
	struct fm_mm_options options = {.size = sizeof(options), .trap = FM_TRAP_THREAD};
	struct spinner spinner = {0};
	fm_mm *mm;
	int err = fm_mm_create(&options, &mm);

	if (err == -ENOSYS || err == -EPERM || err == -EOPNOTSUPP)
		SKIP("the thread trap: %s", strerror(-err));
	CHECK_OK(err);
	fm_file *file = support_open(mm, support_file(LEN, 1), NULL);
	void *map = support_map(file, 0, LEN);
	struct fm_error error = {.addr = map, .signo = SIGSEGV, .error = -EFAULT};

	spinner.at = map;
	CHECK_EQ(pthread_create(&spinner.thread, NULL, spin_main, &spinner), 0);
	EVENTUALLY(__atomic_load_n(&spinner.tid, __ATOMIC_SEQ_CST));
	CHECK_OK(fm_unmap(mm, map, LEN));
	tell_error(mm->trap, spinner.tid, (uint64_t)(uintptr_t)map, false, &error, NULL, NULL);
	CHECK_EQ((char *)support_map(file, 0, LEN) - (char *)map, 0);
	__atomic_store_n(&spinner.go, 1, __ATOMIC_SEQ_CST);
	CHECK_EQ(pthread_join(spinner.thread, NULL), 0);
	CHECK_EQ(spinner.got, support_byte(0, 1));
	CHECK_OK(fm_unmap(mm, map, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	return support_run(test);
}
