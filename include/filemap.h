/* SPDX-License-Identifier: MIT */
/*
 * filemap: mmap served from user space.
 *
 * A page fault on a filemap mapping is answered by this library, over its own page cache,
 * from any store that can read a byte range. One rule holds throughout: no thread ever holds
 * the map lock while it does, or waits for, anything that can block.
 *
 * Conventions
 *   - Every function that can fail returns 0 or a negative errno. Results go through `ret_`
 *     parameters, which stay untouched on failure.
 *   - The library never prints and never exits. Give a log function to hear words.
 *   - Lengths and offsets are bytes, times are nanoseconds, unless a name says otherwise.
 *   - Option structures begin with their own size: set it to sizeof, leave the rest zero for
 *     the defaults. A NULL pointer means all defaults.
 *   - Thread-safe means: any thread, any time. Signal-safe means: also from a signal handler.
 *   - After fork() the child owns nothing: every call on an object of the parent gives
 *     -EOWNERDEAD there, and touching a mapping is SIGSEGV. It never reads zeros.
 *   - Threads must leave SIGBUS unblocked while they touch a mapping (inline trap): the kernel
 *     kills a process whose thread faults with the signal blocked.
 *   - While a fault waits for a store, all signals of that one thread are held back, as they
 *     are for a thread in an uninterruptible read. Set a deadline where a store may die.
 */
#ifndef FILEMAP_H
#define FILEMAP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FM_VERSION_MAJOR 0
#define FM_VERSION_MINOR 1
#define FM_VERSION_PATCH 0

#if defined(__GNUC__)
#define FM_PUBLIC __attribute__((visibility("default")))
#else
#define FM_PUBLIC
#endif

/** An address space: its mappings, its page caches, its frame pool, one map lock. */
typedef struct fm_mm fm_mm;
/** An open object of a store, with its page cache. Reference-counted. */
typedef struct fm_file fm_file;

/** The library's version, "MAJOR.MINOR.PATCH". Static storage. Signal-safe. */
FM_PUBLIC const char *fm_version(void);

/* ------------------------------------------------------------------ address spaces */

/** How a fault reaches the library. */
enum fm_trap {
	/** FM_TRAP_INLINE. */
	FM_TRAP_DEFAULT = 0,
	/** SIGBUS in the faulting thread, which serves its own fault. Needs no privilege. A system
	 *  call that is given a cold address fails with EFAULT: see fm_fault_in() and fm_pin(). */
	FM_TRAP_INLINE = 1,
	/** A handler thread reads fault messages. System calls are served too where the kernel
	 *  grants it (CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd = 1); else as inline.
	 *  A system call waits for its page with the locks that it holds, and others wait for these
	 *  as long: of a pipe, or of the file that it writes to. No read of the library's waits for
	 *  a lock of a local file: write() from a mapping of the same file works. Writing back does:
	 *  a read() with O_DIRECT into a mapping of the file that it reads can wait for ever while
	 *  fm_punch() or fm_truncate() changes those pages, or while no more may be dirty and another
	 *  write() to that file waits. A server of a FUSE file system must not map its own files. */
	FM_TRAP_THREAD = 2,
	/** No trap: pages come in by fm_fault_in() and fm_pin() only; reading an absent page is
	 *  SIGBUS to the program (-ENODATA), writing to one, or to one that was not brought in for that,
	 *  SIGSEGV (-EACCES). Callbacks of mappings are not asked. */
	FM_TRAP_CALL = 3,
};

/** How a page's bytes are made to appear in a mapping. */
enum fm_install {
	/** The library chooses: MOVE where the kernel has it (Linux 6.8), else COPY. */
	FM_INSTALL_AUTO = 0,
	/** The frame itself is moved; a page that is read alone is copied, and protected from its first
	 *  moment. Of what is moved the protection against stray writes follows within milliseconds, in
	 *  the background: such a write changes what this process sees of the page until it is read
	 *  again, and never reaches the store. */
	FM_INSTALL_MOVE = 1,
	/** The bytes are copied into a read-only region: a stray write is SIGSEGV from the first
	 *  moment. Costs up to twice the memory for a short while; counted within the budget. */
	FM_INSTALL_COPY = 2,
};

/** Flags of struct fm_mm_options. */
enum fm_mm_flags {
	/** For experiments only: strip ALLOW_RETRY from every fault and do its waits under the map
	 *  lock, as a fault path without the rule would. `lock_held_over_block` counts each. */
	FM_MM_HOLD_LOCK = 1u << 0,
	/** A keeper: a helper process that shares this one's memory and outlives it. Should the process end without
	 *  fm_mm_destroy(), by kill -9 or exec() too, the keeper writes what is dirty in files open for writing back to
	 *  their stores, as the kernel does for mmap(), makes it durable, and ends. Until then the memory stays allocated.
	 *  It does not outlive what ends all processes of a cgroup or a container. Costs one process and one thread, which
	 *  sleep. Only local files: else fm_file_open() for writing is -EOPNOTSUPP; at most 1024 of them open at once
	 *  (-EMFILE), and 16 programs with FM_KEEP for one file (-EUSERS).
	 *  Who comes next: fm_file_open() of the file, in any process of the network namespace, waits until the keeper has
	 *  ended. Others can call fm_keeper_wait(). Where the file is the program's user's, and nobody has it open, the
	 *  keeper holds a lease (fcntl(2)) on it, so that open() waits. Where somebody has it open, the keeper first looks
	 *  on for a quarter of a second. In any case it looks before each write whether somebody has changed the file since the
	 *  program's end. If so it writes nothing more: what is left is lost, which fm_keeper_wait() and fm_file_open()
	 *  tell who waits for it. A change counts by size and mtime. It is not seen where its writer puts the old mtime
	 *  back; in the same tick of the file system's clock as the program's last own write (up to 10 ms; on Linux 6.13
	 *  never); between the keeper's look and its write (microseconds; a lease excludes it); and, where a write by the
	 *  program was under way at its end, between that end and the keeper's first look, some microseconds later.
	 *  What the program itself has changed by other ways than the library in the last tenth of a second of its life is
	 *  taken for another's.
	 *  Where the store refuses (-ENOSPC), the keeper tries again for 10 seconds without a success, and two minutes in all.
	 *  The keeper has none of the program's descriptors but those of the files. No capability of it is in effect, a
	 *  filter leaves it the few system calls that it needs, and it follows within a second when the program gives up its
	 *  user, groups or capabilities. */
	FM_KEEP = 1u << 1,
};

