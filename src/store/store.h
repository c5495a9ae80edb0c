/* SPDX-License-Identifier: MIT */
/*
 * Stores: where bytes live. A store is a table of operations; a filter is a store over another
 * store. Lock contract: no operation is ever called with a lock of mm held. `read`, `write`,
 * `flush` and `version` may be called in the faulting thread, in signal context, or in a
 * process that is dying: raw system calls only, no malloc, no stdio. open, control, resize,
 * punch, reserve and close are called from ordinary context. The submit functions and cancel
 * are called in the I/O thread only and must not block. May call: io.h (to pass requests on),
 * os.h.
 */
#ifndef FM_STORE_H
#define FM_STORE_H

#include "os/atomic.h"
#include "os/keeper.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct io_engine;
struct io_request;
struct fm_store;

/* What the library compares to detect a change of the object by others: the object's size and a
 * version (version[1] is a file's mtime, version[0] another store's own). */
struct fm_store_version {
	uint64_t size;
	uint64_t version[2];
	/* Not compared: a change within this time may get this very version again, because time
	 * stamps are coarse. 0: the next change gets another version. */
	uint64_t young_ns;
};

static inline bool store_version_same(const struct fm_store_version *a,
				      const struct fm_store_version *b)
{
	return a->size == b->size && a->version[0] == b->version[0] && a->version[1] == b->version[1];
}

/* Which object a store has opened, within this machine: two stores with the same identity have
 * the same bytes. */
struct fm_store_id {
	enum fm_store_id_kind {
		FM_STORE_ID_NONE,  /* the store cannot know, or no other store can have the object */
		FM_STORE_ID_INODE, /* a file: the device of its file system, and its inode */
		FM_STORE_ID_BLOCK, /* a block device; the node by which it was opened does not matter */
	} kind;
	bool filtered; /* a filter is over the store */
	uint64_t device, inode;
};

enum fm_store_caps {
	FM_STORE_READ_INLINE =
		1u << 0,           /* `read` is a good way to serve a fault in the faulting thread */
	FM_STORE_SUBMIT = 1u << 1, /* submit_read exists; else workers call `read` */
	FM_STORE_WRITE = 1u << 2,  /* opened for writing: write and flush exist */
	FM_STORE_KEEPS = 1u << 3,  /* a keeper can write to the store: the keep operations exist
				      (os/keeper.h) */
};

/* How a store is opened. */
enum fm_store_open {
	FM_STORE_OPEN_WRITE = 1u << 0,  /* -EROFS, -EACCES, -ETXTBSY, ... if the object cannot be opened
					   so; -EOPNOTSUPP: no such store can */
	FM_STORE_OPEN_CREATE = 1u << 1, /* with WRITE: make an empty object if none exists */
	/* No read waits for a lock that a system call on the object may hold while it waits for
	   memory. */
	FM_STORE_OPEN_LOCKLESS = 1u << 2,
};

/* What a keeper is given of a store. */
struct fm_store_kept {
	int fd;
	struct stat st;
};

