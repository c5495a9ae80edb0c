/* SPDX-License-Identifier: MIT */
/*
 * A small FUSE server that uses /dev/fuse without a library. The file system has one file,
 * `data`, over an open descriptor. While the server runs, reads and writes can be made slow or
 * bad, and the server can be stopped. Each worker thread serves one request at a time, so the
 * number of workers limits how many requests are delayed at once. The workers share nothing
 * except the control words.
 */
#define _GNU_SOURCE
#include "demo/fuse.h"

#include "command/clock.h"
#include "demo/round.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FUSE_WORKERS   32
#define FUSE_MAX_WRITE (128u << 10)
#define FUSE_BUFFER    (FUSE_MAX_WRITE + DEMO_PAGE)
#define FUSE_FILE_NODE 2
#define FUSE_VALID_SEC 86400 /* attributes and names stay valid, so only reads and writes come */

struct fuse_server {
	int fuse_fd, backing_fd;
	bool read_only;
	uint64_t size;
	struct fuse_control *control;
};

int fuse_mount(const char *dir, bool read_only, int *ret_fuse_fd, char *why, size_t why_len)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0);
	char options[128];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		snprintf(why, why_len, "/dev/fuse: %s; load the fuse module", strerror(errno));
		return -errno;
	}
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
		 fd);
	if (mount("filemap-demo", dir, "fuse", flags, options)) {
		int error = -errno;

		snprintf(why, why_len, "can't mount a FUSE file system: %s", strerror(errno));
		close(fd);
		return error;
	}
	*ret_fuse_fd = fd;
	return 0;
}

static void reply(const struct fuse_server *server, uint64_t unique, int error, const void *data,
		  size_t len)
{
	struct fuse_out_header header = {.unique = unique, .error = error};
	struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)data, len}};

	if (error)
		len = 0;
	header.len = (uint32_t)(sizeof(header) + len);
	if (writev(server->fuse_fd, iov, len ? 2 : 1) < 0) {
		/* ENOENT: the request was interrupted, and nobody waits for the reply. */
	}
}

static struct fuse_attr attributes(const struct fuse_server *server, uint64_t node)
{
	struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = DEMO_PAGE};

	if (node == FUSE_ROOT_ID) {
		attr.mode = S_IFDIR | 0755;
		return attr;
	}
	attr.mode = S_IFREG | (server->read_only ? 0444 : 0644);
	attr.size = server->size;
	attr.blocks = (server->size + 511) / 512;
	return attr;
}

static void serve_init(struct fuse_server *server, const struct fuse_in_header *in,
		       const struct fuse_init_in *init)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = init->max_readahead,
		.flags = init->flags &
			 (FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_BIG_WRITES | FUSE_MAX_PAGES),
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = FUSE_MAX_WRITE,
		.time_gran = 1,
		.max_pages = FUSE_MAX_WRITE / DEMO_PAGE,
	};

	reply(server, in->unique, 0, &out, sizeof(out));
}

static void serve_lookup(struct fuse_server *server, const struct fuse_in_header *in,
			 const char *name)
{
	struct fuse_entry_out out = {.nodeid = FUSE_FILE_NODE,
				     .generation = 1,
				     .entry_valid = FUSE_VALID_SEC,
				     .attr_valid = FUSE_VALID_SEC};

	if (in->nodeid != FUSE_ROOT_ID || strcmp(name, "data")) {
		reply(server, in->unique, -ENOENT, NULL, 0);
		return;
	}
	out.attr = attributes(server, FUSE_FILE_NODE);
	reply(server, in->unique, 0, &out, sizeof(out));
}

static void serve_attributes(struct fuse_server *server, const struct fuse_in_header *in)
{
	struct fuse_attr_out out = {.attr_valid = FUSE_VALID_SEC};

	out.attr = attributes(server, in->nodeid);
	reply(server, in->unique, 0, &out, sizeof(out));
}

