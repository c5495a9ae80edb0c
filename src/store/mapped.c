/* SPDX-License-Identifier: MIT */
/*
 * Reads of a file that take none of the locks which a system call on that file may hold.
 *
 * A thread whose system call has faulted in a mapping of the library waits with all locks that
 * the call has taken: write() holds the lock of the file that it writes to. Many file systems
 * take that same lock for read(). A read that serves the fault would then wait for the thread
 * that waits for the read.
 *
 * The kernel's own page fault on a file takes no such lock, on any file system: the fault is
 * made for being taken inside those calls. So the kernel maps the file for a moment. A system
 * call copies the bytes from that mapping, and reports an end of the file or a read error where
 * a load would raise SIGBUS. Owns nothing. Signal-safe. May call: os.h.
 */
#include "store.h"

#include "os/os.h"
#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define MAPPED_MOST (1u << 20) /* bytes of one mapping: a longer read is a short read */
#define RANDOM_MOST (64u << 10) /* up to so many bytes the kernel is told not to read ahead */

static int size_of(int fd, uint64_t *ret_size)
{
	struct statx stx;
	long error = os_syscall5(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_SIZE, &stx);

	*ret_size = error ? 0 : stx.stx_size;
	return (int)error;
}

/* Copy as copy_by_pipe() does, but all bytes at once. */
static ssize_t copy_by_call(char *from, size_t len, const struct iovec *iov, int iov_count)
{
	struct iovec source = {from, len};

	/* The calling thread's id stands for the process: the main thread may have ended. */
	return os_syscall6(SYS_process_vm_readv, os_gettid(), OS_ARG(iov), iov_count,
			   OS_ARG(&source), 1, 0);
}

/* Copy by a pipe, if process_vm_readv() is forbidden: the pipe takes a page's bytes, and gives
 * them back. */
static ssize_t copy_by_pipe(char *from, size_t len, const struct iovec *iov, int iov_count)
{
	int fd[2];
	ssize_t done = 0, n = os_syscall2(SYS_pipe2, fd, O_CLOEXEC);

	if (n < 0)
		return n;
	for (int i = 0; i < iov_count && n >= 0 && (size_t)done < len; i++)
		for (size_t at = 0; at < iov[i].iov_len && (size_t)done < len && n >= 0; at += (size_t)n) {
			size_t most = iov[i].iov_len - at < len - (size_t)done ? iov[i].iov_len - at
									       : len - (size_t)done;

			n = os_syscall3(SYS_write, fd[1], from + done, most < OS_PAGE ? most : OS_PAGE);
			if (n > 0)
				n = os_syscall3(SYS_read, fd[0], (char *)iov[i].iov_base + at, n);
			done += n > 0 ? n : 0;
			if (!n)
				n = -EIO;
		}
	os_syscall1(SYS_close, fd[0]);
	os_syscall1(SYS_close, fd[1]);
	return done ? done : n;
}

static ssize_t copy_out(char *from, size_t len, const struct iovec *iov, int iov_count)
{
	ssize_t n = copy_by_call(from, len, iov, iov_count);

	return n == -ENOSYS || n == -EPERM || n == -EACCES ? copy_by_pipe(from, len, iov, iov_count) : n;
}

/* Return the error of a copy that copied nothing from this address on. -EIO: the file's page
 * cannot be read; else the copy's own errno, which is about the destination. */
static int copy_trouble(char *from, int error)
{
	long failed = error == -EFAULT ? os_syscall3(SYS_madvise,
						     (uintptr_t)from & ~(uintptr_t)(OS_PAGE - 1),
						     OS_PAGE, MADV_POPULATE_READ)
				       : 0;

	return failed == -EFAULT || failed == -EHWPOISON ? -EIO : error;
}

/* Read as preadv() does: returns 0 and *ret_done, which may be short. -ENODEV and the like: the
 * file cannot be mapped, and no byte was read. */
int file_read_mapped(int fd, const struct iovec *iov, int iov_count, uint64_t offset,
		     size_t *ret_done)
{
	uint64_t before, after, skew = offset % OS_PAGE;
	size_t len = store_iov_bytes(iov, iov_count);
	int error = size_of(fd, &before);

	*ret_done = 0;
	if (error || offset >= before)
		return error;
	len = len < MAPPED_MOST ? len : MAPPED_MOST;
	len = len < before - offset ? len : (size_t)(before - offset);
	size_t mapped = (skew + len + OS_PAGE - 1) & ~(size_t)(OS_PAGE - 1);
	long at = os_syscall6(SYS_mmap, 0, OS_ARG(mapped), PROT_READ, MAP_SHARED, fd,
			      OS_ARG(offset - skew));

	if (at < 0 && at > -4096)
		return (int)at;
	if (len <= RANDOM_MOST)
		os_syscall3(SYS_madvise, at, mapped, MADV_RANDOM);
	char *from = (char *)at + skew;
	ssize_t n = copy_out(from, len, iov, iov_count);

	/* The bytes do not show where the file ended during the copy: bytes past the end are
	 * zeros. */
	error = size_of(fd, &after);
	if (!error && offset >= after)
		n = 0;
	else if (!error && n > 0 && (uint64_t)n > after - offset)
		n = (ssize_t)(after - offset);
	else if (!error && n < 0)
		error = copy_trouble(from, (int)n);
	os_syscall2(SYS_munmap, at, mapped);
	if (!error)
		*ret_done = (size_t)n;
	return error;
}