enum fm_log_level { FM_LOG_ERROR = 0, FM_LOG_WARNING = 1, FM_LOG_INFO = 2 };
/** Receives one line without a newline. Called from any thread, never from a signal handler and
 *  never with a lock held. It may be called until fm_mm_destroy() returns, or fm_mm_create() where that fails: `arg` lives as
 *  long. */
typedef void (*fm_log_fn)(void *arg, enum fm_log_level level, const char *line);

struct fm_mm_options {
	size_t size; /**< sizeof(struct fm_mm_options) */
	/** Memory for pages, in bytes; 0: a quarter of the cgroup's limit or an eighth of the
	 *  machine's memory, between 16 MiB and 1 GiB. At least fm_budget_min(). */
	uint64_t budget_bytes;
	uint32_t trap;    /**< enum fm_trap */
	uint32_t install; /**< enum fm_install */
	uint32_t flags;   /**< enum fm_mm_flags */
	uint32_t reserved;
	fm_log_fn log; /**< NULL: silent */
	void *log_arg;
};

/** The smallest budget, in bytes, that serves files of this page size: 16 frames. One quarter of
 *  the frames may be held by instructions in progress, and the largest of those (a string move
 *  that straddles pages at both ends) needs four at once. 0 for an invalid page size.
 *  Signal-safe. */
FM_PUBLIC uint64_t fm_budget_min(uint32_t page_size);

/**
 * Make an address space. All its metadata is allocated and populated here, in proportion to the
 * budget. Thread-safe.
 * Errors: -EINVAL (options, budget below fm_budget_min(4096) or above 8 TiB), -ENOMEM, -ENOSYS (no userfaultfd),
 * -EPERM (userfaultfd closed to this user), -EAGAIN (no thread to be had: RLIMIT_NPROC, or pids.max of the cgroup),
 * -EOPNOTSUPP (a feature asked for is missing), -EMFILE (256
 * address spaces in this process). Where a
 * log function is given, one line says which and what to do about it.
 */
FM_PUBLIC int fm_mm_create(const struct fm_mm_options *options, fm_mm **ret_mm);

/**
 * Take an address space down. Faults in flight in other threads end: with -ECANCELED as SIGBUS,
 * or through fm_guard(). All mappings, files and pins of the mm are gone at return, and all
 * memory and descriptors are given back. Waits for threads that are inside a read of the store
 * which cannot be interrupted (a local file without a deadline). What is dirty is written first. Not from inside a fault.
 * Not concurrently with other calls on the same mm.
 * A store that refuses is tried again, with pauses, for 10 seconds a file. A store that does not answer is waited for, 10
 * seconds a file from the last thing that it took. What is dirty then is given up, and never written later. A request that
 * the store has under way by then, and does not end, may still get there: the memory, the descriptors and the addresses
 * that belong to it are given back when it ends. No callback is called after the return.
 * Errors: -EIO: some of what was dirty is lost, or may be; the log function is told of which file, how much, and why. All
 * else is done.
 */
FM_PUBLIC int fm_mm_destroy(fm_mm *mm);

/* ------------------------------------------------------------------ files */

/**
 * What to do when somebody changes the file behind an open snapshot of it.
 *
 * A change is another size or another modification time (mtime) than the snapshot's. The library looks at both after
 * each read of the store. What touches the inode alone is no change: chmod, chown, link, unlink, rename, setxattr, reading
 * (atime), an overlay's copy-up. Setting mtime (touch) is one, though no byte differs.
 *
 * These changes cannot be told by size and mtime, so that mapped pages may be older than others:
 *   - stores through a writable mmap() of the file, by any process, after the first store to a page since the kernel wrote
 *     that page back; on tmpfs all such stores
 *   - a rewrite in place that sets mtime back to the very same nanosecond (utimensat(), touch -r), unless the library reads
 *     while mtime is another one
 *   - one write() call that was already under way when the file was opened, or was looked at under FM_CHANGED_REFRESH
 *   - writes to a block device
 *   - on NFS, FUSE and other remote file systems: what the kernel's attribute cache does not know yet. With a deadline the
 *     server is never asked, so the attribute cache alone decides
 *   - where time stamps are coarse. Linux 6.13 and later give each change of a file on ext4, XFS, Btrfs and tmpfs a time
 *     stamp of its own. Elsewhere stamps are one tick of the kernel apart (1 to 10 ms), and on ext4 with 128-byte inodes,
 *     ext3 and FAT one or two seconds. fm_file_open() with FM_CHANGED_ERROR waits once until this time has passed since the
 *     file's last change. A file that is written during that wait, and for the last time in the tick or second in which the
 *     wait ends, is not seen to change.
 * Where this is not enough, let writers make a new file and rename() it over the old one.
 */
enum fm_changed {
	/** Pages not yet read fail with -ESTALE: never bytes from before and after a change. Growth is a change, too: from size and
	 *  mtime alone it cannot be told that only something was appended. fm_file_refresh() makes the file a new snapshot. */
	FM_CHANGED_ERROR = 0,
	/** Cached pages are dropped and read anew. The library looks after each read, and when something past the end is touched: so
	 *  growth is seen by whoever maps more than there is and touches it. What was appended to a last page that is in view
	 *  already shows when a change is found, by one of these or by fm_file_refresh(); until then its rest reads as zeros. */
	FM_CHANGED_REFRESH = 1,
};

/** Flags of struct fm_file_options. */
enum fm_file_flags {
	/** For writing too. The file is then this process's: what others write to it is neither looked for nor found
	 *  (`changed` has no meaning), and what they read of it is as old as the last fm_sync(). Pages are of 4096 bytes.
	 *  What is dirty is written after some seconds, or when much is; when the file is closed, the mm destroyed or the program
	 *  ends by returning from main, by exit() or by quick_exit(); and, where it ends in another way, as by _exit(), with
	 *  FM_KEEP alone. What the program writes at its end, in its atexit() handlers and static destructors, is written
	 *  back too. What is written after the library's last handler may be lost: the log function is told of the first such
	 *  write. That moment comes after the destructors of all shared libraries; with quick_exit(), after all handlers but
	 *  those that are older than the library, where it was loaded by dlopen(). */
	FM_FILE_WRITE = 1u << 0,
	FM_FILE_CREATE = 1u << 1, /**< with FM_FILE_WRITE: made, empty, where it does not exist (mode 0666 less umask) */
	/** Lock the whole file against other processes, until the last handle and mapping of it in this process has gone: for
	 *  writing an exclusive lock, for reading a shared one. The lock is an advisory one, of the open file description (F_OFD_SETLK, see
	 *  fcntl(2)): it counts for those who ask, by this flag or by fcntl(). Where another holds it, fm_file_open() is -EWOULDBLOCK, at once,
	 *  and the log function is told by whom as far as the kernel knows. A keeper (FM_KEEP) holds it until it has ended. Local
	 *  files only, without filters (-EOPNOTSUPP). Not flock(2)'s lock. */
	FM_FILE_LOCK = 1u << 2,
};

