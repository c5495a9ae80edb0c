/* SPDX-License-Identifier: MIT */
/*
 * A system call that waits in the thread trap may hold a lock of the very file that its page is
 * read from. write() holds the lock of the inode while the kernel faults the source in, and a
 * direct read takes that lock. No read that serves a fault may wait for the lock.
 *
 * - pwrite() to a file from a cold mapping of that file, also with source and destination
 *   overlapping
 * - writev() with several pieces of the mapping, some of which overlap the destination
 * - pread() and direct pread() of a file into a mapping of that file, which are write faults
 * - two threads that write two files, each from a mapping of the other's file; beside them a
 *   thread that calls fm_fault_in(), a thread that syncs its writes, and a thread that punches
 *   holes
 *
 * Each case runs in a folder of the machine's own disk. As root each case also runs on XFS, on
 * Btrfs, and on overlayfs over XFS, whose reads take other locks.
 */
#include "inside.h"
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGES 256u
#define BYTES (PAGES * PAGE)
#define BUDGET (64 * PAGE)
#define ROUNDS 24u
#define HANG_S 50

static fm_mm *mm_of(enum fm_install install)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = BUDGET,
					.trap = FM_TRAP_THREAD,
					.install = install};
	fm_mm *mm;
	int error = fm_mm_create(&options, &mm);

	if (error == -ENOSYS || error == -EPERM || error == -EOPNOTSUPP)
		SKIP("the thread trap: %s", strerror(-error));
	CHECK_OK(error);
	return mm;
}

/* ------------------------------------------------------------------ bytes that name their page */

static uint64_t stamp(uint64_t page)
{
	return 0x6c6f636b00000000ull | page;
}

static int file_make(const char *path)
{
	uint64_t words[PAGE / 8];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		CHECK_FAIL("%s: %s", path, strerror(errno));
	for (uint64_t page = 0; page < PAGES; page++) {
		for (unsigned i = 0; i < PAGE / 8; i++)
			words[i] = stamp(page);
		CHECK_EQ(pwrite(fd, words, PAGE, (off_t)(page * PAGE)), (ssize_t)PAGE);
	}
	CHECK_EQ(fsync(fd), 0);
	return fd;
}

/* Check that each word of page `at` comes from `page`, or from a page some multiples of `step`
 * before it. A write that overlaps its source may have read what it had itself written. If `step`
 * is 0, only `page` is right. */
static void expect_from(int fd, uint64_t at, uint64_t page, uint64_t step)
{
	uint64_t words[PAGE / 8];

	CHECK_EQ(pread(fd, words, PAGE, (off_t)(at * PAGE)), (ssize_t)PAGE);
	for (unsigned i = 0; i < PAGE / 8; i++) {
		uint64_t from = words[i] & UINT32_MAX;
		bool right = words[i] == stamp(from) &&
			     (from == page || (step && from < page && (page - from) % step == 0));
		if (!right)
			CHECK_FAIL("page %d, word %u: %#llx, not of page %d", (int)at, i,
				   (unsigned long long)words[i], (int)page);
	}
}

/* ------------------------------------------------------------------ one system call at a time */

struct mapped {
	fm_mm *mm;
	fm_file *file;
	char *map;
	int fd;
	char path[512];
};

static struct mapped mapped_open(const char *dir, enum fm_install install)
{
	struct fm_file_options open_for = {.size = sizeof(open_for), .flags = FM_FILE_WRITE};
	struct fm_map_options map_for = {.size = sizeof(map_for), .flags = FM_MAP_WRITE};
	struct mapped m = {.mm = mm_of(install)};
	void *addr;

	snprintf(m.path, sizeof(m.path), "%s/own", dir);
	m.fd = file_make(m.path);
	CHECK_OK(fm_file_open(m.mm, m.path, &open_for, &m.file));
	CHECK_OK(fm_map(m.file, 0, BYTES, &map_for, &addr));
	m.map = addr;
	return m;
}

static void mapped_close(struct mapped *m)
{
	CHECK_OK(fm_unmap(m->mm, m->map, BYTES));
	CHECK_OK(fm_file_close(m->file));
	support_mm_end(m->mm);
	close(m->fd);
	unlink(m->path);
}