struct fm_store_ops {
	const char *name;
	/* Read up to the iovecs' total at `offset`. Returns 0 and *ret_done: short at the
	 * object's end, or after a short read of the store (the caller goes on from there). May
	 * block. */
	int (*read)(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done);
	/* Start an asynchronous read. If 0 is returned, io_complete(request, ...) is called
	 * once in the I/O thread, later or before this function returns; else not at all. */
	int (*submit_read)(struct fm_store *store, struct io_engine *engine,
			   struct io_request *request);
	/* Try to end a submitted request early; on success it is completed with -ECANCELED. */
	void (*cancel)(struct fm_store *store, struct io_engine *engine,
		       struct io_request *request);
	/* Make every `read`, `write` and `flush` that is blocked in a wait of the store's own
	 * (a delay, stuck) return -ECANCELED, now and from now on. Any thread. */
	void (*abort)(struct fm_store *store);
	int (*version)(struct fm_store *store, struct fm_store_version *ret_version);
	/* Write the iovecs at `offset`, all within the object's size. Returns 0 and *ret_done,
	 * which may be short: the caller goes on from there. May block. Raw system calls only:
	 * `write` may be called in a process that is dying. */
	int (*write)(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		     size_t *ret_done);
	/* As submit_read. */
	int (*submit_write)(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request);
	/* Make durable: bytes written before the call, the object's size, and the object's name
	 * if opening made the object. May block. As `write`. */
	int (*flush)(struct fm_store *store);
	int (*submit_flush)(struct fm_store *store, struct io_engine *engine,
			    struct io_request *request);
	/* Make the object longer or shorter; called by store_resize(), which keeps account of
	 * the size. Bytes beyond the old end read as zeros. No write beyond the smaller of the
	 * two sizes is under way. May block. */
	int (*resize)(struct fm_store *store, uint64_t size_bytes);
	/* Make [offset, offset + len) read as zeros and give its space back; `offset` and `len`
	 * are multiples of 4096. May block. */
	int (*punch)(struct fm_store *store, uint64_t offset, uint64_t len);
	/* Allocate space for [offset, offset + len), so that writes there do not fail with
	 * ENOSPC. May block. */
	int (*reserve)(struct fm_store *store, uint64_t offset, uint64_t len);
	/* Make a store that is open for reading open for writing, with the parts of `writer`:
	 * another store of the same object, open for writing, which is only closed afterwards.
	 * Requests of `store` may be under way; later requests, and `caps`, are as those of
	 * `writer`. Not twice. Ordinary context. */
	int (*upgrade)(struct fm_store *store, struct fm_store *writer);
	/* Lock the whole object against other stores that lock it, until the store is closed; a
	 * second call changes the kind of lock. 0; -EAGAIN: another has the lock; *ret_holder
	 * is its process id, or -1 if unknown. Does not wait. Ordinary context. */
	int (*lock)(struct fm_store *store, bool exclusive, int *ret_holder);
	/* For a keeper (FM_STORE_KEEPS). keep: which descriptor the keeper is to have. From
	 * then on no write is under way once the threads of the program have ended. alive: the
	 * program lives at this time (os_stamp_ns()). The others run in the keeper, with its
	 * own number of the descriptor. keep_begin: before the first write, may wait;
	 * *ret_size: bytes that may be written to. keep_write: as `write`. Both return -ESTALE
	 * if another process has changed the object since the program's end. */
	int (*keep)(struct fm_store *store, struct fm_store_kept *ret_kept);
	void (*alive)(struct fm_store *store, uint64_t stamp_ns);
	int (*keep_begin)(struct fm_store *store, int fd, uint64_t until_ns, uint64_t *ret_size);
	int (*keep_write)(struct fm_store *store, int fd, const struct iovec *iov, int iov_count,
			  uint64_t offset, size_t *ret_done);
	int (*keep_flush)(struct fm_store *store, int fd);
	int (*control)(struct fm_store *store, const char *key, const char *value);
	void (*close)(struct fm_store *store);
};

/* Belongs to the engine (io/queue.c, under its lock): the waiting requests of one store, by
 * priority, and how many requests are under way. A store's requests go to one engine. */
struct io_store_queue {
	struct io_request *first[2], *last[2];
	struct io_store_queue *next[2], *prev[2]; /* among the stores that may have a turn */
	bool has_turn[2];
	uint32_t busy;
	uint32_t busy_writes; /* part of `busy`: writes and flushes */
};

/* The function that opens a store zero-initialises this. */
struct fm_store {
	const struct fm_store_ops *ops;
	uint32_t caps;
	struct fm_store *
		below; /* the store whose size this store has; NULL: the next two are its own */
	uint64_t size_bytes;   /* see store_size(); atomic */
	uint64_t former_bytes; /* see store_reach(); atomic */
	uint64_t deadline_ns; /* of the URI, for every store in a chain; 0: none. With it, `version` of
				 a remote file does not ask the server. */
	struct fm_store_version opened;
	struct fm_store_id id; /* of the opened object, not of its name */
	struct os_kept_end kept; /* how the keeper ended that opening this store waited for */
	struct io_store_queue queue[2]; /* waiting for a free place under way; waiting for a worker */
};

/* Open the store that a URI names, a path being file:PATH. `flags`: enum fm_store_open. Errors
 * are those of fm_file_open(). If `error_text` is given, it gets a half-line that says what is
 * wrong with the URI. */
int store_open(const char *uri, unsigned flags, char *error_text, size_t error_text_len,
	       struct fm_store **ret_store);

/* As store_open(), for the local file that a descriptor of the program shows. The descriptor
 * stays the program's. `name` is for messages. */
int store_open_fd(int fd, const char *name, unsigned flags, char *error_text, size_t error_text_len,
		  struct fm_store **ret_store);
/* Make a name for the descriptor's file, as a URI. */
void store_fd_name(int fd, char *name, size_t name_len);

/* Get a parameter that every URI may have beside `deadline`: `hotset` and `record`, see
 * hotset.h. The value is decoded; false: the URI has no such parameter. */
bool store_uri_value(const char *uri, const char *key, char *value, size_t value_len);
/* Name the object without its parameters, the same for every spelling of its URI:
 * "file:/data/x", "faulty:memory:1G". One line. `name` has room for more than the schemes; what
 * does not fit is left out. 0, or the error of store_open(). */