/** A write to the store failed, or it could not make durable what had been written: `error` is the negative errno, `offset` and
 *  `len` say where (len 0: the whole file). The bytes are still there, dirty, and are written again later. Called in the thread by
 *  which I/O ends, with no lock held: it is to note it down, and to wake somebody who acts. What waits for I/O would wait for this
 *  very thread: no access to a mapping, no exit(), and of the calls fm_get_stats(), fm_completions() without a time to wait, and fm_sync() with
 *  FM_SYNC_ASYNC only. It may be called after fm_file_close(), as long as something of the file is to be written: `arg` lives until
 *  fm_mm_destroy() returns. */
typedef void (*fm_write_error_fn)(void *arg, uint64_t offset, uint64_t len, int error);

/** Of `page_size`: by how the file is read. Its pages are of 4096 bytes; who reads it from one end to the other gets 2 MiB of it
 *  at once, as one huge page, where the budget is 13 MiB or more and pages are moved (FM_INSTALL_AUTO, Linux 6.8). What was chosen
 *  is in the statistics: `groups_made`, `group_installs`, and `groups_split` for what was read otherwise after all. */
#define FM_PAGE_SIZE_AUTO 0u

struct fm_file_options {
	size_t size; /**< sizeof(struct fm_file_options) */
	/** Unit of the page cache: a power of two, 4096 to 2 MiB; or FM_PAGE_SIZE_AUTO. */
	uint32_t page_size;
	/** Largest readahead window, in bytes; never more than an eighth of the budget. A window belongs
	 *  to one reader's way through the file: forwards, backwards, or in equal steps (then of 32
	 *  pages at most). It begins with a few pages, doubles up to 1 MiB, and beyond while its
	 *  reader has to wait. 0: 8 MiB. UINT32_MAX: no readahead. */
	uint32_t readahead_bytes;
	/** A read that takes longer than this fails with -ETIMEDOUT. 0: no deadline, or the
	 *  `deadline` parameter of the URI. */
	uint64_t deadline_ns;
	uint32_t changed; /**< enum fm_changed */
	uint32_t flags;   /**< enum fm_file_flags */
	fm_write_error_fn on_write_error; /**< or NULL */
	void *on_write_error_arg;
	/** Bytes of address space that are kept free behind the file's end, for mappings that reach past it and for a file that
	 *  grows (fm_truncate(), FM_CHANGED_REFRESH). They cost no memory. 0: 1 GiB; where RLIMIT_AS or RLIMIT_DATA limits the
	 *  process, an 8192nd of the limit, and at least 64 KiB. */
	uint64_t reserve_bytes;
};

/**
 * Open an object of a store.
 *
 * Several handles of one object: fm_file_open() may be called again for what is open already, by the same name, another one (symbolic
 * and hard links, bind mounts) or a descriptor. What counts is the device and inode of what was opened, of a block device its device number.
 * All handles of an fm_mm show the same pages at once as soon as one of them is for writing, also those that were there before. Each
 * handle has its own right to write, its own on_write_error, which is called while the handle is open, and is told each failure by its own
 * fm_file_sync(). What the first handle's options say holds for all: page_size (4096), readahead_bytes, record=, hotset=; of deadlines the
 * shortest counts; `changed` has no meaning once the file is open for writing, and stays so until its last handle and mapping have gone.
 * Handles for reading alone share a cache where page_size, `changed` and deadline are the same, the URI has no record= or hotset=, and
 * the object has not changed since; else each has a cache of its own. A file that was closed and is still being written back is waited for, 10 seconds or the deadline
 * at most: then -ETIMEDOUT.
 * -EBUSY, and a line to the log function that names the first, where one cache cannot serve both and one of them is for writing: in two
 * fm_mm; behind different faulty: filters; where handles for reading have a page_size above 4096, or two caches; where fm_pin() holds
 * pages of a handle for reading.
 * memory: and filtered stores for reading have no identity. On overlayfs a file's first write by anybody (copy-up) gives it another inode: a
 * handle for reading that is older is then another object's. Other processes have caches of their own: see `changed`.
 *
 *   PATH                             a local regular file or block device. What does not begin with one of the
 *                                    schemes below is a path: a name byte for byte, without decoding and without
 *                                    parameters ("100%.db", "a?b", "log:1"). A path that begins like a scheme is
 *                                    written ./memory:1M
 *   file:PATH                        the same, with parameters
 *   memory:SIZE[?seed=N]             SIZE bytes of a pattern, for tests and measurements
 *   faulty:URI?PARAMETERS            any store, made slow or bad; see fm_file_control()
 * Behind a scheme parameters follow '?' and are joined by '&'; there, and so in the path inside a faulty:, %25 is a percent sign,
 * %3F a question mark. Every store takes
 *   deadline=TIME                    as the option
 *   record=FILE                      write to FILE which ranges are touched, in the order of their first
 *                                    touch: each second that brings something new, and when the last
 *                                    reference to the file has gone (at fm_mm_destroy()'s return at the
 *                                    latest) or the program exits. The log has a place for as many ranges as the
 *                                    budget has pages of 4096 bytes; the file says how many touches were lost.
 *   hotset=FILE                      fm_file_hotset() at once. Where FILE is not there: a line to the log
 *                                    function, and the file is opened.
 * Both may name the same FILE. For all files of a process: $FILEMAP_RECORD, a folder for one file each, which
 * `filemap record` sets, and which goes before record=; and $FILEMAP_HOTSET, where no hotset= is given: of it
 * only what was recorded of this very file is read. What they name and cannot be used is told to the log function,
 * and the file is opened. Neither counts where a program runs with more rights than who started it.
 * Sizes take K, M, G, T (powers of 1024); times take us, ms, s.
 * Thread-safe. May block on the store.
 * Errors: -EINVAL (URI, options), -EBUSY (see above), -EWOULDBLOCK (FM_FILE_LOCK), -EISDIR, -ENOENT, -EACCES, what the store says; -ENOSPC when the
 * budget is below fm_budget_min(page_size); -EBUSY also where the keeper (FM_KEEP) of a process that has ended still writes
 * to the file, after 30 seconds; -EUSERS, -EMFILE, -EPIPE (there is no keeper any more): with FM_KEEP, see there.
 */