static void test_pwrite(const char *dir, enum fm_install install)
{
	struct mapped m = mapped_open(dir, install);

	CHECK_EQ(pwrite(m.fd, m.map, 16 * PAGE, 64 * PAGE), (ssize_t)(16 * PAGE));
	for (unsigned i = 0; i < 16; i++)
		expect_from(m.fd, 64 + i, i, 0);
	/* Write pages onto themselves, then two pages further, where source and destination
	 * overlap. */
	CHECK_EQ(pwrite(m.fd, m.map + 96 * PAGE, 8 * PAGE, 96 * PAGE), (ssize_t)(8 * PAGE));
	CHECK_EQ(pwrite(m.fd, m.map + 128 * PAGE, 8 * PAGE, 130 * PAGE), (ssize_t)(8 * PAGE));
	for (unsigned i = 0; i < 8; i++) {
		expect_from(m.fd, 96 + i, 96 + i, 0);
		expect_from(m.fd, 130 + i, 128 + i, 2);
	}
	/* Write past the end: the file grows while the lock is held. */
	CHECK_EQ(pwrite(m.fd, m.map + 200 * PAGE, 4 * PAGE, BYTES), (ssize_t)(4 * PAGE));
	for (unsigned i = 0; i < 4; i++)
		expect_from(m.fd, PAGES + i, 200 + i, 0);
	mapped_close(&m);
}

static void test_writev(const char *dir, enum fm_install install)
{
	struct mapped m = mapped_open(dir, install);
	struct iovec iov[4];

	for (unsigned i = 0; i < 4; i++)
		iov[i] = (struct iovec){m.map + (32 + 3 * i) * PAGE, PAGE};
	CHECK_EQ(pwritev(m.fd, iov, 4, 34 * PAGE), (ssize_t)(4 * PAGE));
	expect_from(m.fd, 34, 32, 0);
	/* Page 35 comes from its own place, or from page 32, which was just written there. */
	expect_from(m.fd, 35, 35, 3);
	expect_from(m.fd, 36, 38, 0);
	expect_from(m.fd, 37, 41, 0);
	mapped_close(&m);
}