int store_uri_name(const char *uri, char *name, size_t name_len);

/* Read exactly `len` bytes or to the object's end, going on after short reads. A read that
 * brings no byte before the end is -EIO. Context: as ops->read. *ret_short counts short reads. */
int store_read_full(struct fm_store *store, const struct iovec *iov, int iov_count, uint64_t offset,
		    size_t *ret_done, unsigned *ret_short);
/* Write all bytes, going on after short writes. A write that takes no byte is -EIO. *ret_done
 * also counts on failure. */
int store_write_full(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done);

/* Find the store of a chain that keeps the only account of the size. */
static inline struct fm_store *store_size_owner(struct fm_store *store)
{
	while (store->below)
		store = store->below;
	return store;
}

/* The object's size: at opening, as store_resize() made it, or as mm has found it by now. */
static inline uint64_t store_size(struct fm_store *store)
{
	return atomic_get(&store_size_owner(store)->size_bytes);
}

static inline void store_size_set(struct fm_store *store, uint64_t size_bytes)
{
	atomic_set(&store_size_owner(store)->size_bytes, size_bytes);
}

/* How far the store may still have bytes: to the object's size, or, while the object is being
 * made shorter, to its former size. */
static inline uint64_t store_reach(struct fm_store *store)
{
	struct fm_store *owner = store_size_owner(store);
	uint64_t size = atomic_get(&owner->size_bytes), former = atomic_get(&owner->former_bytes);

	return former > size ? former : size;
}

/*
 * Make the object longer or shorter; one caller at a time. A shorter object has its new size
 * before the store begins, so that no reader takes the cut bytes for missing bytes. If the
 * store refuses, the object has its former size again. A longer object gets its new size when
 * the store has ended. Errors are those of `resize`.
 */
static inline int store_resize(struct fm_store *store, uint64_t size_bytes)
{
	struct fm_store *owner = store_size_owner(store);
	uint64_t before = atomic_get(&owner->size_bytes);
	int error;

	if (size_bytes < before) {
		atomic_set(&owner->former_bytes, before);
		atomic_set(&owner->size_bytes, size_bytes);
	}
	error = store->ops->resize(store, size_bytes);
	atomic_set(&owner->size_bytes, error ? before : size_bytes);
	atomic_set(&owner->former_bytes, 0);
	return error;
}

static inline size_t store_iov_bytes(const struct iovec *iov, int iov_count)
{
	size_t bytes = 0;

	for (int i = 0; i < iov_count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

/* Numbers in URIs and options: "64K", "1.5ms", "200us". 0 or -EINVAL. */
int store_parse_size(const char *text, uint64_t *ret_bytes);
int store_parse_time(const char *text, uint64_t *ret_ns);

/* Iterate over "?a=1&b=2": advances *cursor. Returns false at the end, or with *ret_error set
 * (untouched otherwise) if key or value is missing, too long or badly encoded: *cursor then
 * points at the culprit. Values are percent-decoded. */
bool store_next_parameter(const char **cursor, char *key, size_t key_len, char *value,
			  size_t value_len, int *ret_error);

/* ---- for stores, when they open */
/* Write one line into `error_text` (may be NULL) and return `error`. */
int store_say(int error, char *error_text, size_t error_text_len, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* `parameters` is what follows the '?', without the '?'; NULL or empty: none. */
int store_file_open(const char *path, unsigned flags, const char *parameters, char *error_text,
		    size_t error_text_len, struct fm_store **ret_store);
/* Read without taking a lock of the file: see mapped.c. Returns 0 and *ret_done, which may be
 * short. -EIO, -EFAULT: as preadv(); any other error: the file cannot be mapped, no byte was
 * read. */
int file_read_mapped(int fd, const struct iovec *iov, int iov_count, uint64_t offset,
		     size_t *ret_done);
int store_memory_open(const char *spec, unsigned flags, const char *parameters, char *error_text,
		      size_t error_text_len, struct fm_store **ret_store);
/* Open faulty:'s store over `inner` for lose=1; see lose.c. Its close leaves `inner` open. 0 or
 * -ENOMEM. */
int store_lose_open(struct fm_store *inner, struct fm_store **ret_store);
int store_faulty_open(struct fm_store *inner, const char *parameters, char *error_text,
		      size_t error_text_len, struct fm_store **ret_store);

/* Open a private store over another store, which it borrows. Written bytes are kept in a
 * scratch file without a name, and read from there. All other bytes are the base store's, as
 * they are when they are read. */
int store_private_open(struct fm_store *base, char *error_text, size_t error_text_len,
		       struct fm_store **ret_store);

#endif