FM_PUBLIC int fm_file_open(fm_mm *mm, const char *uri, const struct fm_file_options *options,
			   fm_file **ret_file);

/**
 * Open the local file that a descriptor shows: for programs that are given descriptors (memfd_create(), O_TMPFILE, SCM_RIGHTS,
 * files without a name). Of the options all but FM_FILE_CREATE. The descriptor stays the program's: it may be closed at once, and its offset
 * and status flags are neither used nor changed, for the file is opened anew (by /proc). O_APPEND, O_DIRECT and O_NONBLOCK of the descriptor
 * have no effect. Only where it cannot be opened anew (its permissions forbid that to this user, or there is no /proc) the library shares the
 * descriptor's open file description.
 * Thread-safe. May block on the store.
 * Errors: as fm_file_open(); -EBADF (no descriptor, or opened with O_PATH); -EACCES (write-only; or FM_FILE_WRITE and not open for reading and
 * writing); -EPERM (FM_FILE_WRITE of what is sealed against writing); -EINVAL also where the description is to be shared and has O_APPEND
 * (FM_FILE_WRITE), O_DIRECT or O_NONBLOCK. The log function is told which.
 */
FM_PUBLIC int fm_file_open_fd(fm_mm *mm, int fd, const struct fm_file_options *options, fm_file **ret_file);

/**
 * Read the ranges that a hot set names (a file written by `record=` or `filemap record`), those touched first before
 * the others, in the background: the call reads the list and returns. Reads overtake none that somebody waits for,
 * take no frame from another page, and end when less than a quarter of the frames are free. Not installed: a touch is a
 * minor fault. What is cached is passed over; what lies beyond the file's end is left out. `hotset_pages` counts.
 * Has the file changed since, or does the list not know it, the log function gets a line. Of a list with several
 * files' sections this file's is taken. Thread-safe. Blocks on reading the list.
 * Errors: -EINVAL (not a hot set), -EFBIG (more than 4194304 ranges): the log function is told the line; -EBUSY (the
 * one before is still being read); -ENOENT, -EACCES, ...: of reading the list; -ENOMEM.
 */
FM_PUBLIC int fm_file_hotset(fm_file *file, const char *path);

/**
 * Wait until no keeper (FM_KEEP) has the file: neither that of a process that has ended, which may still be writing, nor that
 * of one that lives. For supervisors, before they start a program again that does not open the file by this library.
 * `timeout_ns`: nanoseconds, from now. Reaches the keepers of this network namespace, and counts those whose user may write
 * to the file. Thread-safe; not signal-safe. Needs no fm_mm.
 * Errors: -EINVAL (no path); -ETIMEDOUT; -ENOENT, -EACCES, ...: of looking for the path; -ESTALE: a keeper that was waited for has met changes by
 * somebody else, and has not written the rest; -EIO, -ENOSPC, ...: it could not write all.
 */
FM_PUBLIC int fm_keeper_wait(const char *path, uint64_t timeout_ns);

/** Give a handle back. Mappings, and other handles, keep the file open. What is dirty is written first (not flushed: that is
 *  fm_file_sync()). Thread-safe; blocks on that. Errors: of that writing; -ETIMEDOUT: the file's deadline has passed, or the store has
 *  taken nothing for 10 seconds: the rest is written in the background. The handle is given back all the same. */
FM_PUBLIC int fm_file_close(fm_file *file);

/** The file's size in bytes, as it is known by now: when it was opened, after fm_truncate(), or when the store was looked at last
 *  (by FM_CHANGED_REFRESH, fm_file_refresh() or fm_invalidate()). Thread- and signal-safe. */
FM_PUBLIC int fm_file_size(fm_file *file, uint64_t *ret_size);

/**
 * Look at once whether others have changed the file, its size or its bytes, and take over what there is.
 *   A file that is not open for writing: where it has changed, all that is cached is dropped, also what fm_pin() holds, so that
 * it is read anew, and the size is the present one. Under FM_CHANGED_ERROR the file is then a snapshot of its present state:
 * this is how a program goes on after -ESTALE, with the mappings that it has.
 *   A file open for writing: for what was changed by other ways than this library, such as ftruncate() or write() by a
 * descriptor of the program's own. The size is taken over; what is dirty within it is written and flushed; what is cached is
 * dropped. What is dirty beyond a smaller size is lost.
 * *ret_changed (may be NULL) tells whether the file had changed; of one open for writing, whether its size had.
 * Thread-safe, also against faults; not signal-safe. Blocks on the store; under FM_CHANGED_ERROR, where time stamps are
 * coarse, also until the next change can be told (see enum fm_changed).
 * Errors: -EOPNOTSUPP (the store cannot tell); of a file open for writing also those of fm_invalidate(); the store's.
 */
FM_PUBLIC int fm_file_refresh(fm_file *file, bool *ret_changed);

/**
 * Read bytes from the store itself, past the page cache: what a plain read would give. A read is
 * short only at the end of the file. A buffer and an offset that are multiples of 4096 are read
 * several times as fast as others where the file is open for writing.
 * Thread-safe. May block. The file's deadline does not apply.
 */
FM_PUBLIC int fm_file_read(fm_file *file, void *buf, size_t len, uint64_t offset, size_t *ret_len);

/**
 * Change a store's parameter while it runs, as "key=value". For faulty stores:
 *   delay=TIME or delay=MIN..MAX   before each read      rate=BYTES      a second
 *   iops=N                         reads a second        error=ERRNO     EIO by default
 *   error-every=N                  each n-th read fails  error-at=OFFSET reads that touch it fail
 *   short-every=N                  each n-th read is cut stuck=0|1       reads never end
 * and of a file open for writing
 *   write-delay, write-error, write-error-every, write-error-at=OFFSET|none, write-short-every, write-stuck
 *                                  the same for writes
 *   flush-delay, flush-error, flush-error-every, flush-stuck
 *                                  and for flushes
 *   lose=0|1                       1: what is written stays in the filter, where reads find it, until a flush that ends
 *                                  well; only then the store below has it. 0: what there is goes there now. Changes of
 *                                  size, and holes, go there at once.
 *   crash=1, crash=SEED            with lose=1: what was not flushed is gone, as after a power failure; with another
 *                                  number each 4096 bytes of it are gone or have got there, one half each, as the number
 *                                  decides. What the page cache has stays: look with fm_file_read(). Not in a URI.
 * Thread-safe. Errors: -EINVAL, -EOPNOTSUPP (the store has no such parameter).
 */