static void test_read_into(const char *dir, enum fm_install install)
{
	struct mapped m = mapped_open(dir, install);
	int direct = open(m.path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	CHECK_EQ(pread(m.fd, m.map + 64 * PAGE, 8 * PAGE, 0), (ssize_t)(8 * PAGE));
	if (direct >= 0) {
		CHECK_EQ(pread(direct, m.map + 128 * PAGE, 8 * PAGE, 16 * PAGE), (ssize_t)(8 * PAGE));
		close(direct);
	}
	CHECK_OK(fm_file_sync(m.file, 0, BYTES, 0));
	for (unsigned i = 0; i < 8; i++) {
		expect_from(m.fd, 64 + i, i, 0);
		expect_from(m.fd, 128 + i, direct >= 0 ? 16 + i : 128 + i, 0);
	}
	mapped_close(&m);
}

/* A file, and a mapping of a handle for reading. `error` is the last one of an access. */
struct read_handle {
	fm_mm *mm;
	fm_file *file;
	char *map;
	int fd, error;
	char path[512];
};

static enum fm_error_action note_error(void *arg, const struct fm_error *error)
{
	((struct read_handle *)arg)->error = error->error;
	return FM_ERROR_RAISE;
}

static void reading_open(struct read_handle *r, const char *dir, enum fm_install install,
			 enum fm_changed changed)
{
	struct fm_file_options open_for = {.size = sizeof(open_for), .changed = changed};
	struct fm_map_options map_for = {
		.size = sizeof(map_for), .on_error = note_error, .on_error_arg = r};
	void *addr;

	r->error = 0;
	r->mm = mm_of(install);
	snprintf(r->path, sizeof(r->path), "%s/own", dir);
	r->fd = file_make(r->path);
	CHECK_OK(fm_file_open(r->mm, r->path, &open_for, &r->file));
	CHECK_OK(fm_map(r->file, 0, BYTES, &map_for, &addr));
	r->map = addr;
}

static void reading_close(struct read_handle *r)
{
	CHECK_OK(fm_unmap(r->mm, r->map, BYTES));
	CHECK_OK(fm_file_close(r->file));
	support_mm_end(r->mm);
	close(r->fd);
	unlink(r->path);
}

/* A handle for reading. write() sets the file's mtime, and only then asks for the page. So the read
 * of the page finds a change. FM_CHANGED_ERROR makes an error of each change: the system call gets
 * EFAULT, and writes nothing. FM_CHANGED_REFRESH reads the page again. A page that is pinned needs
 * no read. */
static void test_handle_for_reading(const char *dir, enum fm_install install)
{
	struct read_handle r;

	reading_open(&r, dir, install, FM_CHANGED_ERROR);
	CHECK_OK(fm_pin(r.mm, r.map + 32 * PAGE, PAGE, 0));
	CHECK_EQ(pwrite(r.fd, r.map + 32 * PAGE, PAGE, 64 * PAGE), (ssize_t)PAGE);
	expect_from(r.fd, 64, 32, 0);
	CHECK_OK(fm_unpin(r.mm, r.map + 32 * PAGE, PAGE));
	errno = 0;
	CHECK_EQ(pwrite(r.fd, r.map + 8 * PAGE, PAGE, 65 * PAGE), -1);
	CHECK_EQ(errno, EFAULT);
	expect_from(r.fd, 65, 65, 0);
	CHECK_EQ(fm_fault_in(r.mm, r.map + 8 * PAGE, PAGE, 0), -ESTALE);
	reading_close(&r);
	reading_open(&r, dir, install, FM_CHANGED_REFRESH);
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(pwrite(r.fd, r.map + 8 * i * PAGE, 2 * PAGE, (8 * i + 4) * PAGE),
			 (ssize_t)(2 * PAGE));
	for (unsigned i = 0; i < 32; i++)
		expect_from(r.fd, 8 * (i / 2) + 4 + i % 2, 8 * (i / 2) + i % 2, 0);
	CHECK_EQ(r.error, 0);
	reading_close(&r);
}

/* ------------------------------------------------------------------ many threads at once */

/* Pages 0 to 95 are written by pwrite(), always from pages with the right stamp. Pages 128 to 159
 * are written by threads that store to the mapping. Pages 192 to 223 get holes. */
struct worker {
	pthread_t thread;
	struct mapped *from, *to;
	unsigned seed, *stop;
};

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

static void *write_across(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned page = next_random(&w->seed) % 92;
		ssize_t n = pwrite(w->to->fd, w->from->map + page * PAGE, 4 * PAGE, (off_t)(page * PAGE));
		CHECK_EQ(n, (ssize_t)(4 * PAGE));
	}
	return NULL;
}

static void *bring_in(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(w->stop, __ATOMIC_SEQ_CST))
		CHECK_OK(fm_fault_in(w->from->mm, w->from->map + next_random(&w->seed) % 92 * PAGE, 4 * PAGE, 0));
	return NULL;
}

static void *store_and_sync(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(w->stop, __ATOMIC_SEQ_CST)) {
		for (unsigned i = 128; i < 160; i++)
			((volatile uint64_t *)(w->from->map + i * PAGE))[5] = stamp(i);
		CHECK_OK(fm_file_sync(w->from->file, 0, BYTES, 0));
	}
	return NULL;
}

static void *punch(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(w->stop, __ATOMIC_SEQ_CST)) {
		CHECK_OK(fm_punch(w->from->file, (192 + next_random(&w->seed) % 30) * PAGE, 2 * PAGE));
		support_sleep_ms(1);
	}
	return NULL;
}

static void start(struct worker *w, void *(*fn)(void *), struct mapped *from, struct mapped *to,
		  unsigned *stop)
{
	static unsigned seed;

	*w = (struct worker){.from = from, .to = to, .seed = ++seed, .stop = stop};
	CHECK_EQ(pthread_create(&w->thread, NULL, fn, w), 0);
}