static void serve_read(struct fuse_server *server, const struct fuse_in_header *in,
		       const struct fuse_read_in *read_in, void *buffer)
{
	struct fuse_control *control = server->control;
	unsigned delay_ms = atomic_load(&control->read_delay_ms);
	int error = atomic_load(&control->read_error);
	size_t len = read_in->size < FUSE_MAX_WRITE ? read_in->size : FUSE_MAX_WRITE;
	ssize_t got;

	atomic_fetch_add(&control->reads, 1);
	if (delay_ms)
		tool_sleep_ms(delay_ms);
	if (error) {
		reply(server, in->unique, -error, NULL, 0);
		return;
	}
	got = pread(server->backing_fd, buffer, len, (off_t)read_in->offset);
	reply(server, in->unique, got < 0 ? -errno : 0, buffer, got < 0 ? 0 : (size_t)got);
}

static void serve_write(struct fuse_server *server, const struct fuse_in_header *in,
			const struct fuse_write_in *write_in)
{
	struct fuse_control *control = server->control;
	unsigned delay_ms = atomic_load(&control->write_delay_ms);
	struct fuse_write_out out = {0};
	ssize_t put;

	atomic_fetch_add(&control->writes, 1);
	if (delay_ms)
		tool_sleep_ms(delay_ms);
	put = pwrite(server->backing_fd, write_in + 1, write_in->size, (off_t)write_in->offset);
	out.size = put < 0 ? 0 : (uint32_t)put;
	reply(server, in->unique, put < 0 ? -errno : 0, &out, sizeof(out));
}

static void serve(struct fuse_server *server, const struct fuse_in_header *in, void *buffer)
{
	const void *body = in + 1;
	struct fuse_open_out open_out = {.fh = 1};
	struct fuse_statfs_out statfs_out = {.st = {.bsize = DEMO_PAGE, .namelen = 255}};

	switch (in->opcode) {
	case FUSE_INIT:
		serve_init(server, in, body);
		break;
	case FUSE_LOOKUP:
		serve_lookup(server, in, body);
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		serve_attributes(server, in);
		break;
	case FUSE_OPEN:
		reply(server, in->unique, 0, &open_out, sizeof(open_out));
		break;
	case FUSE_READ:
		serve_read(server, in, body, buffer);
		break;
	case FUSE_WRITE:
		serve_write(server, in, body);
		break;
	case FUSE_STATFS:
		reply(server, in->unique, 0, &statfs_out, sizeof(statfs_out));
		break;
	case FUSE_FSYNC:
	case FUSE_RELEASE:
	case FUSE_DESTROY:
		reply(server, in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break; /* these requests have no reply */
	default:
		/* FLUSH is among these, so that close() never waits for a stopped server. */
		reply(server, in->unique, -ENOSYS, NULL, 0);
	}
}

static void *worker(void *arg)
{
	struct fuse_server *server = arg;
	void *request = malloc(FUSE_BUFFER), *buffer = malloc(FUSE_MAX_WRITE);

	if (!request || !buffer)
		_exit(1);
	for (;;) {
		ssize_t got = read(server->fuse_fd, request, FUSE_BUFFER);

		if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (got < (ssize_t)sizeof(struct fuse_in_header))
			_exit(0); /* unmounted */
		serve(server, request, buffer);
	}
}

void fuse_serve(int fuse_fd, int backing_fd, bool read_only, struct fuse_control *control)
{
	static struct fuse_server server;
	pthread_t thread;
	struct stat st;

	server = (struct fuse_server){.fuse_fd = fuse_fd,
				      .backing_fd = backing_fd,
				      .read_only = read_only,
				      .control = control};
	if (fstat(backing_fd, &st))
		_exit(1);
	server.size = (uint64_t)st.st_size;
	for (unsigned i = 1; i < FUSE_WORKERS; i++) {
		if (pthread_create(&thread, NULL, worker, &server))
			_exit(1);
	}
	worker(&server);
	_exit(0);
}