FM_PUBLIC int fm_file_control(fm_file *file, const char *setting);

/* ------------------------------------------------------------------ mappings */

/** What a failed access was, as a callback or fm_guard() sees it. */
struct fm_error {
	void *addr;      /**< the address that was touched */
	uint64_t offset; /**< its offset in the file; 0 when no mapping was found */
	int signo;       /**< SIGBUS or SIGSEGV: what the program would get */
	int error;       /**< negative errno: the store's, -ENXIO past the end, -EFAULT without a
			      mapping, -EACCES for a write that is not allowed, -ETIMEDOUT, -ESTALE, -ECANCELED */
};

enum fm_error_action {
	FM_ERROR_RAISE = 0, /**< go on: fm_guard(), the program's handler, the default action */
	FM_ERROR_RETRY = 1, /**< try the access again */
};

/** Called in the thread that faulted (inline trap: in signal context, so signal-safe calls only),
 *  with no lock held. An access that has begun before fm_unmap() may call it after fm_unmap() has returned: `arg` lives until the
 *  program's threads have left the mapping, or until fm_mm_destroy() returns. */
typedef enum fm_error_action (*fm_error_fn)(void *arg, const struct fm_error *error);

/** Flags of struct fm_map_options. */
enum fm_map_flags {
	/** May be written to. Shared (the default): the writes are the file's, which must be open for writing. */
	FM_MAP_WRITE = 1u << 0,
	/** The mapping's own: with FM_MAP_WRITE, what is written stays in it and never reaches the file; what does not fit
	 *  into the budget goes to a scratch file without a name in $TMPDIR or /var/tmp. Each such mapping is its own, at an
	 *  address of its own. Bytes not written to yet are the store's, as they are when first touched; what was written to
	 *  shared mappings before this one was made is among them. */
	FM_MAP_PRIVATE = 1u << 1,
};

struct fm_map_options {
	size_t size; /**< sizeof(struct fm_map_options) */
	fm_error_fn on_error;
	void *on_error_arg;
	uint32_t flags; /**< enum fm_map_flags */
	uint32_t reserved;
};

/**
 * Map bytes [offset, offset+len) of a file, read-only unless FM_MAP_WRITE is given. `offset` is a multiple of 4096, `len`
 * is not 0 and need not be. Bytes past the end of the file: the rest of the last 4096-byte page
 * reads as zeros (what is written there never reaches the store), anything beyond is SIGBUS. Mapping the same bytes again
 * gives the same address, with the permissions of both, and counts: each fm_map() wants its fm_unmap(). A write to what no
 * mapping allows to be written is SIGSEGV. A write that makes a page dirty may be held back, as a read is, while too much is
 * dirty; where the store refuses what is to be written back, it is SIGBUS with that errno. Who writes page after page gets up to
 * 63 pages after it with one fault, within the mapping: they are dirty, too, are written back as they are, and have blocks of their
 * own in a sparse file; not with FM_ADVICE_RANDOM.
 * What the program may do to a mapping by itself: mprotect() it, and undo that; what is written there is still written back. MADV_DONTNEED,
 * munmap(), mremap() and mmap(MAP_FIXED) on a part of it take the library's pages away: use fm_unmap(). The library finds that out
 * when it comes to these pages. It leaves the program's own memory as it is, in fm_unmap() and fm_mm_destroy() too. What was dirty and is
 * gone is lost: counted in dirty_lost, told by fm_sync(), fm_file_close() and fm_mm_destroy() (-EIO), and the log has the file and the
 * offset. fm_fault_in() and fm_pin() of such a range give -EFAULT. An access there is between the program and the kernel. Mapped anew
 * while the program's memory is still there, the bytes of a file for reading appear at another address; of a file for writing it is an
 * error. What is unmapped and mapped by the program while the library works on the very page cannot be told apart.
 * Lifetime: until fm_unmap() or fm_mm_destroy(); the file may be closed before.
 * Thread-safe. Never waits for a fault in flight. FM_MAP_PRIVATE writes what is dirty of the file first.
 * Errors: of that writing, or -ETIMEDOUT, as fm_file_close(); -EINVAL, -EACCES (FM_MAP_WRITE without FM_MAP_PRIVATE, of a file not open for writing), -EOVERFLOW (range past
 * 2^63, or further past the end than the length that the file had when it was opened and `reserve_bytes` of struct fm_file_options), -ENOMEM,
 * -EOWNERDEAD, -EADDRINUSE (a file open for writing, and the program has put other memory where the range would be).
 */
FM_PUBLIC int fm_map(fm_file *file, uint64_t offset, size_t len,
		     const struct fm_map_options *options, void **ret_addr);

/**
 * Unmap [addr, addr+len), all or part of mappings. `addr` is a multiple of 4096; `len` is rounded
 * up. Afterwards an access is SIGSEGV unless another mapping shows the same bytes. Ranges where
 * nothing is mapped are passed over, as munmap() does. Where the file's page_size is above 4096, a page
 * of which some part is still mapped may stay readable whole; and so may, until that has ended, what is being written back. Thread-safe. Never waits for a fault.
 * Errors: -EINVAL; -ENOMEM where a mapping is to be cut in two: what lies before may be unmapped by then.
 */
FM_PUBLIC int fm_unmap(fm_mm *mm, void *addr, size_t len);

enum fm_advice {
	FM_ADVICE_NORMAL = 0,
	FM_ADVICE_RANDOM = 1,     /**< no readahead */
	FM_ADVICE_SEQUENTIAL = 2, /**< full windows at once */
	FM_ADVICE_WILLNEED = 3,   /**< start reading; does not wait */
	FM_ADVICE_DONTNEED = 4,   /**< drop the pages of the range from the cache */
	/** A weight, not a pin: from now on a page of the range that is touched counts as one that somebody came back to,
	 *  and is passed over once when its turn to be evicted comes. What is installed counts as touched. */
	FM_ADVICE_KEEP = 5,
	/** What is cached of the range now is evicted before anything else, once memory is wanted. Until then a touch of it
	 *  reads nothing, and makes it, and what goes into view with it, pages like others again; but where pages are installed by COPY they stay
	 *  installed, so that no touch is seen. Pages that are in use or pinned are left as they are. */
	FM_ADVICE_COLD = 6,
};