static void test_many(const char *dir, enum fm_install install)
{
	char other[512];
	struct worker worker[7];
	unsigned stop = 0;

	snprintf(other, sizeof(other), "%s/other", dir);
	CHECK(!mkdir(other, 0700) || errno == EEXIST);
	struct mapped a = mapped_open(dir, install);
	struct mapped b = mapped_open(other, install);
	start(&worker[0], write_across, &a, &b, &stop);
	start(&worker[1], write_across, &b, &a, &stop);
	start(&worker[2], write_across, &a, &a, &stop);
	start(&worker[3], bring_in, &a, NULL, &stop);
	start(&worker[4], store_and_sync, &a, NULL, &stop);
	start(&worker[5], store_and_sync, &b, NULL, &stop);
	start(&worker[6], punch, &a, NULL, &stop);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(worker[i].thread, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 3; i < 7; i++)
		CHECK_EQ(pthread_join(worker[i].thread, NULL), 0);
	CHECK_OK(fm_file_sync(a.file, 0, BYTES, 0));
	for (unsigned page = 0; page < 96; page++)
		expect_from(a.fd, page, page, 0);
	for (unsigned page = 128; page < 160; page++)
		expect_from(b.fd, page, page, 0);
	mapped_close(&b);
	mapped_close(&a);
	rmdir(other);
}

static void test_folder(const char *dir, enum fm_install install)
{
	test_pwrite(dir, install);
	test_writev(dir, install);
	test_read_into(dir, install);
	test_handle_for_reading(dir, install);
	test_many(dir, install);
}

/* ------------------------------------------------------------------ other file systems */

static bool command(const char *format, ...)
{
	char line[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	return system(line) == 0;
}

/* Give this process a mount namespace of its own, which goes with the process. */
static bool mounts_are_ours(void)
{
	return geteuid() == 0 && !unshare(CLONE_NEWNS) &&
	       !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static bool mount_image(const char *dir, const char *kind, unsigned size_mib)
{
	return !mkdir(support_format("%s/%s", dir, kind), 0700) &&
	       command("cd %s && command -v mkfs.%s >/dev/null 2>&1 && truncate -s %uM %s.img && "
		       "mkfs.%s -q %s.img >/dev/null 2>&1 && mount -o loop %s.img %s 2>/dev/null",
		       dir, kind, size_mib, kind, kind, kind, kind, kind);
}

static bool mount_overlay(const char *dir)
{
	return command("cd %s && mkdir -p xfs/up xfs/work xfs/low overlay && "
		       "mount -t overlay fm-test -o "
		       "lowerdir=xfs/low,upperdir=xfs/up,workdir=xfs/work overlay 2>/dev/null",
		       dir);
}

static void test_mounted(const char *dir, const char *kind, bool mounted)
{
	char path[512];

	if (!mounted) {
		printf("no %s here: not tested\n", kind);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", dir, kind);
	test_folder(path, FM_INSTALL_AUTO);
}

/* Without privilege the kernel answers a system call at a cold address with EFAULT. */
static bool calls_are_served(void)
{
	struct fm_mm_options options = {.size = sizeof(options), .trap = FM_TRAP_THREAD};
	fm_mm *mm = NULL;
	int err = fm_mm_create(&options, &mm);
	bool served = !err && trap_serves_calls(mm->trap);

	if (!err)
		CHECK_OK(fm_mm_destroy(mm));
	return served;
}

int main(void)
{
	char dir[256];
	bool ours = mounts_are_ours();

	if (!calls_are_served())
		SKIP("the thread trap serves no system calls here: that needs CAP_SYS_PTRACE");
	alarm(HANG_S);
	support_start();
	snprintf(dir, sizeof(dir), "%s", support_path());
	CHECK_EQ(mkdir(dir, 0700), 0);
	test_folder(dir, FM_INSTALL_MOVE);
	test_folder(dir, FM_INSTALL_COPY);
	if (ours) {
		bool xfs = mount_image(dir, "xfs", 320);
		test_mounted(dir, "xfs", xfs);
		test_mounted(dir, "overlay", xfs && mount_overlay(dir));
		(void)umount(support_format("%s/overlay", dir));
		(void)umount(support_format("%s/xfs", dir));
		test_mounted(dir, "btrfs", mount_image(dir, "btrfs", 192));
		(void)umount(support_format("%s/btrfs", dir));
	}
	(void)command("rm -rf %s", dir);
	support_end();
	return 0;
}
