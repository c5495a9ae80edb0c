/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md A10: a page is installed after a truncate or a punch.
 *
 * A fault reads slowly, and the file is rewritten or truncated from outside meanwhile. Under
 * FM_CHANGED_ERROR the fault fails with ESTALE. Under FM_CHANGED_REFRESH the fault shows the new
 * bytes. The old bytes of a read that began before the change are never shown, and old and new
 * bytes are never mixed.
 *
 * A DONTNEED of the program against a fault that has locked its page leaves the right bytes. If a
 * mapping goes while its page is being installed, the page is taken out of the view again.
 *
 * Seen to fail with a file_recheck() that finds every file unchanged, and with a
 * fault_after_install() that leaves the page in the view (tests/HAZARDS.md).
 */
#include "hazard_support.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PAGES 64

static const struct fm_file_options error_policy = {.size = sizeof(error_policy),
						    .readahead_bytes = UINT32_MAX,
						    .changed = FM_CHANGED_ERROR};
static const struct fm_file_options refresh_policy = {.size = sizeof(refresh_policy),
						      .readahead_bytes = UINT32_MAX,
						      .changed = FM_CHANGED_REFRESH};

static void rewrite(const char *path, unsigned pages, unsigned seed)
{
	static char buf[PAGES * PAGE];
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	support_fill(buf, 0, pages * PAGE, seed);
	CHECK_EQ(pwrite(fd, buf, pages * PAGE, 0), pages * PAGE);
	CHECK_EQ(ftruncate(fd, (off_t)(pages * PAGE)), 0);
	close(fd);
}

/* Rewrite the file with `pages_then` pages while a fault on `page` is in flight. */
static void run(const struct fm_file_options *options, unsigned pages_then, unsigned page)
{
	struct hazard_access access;
	const char *path = support_file(PAGES * PAGE, 1);
	fm_mm *mm = support_mm(256 * PAGE);
	fm_file *file = support_open(mm, support_format("faulty:%s?stuck=1", path), options);
	char *map = support_map(file, 0, PAGES * PAGE);

	/* The time stamps of the file must differ. */
	support_sleep_ms(20);
	hazard_begin(&access, mm, map + page * PAGE + 5);
	EVENTUALLY(file->reads->inflight > 0);
	rewrite(path, pages_then, 2);
	CHECK_OK(fm_file_control(file, "stuck=0"));
	int err = hazard_end(&access);
	if (options->changed == FM_CHANGED_ERROR) {
		CHECK_EQ(err, -ESTALE);
		CHECK_EQ(support_read(mm, map + (page + 1) * PAGE, &access.byte, 1), -ESTALE);
	} else if (page < pages_then) {
		CHECK_EQ(err, 0);
		CHECK_EQ(access.byte, support_byte(page * PAGE + 5, 2));
		support_expect(mm, map, 0, pages_then * PAGE, 2);
	} else {
		/* The page is now past the end of the file. */
		CHECK_EQ(err, -ENXIO);
	}
	EVENTUALLY(support_stats(mm).files_changed == 1);
	CHECK_OK(fm_unmap(mm, map, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_own_punch(void)
{
	struct hazard_access access;
	fm_mm *mm = support_mm(256 * PAGE);
	fm_file *file = support_open(mm, support_format("faulty:%s", support_file(PAGES * PAGE, 1)), NULL);
	char *map = support_map(file, 0, PAGES * PAGE);

	for (unsigned i = 0; i < 20; i++) {
		CHECK_OK(fm_file_control(file, "stuck=1"));
		hazard_begin(&access, mm, map + i * PAGE);
		EVENTUALLY(file->reads->inflight > 0 || access.done);
		CHECK_OK(fm_advise(mm, map, PAGES * PAGE, FM_ADVICE_DONTNEED));
		CHECK_OK(fm_file_control(file, "stuck=0"));
		CHECK_OK(fm_advise(mm, map, PAGES * PAGE, FM_ADVICE_DONTNEED));
		CHECK_EQ(hazard_end(&access), 0);
		CHECK_EQ(access.byte, support_byte(i * PAGE, 1));
	}
	support_expect(mm, map, 0, PAGES * PAGE, 1);
	CHECK_OK(fm_unmap(mm, map, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* ---- the linker puts these wrappers around install_run() and page_install_from() */

static struct {
	fm_mm *mm;
	char *map;
	atomic_bool unmap;
} shared;

int __real_install_run(struct access *access, struct page *page);
int __wrap_install_run(struct access *access, struct page *page);
int __real_page_install_from(struct view *view, struct page *page, const char *stage, bool write);
int __wrap_page_install_from(struct view *view, struct page *page, const char *stage, bool write);

static void unmap_once(void)
{
	if (shared.unmap) {
		shared.unmap = false;
		fm_unmap(shared.mm, shared.map, PAGES * PAGE);
	}
}

int __wrap_install_run(struct access *access, struct page *page)
{
	unmap_once();
	return __real_install_run(access, page);
}

int __wrap_page_install_from(struct view *view, struct page *page, const char *stage, bool write)
{
	unmap_once();
	return __real_page_install_from(view, page, stage, write);
}

static void test_unmapped_while_installed(void)
{
	unsigned char byte;
	unsigned runs = 0;
	fm_mm *mm = shared.mm = support_mm(512 * PAGE);
	fm_file *file = support_open(mm, support_file(PAGES * PAGE, 1), &error_policy);

	/* Round 0 installs through a staging slot. From round 1 on the pages are cached and are
	 * installed as a run. */
	for (unsigned i = 0; i < 10; i++) {
		shared.map = support_map(file, 0, PAGES * PAGE);
		if (i == 1) {
			CHECK_OK(fm_advise(mm, shared.map, PAGES * PAGE, FM_ADVICE_WILLNEED));
			EVENTUALLY(support_stats(mm).frames_used == PAGES && !support_stats(mm).requests);
		}
		shared.unmap = true;
		struct fm_stats before = support_stats(mm);
		int err = support_read(mm, shared.map + i * PAGE, &byte, 1);
		/* Under the thread trap the install itself wakes the thread. The access may then
		 * succeed before the page is taken out. */
		CHECK(err == -EFAULT || (!err && test_trap() == FM_TRAP_THREAD));
		CHECK(!shared.unmap);
		/* Wait until the fault has ended. */
		EVENTUALLY(support_stats(mm).faults > before.faults);
		CHECK_EQ(support_stats(mm).pages_installed, 0);
		if (mm->install == FM_INSTALL_MOVE)
			runs += support_stats(mm).installs_move > before.installs_move + 1;
		CHECK_EQ(support_read(mm, shared.map + i * PAGE, &byte, 1), -EFAULT);
	}
	if (mm->install == FM_INSTALL_MOVE)
		CHECK_GT(runs, 0);
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

int main(void)
{
	hazard_watch("a fault did not end after its file had changed");
	run(&error_policy, PAGES, 7);
	run(&error_policy, 4, 7);
	run(&refresh_policy, PAGES, 7);
	run(&refresh_policy, 4, 7);
	run(&refresh_policy, 32, 7);
	test_own_punch();
	test_unmapped_while_installed();
	return 0;
}