/** Advise on [addr, addr+len), as madvise(). NORMAL, RANDOM and SEQUENTIAL replace each other; KEEP goes with each of
 *  them, until NORMAL ends it for what is touched from then on; the others are about the moment. Thread-safe. Errors: -EINVAL, -ENOMEM (part of the
 *  range is not mapped; the rest is advised). */
FM_PUBLIC int fm_advise(fm_mm *mm, void *addr, size_t len, enum fm_advice advice);

/** What fm_residency() tells of a page of 4096 bytes. */
enum fm_resident {
	FM_RESIDENT_CACHED = 1u << 0, /**< its bytes are in the cache: a touch reads nothing */
	FM_RESIDENT_MAPPED = 1u << 1, /**< it is installed: a touch does not fault */
	FM_RESIDENT_PINNED = 1u << 2, /**< fm_pin() holds it */
};

/**
 * Which pages of [addr, addr+len) are resident, as mincore(): `vec` has one byte for each page of 4096 bytes, also
 * where the file's page_size is larger, and gets its bits of enum fm_resident; 0 past the end of the file. `addr` is a
 * multiple of 4096; `len` is rounded up. Each page is looked up without a system call (the call makes two, for the
 * signal mask), and without a wait for reads, faults or the store. Each byte is true of a moment during the call, and
 * may be old by its end: what fm_pin() does not hold can be evicted at any time. A page that comes, goes or is moved by
 * another meanwhile may be told as absent. What somebody else than the library has emptied is told as it was.
 * Thread-safe. Errors: -EINVAL; -ENOMEM (part of the range is not mapped: 0 for its pages; the rest is told).
 */
FM_PUBLIC int fm_residency(fm_mm *mm, const void *addr, size_t len, unsigned char *vec);

enum fm_fault_in_flags {
	/** Do not wait: begin the reads and return -EAGAIN; call again when fm_event_fd() says so, or
	 *  later. What was asked for is read and nothing beside it. */
	FM_NOWAIT = 1u << 0,
	/** As if each page had been written to: they are dirty, and writable without a fault, until they are written back;
	 *  under fm_pin() until fm_unpin(). So that system calls may write there. -EACCES where no mapping allows it. */
	FM_WRITE = 1u << 1,
};

/**
 * Bring the pages of [addr, addr+len) in and install them, as if each had been touched. They can
 * be evicted again at once: a caller that needs them to stay uses fm_pin(). The range is read in
 * large pieces, several at once, as far ahead as an eighth of the frames. Thread-safe.
 * Errors: -EINVAL; -EAGAIN (NOWAIT); -EFAULT (not mapped); -ENXIO (past the end); the store's.
 * With NOWAIT an error is told once, by the first call after the read failed; a read that passed
 * its deadline is begun anew. For many ranges at once see fm_fault_in_batch().
 */
FM_PUBLIC int fm_fault_in(fm_mm *mm, const void *addr, size_t len, unsigned flags);

/**
 * A descriptor for an event loop that calls fm_fault_in() or fm_pin() with NOWAIT: an eventfd, made
 * at the first call, that is written when something they asked for has ended, or when a page or a
 * read they found no room for may be had. Not which: call them again. Read its 8 bytes first and
 * call then, so that nothing is missed. It is written once until such a call is made again. Several
 * event loops may share it only with EPOLLET, and without reading it; better each has a queue.
 * It is the mm's: do not close it; it goes with fm_mm_destroy(). Non-blocking, close-on-exec.
 * Thread-safe. Errors: -EMFILE and the like; -EINVAL.
 */
FM_PUBLIC int fm_event_fd(fm_mm *mm, int *ret_fd);

/**
 * As fm_fault_in(), and keep them: until fm_unpin() of the same range the pages stay installed, so
 * that system calls may be given the range under every trap. Reserves its frames first or fails.
 * Thread-safe. Errors: as fm_fault_in(); -ENOMEM when pins would leave less than a quarter of the
 * frames to everybody else; -EOVERFLOW when a page is pinned 65,535 times already.
 */
FM_PUBLIC int fm_pin(fm_mm *mm, const void *addr, size_t len, unsigned flags);
FM_PUBLIC int fm_unpin(fm_mm *mm, const void *addr, size_t len);

/* ------------------------------------------------------------------ writing back */

/** Flags of fm_sync() and fm_file_sync(). */
enum fm_sync_flags {
	FM_SYNC_ASYNC = 1u << 0, /**< begin to write what is dirty; wait for nothing */
};

/**
 * Make durable what was written to [addr, addr+len) of shared mappings before the call, as msync(MS_SYNC): write what is dirty,
 * wait for writes under way there, then have the store flush (fdatasync(); for a file that was made by opening it its folder,
 * too). Pages are written as they are at one moment, never torn: they are taken out of the view for it, and a thread that
 * writes to one meanwhile gets it back without waiting, dirty anew. Pages under fm_pin() are written where they are, as they
 * are just then, and stay dirty if they were.
 * A failed write leaves the page dirty and readable, and is tried again by each later call and, from time to time, in the
 * background. The errno of a write or flush that has failed since the last call that told one is returned by every call that
 * is under way by then, and if none is by the next one, even if that has now written all of it: then the one after it is 0.
 * Thread-safe; not signal-safe. May block on the store; no map lock is held meanwhile.
 * Errors: -EINVAL; -ENOMEM (part of the range is not mapped; the rest is synced); the store's: -ENOSPC, -EIO, -EDQUOT,
 * -EROFS, ...; -ETIMEDOUT (the file's deadline).
 */
FM_PUBLIC int fm_sync(fm_mm *mm, void *addr, size_t len, unsigned flags);

/** The same for [offset, offset+len) of a file, mapped or not; `len` 0: to its end. 0 also where it is not open for writing. */
FM_PUBLIC int fm_file_sync(fm_file *file, uint64_t offset, uint64_t len, unsigned flags);

/**
 * Make a file open for writing longer or shorter. What is beyond the new end is gone from cache and store at return, and
 * touching it is SIGBUS (-ENXIO), from the call's beginning on where it was not mapped in; what is new reads as zeros. Bytes that
 * stay are read as ever meanwhile. Private mappings of the file (FM_MAP_PRIVATE) lose what lies beyond the last page, also
 * what was written to them; what was written within the last page stays in them. The only way in which a file grows: a
 * write past its end is SIGBUS, or in the last page's rest, lost. Thread-safe, also against faults. Blocks on writes
 * under way and on the store. Errors: -EINVAL, -EACCES (not open for writing), -EFBIG (beyond the view's reserve, see
 * fm_map()), -EBUSY (the last page, which ends in it, is pinned, and the file is to grow), -EOPNOTSUPP, the store's (the size is then
 * what it was; what was beyond the new end may be gone). Pins of pages beyond the new end end, too.
 */
FM_PUBLIC int fm_truncate(fm_file *file, uint64_t size);

/**
 * Have [offset, offset+len) read as zeros, and give its space back. Need not be aligned; past the end it does nothing. What
 * is written to the range by others during the call is zeros or what they wrote. Thread-safe; blocks as fm_truncate().
 * Errors: -EINVAL, -EACCES, -EBUSY (fm_pin() holds a page of it), -EOPNOTSUPP, the store's (with both: part of the range may be
 * zeros by then).
 */
FM_PUBLIC int fm_punch(fm_file *file, uint64_t offset, uint64_t len);

/**
 * Drop what is cached of [offset, offset+len), so that it is read from the store anew; `len` 0: to the end. For what others
 * have written there, which the file's mappings would not show. Dirty pages are written first (not flushed). The file's size is
 * the present one at return; but a snapshot (FM_CHANGED_ERROR, not open for writing) keeps its size, and what was
 * changed in it is -ESTALE: see fm_file_refresh(). Thread-safe.
 * Errors: -EINVAL, -EBUSY (some page is pinned, or written to again and again: it was left), the store's.
 */
FM_PUBLIC int fm_invalidate(fm_file *file, uint64_t offset, uint64_t len);

/** Have space for [offset, offset+len) in the store, so that writing back there does not fail with ENOSPC; the size stays.
 *  Thread-safe. Blocks on the store. Errors: -EINVAL, -EACCES, -EOPNOTSUPP, -ENOSPC and what else the store says. */
FM_PUBLIC int fm_reserve(fm_file *file, uint64_t offset, uint64_t len);

/* ------------------------------------------------------------------ many ranges at once */

/**
 * Ranges that are brought in while the program does something else: thousands from one thread.
 *
 *     fm_queue_create(mm, 1024, &queue);
 *     fm_fault_in_batch(queue, ranges, 32, &begun);
 *     while (fm_completions(queue, ended, 32, UINT64_MAX, &count) == 0)
 *             for (size_t i = 0; i < count; i++)
 *                     use(ended[i].addr, ended[i].error, ended[i].tag);
 *
 * Several threads may use one queue: each range is taken by one of them. All its memory is
 * allocated when it is made, 512 bytes a range. A queue belongs to its mm and goes with it.
 */
typedef struct fm_queue fm_queue;

struct fm_range {
	void *addr;
	size_t len; /**< bytes, not 0; neither need be aligned */
	void *tag;  /**< the program's; comes back as it was */
	int error;  /**< from fm_completions(): 0, or the negative errno the range ended with: what
		     *   fm_fault_in() would return, -EINVAL for a bad length. Not looked at otherwise */
};

/** Make a queue that holds up to `ranges` ranges, 1 to 1048576, begun and not taken. Thread-safe.
 *  Errors: -EINVAL, -ENOMEM, -EMFILE (256 queues in this process). */
FM_PUBLIC int fm_queue_create(fm_mm *mm, unsigned ranges, fm_queue **ret_queue);

/**
 * Take a queue down. Ranges not taken are given up: no thread waits for their reads, which end by
 * themselves. A thread that waits in fm_completions() meanwhile gets -ECANCELED from it; later calls
 * are not allowed. fm_mm_destroy() does the same to each queue that is left. Does not wait for I/O.
 */
FM_PUBLIC int fm_queue_destroy(fm_queue *queue);

/**
 * Begin to bring ranges in: what of them is not cached is read, all of them at once, as far as the
 * store's share of frames goes; the rest waits its turn in the queue. Never waits for a read or a
 * frame. Each range that is taken ends once, in fm_completions(), at once if it is there already.
 * *ret_begun says how many were taken, from the first on: fewer than `count` when the queue is full.
 * The array is the caller's again at return. Bytes need not be read again if the same page is asked
 * for twice. Thread-safe; not signal-safe.
 * Errors: -EAGAIN (the queue is full, none was taken: take completions first), -EINVAL.
 */
FM_PUBLIC int fm_fault_in_batch(fm_queue *queue, const struct fm_range *ranges, size_t count,
				size_t *ret_begun);

/**
 * Take ranges that have ended, up to `count`; the ended come in the order in which they ended. The
 * pages of one that ended with 0 are installed here, so that touching them is no fault, unless they
 * had to be evicted again meanwhile: then they have been in, and a touch reads them as any other.
 * A range goes on from page to page in this call, so that a long one needs several: call it again
 * when fm_queue_fd() is readable.
 * Waits up to `timeout_ns` (0: not at all, UINT64_MAX: for ever) for the first; signals are
 * delivered meanwhile, and a handler must return. *ret_count is 0 when the time has passed.
 * Several threads may wait: one is woken for what has ended. Thread-safe; not signal-safe.
 * Errors: -EINVAL (count 0), -ECANCELED (the queue or its mm was destroyed meanwhile: every range
 * not taken has ended with this).
 */
FM_PUBLIC int fm_completions(fm_queue *queue, struct fm_range *ret_ranges, size_t count,
			     uint64_t timeout_ns, size_t *ret_count);

/**
 * A descriptor for poll() and its like: readable while fm_completions() has something to do. Do not
 * read it, fm_completions() does. It may be readable and no range have ended. The queue's: do not
 * close it; it goes with the queue. Without this call no descriptor is made and no time spent on it.
 * Thread-safe. Errors: -EMFILE and the like; -EINVAL.
 */
FM_PUBLIC int fm_queue_fd(fm_queue *queue, int *ret_fd);

/* ------------------------------------------------------------------ errors */

/**
 * Run body(arg); an access in it that would raise SIGBUS or SIGSEGV on a mapping ends it instead:
 * the return is that access's negative errno, and *ret_error (may be NULL) tells the rest.
 * Returns 0 when the body returned. The body must only access memory: what it had taken (locks,
 * allocations) is not undone. Signal mask restored. Nests. Thread-safe.
 */
FM_PUBLIC int fm_guard(void (*body)(void *arg), void *arg, struct fm_error *ret_error);

/**
 * For programs that install their own SIGBUS handler after the library's: call this first.
 * Returns true when the signal was a fault on a mapping and has been dealt with: return from the
 * handler at once. Install with SA_SIGINFO and a full sa_mask. Signal-safe.
 *
 * Before Linux 6.6 the thread trap has a SIGSEGV handler, too: the kernel refuses a failed access of a system call there by
 * taking the page's rights away for a moment, and an access of another thread that meets this moment is repeated. A program
 * that installs its own SIGSEGV handler after the library's calls this function first in that one as well.
 */
FM_PUBLIC bool fm_handle_sigbus(int signo, siginfo_t *info, void *ucontext);

/* ------------------------------------------------------------------ statistics */

/* One table from which the structure, the names and the JSON keys are made: X(name, help). */
#define FM_COUNTERS(X)                                                                         \
	X(faults, "faults that ended, each once however many tries it took")                   \
	X(faults_major, "of those: needed a read of the store")                                \
	X(faults_minor, "of those: began no read of their own")                                \
	X(faults_sigbus, "of those: ended in SIGBUS")                                          \
	X(faults_segv, "of those: ended in SIGSEGV")                                           \
	X(fault_retries, "tries beyond the first, after the map lock was dropped")             \
	X(fault_in_again, "fm_fault_in() calls that returned -EAGAIN")                         \
	X(reads, "reads of a store")                                                           \
	X(read_bytes, "bytes read from stores")                                                \
	X(read_errors, "reads that failed")                                                    \
	X(read_timeouts, "of those: passed their deadline")                                    \
	X(read_short, "reads that came short and were continued")                              \
	X(ra_windows, "readahead windows submitted")                                           \
	X(ra_pages, "pages read ahead")                                                        \
	X(ra_hits, "of those: touched")                                                        \
	X(ra_waste, "of those: evicted untouched")                                             \
	X(hotset_pages, "pages of hot sets read ahead: counted among ra_pages, too")           \
	X(ra_aborted, "readahead requests aborted for a fault that needed a page of theirs")   \
	X(installs_move, "pages installed by MOVE")                                            \
	X(installs_copy, "pages installed by COPY")                                            \
	X(install_exists, "installs that found the page already there")                        \
	X(install_busy, "installs or evictions that met EBUSY")                                \
	X(emptied_behind, "pages recorded as installed that had been emptied behind us")       \
	X(evictions, "frames taken from a page for another")                                   \
	X(deactivations, "pages taken out of the view but kept cached")                        \
	X(reactivations, "of those: touched again")                                            \
	X(reclaim_direct, "reclaim passes by a fault")                                         \
	X(reclaim_background, "reclaim passes by the background thread")                       \
	X(frame_waits, "waits for a free frame")                                               \
	X(progress_keeps, "instructions whose pages were kept until they completed")           \
	X(progress_waits, "waits for a keeper's place")                                        \
	X(pt_released, "empty 2 MiB ranges whose page table was given back")                   \
	X(lock_shared, "map lock taken shared")                                                \
	X(lock_exclusive, "map lock taken exclusive")                                          \
	X(lock_contended, "of both: had to wait")                                              \
	X(lock_held_over_block, "times a thread was about to block with the map lock held")    \
	X(maps, "fm_map() calls")                                                              \
	X(unmaps, "fm_unmap() calls")                                                          \
	X(advises, "fm_advise() calls")                                                        \
	X(files_changed, "files found changed behind their snapshot")                          \
	X(dirtied, "pages that became dirty")                                                  \
	X(writes, "writes to a store")                                                         \
	X(write_bytes, "bytes written to stores")                                              \
	X(write_errors, "writes that failed")                                                  \
	X(flushes, "flushes of a store")                                                       \
	X(flush_errors, "flushes that failed")                                                 \
	X(syncs, "fm_sync() and fm_file_sync() calls")                                         \
	X(write_throttled, "write faults that were held back, too much being dirty")           \
	X(write_in_place, "pages written where they were: they could not be taken out of the view") \
	X(dirty_lost, "dirty pages that were lost: emptied behind us, or never to be written") \
	X(spilled, "private pages written to a scratch file")                                  \
	X(groups_made, "groups: 2 MiB of small frames whose memory is one huge page")          \
	X(groups_split, "of those: split, because a page of theirs went its own way")          \
	X(group_installs, "installs of all of a group at once")

#define FM_GAUGES(X)                                                                           \
	X(budget_bytes, "memory budget")                                                       \
	X(charged_bytes, "of it in use: frames and page tables")                               \
	X(frames, "frames within the budget")                                                  \
	X(frames_used, "frames that hold a page")                                              \
	X(pages_installed, "pages installed in views")                                         \
	X(pt_ranges, "2 MiB ranges with a page table")                                         \
	X(mappings, "mappings")                                                                \
	X(views, "views")                                                                      \
	X(files, "open files")                                                                 \
	X(pins, "pages pinned by fm_pin()")                                                    \
	X(dirty_pages, "pages that are dirty")                                                 \
	X(writeback_pages, "pages that are being written")                                     \
	X(unflushed_pages, "pages that were written, and not made durable yet")                \
	X(requests, "requests under way")

#define FM_HISTOGRAMS(X)                                                                       \
	X(fault_minor_ns, "latency of minor faults")                                           \
	X(fault_major_ns, "latency of major faults")                                           \
	X(lock_wait_ns, "waits for the map lock")                                              \
	X(lock_hold_shared_ns, "time the map lock was held shared")                            \
	X(lock_hold_exclusive_ns, "time the map lock was held exclusive")                      \
	X(read_ns, "latency of reads of a store")                                              \
	X(write_ns, "latency of writes to a store")                                            \
	X(throttle_ns, "time that write faults were held back")

struct fm_histogram_summary {
	uint64_t count, p50_ns, p99_ns, p999_ns, max_ns;
};

struct fm_stats {
	size_t size; /**< sizeof(struct fm_stats), set by the caller */
#define FM_X(name, help) uint64_t name;
	FM_COUNTERS(FM_X)
	FM_GAUGES(FM_X)
#undef FM_X
#define FM_X(name, help) struct fm_histogram_summary name;
	FM_HISTOGRAMS(FM_X)
#undef FM_X
};

/**
 * The mm's statistics now. Takes no lock. Each figure is read by itself: sums may be off by what
 * happens meanwhile. Thread-safe. Errors: -EINVAL (size).
 */
FM_PUBLIC int fm_stats(fm_mm *mm, struct fm_stats *ret_stats);

#ifdef __cplusplus
}
#endif
#endif
